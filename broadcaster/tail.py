"""The tail of a workspace's log: whatever order news arrives in, events leave it contiguous, each once.

News are events committed here, events that other instances announce, and heads that a poll has seen. What is missing
is read from the log. `Tail` decides and is told the time; `TailRunner` owns the task that reads.
"""

import asyncio
import contextlib
import contextvars
import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from broadcaster.errors import LogUnavailable, PositionExpired
from broadcaster.event import Event
from broadcaster.log import EventLog, LogBounds

GAP_DELAY_S: Final = 0.05
"""How long a missing event may still be on its way: commits resume out of order by less, a lost message never comes."""

HOLD_LIMIT: Final = 2000
"""Events held while an earlier one is missing. Those beyond are left to the log, which is then read at once."""

PAGE: Final = 500
_MAX_FRUITLESS_DELAY_S: Final = 1.0
_MIN_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 2.0

logger = logging.getLogger(__name__)


class Tail:
    """Puts a workspace's events in order, without I/O. Times are seconds of one monotonic clock.

    After `start`, events with `seq` after the head go in by `offer` and come out in contiguous order. Whenever
    `read_from` names a seq, read the log after it and give the result to `repair`.
    """

    def __init__(self, *, gap_delay_s: float = GAP_DELAY_S, hold_limit: int = HOLD_LIMIT) -> None:
        self.epoch = ""
        self.position = 0
        """The seq of the last event that came out, or the head at which it started."""
        self.epoch_in_doubt = False
        """An event of another epoch was offered: the log's bounds must be read and given to `observe`."""
        self.gaps_repaired = 0
        self.duplicates = 0
        self._gap_delay_s = gap_delay_s
        self._hold_limit = hold_limit
        self._held: dict[int, Event] = {}
        self._head = 0
        self._head_when_asked = 0
        self._due: float | None = None
        self._fruitless = 0
        self._repairing = False

    @property
    def missing(self) -> int:
        """How many events are known to be in the log, or to come, that have not come out."""
        return max(0, self._head - self.position)

    def start(self, bounds: LogBounds) -> None:
        """Begin, or begin anew, after the head of `bounds`; what was held is forgotten."""
        self.epoch = bounds.epoch
        self.position = self._head = bounds.head
        self.epoch_in_doubt = False
        self._held.clear()
        self._due = None
        self._fruitless = 0
        self._repairing = False

    def offer(self, events: Iterable[Event], now: float) -> list[Event]:
        """The events that are now in order, these and held ones; empty while an earlier one is missing."""
        ready: list[Event] = []
        position = self.position
        for event in events:
            if event.epoch != self.epoch:
                self.epoch_in_doubt = True
            elif event.seq == position + 1:
                ready.append(event)
                position += 1
            elif event.seq <= position:
                self.duplicates += 1
            else:
                self._hold(event, now)
        while self._held and (held := self._held.pop(position + 1, None)) is not None:
            ready.append(held)
            position += 1
        if ready:
            self.position = position
            self._head = max(self._head, position)
            if self._held:
                # A held event may have come again in its turn, which leaves the first copy behind.
                for event in ready:
                    self._held.pop(event.seq, None)
        self._settle(now, moved=bool(ready))
        return ready

    def observe(self, bounds: LogBounds, now: float) -> LogBounds | None:
        """Take note of where the log stands. A head beyond what came out is a gap to be read at once. Bounds of
        another epoch start the tail anew and are returned: every stream must then be told. None otherwise."""
        if bounds.epoch != self.epoch:
            self.start(bounds)
            return bounds
        self.epoch_in_doubt = False
        self.expect(bounds.head, now)
        return None

    def expect(self, last: int, now: float) -> None:
        """Events up to `last` are known to be in the log, without having come: a gap to be read at once."""
        if last > self._head:
            self._head = last
            self._due = now

    def read_from(self, now: float) -> int | None:
        """The seq after which the log must be read now; None while nothing is missing or it may still come by itself.
        After reading you must call `repair`, unless the read failed."""
        if self._due is None or now < self._due:
            return None
        self._head_when_asked = self._head
        return self.position

    def next_deadline(self) -> float | None:
        """When `read_from` will have an answer, if nothing comes before; None while nothing is missing."""
        return self._due

    def repair(self, events: Sequence[Event], *, complete: bool, now: float) -> list[Event]:
        """Like `offer`, for events read from the log. `complete` tells that the log had no more than these."""
        ready = self.offer(events, now)
        if ready and not self._repairing:
            self._repairing = True
            self.gaps_repaired += 1
        if self._due is None:
            self._repairing = False
        elif not complete or self._head > self._head_when_asked:
            self._due = now
        else:
            self._wait_for_the_log(now)
        return ready

    def _hold(self, event: Event, now: float) -> None:
        self._head = max(self._head, event.seq)
        if len(self._held) < self._hold_limit:
            self._held[event.seq] = event
        else:
            self._due = now

    def _settle(self, now: float, *, moved: bool) -> None:
        if self._head <= self.position:
            self._due = None
            self._fruitless = 0
        elif self._due is None or (moved and self._due > now):
            self._due = now + self._gap_delay_s

    def _wait_for_the_log(self, now: float) -> None:
        """The log does not have what is missing. Held events prove that it will; a mere claim of a head does not."""
        self._head = max(self._held, default=self.position)
        if self._head <= self.position:
            self._due = None
            self._repairing = False
        else:
            self._fruitless += 1
            self._due = now + min(self._gap_delay_s * 2**self._fruitless, _MAX_FRUITLESS_DELAY_S)


class TailRunner:
    """One workspace's tail with the task that repairs it from the log.

    `deliver` gets contiguous events, synchronously within `offer` when nothing is missing. `on_epoch` gets the bounds
    at which the tail began anew and every stream needs a reset: the log has another epoch, or (same epoch) events were
    removed before they could be read. `on_unavailable` and `on_available` frame the time in which the log cannot be
    read. None of the callbacks may block. After `start` you must await `stop`.
    """

    def __init__(
        self,
        workspace: str,
        log: EventLog,
        tail: Tail,
        deliver: Callable[[list[Event]], None],
        on_epoch: Callable[[LogBounds], None],
        clock: Callable[[], float] = time.monotonic,
        *,
        on_unavailable: Callable[[], None] | None = None,
        on_available: Callable[[], None] | None = None,
    ) -> None:
        self.tail = tail
        self.available = True
        self._workspace = workspace
        self._log = log
        self._deliver = deliver
        self._on_epoch = on_epoch
        self._clock = clock
        self._on_unavailable = on_unavailable
        self._on_available = on_available
        self._check = False
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> LogBounds:
        """Read where the log stands and begin there. Raises LogUnavailable; then it may be called again."""
        bounds = await self._log.bounds(self._workspace)
        self.tail.start(bounds)
        # In a context of its own: it outlives the request that opened the channel, whose id is not its own.
        context = contextvars.Context()
        self._task = asyncio.create_task(self._run(), name=f"tail of {self._workspace}", context=context)
        return bounds

    async def stop(self) -> None:
        """End the task. Nothing is delivered afterwards."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def offer(self, events: Iterable[Event]) -> None:
        """Events of this workspace, in any order, committed here or announced by others."""
        if self._task is None:
            # Committed while `start` reads the bounds: whatever is past the head it finds is read from the log.
            self._check = True
            return
        ready = self.tail.offer(events, self._clock())
        if self.tail.epoch_in_doubt:
            self.check()
        elif self.tail.next_deadline() is not None:
            self._wake.set()
        if ready:
            self._deliver(ready)

    def observe(self, bounds: LogBounds) -> None:
        """What a poll saw of this workspace's log."""
        self.expect(bounds.epoch, bounds.head)

    def expect(self, epoch: str, last: int) -> None:
        """Events up to `last` were announced without being carried."""
        if epoch != self.tail.epoch:
            # It may be older than the epoch that is known here: ask the log, do not flip back.
            self.check()
        else:
            self.tail.expect(last, self._clock())
            if self.tail.next_deadline() is not None:
                self._wake.set()

    def check(self) -> None:
        """Ask the log now where it stands: messages may have been missed."""
        self._check = True
        self._wake.set()

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._wait()
                await self._step()
            except LogUnavailable:
                if failures == 0:
                    logger.warning("the event log of %s cannot be read; trying again", self._workspace)
            except Exception:
                # A fault in a callback or in the log's code: said loudly, and the tail goes on.
                logger.exception("the tail of %s failed; trying again", self._workspace)
            else:
                failures = 0
                self._set_available(True)
                continue
            self._set_available(False)
            # Ask for the head when the log is back: the poll was as blind as this task.
            self._check = True
            ceiling: float = min(_MIN_BACKOFF_S * 2**failures, _MAX_BACKOFF_S)
            failures = min(failures + 1, 16)
            await asyncio.sleep(ceiling * random.uniform(0.5, 1.0))  # noqa: S311  # spreads retries, guards nothing

    async def _wait(self) -> None:
        """Return when there may be something to read."""
        while not self._check:
            self._wake.clear()
            deadline = self.tail.next_deadline()
            delay = None if deadline is None else deadline - self._clock()
            if delay is not None and delay <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _step(self) -> None:
        """Do one read of the log: its bounds if they were asked for, else a page of what is missing."""
        if self._check:
            await self._read_bounds()
            return
        after = self.tail.read_from(self._clock())
        if after is None:
            return
        try:
            events = await self._log.read(self._workspace, after, PAGE)
        except PositionExpired:
            self._begin_anew(await self._log.bounds(self._workspace))
            return
        ready = self.tail.repair(events, complete=len(events) < PAGE, now=self._clock())
        if self.tail.epoch_in_doubt:
            self._check = True
        if ready:
            self._deliver(ready)

    async def _read_bounds(self) -> None:
        self._check = False
        epoch, position = self.tail.epoch, self.tail.position
        bounds = await self._log.bounds(self._workspace)
        if bounds.epoch == epoch and bounds.head < position:
            # Events that were delivered are no longer there, and their seqs will be given away again.
            self._begin_anew(bounds)
        elif self.tail.observe(bounds, self._clock()) is not None:
            self._begin_anew(bounds)

    def _begin_anew(self, bounds: LogBounds) -> None:
        logger.warning("the event log of %s begins anew at %s-%d", self._workspace, bounds.epoch, bounds.head)
        self.tail.start(bounds)
        self._on_epoch(bounds)

    def _set_available(self, available: bool) -> None:
        if available is self.available:
            return
        self.available = available
        callback = self._on_available if available else self._on_unavailable
        if callback is None:
            return
        try:
            callback()
        except Exception:
            logger.exception("telling of the event log of %s failed", self._workspace)
