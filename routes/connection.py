"""aiohttp's connection, with what TaskHub does differently before a request is understood.

What cannot be understood is answered as every other error is, and says nothing of the bytes that came. Whoever insists
on asking too much is refused by its first bytes (early.py), after a while in which nothing is read from it. And a
chunked body has a bound for what is no body: between its chunks there may be as much as anybody likes to send.

It leans on parts of aiohttp that are not meant for others, as takeover.py does: `_waiter`, on which its handler waits
between requests, and `_messages`, which holds those that wait for the handler.
"""

from asyncio import Transport
from http import HTTPStatus
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http_exceptions import InvalidHeader, InvalidURLError, LineTooLong
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from routes.early import EarlyRefusal
from routes.errors import EVERY_ANSWER, Problem, problem_response
from routes.keys import HELD, LIMITS, REQUEST_ID
from routes.middlewares import GATE
from taskhub.limits.held import Held

FRAMING_BYTES: Final = 64 * 1024
FRAMING_SHARE: Final = 16
"""Chunks of one byte come with five to ten others; nobody has a use for more."""

_PLAIN: Final = ("Missing 'Host' header", "Duplicate '", "Too many headers", "Received HTTPS traffic")
"""What sentences of the parser begin with that have nothing of the request but names of headers that it knows."""

log = structlog.get_logger("taskhub.http")


class HttpConnection(RequestHandler):
    """One connection of a client."""

    __slots__ = ("_answer", "_app", "_body", "_early", "_held", "_of_body", "_turned_away")

    def __init__(self, manager: web.Server, app: web.Application, early: EarlyRefusal, **kwargs: Any) -> None:
        super().__init__(manager, **kwargs)
        self._app = app
        self._early = early
        self._held: Held = app[HELD]
        self._turned_away = False
        self._answer = b""
        self._body: StreamReader | None = None
        """Of the chunked body that comes now."""
        self._of_body = 0
        """Bytes that came with it."""

    def data_received(self, data: bytes) -> None:
        if self._turned_away:
            return  # what is left of the request that was refused
        if self._early.needed and self._waiter is not None and not self._waiter.done():
            answer = self._early.answer(data)
            if answer is not None:
                self._turn_away(answer)
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
        request[REQUEST_ID] = request_id = next(self._app[GATE].request_ids)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            log.error("request failed", request_id=request_id, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the head of another response is out already")
        response = problem_response(problem, request)
        response.headers.update({**EVERY_ANSWER, "X-Request-ID": request_id})
        response.force_close()
        return response

    # What is refused by its first bytes

    def _turn_away(self, answer: bytes) -> None:
        """Give this answer later, or at once where too many wait already; nothing is read meanwhile."""
        self._turned_away, self._answer = True, answer
        self.keep_alive(False)
        self._pause_transport_reading()
        if not self._held.hold(self._give_answer):
            self._give_answer()

    def _give_answer(self) -> None:
        transport = self.transport
        if not isinstance(transport, Transport) or transport.is_closing():
            return
        transport.write(self._answer)
        # Closed while there is something to read, it would be reset, and the answer might not be seen.
        if transport.can_write_eof():
            transport.write_eof()
            self._resume_transport_reading()
            if self._held.hold(self.force_close):
                return
        self.force_close()

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
            self._turned_away = True
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


class HttpServer(web.Server):
    """Makes these connections instead of those that `made` would."""

    def __init__(self, made: web.Server, app: web.Application) -> None:
        super().__init__(
            made.request_handler,
            request_factory=made.request_factory,
            handler_cancellation=made.handler_cancellation,
            **made._kwargs,
        )
        self._app = app
        self._early = EarlyRefusal(app[LIMITS], app[GATE].request_ids)

    def __call__(self) -> RequestHandler:
        return HttpConnection(self, self._app, self._early, loop=self._loop, **self._kwargs)


class HttpRunner(web.AppRunner):
    """Runs an application on these connections."""

    async def _make_server(self) -> web.Server:
        return HttpServer(await super()._make_server(), self.app)
