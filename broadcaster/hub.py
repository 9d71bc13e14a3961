"""The hub of one workspace: which subscribers get an event, and the writes that bring it to them.

Who receives this? `publish` looks the event up in the index of groups, asks each candidate group's filter once, and
queues the frame there; `flush`, one loop turn later, joins what each group has waiting and hands the same bytes to
every member. A subscriber that cannot take them all leaves its group and catches up by itself (catchup.py), so the
others never wait for it and nothing piles up for it.

Everything here is synchronous: between a subscriber's last look at the log and its joining, no event can slip in.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from broadcaster.event import Event, Position
from broadcaster.filters import index_values
from broadcaster.frames import Item
from broadcaster.group import Flush, Group, GroupKey, Slice, slices
from broadcaster.log import LogBounds
from broadcaster.ring import Ring
from broadcaster.statistics import Counters
from broadcaster.subscriber import Subscriber

WRITES_PER_TURN: Final = 250
"""After so many writes the loop takes a breath, so that other requests do not wait for a large fan-out."""

HEARTBEAT_EVENT_AFTER: Final = 1000
"""A position is told by a heartbeat event once the head is so many events past what the filter let through."""

HEARTBEAT_EVENT_S: Final = 60.0
"""… or this long, when the head has moved at all."""


class Scheduler:
    """When to run a function: the loop's `call_soon` and `call_later`, and its clock."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        clock: Callable[[], float],
    ) -> None:
        self.call_soon = call_soon
        self.call_later = call_later
        self.clock = clock


class Hub:
    """Groups of subscribers, the ring of recent events, and the head: the newest event the tail has processed."""

    def __init__(
        self,
        workspace: str,
        bounds: LogBounds,
        *,
        scheduler: Scheduler,
        counters: Counters,
        timestamp: Callable[[], str],
        buffer_bytes: int,
        ring: Ring,
        on_limit: Callable[[Subscriber], None],
    ) -> None:
        self.workspace = workspace
        self.epoch = bounds.epoch
        self.oldest = bounds.oldest
        self.head = bounds.head
        self.ring = ring
        self.groups: dict[GroupKey, Group] = {}
        self._buffer_bytes = buffer_bytes
        self._scheduler = scheduler
        self._counters = counters
        self._timestamp = timestamp
        self._on_limit = on_limit
        self._indexed: dict[str, dict[str, dict[Group, None]]] = {}
        self._unindexed: dict[Group, None] = {}
        self._dirty: dict[Group, None] = {}
        self._flushes: deque[Flush] = deque()
        self._turn = 0
        self._next_turn = False
        self._timer: asyncio.TimerHandle | None = None
        self._awaiting: list[tuple[int, Callable[[], None]]] = []

    @property
    def position(self) -> str:
        return str(Position(self.epoch, self.head))

    # Who is here

    def join(self, subscriber: Subscriber) -> None:
        """Make it live. Its cursor must be the hub's head: it has everything up to there."""
        key = GroupKey.of(subscriber.request)
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(key, told=self.head, told_at=self._scheduler.clock())
            group.flushed_head = self.head
            self._list(group)
        group.join(subscriber)
        subscriber.join_turn = self._turn
        subscriber.state = "live"

    def leave(self, subscriber: Subscriber) -> None:
        """Take it out of its group, if it is in one."""
        group = subscriber.group
        if not isinstance(group, Group):
            return
        group.leave(subscriber)
        if not len(group):
            del self.groups[group.key]
            self._dirty.pop(group, None)
            self._unlist(group)

    def _list(self, group: Group) -> None:
        if group.key.filter.index is None:
            self._unindexed[group] = None
            return
        field, values = group.key.filter.index
        by_value = self._indexed.setdefault(field, {})
        for value in values:
            by_value.setdefault(value, {})[group] = None

    def _unlist(self, group: Group) -> None:
        """Nothing of it stays: values come from clients without end, and each listed field costs every event a look."""
        if group.key.filter.index is None:
            del self._unindexed[group]
            return
        field, values = group.key.filter.index
        by_value = self._indexed[field]
        for value in values:
            del by_value[value][group]
            if not by_value[value]:
                del by_value[value]
        if not by_value:
            del self._indexed[field]

    # What happened

    def publish(self, events: Sequence[Event]) -> None:
        """Stored events that follow the head without a gap."""
        if not events:
            return
        self.ring.extend(events)
        self.head = events[-1].seq
        self._route(events)
        self._counters.last_event_time = events[-1].time
        if self._awaiting:
            reached = [wake for seq, wake in self._awaiting if seq <= self.head]
            self._awaiting = [(seq, wake) for seq, wake in self._awaiting if seq > self.head]
            for wake in reached:
                wake()

    def publish_transient(self, events: Sequence[Event]) -> None:
        """Events without a place in the log: only for who is live now."""
        self._route(events)
        self._counters.last_event_time = events[-1].time

    def when_reached(self, seq: int, wake: Callable[[], None]) -> None:
        """Call `wake` once the head is at `seq` or past it."""
        if self.head >= seq:
            wake()
        else:
            self._awaiting.append((seq, wake))

    def forget_waiter(self, wake: Callable[[], None]) -> None:
        self._awaiting = [(seq, other) for seq, other in self._awaiting if other != wake]

    def _route(self, events: Sequence[Event]) -> None:
        now = self._scheduler.clock()
        self._counters.events.add(len(events), now)
        touched: dict[Group, None] = {}
        for event in events:
            for group in self._candidates(event):
                match = group.key.filter.match(event)
                if match is not None:
                    if not group.pending:
                        group.pending_since = now
                    group.pending.append((event, match))
                    touched[group] = None
        if touched:
            self._dirty.update(touched)
            self._schedule(touched, now)

    def _candidates(self, event: Event) -> Iterator[Group]:
        yield from self._unindexed
        for field, by_value in self._indexed.items():
            values = index_values(event, field)
            if len(values) == 1:
                yield from by_value.get(values[0], ())
            elif values:
                # A group that is listed under several of the event's values is asked once.
                yield from dict.fromkeys(group for value in values for group in by_value.get(value, ()))

    # Out it goes

    def _schedule(self, groups: Iterable[Group], now: float) -> None:
        """Run when the first of the groups is due, or earlier if that was planned already."""
        if self._next_turn:
            return
        due = min(group.key.batching.due(now, group.last_flush, len(group.pending)) for group in groups)
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due <= now:
            self._next_turn = True
            self._scheduler.call_soon(self._run)
        else:
            self._timer = self._scheduler.call_later(due - now, self._run)

    def _run(self) -> None:
        self._next_turn = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now = self._scheduler.clock()
        # What comes for a group whose last flush is still under way waits for its end and then goes out as one: flush
        # upon flush would pile up without bound where events come faster than the members can be written to.
        busy = {flush.group for flush in self._flushes}
        for group in [g for g in self._dirty if g.key.batching.due(now, g.last_flush, len(g.pending)) <= now]:
            if group not in busy:
                self._begin_flush(group, now)
        self._write_some(WRITES_PER_TURN)
        if self._flushes:
            self._next_turn = True
            self._scheduler.call_soon(self._run)
        elif self._dirty:
            self._schedule(self._dirty, self._scheduler.clock())

    def settle(self, group: Group | None = None) -> None:
        """Send now what waits, for one group or for all, so that a control frame can carry the head's position."""
        now = self._scheduler.clock()
        for dirty in [g for g in self._dirty if group is None or g is group]:
            self._begin_flush(dirty, now)
        self._finish_flushes()

    def _finish_flushes(self) -> None:
        while self._flushes:
            self._write_some(WRITES_PER_TURN)

    def _begin_flush(self, group: Group, now: float) -> None:
        if self._dirty.pop(group, self) is self:
            return  # its last member left meanwhile
        items = group.take_pending()
        self._turn += 1
        if group.members and (parts := self._slices(group, items)):
            self._flushes.append(
                Flush(group, parts, list(group.members), self._turn, group.pending_since, group.flushed_head)
            )
        if group.apart:
            self._flush_apart(group, items, now)
        group.last_flush = now
        group.flushed_head = self.head
        through = max(event.seq for event, _ in items)
        if through:
            group.told, group.told_at = through, now

    def _slices(self, group: Group, items: Sequence[Item], limit: int | None = None) -> list[Slice]:
        return slices(
            items,
            group.key,
            self._timestamp,
            buffer_bytes=self._buffer_bytes,
            after=group.flushed_head,
            head=self.head,
            limit=limit,
        )

    def _flush_apart(self, group: Group, items: list[Item], now: float) -> None:
        """Subscribers with a limit or that joined late: each gets its own cut of the items."""
        for subscriber, skip in list(group.apart.items()):
            for part in self._slices(group, items[skip:], subscriber.remaining):
                self._counters.deliveries.add(part.events, now)
                taken = subscriber.write_raw(part.data, part.events, now)
                subscriber.cursor = max(subscriber.cursor, part.through)
                if not taken:
                    self.lag(subscriber, part.through)
                    break
            if subscriber.remaining == 0:
                # Out of the group first: its goodbye tells how far it came, which is not the head.
                self.leave(subscriber)
                self._on_limit(subscriber)
        group.settle_apart()

    def _write_some(self, budget: int) -> None:
        now = self._scheduler.clock()
        while self._flushes and budget > 0:
            flush = self._flushes[0]
            end = min(len(flush.members), flush.next + budget)
            delivered = 0
            for index in range(flush.next, end):
                subscriber = flush.members[index]
                # It may have left since, or left and come back with all of this from the log.
                if subscriber.group is not flush.group or subscriber.join_turn >= flush.turn:
                    continue
                for part in flush.slices:
                    delivered += part.events
                    if not subscriber.write_raw(part.data, part.events, now):
                        self.lag(subscriber, part.through)
                        break
            self._counters.deliveries.add(delivered, now)
            budget -= end - flush.next
            flush.next = end
            if end == len(flush.members):
                self._flushes.popleft()
                self._counters.latency.add(self._scheduler.clock() - flush.since)

    def lag(self, subscriber: Subscriber, cursor: int) -> None:
        """It could not take everything: it leaves its group and will catch up from `cursor` once it has drained."""
        self.leave(subscriber)
        subscriber.cursor = max(cursor, subscriber.cursor)
        if not subscriber.ended():
            subscriber.state = "lagging"
            self._counters.lagged += 1

    # Keeping in touch

    def heartbeat(self, subscriber: Subscriber, now: float) -> None:
        """Show a live subscriber that the connection works, or where the head is when its filter was quiet long."""
        self._finish_flushes()
        group = subscriber.group
        if not isinstance(group, Group):
            return
        past = self.head - group.told
        if past >= HEARTBEAT_EVENT_AFTER or (past > 0 and now - group.told_at >= HEARTBEAT_EVENT_S):
            self.tell_position(group, now)
        elif not subscriber.write(subscriber.request.format.heartbeat, 0, now):
            self.lag(subscriber, group.flushed_head)

    def tell_position(self, group: Group, now: float) -> None:
        """A heartbeat event with the head's position to all members, after everything that waits for them."""
        self.settle(group)
        frame = group.key.format.control("heartbeat", {"position": self.position}, position=self.position)
        group.told, group.told_at = self.head, now
        for subscriber in [*group.members, *group.apart]:
            if not subscriber.write(frame, 0, now):
                self.lag(subscriber, self.head)

    def position_of(self, subscriber: Subscriber) -> Position:
        """Up to where this subscriber has everything it asked for."""
        group = subscriber.group
        if not isinstance(group, Group):
            return Position(self.epoch, subscriber.cursor)
        under_way = next((flush.before for flush in self._flushes if flush.group is group), None)
        if under_way is None:
            under_way = group.flushed_head if group.pending else self.head
        return Position(self.epoch, max(subscriber.cursor, under_way))
