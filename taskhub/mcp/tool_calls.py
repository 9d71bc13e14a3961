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
from mcp.server.runner import serve_one
from mcp.server.session import ServerSession
from mcp.shared.dispatcher import DispatchContext
from mcp.shared.exceptions import MCPError
from mcp.shared.transport_context import TransportContext
from mcp_types import INTERNAL_ERROR, SERVER_INFO_META_KEY, CallToolResult, ErrorData, TextContent, methods
from mcp_types import CallToolRequestParams as _Params
from pydantic import BaseModel, ValidationError

CALL: Final = "tools/call"

logger = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]


class ToolCalls:
    """Serves `tools/call` in the 2026 era as `serve_one` would: it takes, answers and raises the same."""

    def __init__(self, server: Server[Any]) -> None:
        self._server = server
        self._meta = {SERVER_INFO_META_KEY: server.server_info_stamp}

    async def serve(
        self, channel: DispatchContext[TransportContext], params: Mapping[str, Any], *, connection: Connection
    ) -> dict[str, Any]:
        """The result. Raises whatever the tool raises. What it leaves to `connection` is undone before that."""
        entry = self._server.get_request_handler(CALL)
        parsed = _parsed(params)
        if entry is None or parsed is None:  # what is wrong, the SDK says
            return await serve_one(self._server, channel, CALL, params, connection=connection, lifespan_state={})
        version = connection.protocol_version

        async def handle(context: Context) -> HandlerResult:
            methods.validate_client_request(CALL, version, context.params)
            given = parsed if context.params is params else _Params.model_validate(context.params, by_name=False)
            return self._on_the_wire(await entry.handler(context, given), version)

        call: CallNext = handle
        for middleware in reversed(self._server.middleware):
            call = partial(_through, middleware, call)
        context = Context(
            session=ServerSession(channel, connection, request_meta=parsed.meta),
            lifespan_context={},
            protocol_version=version,
            method=CALL,
            params=params,
            request_id=channel.request_id,
            meta=parsed.meta,
        )
        async with connection.exit_stack:
            answered = await call(context)
        return _dumped(answered)

    def _on_the_wire(self, result: HandlerResult, version: str) -> dict[str, Any]:
        """A handler's result as plain values, with what this era adds to each."""
        message = _plain(result) or _checked(result, version)
        message["_meta"] = {**self._meta, **message.get("_meta", {})}
        return message


def _parsed(params: Mapping[str, Any]) -> _Params | None:
    try:
        return _Params.model_validate(params, by_name=False)
    except ValidationError:
        return None


def _through(middleware: ServerMiddleware[Any], call_next: CallNext, context: Context) -> Awaitable[HandlerResult]:
    return middleware(context, call_next)


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
    if isinstance(result, ErrorData):
        raise MCPError.from_error_data(result)
    try:
        return methods.serialize_server_result(CALL, version, _dumped(result))
    except ValidationError:
        logger.exception("a tool's result is not valid")
        raise MCPError(INTERNAL_ERROR, "Handler returned an invalid result") from None


def _dumped(result: HandlerResult) -> dict[str, Any]:
    if isinstance(result, BaseModel):
        return result.model_dump(by_alias=True, mode="json", exclude_none=True)
    return dict(result or {})
