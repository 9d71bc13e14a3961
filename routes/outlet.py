"""The way from the event engine to one HTTP connection: the response head, and the transport behind it.

After the head, frames go to the transport as they are: the engine has encoded them, chunk framing included, once for
all subscribers, so aiohttp's response would only copy them.
"""

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_sse import EventSourceResponse

from broadcaster.subscriber import Subscriber

STREAM_HEADERS: Final = {hdrs.CACHE_CONTROL: "no-store, no-transform", "X-Accel-Buffering": "no"}
SSE_TYPE: Final = "text/event-stream"
NDJSON_TYPE: Final = "application/x-ndjson"
UNSENT_BYTES: Final = 64 * 1024
"""How much the kernel may hold for a client beyond what is on its way. By default it takes megabytes for each one that
stalls, and one that reads slowly looks as if it took nothing at all until those are gone."""

_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)


class EventStream(EventSourceResponse):
    """The head of an SSE stream. It sends no pings of its own: heartbeats are the engine's."""

    def __init__(self, headers: Mapping[str, str], *, send_timeout: float) -> None:
        super().__init__(send_timeout=send_timeout)
        self.headers.update(STREAM_HEADERS)
        self.headers.update(headers)
        # The connection is worn out afterwards: its buffer limits were changed for the stream.
        del self.headers[hdrs.CONNECTION]
        self.force_close()

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        writer = await super().prepare(request)
        self.stop_streaming()  # ends the ping task, before its first step
        return writer


class LineStream(web.StreamResponse):
    """The head of an NDJSON stream."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        super().__init__(headers={**STREAM_HEADERS, hdrs.CONTENT_TYPE: NDJSON_TYPE, **headers})
        self.force_close()


class TransportOutlet:
    """Writes to a transport whose head was sent, and tells the handler's task when there is something to wait for."""

    __slots__ = ("_closing", "_transport", "_woken")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._woken = asyncio.Event()
        self._closing = False
        # Anything left in the buffer pauses writing, so that `drain` waits until the kernel has taken all. A TLS
        # transport with a limit of zero would pause at once and never resume.
        over_tls = transport.get_extra_info("sslcontext") is not None
        transport.set_write_buffer_limits(high=1 if over_tls else 0, low=0)
        connection = transport.get_extra_info("socket")
        if _TCP_NOTSENT_LOWAT is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
            connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)

    def write(self, data: bytes) -> None:
        if self._closing or self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size():
            self._woken.set()

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
    request: web.Request, response: web.StreamResponse, subscriber: Subscriber, *, write_timeout_s: float
) -> None:
    """Send the head, then whatever the engine writes, until the stream ends on either side.

    The task is cancelled when the client disconnects (`handler_cancellation`); the subscriber hears of every end.
    """
    try:
        writer = await response.prepare(request)
        transport = request.transport
        if writer is not None and transport is not None:
            if not subscriber.ended():  # else shutdown came in between: the client finds an empty stream and comes back
                outlet = TransportOutlet(transport)
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
        subscriber.disconnected()
