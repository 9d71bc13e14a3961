"""Requests of the 2026 era without the way through ASGI.

An ordinary request is recognised here, by the SDK's own rules, and served by the SDK's server. Whatever else comes (a
header that is wrong, a body that is no request, a notification) is left to the SDK's endpoint behind the bridge: what
it refuses, it refuses in its own words, and there is no second list of them here that could differ.
"""

import asyncio
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import anyio
import orjson
from aiohttp import hdrs, web
from mcp.server.connection import Connection
from mcp.server.lowlevel import Server
from mcp.server.runner import modern_error_data, serve_one
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.dispatcher import CallOptions
from mcp.shared.exceptions import NoBackChannelError
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    InboundModernRoute,
    classify_inbound_request,
    find_invalid_x_mcp_header,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from mcp.shared.jsonrpc_dispatcher import progress_token_from_params
from mcp.shared.message import ServerMessageMetadata
from mcp.shared.transport_context import TransportContext
from multidict import CIMultiDictProxy, istr

from taskhub.mcp.bridge import KEEP_ALIVE, Exchange
from taskhub.mcp.streams import LISTEN
from taskhub.mcp.tool_calls import CALL, ToolCalls

KEEP_ALIVE_S: Final = 15.0
"""A response says at least so often that it is still there: proxies cut off what says nothing."""
_JSON: Final = "application/json"
_STREAM_HEAD: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ],
}
_LONG_NUMBER: Final = re.compile(rb"\d{20}")
# Looked up under an `istr`, a header's name is not folded to one case for each request.
_ROUTING: Final = tuple(istr(name) for name in (MCP_PROTOCOL_VERSION_HEADER, MCP_METHOD_HEADER, MCP_NAME_HEADER))


@dataclass(frozen=True, slots=True)
class ModernRequest:
    """A request that nothing is wrong with at the level of HTTP and JSON-RPC."""

    id: int | str
    method: str
    params: Mapping[str, Any]
    route: InboundModernRoute

    @property
    def listens(self) -> bool:
        """It is answered by a stream that lasts."""
        return self.method == LISTEN


class ModernEndpoint:
    """Serves requests of the 2026 era by the SDK's `server`."""

    def __init__(self, server: Server[Any], security: TransportSecuritySettings) -> None:
        self._server = server
        self._security = security
        self._tools = ToolCalls(server)
        self._has_parameter_headers: dict[str, bool] = {}

    def recognise(self, request: web.BaseRequest, body: bytes) -> ModernRequest | None:
        """The request in this body; None when the SDK has to look at it."""
        headers = request.headers
        if request.method != "POST" or not self._is_let_in(headers):
            return None
        if _LONG_NUMBER.search(body):  # of which orjson would make another one
            return None
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError:  # also of what other parsers take for JSON
            return None
        if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
            return None
        request_id, method, params = message.get("id"), message.get("method"), message.get("params")
        if not isinstance(request_id, int | str) or isinstance(request_id, bool):
            return None
        if not isinstance(method, str) or not isinstance(params, dict):
            return None
        for name in _ROUTING:
            values = headers.getall(name, ())
            # Other bytes than ASCII mean other characters to aiohttp than to the SDK.
            if len(values) > 1 or not all(map(str.isascii, values)):
                return None
        route = classify_inbound_request(message, headers=headers)
        if not isinstance(route, InboundModernRoute):
            return None
        if method == CALL and not self._parameters_agree(params, headers):
            return None
        return ModernRequest(request_id, method, params, route)

    def _is_let_in(self, headers: CIMultiDictProxy[str]) -> bool:
        origin = headers.get(hdrs.ORIGIN)
        return (
            headers.get(hdrs.CONTENT_TYPE, "").lower().startswith(_JSON)
            and _takes_both(headers.get(hdrs.ACCEPT, ""))
            and _matches(headers.get(hdrs.HOST, ""), self._security.allowed_hosts)
            and (not origin or _matches(origin, self._security.allowed_origins))
        )

    def _parameters_agree(self, params: Mapping[str, Any], headers: CIMultiDictProxy[str]) -> bool:
        """Whether the `Mcp-Param-*` headers of a call say what its arguments do."""
        name, arguments = params.get("name"), params.get("arguments")
        lookup = self._server.get_tool_input_schema
        if not isinstance(name, str) or not isinstance(arguments, dict | None) or lookup is None:
            return False
        if (declared := self._has_parameter_headers.get(name)) is False:
            return True
        schema = lookup(name)
        if schema is None:
            return True  # there is no such tool, which its server says
        if declared is None:
            # A schema does not change, and the SDK would walk all of it for each call.
            declared = find_invalid_x_mcp_header(schema) is None and bool(x_mcp_header_map(schema))
            self._has_parameter_headers[name] = declared
        if not declared:
            return True
        readable = all(map(str.isascii, headers.values()))
        return readable and validate_mcp_param_headers(schema, arguments or {}, headers) is None

    def open(self, request: web.BaseRequest, asked: ModernRequest) -> "ModernCall":
        """The call that answers it."""
        return ModernCall(self._server, self._tools, request, asked)


class ModernCall:
    """One request and its response: a JSON object, or, from the first notification on, a stream of events.

    A client that leaves cancels `run`, as the server runs with `handler_cancellation=True`. `end()` may be called at
    any time: a stream then ends without its result.
    """

    def __init__(self, server: Server[Any], tools: ToolCalls, request: web.BaseRequest, asked: ModernRequest) -> None:
        self._server = server
        self._tools = tools
        self._request = request
        self._asked = asked
        self._stream: _EventStream | None = None
        self._lasting: asyncio.Timeout | None = None
        self._answered = False

    async def run(self) -> web.StreamResponse:
        """Answer. Call it once."""
        if not self._asked.listens:
            return await self._run()
        try:
            async with asyncio.timeout(None) as self._lasting:
                return await self._run()
        except TimeoutError:
            return await self._opened().close(b"")

    def end(self) -> None:
        """Let go of a client that takes nothing."""
        if self._lasting is not None:
            self._lasting.reschedule(0)

    async def _run(self) -> web.StreamResponse:
        alive = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._opened)
        try:
            status, message = await self._answer()
            self._answered = True
            if self._stream is not None:
                return await self._stream.close(_event(message))
            return web.Response(status=status, body=_encoded(message), content_type=_JSON)
        finally:
            alive.cancel()
            if self._stream is not None:
                await self._stream.stop()

    async def _answer(self) -> tuple[int, dict[str, Any]]:
        """The HTTP status and the JSON-RPC message."""
        asked = self._asked
        route = asked.route
        connection = Connection.from_envelope(route.protocol_version, route.client_info, route.client_capabilities)
        try:
            if asked.method == CALL:
                result = await self._tools.serve(self, asked.params, connection=connection)
            else:
                result = await serve_one(
                    self._server, self, asked.method, asked.params, connection=connection, lifespan_state={}
                )
        except Exception as error:  # what it may tell of it, the SDK knows; it logs the rest
            data = modern_error_data(error)
            told: dict[str, Any] = {"code": data.code, "message": data.message}
            if data.data is not None:
                told["data"] = data.data
            return ERROR_CODE_HTTP_STATUS.get(data.code, 200), {"jsonrpc": "2.0", "id": asked.id, "error": told}
        return 200, {"jsonrpc": "2.0", "id": asked.id, "result": result}

    def _opened(self) -> "_EventStream":
        if self._stream is None:
            self._stream = _EventStream(Exchange(self._request, b""))
        return self._stream

    # What the SDK wants of the way back to a client (`mcp.shared.dispatcher.DispatchContext`).

    can_send_request: Final = False

    @property
    def transport(self) -> TransportContext:
        return TransportContext(kind="streamable-http", can_send_request=False, headers=self._request.headers)

    @property
    def request_id(self) -> int | str:
        return self._asked.id

    @property
    def message_metadata(self) -> ServerMessageMetadata:
        return ServerMessageMetadata(request_context=self._request)

    @property
    def cancel_requested(self) -> anyio.Event:
        return anyio.Event()  # that never comes: in this era a client cancels by leaving

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        raise NoBackChannelError(method)

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        if self._answered:
            return  # by what a call has left behind: nobody waits for it any more
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method}
        if params is not None:
            message["params"] = dict(params)
        await self._opened().send(_event(message))

    async def progress(self, progress: float, total: float | None = None, message: str | None = None) -> None:
        token = progress_token_from_params(self._asked.params)
        if token is not None:
            told = {"progressToken": token, "progress": progress, "total": total, "message": message}
            given = {name: value for name, value in told.items() if value is not None}
            await self.notify("notifications/progress", given)


class _EventStream:
    """The response as a stream of events. Whenever it was silent for a while it says that it is there."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._writing = asyncio.Lock()
        self._silent_since = float("-inf")
        self._keeping_alive = asyncio.create_task(self._keep_alive(), name="mcp keep-alive")

    async def send(self, frame: bytes, *, last: bool = False) -> None:
        async with self._writing:
            self._silent_since = asyncio.get_running_loop().time()
            if not self._exchange.started:
                await self._exchange.send(_STREAM_HEAD)
            await self._exchange.send({"type": "http.response.body", "body": frame, "more_body": not last})

    async def close(self, frame: bytes) -> web.StreamResponse:
        """Send the last frame, and end."""
        await self.send(frame, last=True)
        return await self._exchange.finish()

    async def stop(self) -> None:
        """Nothing is left of it after this."""
        self._keeping_alive.cancel()
        await asyncio.wait((self._keeping_alive,))

    async def _keep_alive(self) -> None:
        while True:
            loop = asyncio.get_running_loop()
            if (wait := self._silent_since + KEEP_ALIVE_S - loop.time()) > 0:
                await asyncio.sleep(wait)
            else:
                await self.send(KEEP_ALIVE)


@lru_cache(maxsize=64)
def _takes_both(accept: str) -> bool:
    """Whether a client takes an object as well as a stream of events (the SDK's `check_accept_headers`)."""
    types = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    return not types.isdisjoint(("*/*", _JSON, "application/*")) and not types.isdisjoint(
        ("*/*", "text/event-stream", "text/*")
    )


def _matches(value: str, allowed: Sequence[str]) -> bool:
    """Whether a host or an origin is allowed; `name:*` is that name with any port."""
    return value in allowed or any(form.endswith(":*") and value.startswith(form[:-1]) for form in allowed)


def _event(message: dict[str, Any]) -> bytes:
    return b"event: message\r\ndata: " + _encoded(message) + b"\r\n\r\n"


def _encoded(message: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(message)
    except orjson.JSONEncodeError:  # of a number or a character that it does not know
        return json.dumps(message, separators=(",", ":")).encode()
