"""The hub of one workspace: which subscribers get an event, and the writes that bring it to them.

Who receives this? `publish` looks the event up in the index of groups, asks each candidate group's filter once, and
queues the frame there. A flush joins what a group has waiting and hands the same bytes to every member: one loop turn
later while the hub is idle, after a pause that lets more events gather while it is busy (rounds.py). A subscriber that
cannot take them all leaves its group and catches up by itself (catchup.py), so the others never wait for it and
nothing piles up for it.

Everything here is synchronous: between a subscriber's last look at the log and its joining, no event can slip in.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import inf
from typing import Final

from broadcaster.event import Event, Position
from broadcaster.frames import Format, Item, chunk
from broadcaster.group import Flush, Group
from broadcaster.index import GroupIndex
from broadcaster.log import LogBounds
from broadcaster.ring import Ring
from broadcaster.rounds import Rounds
from broadcaster.slices import GroupKey, Slice, slices
from broadcaster.statistics import Counters
from broadcaster.subscriber import Subscriber

Flushed = Callable[[float, int, int], None]
"""Told of each flush that is through: how many seconds it took, and how many events it had for how many subscribers."""

logger = logging.getLogger(__name__)

WRITES_PER_TURN: Final = 50
"""After so many writes the loop takes a breath, so that other requests do not wait for a large fan-out."""

WIDE_FLUSH: Final = 5000
COLD_WRITE: Final = 4
"""To more subscribers than that, a write counts for four: their memory is cold, and it takes about so much longer. What
others ask of the server takes several turns, and waits in each for the writes of one."""

BYTES_LIKE_A_WRITE: Final = 16 * 1024
"""Copying so many bytes into a socket takes about as long as a write of few bytes does: a large one counts for more."""

FLUSH_LIKE_WRITES: Final = 3
"""Beginning a flush takes about as long as so many writes; thousands of groups may have one each."""

GIVE_WAY_S: Final = 0.00005
"""How long a turn of a large fan-out rests when threads have work. Each write gives up the interpreter's lock and takes
it back before a thread can have it: without a rest, what others ask of the database would wait for the last write."""

CONTROL_SHARE: Final = 5
"""The part of a turn's writes that heartbeats and notices may take while events go out: a fifth."""

SHORTEST_TIMER_S: Final = 0.001
"""Loops round their timers to milliseconds. A shorter wait looks at the clock again in each turn."""

HEARTBEAT_EVENT_AFTER: Final = 1000
"""A position is told by a heartbeat event once the head is so many events past what the filter let through."""

HEARTBEAT_EVENT_S: Final = 60.0
"""… or this long, when the head has moved at all."""


class Scheduler:
    """The loop's `call_soon` and `call_later`, a clock, and whether threads want to run, too."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object],
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        clock: Callable[[], float],
        threads_busy: Callable[[], bool],
    ) -> None:
        self.call_soon = call_soon
        self.call_later = call_later
        self.clock = clock
        self.threads_busy = threads_busy


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
        on_flush: Flushed | None = None,
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
        self._on_flush = on_flush
        self._index = GroupIndex()
        self._rounds = Rounds()
        self._flushes: deque[Flush] = deque()
        self._controls: deque[tuple[Subscriber, bytes]] = deque()
        self._turn = 0
        self._next_turn = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due = 0.0
        self._awaiting: dict[Callable[[], None], int] = {}

    @property
    def position(self) -> str:
        return str(Position(self.epoch, self.head))

    # Who is here

    def join(self, subscriber: Subscriber) -> None:
        """Make it live. Its cursor must be the hub's head: it has everything up to there."""
        key = GroupKey.of(subscriber.request)
        group = self.groups.get(key)
        if group is None:
            group = Group(key, flushed_head=self.head, told=self.head, told_at=self._scheduler.clock())
            self.groups[key] = group
            self._index.add(group)
        group.join(subscriber)
        subscriber.join_turn = self._turn
        subscriber.state = "live"

    def leave(self, subscriber: Subscriber) -> None:
        """Take it out of its group, if it is in one. What was waiting for it does not reach it."""
        group = subscriber.group
        if not isinstance(group, Group):
            return
        group.leave(subscriber)
        if not len(group):
            del self.groups[group.key]
            self._rounds.discard(group)
            self._index.remove(group)

    def release(self, subscriber: Subscriber) -> None:
        """Hand it now what is under way and waiting for it, and take it out of its group. Its cursor then says up to
        where it has everything, and a control frame can carry that. If that was all it wanted, it has ended."""
        group = subscriber.group
        if not isinstance(group, Group):
            return
        try:
            self._hand_over_what_waits(subscriber, group)
        except Exception:
            self._drop(subscriber)
            return
        self.leave(subscriber)
        if subscriber.remaining == 0:
            self._on_limit(subscriber)

    def _hand_over_what_waits(self, subscriber: Subscriber, group: Group) -> None:
        now = self._scheduler.clock()
        flush, skip = group.awaited_flush(subscriber), group.apart.get(subscriber, 0)
        subscriber.cursor = self.position_of(subscriber).seq
        parts = [] if flush is None else list(flush.slices)
        if self._hand_over(subscriber, parts, now) and subscriber.remaining != 0 and group.pending[skip:]:
            parts = self._parting_slices(group, skip, subscriber.remaining)
            if self._hand_over(subscriber, parts, now) and not parts:
                subscriber.cursor = self.head  # what waited was coalesced into nothing

    def _hand_over(self, subscriber: Subscriber, parts: Sequence[Slice], now: float) -> bool:
        for part in parts:
            self._counters.deliveries.add(part.events, now)
            taken = subscriber.write_raw(part.data, part.events, now)
            subscriber.cursor = max(subscriber.cursor, part.through)
            if not taken:
                return False
        return True

    def _parting_slices(self, group: Group, skip: int, limit: int | None) -> list[Slice]:
        if skip or limit is not None:
            return self._slices(group, group.pending[skip:], limit)
        # Where one leaves, thousands may: when the server stops, they all do.
        if group.parting is None or group.parting[:2] != (len(group.pending), self.head):
            group.parting = (len(group.pending), self.head, self._slices(group, group.pending))
        return group.parting[2]

    def position_of(self, subscriber: Subscriber) -> Position:
        """Up to where this subscriber has everything it asked for."""
        group = subscriber.group
        if not isinstance(group, Group):
            return Position(self.epoch, subscriber.cursor)
        if group.flushes and (flush := group.awaited_flush(subscriber)) is not None:
            reached = flush.before
        else:
            reached = group.flushed_head if group.pending else self.head
        return Position(self.epoch, max(subscriber.cursor, reached))

    # What happened

    def publish(self, events: Sequence[Event]) -> None:
        """Stored events that follow the head without a gap."""
        if not events:
            return
        self.ring.extend(events)
        self.head = events[-1].seq
        self._route(events)
        if self._awaiting:
            reached = [wake for wake, seq in self._awaiting.items() if seq <= self.head]
            for wake in reached:
                del self._awaiting[wake]
                wake()

    def publish_transient(self, events: Sequence[Event]) -> None:
        """Events without a place in the log: only for who is live now."""
        self._route(events)

    def begin_epoch(self, bounds: LogBounds) -> None:
        """The log begins anew. Every subscriber must have been released before."""
        self.ring.clear()
        self.epoch, self.oldest, self.head = bounds.epoch, bounds.oldest, bounds.head

    def when_reached(self, seq: int, wake: Callable[[], None]) -> None:
        """Call `wake` once the head is at `seq` or past it."""
        if self.head >= seq:
            wake()
        else:
            self._awaiting[wake] = seq

    def forget_waiter(self, wake: Callable[[], None]) -> None:
        self._awaiting.pop(wake, None)

    def _route(self, events: Sequence[Event]) -> None:
        now = self._scheduler.clock()
        self._counters.events.add(len(events), now)
        self._counters.last_event_time = events[-1].time
        touched: dict[Group, None] = {}
        for event in events:
            for group in self._index.candidates(event):
                match = group.key.filter.match(event)
                if match is not None:
                    if not group.pending:
                        group.pending_since = now
                    group.pending.append((event, match))
                    touched[group] = None
        if touched:
            self._rounds.arrived()
            for group in touched:
                self._rounds.put(group, now)
            self._plan(now)

    # Out it goes

    def _plan(self, now: float) -> None:
        """See to it that `_run` is called when there is something to do, not later than it was planned already."""
        if self._next_turn:
            return
        due = now if self._flushes or self._controls else self._rounds.due()
        if due - now < SHORTEST_TIMER_S:
            self._next_turn = True
            self._scheduler.call_soon(self._run)
        elif due == inf or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._next_turn:
            self._timer_due = due
            self._timer = self._scheduler.call_later(due - now, self._run)

    def _run(self) -> None:
        self._next_turn = False
        self._timer = None
        began = self._scheduler.clock()
        try:
            self._rounds.advance(began, writing=bool(self._flushes))
            self._write_some(began)
        finally:
            now = self._scheduler.clock()
            self._rounds.worked(now - began, now, writing=bool(self._flushes))
            self._plan(now)
        if self._flushes and self._scheduler.threads_busy():
            time.sleep(GIVE_WAY_S)

    def _write_some(self, now: float) -> None:
        """One turn's worth of flushes and writes."""
        budget = WRITES_PER_TURN
        if self._controls:
            others = self._flushes or self._rounds.ready
            budget -= self._write_controls(budget // CONTROL_SHARE if others else budget, now)
        while budget > 0:
            if self._rounds.ready:
                self._begin_flush(self._rounds.pop(), now)
                budget -= FLUSH_LIKE_WRITES
            elif not self._flushes:
                return
            if self._flushes:
                budget -= self._write_slice(self._flushes[0], budget, now)

    def _write_slice(self, flush: Flush, budget: int, now: float) -> int:
        """Write to as many of its subscribers as `budget` allows, at least one. Returns what that took of it."""
        cost = sum(1 + len(part.data) // BYTES_LIKE_A_WRITE for part in flush.slices)
        if len(flush.subscribers) > WIDE_FLUSH:
            cost *= COLD_WRITE
        batch = flush.subscribers[flush.next : flush.next + max(1, budget // cost)]
        flush.next += len(batch)
        group, turn = flush.group, flush.turn
        delivered = 0
        for number, part in enumerate(flush.slices):
            data, missed = part.data, 0
            # The innermost loop of the product: each name that is looked up here counts.
            for subscriber in batch:
                # It may have left since, or left and come back with all of this from the log.
                if subscriber.group is not group or subscriber.join_turn >= turn:
                    missed += 1
                    continue
                try:
                    waiting = subscriber.outlet.write(data)  # type: ignore[union-attr]  # whoever is in a group has one
                except Exception:
                    self._drop(subscriber)
                    continue
                if waiting:
                    self._fell_behind(subscriber, waiting, flush, number, now)
            delivered += part.events * (len(batch) - missed)
        self._counters.deliveries.add(delivered, now)
        if group.apart:
            for subscriber in batch:
                if subscriber.group is group and subscriber.join_turn < turn and not subscriber.shares:
                    subscriber.count(flush.events, flush.bytes)
        if flush.limited:
            self._end_those_at_their_limit(batch, flush.slices[-1].through)
        if flush.next < len(flush.subscribers):
            self._flushes.rotate(-1)  # so that a small group's flush need not wait for all of a large one's
        else:
            self._flushes.popleft()
            group.flushes.remove(flush)
            self._count_flush(flush)
        return cost * len(batch)

    def _count_flush(self, flush: Flush) -> None:
        """Count one that is through; its oldest event speaks for all of them."""
        counters, ended = self._counters, self._scheduler.clock()
        counters.flush_s.add(ended - flush.began)
        if flush.since is not None:
            counters.latency.add(ended - flush.since)
            counters.delivery_s.add(ended - flush.since, flush.events * len(flush.subscribers))
        if self._on_flush is not None:
            self._on_flush(ended - flush.began, flush.events, len(flush.subscribers))

    def _fell_behind(self, subscriber: Subscriber, waiting: int, flush: Flush, number: int, now: float) -> None:
        """It could not take all of slice `number`, and gets no more of the flush from here."""
        shared = subscriber.shares
        subscriber.blocked(waiting, now)
        self.lag(subscriber, flush.slices[number].through)
        sent, unsent = flush.slices[: number + 1], flush.slices[number + 1 :]
        for part in unsent if shared else sent:
            sign = -1 if shared else 1
            subscriber.count(sign * part.events, sign * len(part.data))

    def _end_those_at_their_limit(self, batch: Sequence[Subscriber], through: int) -> None:
        for subscriber in batch:
            if subscriber.remaining == 0 and not subscriber.ended():
                # Out of the group first: its goodbye tells how far it came, which is not the head.
                self.leave(subscriber)
                subscriber.cursor = max(subscriber.cursor, through)
                self._on_limit(subscriber)

    def _begin_flush(self, group: Group, now: float) -> None:
        telling, group.telling = group.telling, False
        items, cohorts = group.take_pending()
        self._turn += 1
        before = group.flushed_head if items else self.head
        frames = False
        for (skip, limit), subscribers in cohorts.items():
            parts = self._slices(group, items[skip:], limit)
            if telling and limit is None:
                parts.append(self._position_slice(group))
            if parts:
                since = group.pending_since if items else None
                whole, limited = (skip, limit) == (0, None), limit is not None
                flush = Flush(
                    group, parts, subscribers, self._turn, since, before, limited=limited, whole=whole, began=now
                )
                group.flushes.append(flush)
                group.count(flush, now)
                self._flushes.appendleft(flush)
                frames = True
            if skip and limit is None:
                group.include(subscribers)
        group.last_flush = now
        group.flushed_head = self.head
        through = self.head if telling else max((event.seq for event, _ in items), default=0)
        if frames and through:
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

    def _position_slice(self, group: Group) -> Slice:
        frame = group.key.format.control("heartbeat", {"position": self.position}, position=self.position)
        return Slice(chunk(frame) if group.key.chunked else frame, 0, self.head)

    def lag(self, subscriber: Subscriber, cursor: int) -> None:
        """It could not take everything: it leaves its group and will catch up from `cursor` once it has drained."""
        self.leave(subscriber)
        subscriber.cursor = max(cursor, subscriber.cursor)
        if not subscriber.ended():
            subscriber.state = "lagging"
            self._counters.lagged += 1

    def _drop(self, subscriber: Subscriber) -> None:
        """Its outlet failed in a way that outlets must not: the others go on, and its client comes back."""
        logger.exception("writing to %s failed", subscriber.id)
        self.leave(subscriber)
        subscriber.mark_ended("overloaded")
        if subscriber.outlet is not None:
            with suppress(Exception):
                subscriber.outlet.abort()

    # Keeping in touch

    def heartbeat(self, subscriber: Subscriber, now: float) -> None:
        """Show a live subscriber that the connection works, or where the head is when its filter was quiet long."""
        group = subscriber.group
        if not isinstance(group, Group) or group.telling:
            return
        past = self.head - group.told
        if past >= HEARTBEAT_EVENT_AFTER or (past > 0 and now - group.told_at >= HEARTBEAT_EVENT_S):
            # To all members, after everything that waits for them: as the end of a flush.
            group.telling = True
            self._rounds.put(group, now)
            self._plan(now)
        else:
            self.tell(subscriber, subscriber.request.format.heartbeat)

    def tell(self, subscriber: Subscriber, frame: bytes) -> None:
        """Send a live subscriber a control frame that carries no position, so that events may go before or after it.
        It waits for its turn: often thousands are told at once."""
        self._controls.append((subscriber, frame))
        if not self._next_turn:
            self._plan(self._scheduler.clock())

    def tell_all(self, name: str, data: Mapping[str, str]) -> None:
        """The same for every live subscriber."""
        frames: dict[Format, bytes] = {}
        for group in self.groups.values():
            form = group.key.format
            if form not in frames:
                frames[form] = form.control(name, data)
            self._controls.extend((subscriber, frames[form]) for subscriber in (*group.members, *group.apart))
        self._plan(self._scheduler.clock())

    def _write_controls(self, most: int, now: float) -> int:
        count = min(most, len(self._controls))
        for _ in range(count):
            subscriber, frame = self._controls.popleft()
            if isinstance(subscriber.group, Group) and not subscriber.write(frame, 0, now):
                self.lag(subscriber, self.position_of(subscriber).seq)
        return count
