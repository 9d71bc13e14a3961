"""A group: the subscribers with equal filters, formats and batching, who get the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from broadcaster.frames import Item
from broadcaster.slices import GroupKey, Slice
from broadcaster.subscriber import Subscriber, Tally

Cohort = tuple[int, int | None]
"""Of what waits for a group: how many of the first events these subscribers have already, and how many of the rest they
still want (None: all)."""


@dataclass(slots=True, eq=False)
class Flush:
    """Slices on their way to subscribers of one group, possibly over several turns of the loop."""

    group: "Group"
    slices: Sequence[Slice]
    subscribers: Sequence[Subscriber]
    turn: int
    since: float | None
    """When the oldest of the events was published; None without events."""
    before: int
    """Up to here all of them had everything before this flush."""
    limited: bool
    """It may be the last for some of them."""
    whole: bool
    """It has all that waited: the members get it."""
    began: float
    next: int = 0
    """Those before this index have been written to."""
    events: int = field(init=False)
    bytes: int = field(init=False)
    _places: dict[Subscriber, int] | None = None

    def __post_init__(self) -> None:
        self.events = sum(part.events for part in self.slices)
        self.bytes = sum(len(part.data) for part in self.slices)

    def awaited_by(self, subscriber: Subscriber) -> bool:
        """Whether this member of the group has yet to get it."""
        if self._places is None:
            # Made only if somebody asks, which few flushes live to see.
            self._places = {subscriber: place for place, subscriber in enumerate(self.subscribers)}
        # Who joined after this flush began, possibly again, has all of it from the log.
        return self._places.get(subscriber, -1) >= self.next and subscriber.join_turn < self.turn


@dataclass(slots=True, eq=False)
class Group:
    """Members and what waits for them.

    `members` get every flush whole. `apart` get their own cut of a flush: subscribers with a limit, and those that
    joined while events waited, for whom the first n (their value) are not meant: they had them from the log.
    """

    key: GroupKey
    tally: Tally = field(default_factory=Tally)
    """What the members were sent. Those apart are counted one by one."""
    members: dict[Subscriber, None] = field(default_factory=dict)
    apart: dict[Subscriber, int] = field(default_factory=dict)
    pending: list[Item] = field(default_factory=list)
    pending_since: float = 0.0
    telling: bool = False
    """The next flush ends with a heartbeat event that tells the position."""
    due: float | None = None
    """When its batching window ends, while it waits for that."""
    round: int = -1
    """The round of its last flush."""
    flushes: list[Flush] = field(default_factory=list)
    """Those under way: one, or one for each cohort."""
    last_flush: float = float("-inf")
    flushed_head: int = 0
    """The hub's head at the last flush: up to here the members have everything, once that is through."""
    told: int = 0
    """The newest seq that a frame to all members carried."""
    told_at: float = 0.0
    parting: tuple[int, int, list[Slice]] | None = None
    """What waits, as slices for those who leave before the flush: of so many events, at this head."""

    def __len__(self) -> int:
        return len(self.members) + len(self.apart)

    def join(self, subscriber: Subscriber) -> None:
        if self.pending or subscriber.request.limit is not None:
            self.apart[subscriber] = len(self.pending)
        else:
            self.members[subscriber] = None
            subscriber.share(self.tally)
        subscriber.group = self

    def leave(self, subscriber: Subscriber) -> None:
        if subscriber.shares:
            subscriber.share(None)
            if (awaited := self.awaited_flush(subscriber)) is not None:
                subscriber.count(-awaited.events, -awaited.bytes)
        if self.members.pop(subscriber, self) is self:
            self.apart.pop(subscriber, None)
        subscriber.group = None

    def awaited_flush(self, subscriber: Subscriber) -> Flush | None:
        """The flush that is under way and has yet to reach this member."""
        return next((flush for flush in self.flushes if flush.awaited_by(subscriber)), None)

    def count(self, flush: Flush, now: float) -> None:
        """Count a flush that begins. Who wants no more than so many events is counted as they are sent."""
        if flush.whole:
            self.tally.add(flush.events, flush.bytes, now)
        elif not flush.limited:
            for subscriber in flush.subscribers:
                if subscriber.request.limit is None:
                    subscriber.count(flush.events, flush.bytes)

    def include(self, late: Sequence[Subscriber]) -> None:
        """Those who joined while events waited are members like the others, once that flush has begun."""
        for subscriber in late:
            if subscriber.request.limit is None:
                subscriber.share(self.tally)

    def take_pending(self) -> tuple[list[Item], dict[Cohort, list[Subscriber]]]:
        """What waits, and for whom. Whoever joined late is a member like the others now; limits stay apart."""
        items, self.pending, self.parting = self.pending, [], None
        cohorts: dict[Cohort, list[Subscriber]] = {}
        if self.members:
            cohorts[0, None] = list(self.members)
        for subscriber, skip in list(self.apart.items()):
            remaining = subscriber.remaining
            if remaining is None:
                del self.apart[subscriber]
                self.members[subscriber] = None
            else:
                self.apart[subscriber] = 0
                if remaining > len(items) - skip:
                    remaining = None
            cohorts.setdefault((skip, remaining), []).append(subscriber)
        return items, cohorts
