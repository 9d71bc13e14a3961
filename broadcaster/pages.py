"""Pages of the log, read once for all who need them: after a restart, every client resumes at about the same place."""

import asyncio
import contextvars
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from broadcaster.errors import LogUnavailable, PositionExpired
from broadcaster.event import Event
from broadcaster.log import EventLog
from broadcaster.ring import weight
from broadcaster.turns import Turns

PAGE: Final = 500
"""Page n holds the seqs n * PAGE + 1 to (n + 1) * PAGE, so that different positions share it."""

MAX_BYTES: Final = 16 * 1024 * 1024


@dataclass(slots=True, eq=False)
class _Page:
    """Events without a gap, up to the page's end or as far as the log had them when it was read."""

    events: Sequence[Event]
    weight: int


@dataclass(slots=True, eq=False)
class _Read:
    """A read that is under way, and who waits for it."""

    waiting: list[asyncio.Future[None]] = field(default_factory=list)
    events: Sequence[Event] = ()
    error: Exception | None = None


class LogPages:
    """The pages of one workspace's log that were wanted of late, bounded by weight. After use you must `stop`."""

    def __init__(self, workspace: str, log: EventLog, epoch: str, turns: Turns, max_bytes: int = MAX_BYTES) -> None:
        self._workspace = workspace
        self._log = log
        self._epoch = epoch
        self._turns = turns
        self._max_bytes = max_bytes
        self._pages: dict[int, _Page] = {}
        """Least recently used first."""
        self._bytes = 0
        self._reads: dict[int, _Read] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def after(self, seq: int) -> Sequence[Event]:
        """The events after `seq` to the end of its page, or as far as the log has them: perhaps none. Takes a turn.

        Raises PositionExpired and LogUnavailable.
        """
        number = seq // PAGE
        page = self._pages.get(number)
        if page is not None and page.events[0].seq <= seq + 1 <= page.events[-1].seq:
            self._pages[number] = self._pages.pop(number)
            await self._turns.take()
            return _rest(page.events, seq)
        read = self._reads.get(number)
        if read is None:
            read = self._reads[number] = _Read()
            # In a context of its own: it is made for all who wait, not for the request that came first.
            task = asyncio.create_task(self._read(number, read), context=contextvars.Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        read.waiting.append(turn)
        await turn
        match read.error:
            case None:
                return _rest(read.events, seq)
            case PositionExpired(oldest=oldest) if seq + 1 < oldest:
                raise PositionExpired(seq, oldest) from read.error
            case PositionExpired() | LogUnavailable():
                # Retention that ran during the read took the page's beginning, not what this one needs: read again.
                raise LogUnavailable(str(read.error)) from read.error
            case _:
                raise read.error

    def clear(self, epoch: str) -> None:
        """The log begins anew: nothing of what was read or is being read counts."""
        self._epoch = epoch
        self._pages.clear()
        self._reads.clear()
        self._bytes = 0

    def expire(self, oldest: int) -> None:
        """Retention has removed the events before `oldest`."""
        for number in [n for n, page in self._pages.items() if page.events[-1].seq < oldest]:
            self._drop(number)

    async def stop(self) -> None:
        """End the reads that are under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _read(self, number: int, read: _Read) -> None:
        page = self._pages.get(number)
        try:
            read.events = await self._complete(number, page.events if page is not None else ())
        except Exception as error:  # told to everyone who waits
            read.error = error
        if self._reads.get(number) is read:
            del self._reads[number]
            self._keep(number, read.events)
        self._turns.line_up(read.waiting)

    async def _complete(self, number: int, known: Sequence[Event]) -> Sequence[Event]:
        """What is known of a page and what the log has beyond it, up to the page's end."""
        end = (number + 1) * PAGE
        after = known[-1].seq if known else number * PAGE
        epoch = self._epoch
        try:
            events = await self._log.read(self._workspace, after, end - after)
        except PositionExpired as expired:
            if expired.oldest > end:
                raise
            # The page's beginning is gone, but not what everyone in it needs.
            known, after = (), expired.oldest - 1
            events = await self._log.read(self._workspace, after, end - after)
        if events and events[0].epoch != epoch:
            return ()  # the tail has yet to find that the log begins anew
        return [*known, *events]

    def _keep(self, number: int, events: Sequence[Event]) -> None:
        self._drop(number)
        if not events:
            return
        self._pages[number] = _Page(events, sum(map(weight, events)))
        self._bytes += self._pages[number].weight
        while self._bytes > self._max_bytes and len(self._pages) > 1:
            self._drop(next(iter(self._pages)))

    def _drop(self, number: int) -> None:
        page = self._pages.pop(number, None)
        if page is not None:
            self._bytes -= page.weight


def _rest(events: Sequence[Event], seq: int) -> Sequence[Event]:
    """Those after `seq`. Raises PositionExpired when they begin later."""
    if not events:
        return events
    first = events[0].seq
    if seq + 1 < first:
        raise PositionExpired(seq, first)
    return events[seq + 1 - first :]
