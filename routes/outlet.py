"""The way from the event engine to one HTTP connection: the response head, and the transport behind it.

After the head, frames go to the transport as they are: the engine has encoded them, chunk framing included, once for
all subscribers, so aiohttp's response would only copy them.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from broadcaster.connection import limit_buffers
from broadcaster.subscriber import Subscriber
from routes import takeover

STREAM_HEADERS: Final = {hdrs.CACHE_CONTROL: "no-store, no-transform", "X-Accel-Buffering": "no"}
SSE_TYPE: Final = "text/event-stream"
NDJSON_TYPE: Final = "application/x-ndjson"


class Head(web.StreamResponse):
    """The head of a stream. Once its connection was taken over, aiohttp finds nothing left to do."""

    taken_over = False

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None if self.taken_over else await super().prepare(request)

    async def write_eof(self, data: bytes = b"") -> None:
        if not self.taken_over:
            await super().write_eof(data)


class EventStream(Head, EventSourceResponse):
    """The head of an SSE stream. It sends no pings and sets no timeout of its own: both are the engine's."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(send_timeout=None)
        self.headers.update(STREAM_HEADERS)
        self.headers.update(headers)
        # The connection is worn out afterwards: its buffer limits were changed for the stream.
        del self.headers[hdrs.CONNECTION]
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        if not self.taken_over:
            self.stop_streaming()  # ends the ping task, before its first step
        return writer


class LineStream(Head):
    """The head of an NDJSON stream."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**STREAM_HEADERS, hdrs.CONTENT_TYPE: NDJSON_TYPE, **headers})
        self.force_close()


class TransportOutlet:
    """Writes to a transport that stays aiohttp's, and tells the handler's task when there is something to wait for."""

    __slots__ = ("_closing", "_transport", "_woken")

    def __init__(self, transport: asyncio.Transport, *, write_timeout_s: float) -> None:
        self._transport = transport
        self._woken = asyncio.Event()
        self._closing = False
        limit_buffers(transport, write_timeout_s=write_timeout_s)

    def write(self, data: bytes) -> int:
        if self._closing or self._transport.is_closing():
            return 0
        self._transport.write(data)
        waiting = self._transport.get_write_buffer_size()
        if waiting:
            self._woken.set()
        return waiting

    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        self._closing = True
        self._woken.set()

    def abort(self) -> None:
        self._closing = True
        self._transport.abort()
        self._woken.set()

    async def serve(self, subscriber: Subscriber, writer: AbstractStreamWriter) -> None:
        """Tell the subscriber each time the buffer has run empty; return when the stream was closed and all is sent.

        Raises ConnectionError when the connection is lost meanwhile.
        """
        while not self._closing:
            await self._woken.wait()
            self._woken.clear()
            await writer.drain()
            if not self.buffered():
                subscriber.drained()
        await writer.drain()


async def run(
    request: web.Request,
    response: Head,
    subscriber: Subscriber,
    on_lost: Callable[[Subscriber], None],
    *,
    write_timeout_s: float,
) -> None:
    """Send the head, then whatever the engine writes, until the stream ends on either side.

    Returns at once where the connection can be taken over; else with the stream's end, and the task is cancelled when
    the client disconnects (`handler_cancellation`). The subscriber hears of every end, and `on_lost` after it.
    """
    try:
        writer = await response.prepare(request)
        # Shutdown may have come in between: the client then finds an empty stream, and comes back.
        if not subscriber.ended():
            response.taken_over = takeover.take_over(request, subscriber, on_lost, write_timeout_s=write_timeout_s)
        if response.taken_over:
            return
    except BaseException as error:
        _lost(subscriber, on_lost)
        if isinstance(error, ConnectionError):
            return  # The client is gone before it has begun.
        raise
    try:
        if writer is not None and request.transport is not None:
            if not subscriber.ended():
                outlet = TransportOutlet(request.transport, write_timeout_s=write_timeout_s)
                subscriber.start(outlet)
                await outlet.serve(subscriber, writer)
            # The last chunk as well, while shutdown still waits for this stream.
            async with asyncio.timeout(write_timeout_s):
                await response.write_eof()
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
    except ConnectionError:
        pass  # The client is gone, which is how streams end.
    finally:
        _lost(subscriber, on_lost)


def _lost(subscriber: Subscriber, on_lost: Callable[[Subscriber], None]) -> None:
    subscriber.disconnected()
    on_lost(subscriber)
