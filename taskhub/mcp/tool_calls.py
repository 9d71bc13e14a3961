"""`tools/call` by the SDK's server, with each thing done once.

The SDK's way (`serve_one`) reads the parameters twice, and turns a result that is valid into plain values, those into a
model of the protocol's version, and that into plain values again. For an ordinary result this is most of what a call
costs. What goes in is checked here as there; what comes out is taken as it is where it is what tools usually answer.
"""

import logging
from collections.abc import Awaitable, Mapping
from functools import partial
from typing import Any, Final

from mcp.server.connection import Connection
from mcp.server.context import CallNext, HandlerResult, ServerMiddleware, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.runner import aclose_shielded, serve_one
from mcp.server.session import ServerSession
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, SERVER_INFO_META_KEY, CallToolResult, TextContent, methods
from mcp_types import CallToolRequestParams as _Params
from pydantic import BaseModel, ValidationError

CALL: Final = "tools/call"

logger = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]


async def call_tool(
    server: Server[Any],
    channel: DispatchContext[TransportContext],
    method: str,
    params: Mapping[str, Any] | None,
    *,
    connection: Connection,
    lifespan_state: Any,
) -> dict[str, Any]:
    """`serve_one` for `tools/call` in the 2026 era: takes, answers and raises the same."""
    entry = server.get_request_handler(CALL)
    parsed = _parsed(params)
    if entry is None or parsed is None:  # what is wrong, the SDK says
        return await serve_one(server, channel, method, params, connection=connection, lifespan_state=lifespan_state)
    version = connection.protocol_version

    async def handle(context: Context) -> HandlerResult:
        methods.validate_client_request(CALL, version, context.params)
        given = parsed if context.params is params else _Params.model_validate(context.params, by_name=False)
        return _on_the_wire(await entry.handler(context, given), version, server.server_info_stamp)

    call: CallNext = handle
    for middleware in reversed(server.middleware):
        call = partial(_through, middleware, call)
    context = Context(
        session=ServerSession(channel, connection, request_meta=parsed.meta),
        lifespan_context=lifespan_state,
        protocol_version=version,
        method=method,
        params=params,
        request_id=channel.request_id,
        meta=parsed.meta,
    )
    try:
        answered = await call(context)
    finally:
        await aclose_shielded(connection)
    if not isinstance(answered, dict):
        raise TypeError(f"a middleware answered {type(answered).__name__}, not the dict that it was given")
    return answered


def _parsed(params: Mapping[str, Any] | None) -> _Params | None:
    try:
        return _Params.model_validate(params, by_name=False)
    except ValidationError:
        return None


def _through(middleware: ServerMiddleware[Any], call_next: CallNext, context: Context) -> Awaitable[HandlerResult]:
    return middleware(context, call_next)


def _on_the_wire(result: HandlerResult, version: str, server_information: dict[str, Any]) -> dict[str, Any]:
    """A handler's result as plain values, with what this era adds to each."""
    message = _plain(result) or _checked(result, version)
    meta = message.get("_meta") or {}
    message["_meta"] = {SERVER_INFO_META_KEY: server_information} | meta
    return message


def _plain(result: HandlerResult) -> dict[str, Any] | None:
    """The result when it is what tools usually answer: text, and data that is plain already."""
    if type(result) is not CallToolResult or result.meta is not None:
        return None
    content = []
    for part in result.content:
        if type(part) is not TextContent or part.annotations is not None or part.meta is not None:
            return None
        content.append({"type": "text", "text": part.text})
    message: dict[str, Any] = {"content": content, "isError": result.is_error, "resultType": "complete"}
    if result.structured_content is not None:
        message["structuredContent"] = result.structured_content
    return message


def _checked(result: HandlerResult, version: str) -> dict[str, Any]:
    """Any other result, as the SDK makes it."""
    if not isinstance(result, BaseModel):
        raise TypeError(f"a tool's handler answered {type(result).__name__}, not a result")
    dumped = result.model_dump(by_alias=True, mode="json", exclude_none=True)
    try:
        return methods.serialize_server_result(CALL, version, dumped)
    except ValidationError:
        logger.exception("a tool's result is not valid")
        raise MCPError(INTERNAL_ERROR, "Handler returned an invalid result") from None
