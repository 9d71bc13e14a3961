"""The log by polling: where a request begins, what of the events after that it gets, and waiting for more."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from broadcaster.errors import CannotContinue, InvalidPosition, InvalidStart, PositionExpired
from broadcaster.event import Event, Position
from broadcaster.filters import Filter
from broadcaster.frames import with_match
from broadcaster.log import EventLog, LogBounds
from broadcaster.stream import Start

PAGE: Final = 500
MAX_SCANNED: Final = 10 * PAGE
"""A request with a narrow filter looks at no more events than this; `more` tells the client to go on from there."""
MAX_WAIT_S: Final = 50
# A long poll looks this often whether the process is about to end.
WAIT_SLICE_S: Final = 1.0

FORMS: Final = "earliest, now, an event id, a duration such as 15m, or an RFC 3339 time"
_DURATION: Final = re.compile(r"([0-9]{1,6})(s|m|h|d)")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS: Final = 100 * 365 * 86400

WaitBeyond = Callable[[str, int, float], Awaitable[bool]]
"""Wait until a workspace's head is past a seq, at most so many seconds: whether it is."""


@dataclass(frozen=True, slots=True)
class Polled:
    """Events as JSON, the position to go on after, and whether there are more of them now."""

    events: Sequence[bytes]
    position: Position
    more: bool


def start_of(text: str, now: datetime) -> Start:
    """What `since` or `after` means. Raises InvalidStart."""
    if text == "earliest":
        return "earliest"
    if text == "now":
        return "now"
    if duration := _DURATION.fullmatch(text):
        seconds = int(duration[1]) * _SECONDS[duration[2]]
        return max(now - timedelta(seconds=seconds), _BEGINNING) if seconds < _MAX_SECONDS else _BEGINNING
    if _TIME.fullmatch(text):
        try:
            # In a query an unescaped + has become a space.
            return datetime.fromisoformat(text.upper().replace(" ", "+")).astimezone(UTC)
        except (ValueError, OverflowError):
            raise InvalidStart(f"{text!r} is no time that exists") from None
    try:
        return Position.parse(text)
    except InvalidPosition:
        raise InvalidStart(f"must be {FORMS}") from None


class Poller:
    """Answers requests for what happened. `ending`: this process is about to end, so nobody waits any longer."""

    def __init__(self, log: EventLog, wait_beyond: WaitBeyond, ending: Callable[[], bool]) -> None:
        self._log = log
        self._wait_beyond = wait_beyond
        self._ending = ending

    async def poll(self, workspace: str, start: Start, selected: Filter, *, limit: int, wait_s: float) -> Polled:
        """Up to `limit` events that match. When there is none yet, wait up to `wait_s` for one.

        Raises CannotContinue and LogUnavailable.
        """
        while True:
            bounds = await self._log.bounds(workspace)
            after = await self._after(workspace, start, bounds)
            scan = Scan(self._log, self._wait_beyond, self._ending, workspace, bounds.epoch, selected)
            try:
                await scan.run(after, limit, wait_s)
            except (PositionExpired, LogReplaced) as error:
                at, expired = Position(bounds.epoch, scan.position), isinstance(error, PositionExpired)
                if expired and scan.position == after and (start == "earliest" or isinstance(start, datetime)):
                    continue  # where that is, retention has just moved
                reason = "expired" if expired else "epoch_changed"
                raise _cannot_continue(at, await self._log.bounds(workspace), reason) from error
            return Polled(scan.found, Position(bounds.epoch, scan.position), scan.more)

    async def _after(self, workspace: str, start: Start, bounds: LogBounds) -> int:
        """The seq to read after. Raises CannotContinue when the events after it are not to be had."""
        if start == "now":
            return bounds.head
        if start == "earliest":
            return bounds.oldest - 1
        if isinstance(start, datetime):
            return max(await self._log.seq_at(workspace, start), bounds.oldest - 1)
        if not isinstance(start, Position):
            raise AssertionError(start)
        if start.epoch != bounds.epoch:
            raise _cannot_continue(start, bounds, "epoch_changed")
        if start.seq > bounds.head:
            raise _cannot_continue(start, bounds, "ahead")
        if start.seq + 1 < bounds.oldest:
            raise _cannot_continue(start, bounds, "expired")
        return start.seq


class LogReplaced(Exception):
    """The log has another epoch than when the reading began: its events do not follow those read before."""


class Scan:
    """One reading of the log: what it found, encoded; how far it came; and whether there is more to read now."""

    def __init__(
        self,
        log: EventLog,
        wait_beyond: WaitBeyond,
        ending: Callable[[], bool],
        workspace: str,
        epoch: str,
        selected: Filter,
    ) -> None:
        self._log = log
        self._wait_beyond = wait_beyond
        self._ending = ending
        self._workspace = workspace
        self._epoch = epoch
        self._match = selected.match
        self.found: list[bytes] = []
        self.position = 0
        self.more = False

    async def run(self, after: int, limit: int, wait_s: float) -> None:
        """Read on from `after`; when nothing matches, wait up to `wait_s` for something that does.

        Raises PositionExpired, LogReplaced, LogUnavailable.
        """
        self.position = after
        scanned = 0
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            page = await self._log.read(self._workspace, self.position, PAGE)
            if page and page[0].epoch != self._epoch:
                raise LogReplaced
            scanned += len(page)
            self.more = self._take(page, limit) or len(page) == PAGE
            if len(self.found) == limit or scanned >= MAX_SCANNED:
                return
            if self.more:
                continue
            if self.found or not await self._something_new(deadline):
                return

    def _take(self, page: Sequence[Event], limit: int) -> bool:
        """Collect what matches; True when events of the page are left over."""
        for number, event in enumerate(page, 1):
            self.position = event.seq
            match = self._match(event)
            if match is not None:
                self.found.append(with_match(event, match))
                if len(self.found) == limit:
                    return number < len(page)
        return False

    async def _something_new(self, deadline: float) -> bool:
        """Wait until the log has grown; False when time is up, or this process is about to end."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0 and not self._ending():
            if await self._wait_beyond(self._workspace, self.position, min(left, WAIT_SLICE_S)):
                return True
        return False


def _cannot_continue(requested: Position, bounds: LogBounds, reason: str) -> CannotContinue:
    oldest, head = Position(bounds.epoch, bounds.oldest - 1), Position(bounds.epoch, bounds.head)
    return CannotContinue(reason, str(requested), str(oldest), str(head))
