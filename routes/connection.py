"""aiohttp's connection, with what TaskHub does differently before a request is understood.

What cannot be understood is answered as every other error is, and says nothing of the bytes that came. Whoever insists
on asking too much is refused by its first bytes (early.py), after a while in which nothing is read from it. And a
chunked body has a bound for what is no body: between its chunks there may be as much as anybody likes to send.

It leans on parts of aiohttp that are not meant for others, as takeover.py does: `_waiter`, on which its handler waits
between requests, and `_messages`, which holds those that wait for the handler.
"""

import asyncio
import sys
from http import HTTPStatus
from typing import Any, Final, cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import InvalidHeader, InvalidURLError, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from routes.early import EarlyRefusal, whole
from routes.errors import EVERY_ANSWER, Problem, problem_response
from routes.keys import HELD, LIMITS, REQUEST_ID, SETTINGS
from routes.middlewares import GATE
from taskhub.limits.held import Held

FRAMING_BYTES: Final = 64 * 1024
FRAMING_SHARE: Final = 16
"""Chunks of one byte come with five to ten others; nobody has a use for more."""

_PLAIN: Final = ("Missing 'Host' header", "Duplicate '", "Too many headers", "Received HTTPS traffic")
"""What sentences of the parser begin with that have nothing of the request but names of headers that it knows."""

log = structlog.get_logger("taskhub.http")


class HttpConnection(RequestHandler):
    """A connection on which a request has come, or part of one."""

    __slots__ = ("_body", "_of_body", "_over", "_server")

    def __init__(self, server: "HttpServer", **kwargs: Any) -> None:
        super().__init__(server, **kwargs)
        self._server = server
        self._body: StreamReader | None = None
        """Of the chunked body that comes now."""
        self._of_body = 0
        """Bytes that came with it."""
        self._over = False

    def data_received(self, data: bytes) -> None:
        if self._over:
            return
        # Between requests. Whoever sends the beginning of one in parts is refused in the ordinary way.
        if self._server.early.needed and self._waiter is not None and not self._waiter.done():
            answer = self._server.early.answer(data)
            if answer is not None and (transport := self.transport) is not None:
                self.transport = None  # as takeover.py does: nothing that aiohttp does now reaches the connection
                self.connection_lost(None)
                TurnedAway(self._server.held, transport, answer, linger=not whole(data))
                return
        super().data_received(data)
        self._weigh(data)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what is no request, or has failed where no middleware was: the last one of its connection."""
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            problem = _of_parser(exc)
            log.info("request refused", status=problem.status, reason=problem.detail)
        else:
            problem = Problem("internal_error", "an unexpected error; it is in the log under the request_id")
        request[REQUEST_ID] = request_id = next(self._server.request_ids)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request failed", request_id=request_id, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the head of another response is out already")
        response = problem_response(problem, request)
        response.headers.update({**EVERY_ANSWER, "X-Request-ID": request_id})
        response.force_close()
        return response

    # Chunked bodies

    def _weigh(self, data: bytes) -> None:
        """End the connection where a chunked body is framing for the most part (RFC 9112, section 7.1.1)."""
        if self._body is None:
            if not self._messages or self._messages[-1][1].is_eof():
                return
            message, body = self._messages[-1]
            if not getattr(message, "chunked", False):
                return
            self._body, self._of_body = body, 0
        self._of_body += len(data)
        body = self._body
        if body.is_eof() or body.exception() is not None:
            self._body = None
        elif self._of_body - body.total_bytes > FRAMING_BYTES + FRAMING_SHARE * body.total_bytes:
            log.info("request refused", reason="its chunks are framing for the most part")
            if self._current_request is not None:
                body.set_exception(web.RequestPayloadError("framing"))
            body.feed_eof()  # so that nobody waits for the rest
            self._body = None
            self._over = True
            self.close()


def _of_parser(error: BaseException | None) -> Problem:
    """Why bytes are no request, without them."""
    if isinstance(error, LineTooLong):
        return Problem("bad_request", f"a line of the head has more than {error.args[1]} bytes")
    if isinstance(error, InvalidHeader):
        return Problem("bad_request", "a header has a character that none may have")
    if isinstance(error, InvalidURLError):
        return Problem("bad_request", "the target of the request is neither a path nor a URL")
    message = getattr(error, "message", "")
    if message.startswith(_PLAIN):
        code = "bad_host" if "'Host'" in message else "bad_request"
        return Problem(code, message)
    # What the parser says, a colon, and what it has read.
    reason, colon, _ = message.removeprefix("Bad status line:\n  ").partition(":\n\n")
    return Problem("bad_request", f"this is no HTTP request{f': {reason}' if colon else ''}")


class Entrance(asyncio.Protocol):
    """A connection of which nothing is known yet: a tenth of what aiohttp makes of one."""

    __slots__ = ("_server", "_transport")

    def __init__(self, server: "HttpServer") -> None:
        self._server = server
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.silent.hold(self.close)

    def data_received(self, data: bytes) -> None:
        transport, server = self._transport, self._server
        if transport is None:
            return  # it was closed, and this was under way
        self._forget()
        if server.early.needed and (answer := server.early.answer(data)) is not None:
            TurnedAway(server.held, transport, answer, linger=not whole(data))
            return
        connection = server.connection()
        transport.set_protocol(connection)
        connection.connection_made(transport)
        connection.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()

    def close(self) -> None:
        """Nothing has come in time."""
        if self._transport is not None:
            self._transport.close()
        self._forget()

    def _forget(self) -> None:
        self._transport = None
        self._server.silent.drop(self.close)


class TurnedAway(asyncio.Protocol):
    """A connection whose request is refused, whatever is left of it: it gets the answer after a while, in which nothing
    is read from it, or at once where too many wait already, and ends. `linger`: more of the request may come; closed
    while there is something to read, the connection would be reset, and the answer might not be seen."""

    __slots__ = ("_answer", "_held", "_linger", "_transport")

    def __init__(self, held: Held, transport: asyncio.Transport, answer: bytes, *, linger: bool) -> None:
        self._held = held
        self._transport = transport
        self._answer = answer
        self._linger = linger
        transport.set_protocol(self)
        if held.hold(self._give_answer):
            transport.pause_reading()
        else:
            self._give_answer()

    def data_received(self, data: bytes) -> None:
        """The rest of what is refused."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._held.drop(self._give_answer)
        self._held.drop(self._transport.close)

    def _give_answer(self) -> None:
        if self._transport.is_closing():
            return
        self._transport.write(self._answer)
        if self._linger and self._held.hold(self._transport.close):
            self._transport.write_eof()
            self._transport.resume_reading()
        else:
            self._transport.close()


class HttpServer(web.Server):
    """Makes these connections instead of those that `made` would."""

    def __init__(self, made: web.Server, app: web.Application) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )
        self.request_ids = app[GATE].request_ids
        self.early = EarlyRefusal(app[LIMITS], self.request_ids)
        self.held = app[HELD]
        self.silent = Held(sys.maxsize, app[SETTINGS].keep_alive_s)
        """Connections on which nothing has come yet."""

    def __call__(self) -> asyncio.Protocol:  # type: ignore[override]  # not yet one of aiohttp's
        return Entrance(self)

    def connection(self) -> HttpConnection:
        """aiohttp's part of a connection."""
        return HttpConnection(self, loop=self._loop, **self._kwargs)

    def pre_shutdown(self) -> None:
        self.silent.release_all()
        super().pre_shutdown()


class HttpRunner(web.AppRunner):
    """Runs an application on these connections."""

    async def _make_server(self) -> web.Server:
        return HttpServer(await super()._make_server(), self.app)
