"""One client's stream: what it asked for, how far it has come, and its way out."""

import asyncio
from typing import Literal, Protocol

from broadcaster.event import Position
from broadcaster.frames import chunk
from broadcaster.stream import EndReason, Outlet, Reset, StreamRequest

State = Literal["starting", "replaying", "live", "lagging", "ended"]


class Owner(Protocol):
    """What a subscriber tells the engine of itself."""

    def start_stream(self, subscriber: "Subscriber") -> None: ...

    def resume(self, subscriber: "Subscriber") -> None: ...

    def forget(self, subscriber: "Subscriber") -> None: ...


class Tally:
    """What was sent to all members of a group, counted once: counting at each of them would cost as much as all else
    that is done for a delivery before the kernel has it."""

    __slots__ = ("bytes", "events", "last_write")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.last_write = float("-inf")

    def add(self, events: int, size: int, now: float) -> None:
        """All members were sent, or are being sent, so much."""
        self.events += events
        self.bytes += size
        self.last_write = now


class Subscriber:
    """A stream from admission to its end.

    After the engine admits it, call `start` with an outlet, or `disconnected` if that cannot be made. `cursor` is the
    seq up to which every matching event was handed to the outlet; while the subscriber is live in a group, the group
    knows better, and `cursor` is where it joined.
    """

    __slots__ = (
        "_bytes", "_drained", "_events", "_last_write", "_owner", "_tally", "began_at",
        "blocked_since", "check_at", "connected_at", "cursor", "end_reason", "gone", "group", "id", "join_turn",
        "last_blocked", "max_age_at", "outlet", "request", "reset", "resume_outcome", "snapshot_due", "state",
        "workspace",
    )  # fmt: skip

    def __init__(
        self,
        owner: Owner,
        id: str,
        workspace: str,
        request: StreamRequest,
        position: Position,
        resume_outcome: Literal["complete", "none", "reset"],
        reset: Reset | None,
        now: float,
        max_age_at: float,
    ) -> None:
        self._owner = owner
        self.id = id
        self.workspace = workspace
        self.request = request
        self.began_at = position
        self.cursor = position.seq
        self.resume_outcome = resume_outcome
        self.reset = reset
        self.snapshot_due = request.snapshot is not None and (request.start == "now" or reset is not None)
        self.connected_at = now
        self.max_age_at = max_age_at
        self.state: State = "starting"
        self.outlet: Outlet | None = None
        self.group: object | None = None
        self.join_turn = 0
        self.check_at = 0
        self._events = 0
        self._bytes = 0
        self._last_write = now
        self._tally: Tally | None = None
        self.blocked_since: float | None = None
        self.last_blocked = 0
        self.end_reason: EndReason | None = None
        self.gone = False
        # Made when somebody waits, which is seldom: a future takes as much memory as all the rest.
        self._drained: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<Subscriber {self.id} {self.state} at {self.cursor}>"

    def ended(self) -> bool:
        """Whether it said goodbye or its connection is gone. A method, for it changes while its caller awaits."""
        return self.state == "ended"

    @property
    def events_sent(self) -> int:
        return self._events if self._tally is None else self._events + self._tally.events

    @property
    def bytes_sent(self) -> int:
        return self._bytes if self._tally is None else self._bytes + self._tally.bytes

    @property
    def last_write(self) -> float:
        return self._last_write if self._tally is None else max(self._last_write, self._tally.last_write)

    @property
    def remaining(self) -> int | None:
        """How many more events its `limit` allows; None without a limit."""
        return None if self.request.limit is None else max(0, self.request.limit - self.events_sent)

    # Called by whoever holds the connection.

    def start(self, outlet: Outlet) -> None:
        """Begin to send. The response head must have been written."""
        self.outlet = outlet
        self._owner.start_stream(self)

    def drained(self) -> None:
        """The kernel has taken everything that was written: more may follow."""
        self.blocked_since = None
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        elif self.state == "lagging":
            self._owner.resume(self)

    def disconnected(self) -> None:
        """The connection is gone. Idempotent."""
        if self.gone:
            return
        self.gone = True
        self.mark_ended("disconnected")
        self._owner.forget(self)

    # Called by the engine.

    def write(self, frames: bytes, events: int, now: float) -> bool:
        """Send whole frames in this stream's transfer coding. False when the outlet could not pass all of them on."""
        return self.write_raw(chunk(frames) if self.request.chunked else frames, events, now)

    def write_raw(self, data: bytes, events: int, now: float) -> bool:
        """The same for bytes that have their transfer coding already."""
        outlet = self.outlet
        if outlet is None or self.state == "ended":
            return True
        waiting = outlet.write(data)
        self.count(events, len(data))
        self._last_write = now
        if waiting:
            self.blocked(waiting, now)
        return not waiting

    def blocked(self, waiting: int, now: float) -> None:
        """The outlet holds bytes that it could not pass on."""
        self.last_blocked = waiting
        if self.blocked_since is None:
            self.blocked_since = now

    def count(self, events: int, size: int) -> None:
        """It was sent so much; less than nothing takes back what was counted and not sent."""
        self._events += events
        self._bytes += size

    def share(self, tally: Tally | None) -> None:
        """What is counted there from now on is sent to this one, too; None ends that."""
        if self._tally is not None:
            self.count(self._tally.events, self._tally.bytes)
            self._last_write = max(self._last_write, self._tally.last_write)
        if tally is not None:
            self.count(-tally.events, -tally.bytes)
        self._tally = tally

    @property
    def shares(self) -> bool:
        """Whether a group counts for it."""
        return self._tally is not None

    async def wait_drained(self) -> None:
        """Wait until the outlet has passed on what was written (returns at once when it has)."""
        while self.outlet is not None and self.outlet.buffered() and not self.ended():
            self._drained = asyncio.get_running_loop().create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    def check_progress(self, now: float, timeout_s: float) -> bool:
        """False when nothing of what is buffered has left for `timeout_s`."""
        if self.outlet is None:
            return True
        waiting = self.outlet.buffered()
        if self.blocked_since is None:
            if waiting:  # the end of the response, which is not written by the engine
                self.blocked(waiting, now)
            return True
        if waiting < self.last_blocked:
            self.last_blocked = waiting
            self.blocked_since = now
        return now - self.blocked_since < timeout_s

    def mark_ended(self, reason: EndReason) -> None:
        """No more is written from now on; the first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
        self.state = "ended"
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
