"""Which requests of a connection are being answered, so that a long stream never ends in the middle of a call."""

import asyncio
import contextvars
from types import TracebackType
from typing import Final, Self

from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse, RequestId

LISTEN: Final = "subscriptions/listen"

Incoming = SessionMessage | Exception


class CallsInFlight:
    """Requests that were read from a connection and not answered on it yet."""

    def __init__(self) -> None:
        self._open: set[RequestId] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __len__(self) -> int:
        return len(self._open)

    async def wait_until_none(self, timeout_s: float | None = None) -> None:
        """Return once every request is answered, or after the time given."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            return

    def saw(self, item: Incoming) -> None:
        """A message that came in. A cancelled request may stay without an answer (2026 era), so it no longer counts."""
        if not isinstance(item, SessionMessage):
            return
        message = item.message
        if isinstance(message, JSONRPCRequest):
            if message.method == LISTEN:
                return  # it lasts as long as the connection does: nobody waits for its answer
            self._open.add(message.id)
            self._idle.clear()
        elif isinstance(message, JSONRPCNotification) and message.method == "notifications/cancelled":
            cancelled = (message.params or {}).get("requestId")
            if isinstance(cancelled, str | int):
                self._close(cancelled)

    def sent(self, item: SessionMessage) -> None:
        """A message that went out."""
        if isinstance(item.message, JSONRPCResponse | JSONRPCError) and item.message.id is not None:
            self._close(item.message.id)

    def _close(self, request_id: RequestId) -> None:
        self._open.discard(request_id)
        if not self._open:
            self._idle.set()


class CountedReader:
    """A read stream that counts. At its end it waits for the calls in flight, at most `linger_s`, before it ends too:
    whoever serves the connection takes the end for the client's leave and cancels what is still running."""

    def __init__(self, inner: ReadStream[Incoming], calls: CallsInFlight, *, linger_s: float = 0) -> None:
        self._inner = inner
        self._calls = calls
        self._linger_s = linger_s
        self.last_context: contextvars.Context | None = None

    async def receive(self) -> Incoming:
        item = await self._inner.receive()
        self.last_context = getattr(self._inner, "last_context", None)
        self._calls.saw(item)
        return item

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Incoming:
        try:
            item = await self._inner.__anext__()
        except StopAsyncIteration:
            await self._calls.wait_until_none(self._linger_s)
            raise
        self.last_context = getattr(self._inner, "last_context", None)
        self._calls.saw(item)
        return item

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class ResumingReader(CountedReader):
    """A counted read stream whose client may do without `initialize`. Some do: when their stream ends, by its age or a
    restart of the server, they open the next one by themselves and go on with what they were doing."""

    def __init__(self, inner: ReadStream[Incoming], calls: CallsInFlight) -> None:
        super().__init__(inner, calls)
        self._opened = False
        self._held: Incoming | None = None

    async def receive(self) -> Incoming:
        return self._take_held() or self._opening(await super().receive())

    async def __anext__(self) -> Incoming:
        return self._take_held() or self._opening(await super().__anext__())

    def _take_held(self) -> Incoming | None:
        held, self._held = self._held, None
        return held

    def _opening(self, item: Incoming) -> Incoming:
        """The item; ahead of a first request that takes the handshake as done, the notification that ends one."""
        if self._opened or not isinstance(item, SessionMessage) or not isinstance(item.message, JSONRPCRequest):
            return item
        self._opened = True
        if item.message.method == "initialize":
            return item
        self._held = item
        return SessionMessage(JSONRPCNotification(jsonrpc="2.0", method="notifications/initialized"))


class CountedWriter:
    """A write stream that counts."""

    def __init__(self, inner: WriteStream[SessionMessage], calls: CallsInFlight) -> None:
        self._inner = inner
        self._calls = calls

    async def send(self, item: SessionMessage, /) -> None:
        try:
            await self._inner.send(item)
        finally:
            self._calls.sent(item)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()
