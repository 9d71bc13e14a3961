"""What a stream is asked for, and the way out to its client."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from broadcaster.batching import UNBATCHED, Batching
from broadcaster.event import Position
from broadcaster.filters import EVERYTHING, Filter
from broadcaster.frames import SSE, Format

EndReason = Literal[
    "shutdown", "rotate", "done", "auth_expired", "revoked", "replaced", "overloaded", "limit", "disconnected"
]
"""Why a stream ended; all but `disconnected` are also the `reason` of a goodbye frame."""

FINAL_REASONS = frozenset({"done", "auth_expired", "revoked", "replaced"})
"""Ends after which reconnecting with the same request is of no use."""


class Outlet(Protocol):
    """The way to one client. The engine writes whole frames; it never sees a request or a socket.

    Whoever makes an outlet must call `Subscriber.drained` when bytes were buffered and no longer are, and
    `Subscriber.disconnected` exactly once when the connection is gone, for whatever reason.
    """

    def write(self, data: bytes) -> int:
        """Send, or buffer what cannot be sent now. Returns how many bytes wait; 0 once the connection is closing."""

    def buffered(self) -> int:
        """Bytes accepted by `write` that the kernel has not taken yet."""

    def close(self) -> None:
        """End the response after what was written."""

    def abort(self) -> None:
        """Drop the connection and what is buffered."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A ticket table at a position. Each page is a JSON array, encoded, of at most 200 tickets."""

    position: Position
    pages: Sequence[bytes]


Start = Position | datetime | Literal["now", "earliest", "invalid"]


@dataclass(frozen=True, slots=True)
class StreamRequest:
    """One client's wish. `requested` is the position as it was sent, for the `reset` that answers an unusable one;
    `snapshot` reads the matching tickets; `snapshot_url` is where a client finds them by itself.
    `credential` names what opened it, where that can end before the stream does."""

    filter: Filter = EVERYTHING
    format: Format = SSE
    chunked: bool = True
    start: Start = "now"
    requested: str | None = None
    snapshot: Callable[[], Awaitable[Snapshot]] | None = None
    snapshot_url: str = "/api/v1/tickets"
    batching: Batching = UNBATCHED
    heartbeat_s: float = 15.0
    limit: int | None = None
    timeout_s: float | None = None
    principal: str = ""
    address: str = ""
    credential: str | None = None


@dataclass(frozen=True, slots=True)
class Reset:
    """The client has to start afresh. `reason`: expired, epoch_changed, ahead or invalid."""

    reason: str
    requested: str


class StreamRefused(Exception):
    """No stream now: `reason` is that of a goodbye frame; the client may come back after `retry_ms`."""

    def __init__(self, reason: EndReason, detail: str, retry_ms: int) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.retry_ms = retry_ms
