"""A connection whose response head was sent: the protocol that a transport drives from then on, and a stream's outlet.

Nothing of the HTTP server is left behind it, neither parser nor request nor task: an idle stream is a transport, this
object and its subscriber.

While nothing waits in the transport, frames go to the kernel through a socket object of the connection's own, which
saves a fifth of what a delivery costs. It is a duplicate of the transport's descriptor and not its number: a number
that was closed belongs to the next client that connects, who would get this one's events.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from typing import Final

from broadcaster.subscriber import Subscriber

UNSENT_BYTES: Final = 64 * 1024
"""How much the kernel may hold for a client beyond what is on its way. By default it takes megabytes for each one that
stalls, and one that reads slowly looks as if it took nothing at all until those are gone."""

LAST_CHUNK: Final = b"0\r\n\r\n"
"""The end of a chunked body (RFC 9112, section 7.1)."""

DESCRIPTORS_SHARE: Final = 0.5
"""Of all descriptors that the process may have, those up to this share may be second ones of streams."""

_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", None)
_TCP_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)


class Connection(asyncio.Protocol):
    """The way to one client, from the response head to the end of the connection.

    `attach` it to the transport, then give it to `Subscriber.start`. What the client sends is ignored. `on_lost` is
    called once, after the subscriber, when the connection is gone.
    """

    __slots__ = ("_direct", "_on_lost", "_paused", "_subscriber", "_transport", "_writable")

    def __init__(self, subscriber: Subscriber, on_lost: Callable[[Subscriber], None]) -> None:
        self._subscriber = subscriber
        self._on_lost = on_lost
        self._transport: asyncio.Transport
        self._direct: socket.socket | None = None
        self._paused = False
        self._writable = True

    def attach(self, transport: asyncio.Transport, *, write_timeout_s: float) -> None:
        """Take the transport over from its protocol."""
        self._transport = transport
        self._direct = duplicate(transport)
        self._paused = transport.get_write_buffer_size() > 0
        transport.set_protocol(self)
        limit_buffers(transport, write_timeout_s=write_timeout_s)

    # As the subscriber's outlet

    def write(self, data: bytes) -> int:
        direct = self._direct
        if direct is None or self._paused:
            return self._write_behind(data)
        try:
            sent = direct.send(data)
        except OSError:
            # The kernel has no room, or the connection is broken: the transport finds out which.
            return self._write_behind(data)
        return 0 if sent == len(data) else self._write_behind(data[sent:])

    def _write_behind(self, data: bytes) -> int:
        """Through the transport, after what it holds already."""
        if not self._writable or self._transport.is_closing():
            return 0
        self._transport.write(data)
        return self._transport.get_write_buffer_size() if self._paused else 0

    def buffered(self) -> int:
        return self._transport.get_write_buffer_size()

    def close(self) -> None:
        if self._writable:
            self._stop_writing()
            if self._subscriber.request.chunked:
                self._transport.write(LAST_CHUNK)
            self._transport.close()

    def abort(self) -> None:
        self._stop_writing()
        self._transport.abort()

    def _stop_writing(self) -> None:
        self._writable = False
        # At once: the connection stays open as long as one of its descriptors does.
        if self._direct is not None:
            self._direct.close()
            self._direct = None

    # As the transport's protocol

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._writable:
            self._subscriber.drained()

    def eof_received(self) -> None:
        """The client will send no more; who does that is gone, or as good as gone: the transport closes."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_writing()
        if isinstance(exc, TimeoutError):
            # The kernel noticed before the engine did that nothing was taken any more.
            self._subscriber.mark_ended("overloaded")
        self._subscriber.disconnected()
        self._on_lost(self._subscriber)


def limit_buffers(transport: asyncio.Transport, *, write_timeout_s: float) -> None:
    """Keep what waits for a slow client small, and known: anything left in the transport pauses writing."""
    # A TLS transport with a limit of zero would pause at once and never resume.
    over_tls = transport.get_extra_info("sslcontext") is not None
    transport.set_write_buffer_limits(high=1 if over_tls else 0, low=0)
    connection = transport.get_extra_info("socket")
    if connection is None or connection.family not in (socket.AF_INET, socket.AF_INET6):
        return
    if _TCP_NOTSENT_LOWAT is not None:
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_NOTSENT_LOWAT, UNSENT_BYTES)
    if _TCP_USER_TIMEOUT is not None:
        # A client that vanished without a word acknowledges nothing: the kernel gives up when the engine would.
        connection.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, int(write_timeout_s * 1000))


def duplicate(transport: asyncio.Transport) -> socket.socket | None:
    """Another descriptor of the transport's connection; None over TLS, and where descriptors become scarce."""
    connection = transport.get_extra_info("socket")
    if connection is None or transport.get_extra_info("sslcontext") is not None or sys.platform == "win32":
        return None
    import resource  # not on Windows

    try:
        descriptor = os.dup(connection.fileno())
    except OSError:  # they are all in use already
        return None
    # The kernel hands out the lowest free number, so this one tells how many are in use.
    if descriptor > DESCRIPTORS_SHARE * resource.getrlimit(resource.RLIMIT_NOFILE)[0]:
        os.close(descriptor)
        return None
    return socket.socket(connection.family, connection.type, connection.proto, fileno=descriptor)
