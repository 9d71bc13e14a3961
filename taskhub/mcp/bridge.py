"""One aiohttp request served by an ASGI application.

The MCP SDK's HTTP classes are ASGI; the server is aiohttp. What their contract asks of a host, and common adapters get
wrong: `receive()` blocks until the client is gone (the SDK watches for the disconnect all the while), the head of a
stream goes out before its first event, and a response that is whole in one message is sent while the application goes
on working.

The server must run with `handler_cancellation=True`: then a client that leaves cancels the application at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import orjson
from aiohttp import web
from multidict import CIMultiDict

from taskhub.expect import ask_for_body

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MAX_BODY_BYTES: Final = 4 * 1024 * 1024
BODY_READ_TIMEOUT_S: Final = 10.0
WRITE_TIMEOUT_S: Final = 30.0
"""A client that takes nothing of its stream for so long is as good as gone; it must not keep what serves it."""
# Headers about one connection, not about the message (RFC 9110, 7.6.1): aiohttp writes its own.
HOP_BY_HOP: Final = frozenset((
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding",
    "upgrade",
))  # fmt: skip
# Of a decoded and buffered body these would be untrue; the application gets a true length instead.
ABOUT_THE_BODY: Final = frozenset({"content-length", "content-encoding"})
KEEP_ALIVE: Final = b":\n"


class RefusedBody(Exception):
    """The request's body cannot be taken; `status` is the HTTP status to answer."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


async def read_body(
    request: web.BaseRequest, *, limit: int = MAX_BODY_BYTES, timeout_s: float | None = BODY_READ_TIMEOUT_S
) -> bytes:
    """The whole body. Raises RefusedBody: over `limit` bytes (413) or not here in time (408).

    Reads the stream itself: the limit of the aiohttp application is another one, and no timeout of its covers a body.
    """
    if request.content_length is not None and request.content_length > limit:
        raise RefusedBody(413, f"the body has more than {limit} bytes")
    if request.content.is_eof():  # a small one comes with the head
        whole = request.content.read_nowait()
        if len(whole) > limit:
            raise RefusedBody(413, f"the body has more than {limit} bytes")
        return whole
    await ask_for_body(request)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.content.iter_any():
                size += len(chunk)
                if size > limit:
                    raise RefusedBody(413, f"the body has more than {limit} bytes")
                chunks.append(chunk)
    except TimeoutError:
        raise RefusedBody(408, f"the body did not arrive within {timeout_s:g} seconds") from None
    return b"".join(chunks)


def error_response(status: int, message: str, *, retry_after_s: int | None = None) -> web.Response:
    """A JSON-RPC error without a request id, in the shape in which the SDK refuses a request at the HTTP level."""
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": message}}
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)


class Exchange:
    """A request and its response. Use it for one `run`; `end()` may be called at any time, from any task."""

    def __init__(self, request: web.BaseRequest, body: bytes) -> None:
        self.method = request.method
        self.body = body
        self._request = request
        self._ended = asyncio.Event()
        self._head: Message | None = None
        self._response: web.StreamResponse | None = None
        self._stream = False
        self._complete = False

    @property
    def address(self) -> str | None:
        """Of the client, as far as the connection tells."""
        return self._request.remote

    @property
    def started(self) -> bool:
        """The response has begun."""
        return self._head is not None

    def end(self) -> None:
        """Let the application see its client leave, so that it ends by itself; the response then ends in good order."""
        self._ended.set()

    def scope(self) -> MutableMapping[str, Any]:
        """The ASGI connection scope. The body is read and decoded: its length is what it has now."""
        request = self._request
        headers = [(name.lower(), value) for name, value in request.raw_headers]
        headers = [(name, value) for name, value in headers if name.decode("latin-1") not in ABOUT_THE_BODY]
        headers.append((b"content-length", str(len(self.body)).encode()))
        peer = request.transport.get_extra_info("peername") if request.transport is not None else None
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": f"{request.version.major}.{request.version.minor}",
            "method": self.method,
            "scheme": request.scheme,
            "path": request.path,
            "raw_path": request.raw_path.partition("?")[0].encode("latin-1", "replace"),
            "query_string": request.rel_url.raw_query_string.encode("latin-1", "replace"),
            "root_path": "",
            "headers": headers,
            "client": tuple(peer[:2]) if isinstance(peer, tuple) else None,
            "server": None,
            "state": {},
        }

    def receiver(self) -> Receive:
        """A `receive` that starts with the body; each attempt at serving the request takes its own."""
        sent = False

        async def receive() -> Message:
            nonlocal sent
            if not sent:
                sent = True
                return {"type": "http.request", "body": self.body, "more_body": False}
            await self._ended.wait()
            return {"type": "http.disconnect"}

        return receive

    async def send(self, message: Message) -> None:
        """The application's `send`. After the client is gone it does nothing, as ASGI wants it."""
        if message["type"] == "http.response.start":
            self._head = message
            if not any(name.lower() == b"content-length" for name, _ in message["headers"]):
                await self._begin(message)
            return
        if self._complete or self._head is None:
            return
        body: bytes = message.get("body", b"")
        if self._stream and body.startswith(b":"):
            body = KEEP_ALIVE  # the SDK's ping is a comment block; ours is the shortest, and silent in every client
        response = self._response or await self._begin(self._head)
        await self._write(response, body, last=not message.get("more_body", False))

    async def _begin(self, head: Message) -> web.StreamResponse:
        headers: CIMultiDict[str] = CIMultiDict()
        for raw_name, raw_value in head["headers"]:
            name = raw_name.decode("latin-1")
            if name.lower() not in HOP_BY_HOP:
                headers.add(name, raw_value.decode("latin-1"))
        self._stream = headers.get("Content-Type", "").startswith("text/event-stream")
        self._response = response = web.StreamResponse(status=head["status"], headers=headers)
        try:
            await response.prepare(self._request)
        except ConnectionError:
            self._lost()
        return response

    async def _write(self, response: web.StreamResponse, body: bytes, *, last: bool) -> None:
        if self._complete:
            return
        try:
            if last:
                self._complete = True
                await response.write_eof(body)
            elif body:
                async with asyncio.timeout(WRITE_TIMEOUT_S if self._stream else None):
                    await response.write(body)
        except ConnectionError:
            self._lost()
        except TimeoutError:
            if self._request.transport is not None:
                self._request.transport.abort()
            self._lost()

    def _lost(self) -> None:
        self._complete = True
        self._ended.set()

    async def run(self, application: Application) -> web.StreamResponse:
        """Serve the request. An exception of the application is the caller's; a response that has begun breaks off."""
        await application(self.scope(), self.receiver(), self.send)
        return await self.finish()

    async def finish(self) -> web.StreamResponse:
        """The response, which ends now if it did not before."""
        if self._response is None:
            return error_response(503, "the server ended before it answered")
        await self._write(self._response, b"", last=True)
        return self._response
