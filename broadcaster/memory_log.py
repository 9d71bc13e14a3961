"""The event log in memory: the twin of a database's log, for tests and for programs that keep no events."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from broadcaster.errors import PositionExpired
from broadcaster.event import Event, EventDraft, wire_time
from broadcaster.log import LogBounds, random_epoch


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, eq=False)
class _Workspace:
    epoch: str
    oldest: int = 1
    events: list[Event] = field(default_factory=list)
    """The events `oldest`..head, so that seq n stands at index n - oldest."""

    @property
    def head(self) -> int:
        return self.oldest + len(self.events) - 1


class MemoryEventLog:
    """An EventLog that lasts as long as the object. A workspace begins when it is first spoken of.

    `clock` gives the time of an appended event, `new_epoch_id` the epochs.
    """

    def __init__(self, clock: Callable[[], datetime] = utc_now, new_epoch_id: Callable[[], str] = random_epoch) -> None:
        self._clock = clock
        self._new_epoch_id = new_epoch_id
        self._workspaces: dict[str, _Workspace] = {}

    async def bounds(self, workspace: str) -> LogBounds:
        found = self._workspace(workspace)
        return LogBounds(found.epoch, found.oldest, found.head)

    async def heads(self, workspaces: Iterable[str]) -> Mapping[str, LogBounds]:
        return {workspace: await self.bounds(workspace) for workspace in workspaces}

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        found = self._workspace(workspace)
        if after + 1 < found.oldest:
            raise PositionExpired(after, found.oldest)
        start = after + 1 - found.oldest
        return found.events[start : start + limit]

    async def seq_at(self, workspace: str, time: datetime) -> int:
        found = self._workspace(workspace)
        # Times need not be in order, for clocks are set back: the last event counts, not the first later one.
        for event in reversed(found.events):
            if datetime.fromisoformat(event.time) <= time:
                return event.seq
        return found.oldest - 1

    def append(self, workspace: str, drafts: Sequence[EventDraft]) -> list[Event]:
        """Give each draft its place, in order. Raises ValueError for a transient one: those are never stored."""
        if any(draft.transient for draft in drafts):
            raise ValueError("a transient event has no place in the log")
        found = self._workspace(workspace)
        time = wire_time(self._clock())
        events = [
            draft.placed(workspace, found.epoch, seq, id=f"{found.epoch}-{seq}", time=time)
            for seq, draft in enumerate(drafts, found.head + 1)
        ]
        found.events.extend(events)
        return events

    def expire(self, workspace: str, oldest: int) -> None:
        """Remove the events before `oldest`, as retention does."""
        found = self._workspace(workspace)
        kept = min(oldest, found.head + 1)
        if kept > found.oldest:
            del found.events[: kept - found.oldest]
            found.oldest = kept

    def new_epoch(self, workspace: str) -> str:
        """Mint another epoch, as a restore does. The events stay, with their ids."""
        found = self._workspace(workspace)
        found.epoch = self._new_epoch_id()
        found.events = [Event.decode(event.encoded, epoch=found.epoch, seq=event.seq) for event in found.events]
        return found.epoch

    def _workspace(self, workspace: str) -> _Workspace:
        found = self._workspaces.get(workspace)
        if found is None:
            found = self._workspaces[workspace] = _Workspace(self._new_epoch_id())
        return found
