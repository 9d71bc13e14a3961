"""Whatever happens in whatever order, a subscriber gets every event after its position once, in order, and every
position it is told stands for exactly what it has got."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from broadcaster import hub as hub_module
from broadcaster import pages as pages_module
from broadcaster import replay as replay_module
from broadcaster import turns as turns_module
from broadcaster.batching import UNBATCHED, Batching
from broadcaster.event import Event, Position
from tests.broadcaster.streams import WORKSPACE, MemoryOutlet, World, numbered, ticket_event, until
from tests.e2e.harness.frames import Frame

T = TypeVar("T")

BUFFER = 2_000
TRANSIENT = 1_000_000
"""Transient events are numbered from here; a stored event's number is its seq."""

FILTERS = ("", "type=odd.one", "type=!odd.one", "subject=TH-1", "type=rare.one")
BATCHINGS = (UNBATCHED, Batching(0.01, 5), Batching(0.0, 3, coalesce=True), Batching(0.01, 4, coalesce=True))


@dataclass(slots=True, eq=False)
class Follower:
    """A stream, and the transient events that it must have got, for it was live and took everything."""

    outlet: MemoryOutlet
    asked: Position | None
    batching: Batching
    limit: int | None
    gone: bool = False
    stalled_once: bool = False
    owed: list[int] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return not self.gone and "goodbye" not in self.outlet.names


class Account:
    """What a client has, frame by frame, against the logs of all epochs."""

    def __init__(self, follower: Follower, logs: dict[str, list[Event]]) -> None:
        assert follower.outlet.subscriber is not None
        self.filter = follower.outlet.subscriber.request.filter
        self.coalesced = follower.batching.coalesce
        cut_off = follower.limit is not None or follower.stalled_once or "goodbye" in follower.outlet.names
        self.repeats = self.coalesced and cut_off
        self.logs = logs
        self.place = Position("", 0)
        self.got: list[dict[str, Any]] = []
        self.transient: list[int] = []
        self.told: list[Position] = []
        for frame in follower.outlet.frames:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        for event in frame.events:
            n = event["data"]["n"]
            if n > TRANSIENT:
                assert not self.transient or n > self.transient[-1]
                self.transient.append(n)
            else:
                self.got.append({"n": n, "subject": event.get("subject"), "count": event.get("coalesced", 1)})
        position = frame.data.get("position") if isinstance(frame.data, dict) else None
        if frame.event in ("hello", "reset") or len(self.told) == 0:  # one that ended at once has only a goodbye
            assert position is not None
            self.place, self.got = Position.parse(position), []
        for text in (frame.id, position):
            if text is not None:
                self.told.append(Position.parse(text))
                assert self.told[-1].epoch == self.place.epoch
                self.expect(self.told[-1].seq)

    def expect(self, through: int) -> None:
        """It has what matches up to `through`, and nothing beyond."""
        due = self.due(self.place.seq, through)
        if not self.coalesced:
            assert [event["n"] for event in self.got] == [event.seq for event in due]
            return
        newest = {event.subject or str(event.seq): event.seq for event in due}
        shown = {event["subject"] or str(event["n"]): event["n"] for event in self.got}
        if self.repeats or any(n > through for n in shown.values()):
            # A position cannot say "1 to 3 but 2": where a coalescing stream is cut off between the newest event of one
            # ticket and that of another, it stays behind both, and the first comes again. So is a batch in two frames.
            assert all(shown.get(subject, 0) >= n for subject, n in newest.items())
        else:
            assert shown == newest
            assert sum(event["count"] for event in self.got) == len(due)

    def due(self, after: int, through: int) -> list[Event]:
        log = self.logs[self.place.epoch]
        return [event for event in log[after:through] if self.filter.match(event) is not None]

    def reaches(self, head: Position, owed: list[int]) -> bool:
        if not self.told:
            return False
        try:
            self.expect(head.seq)
        except AssertionError:
            return False
        return self.place.epoch == head.epoch and set(owed) <= set(self.transient)


class Streams(RuleBasedStateMachine):
    """Streams join, stall, drain and leave while events are committed here and elsewhere, and the log moves on."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.patch = pytest.MonkeyPatch()
        self.followers: list[Follower] = []
        self.transients = TRANSIENT
        self.now = self.loop.time()

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.loop.run_until_complete(run())

    @initialize(writes=st.integers(1, 6), turns=st.integers(1, 3), page=st.integers(3, 40))
    def begin(self, writes: int, turns: int, page: int) -> None:
        self.patch.setattr(hub_module, "WRITES_PER_TURN", writes)
        self.patch.setattr(hub_module, "HEARTBEAT_EVENT_AFTER", 3)
        self.patch.setattr(turns_module, "TURNS_PER_LOOP_TURN", turns)
        self.patch.setattr(pages_module, "PAGE", page)
        self.patch.setattr(replay_module, "PAGE", page)
        never = 1e9
        self.world = self.wait(
            World.open(
                buffer_bytes=BUFFER, ring_events=15, poll_interval_s=0.01, max_age_s=never, write_timeout_s=never
            )
        )
        self.epoch = self.wait(self.world.log.bounds(WORKSPACE)).epoch
        self.logs: dict[str, list[Event]] = {self.epoch: []}
        self.oldest = 1

    @property
    def head(self) -> int:
        return len(self.logs[self.epoch])

    @rule(count=st.integers(1, 12), here=st.booleans(), tickets=st.booleans())
    def store(self, count: int, here: bool, tickets: bool) -> None:
        drafts = [
            ticket_event(f"TH-{n % 3}", "doing", was="todo", n=n, type="ticket.updated")
            if tickets
            else numbered(n, type="odd.one" if n % 2 else "even.one")
            for n in range(self.head + 1, self.head + count + 1)
        ]
        self.logs[self.epoch] += (self.world.commit if here else self.world.append)(*drafts)

    @rule(count=st.integers(1, 3), odd=st.booleans())
    def send(self, count: int, odd: bool) -> None:
        """Transient events."""
        for _ in range(count):
            self.transients += 1
            event_type = "odd.one" if odd else "even.one"
            event = self.world.broadcaster.publish_transient(WORKSPACE, [numbered(self.transients, type=event_type)])[0]
            for follower in self.followers:
                subscriber = follower.outlet.subscriber
                if (
                    follower.open
                    and subscriber is not None
                    and subscriber.group is not None
                    and not follower.outlet.stalled
                    and follower.limit is None
                    and subscriber.request.filter.match(event) is not None
                ):
                    follower.owed.append(self.transients)

    @rule(
        back=st.integers(0, 60),
        query=st.sampled_from(FILTERS),
        batching=st.sampled_from(BATCHINGS),
        limit=st.none() | st.integers(1, 8),
        stalled=st.booleans(),
        now=st.booleans(),
    )
    def join(self, back: int, query: str, batching: Batching, limit: int | None, stalled: bool, now: bool) -> None:
        asked = None if now else Position(self.epoch, max(0, self.head - back))
        outlet = self.wait(
            self.world.connect(query, start=asked or "now", batching=batching, limit=limit, stalled=stalled)
        )
        self.followers.append(Follower(outlet, asked, batching, limit, stalled_once=stalled))

    def some(self, number: int) -> Follower:
        return self.followers[number % len(self.followers)]

    @precondition(lambda self: self.followers)
    @rule(number=st.integers(0, 20), drain=st.booleans())
    def stall_or_drain(self, number: int, drain: bool) -> None:
        follower = self.some(number)
        if drain and not follower.gone:
            self.wait(_now(follower.outlet.drain))
        elif follower.open:
            follower.outlet.stall()
            follower.stalled_once = True
            got = Account(follower, self.logs).transient
            follower.owed = [n for n in follower.owed if n in got]

    @precondition(lambda self: self.followers)
    @rule(number=st.integers(0, 20))
    def disconnect(self, number: int) -> None:
        follower = self.some(number)
        if not follower.gone:
            follower.gone = True
            self.wait(_now(follower.outlet.abort))

    @precondition(lambda self: self.followers)
    @rule(number=st.integers(0, 20))
    def end(self, number: int) -> None:
        follower = self.some(number)
        if follower.open and follower.outlet.subscriber is not None:
            self.wait(_now(lambda: self.world.broadcaster.end(follower.outlet.subscriber, "rotate")))

    @rule()
    def tick(self) -> None:
        """Heartbeats are due on every stream."""
        self.now += 20.0
        self.wait(_now(lambda: self.world.broadcaster.tick(self.now)))

    @rule(degraded=st.booleans())
    def trouble(self, degraded: bool) -> None:
        """Notices on every stream."""
        self.wait(_now(lambda: self.world.broadcaster.relay_changed(not degraded)))

    @rule(turns=st.integers(1, 8))
    def turn(self, turns: int) -> None:
        for _ in range(turns):
            self.wait(asyncio.sleep(0))

    @rule()
    def pause(self) -> None:
        """Long enough for a window to close, or for a poll."""
        self.wait(asyncio.sleep(0.012))

    @rule(kept=st.integers(0, 60))
    def retention(self, kept: int) -> None:
        self.world.log.expire(WORKSPACE, max(1, self.head - kept))
        self.oldest = self.wait(self.world.log.bounds(WORKSPACE)).oldest

    @rule(chance=st.integers(0, 7))
    def restore(self, chance: int) -> None:
        """The log begins anew, as after a restore; the poll finds out. Seldom, for every stream begins anew, too."""
        if chance:
            return
        old = self.logs[self.epoch]
        self.epoch = self.world.log.new_epoch(WORKSPACE)
        self.logs[self.epoch] = list(old)

    def teardown(self) -> None:
        try:
            if hasattr(self, "world"):
                self.wait(self.check())
                self.wait(self.world.broadcaster.stop())
        finally:
            self.patch.undo()
            self.loop.close()

    async def check(self) -> None:
        staying = [follower for follower in self.followers if not follower.gone]
        for follower in staying:
            follower.outlet.drain()
        head = Position(self.epoch, self.head)
        await until(lambda: all(not f.open or Account(f, self.logs).reaches(head, f.owed) for f in staying))
        for follower in self.followers:
            account = Account(follower, self.logs)
            assert follower.outlet.most_buffered <= BUFFER + 1_000
            if not follower.gone:
                assert set(follower.owed) <= set(account.transient)
                subscriber = follower.outlet.subscriber
                assert subscriber is not None
                assert subscriber.events_sent == len(follower.outlet.events)
                assert subscriber.bytes_sent == follower.outlet.accepted_bytes
            if follower.limit is not None:
                assert len(follower.outlet.events) <= follower.limit
            if any(frame.event == "goodbye" and frame.data["reason"] == "done" for frame in follower.outlet.frames):
                assert len(follower.outlet.events) == follower.limit
        for follower in self.followers[:4]:
            account = Account(follower, self.logs)
            told = [p for p in account.told if p.epoch == self.epoch and p.seq + 1 >= self.oldest]
            for place in {*told[:1], *told[-2:]}:
                await self.check_resumption(place, account)

    async def check_resumption(self, place: Position, account: Account) -> None:
        query = "&".join(f"{name}={','.join(texts)}" for name, texts in account.filter.describe().items())
        outlet = await self.world.connect(query, start=place)
        rest = [event.seq for event in account.due(place.seq, self.head)]
        await until(lambda: "ready" in outlet.names and len(outlet.numbers) >= len(rest))
        assert outlet.numbers == rest


async def _now(act: object) -> None:
    """Do it inside the loop."""
    act()  # type: ignore[operator]  # a function


TestStreams = Streams.TestCase
TestStreams.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
