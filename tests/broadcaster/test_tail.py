"""The tail: contiguous, each event once, nothing missing for longer than it must be."""

import asyncio
import contextvars
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broadcaster.errors import LogUnavailable
from broadcaster.event import Event, EventDraft
from broadcaster.log import LogBounds
from broadcaster.memory_log import MemoryEventLog
from broadcaster.tail import GAP_DELAY_S, PAGE, Tail, TailRunner
from tests.e2e.harness.waiting import until

WORKSPACE = "default"


def drafts(count: int) -> list[EventDraft]:
    return [EventDraft("build.finished", "user:alice", "rest_api", b"{}")] * count


def seqs(events: Iterable[Event]) -> list[int]:
    return [event.seq for event in events]


def tail_and_events(count: int, *, head: int = 0, hold_limit: int = 100) -> tuple[Tail, dict[int, Event]]:
    """A tail that began at `head`, and the log's events by seq."""
    log = MemoryEventLog()
    events = {event.seq: event for event in log.append(WORKSPACE, drafts(count))}
    tail = Tail(hold_limit=hold_limit)
    tail.start(LogBounds(events[1].epoch, 1, head))
    return tail, events


# The decisions


def test_events_in_order_come_out_as_they_go_in() -> None:
    tail, events = tail_and_events(5, head=2)

    assert seqs(tail.offer([events[3]], 0.0)) == [3]
    assert seqs(tail.offer([events[4], events[5]], 0.0)) == [4, 5]
    assert tail.position == 5
    assert tail.next_deadline() is None
    assert tail.read_from(1e9) is None


def test_events_from_before_the_start_and_repeated_ones_do_not_come_out() -> None:
    tail, events = tail_and_events(5, head=2)

    assert seqs(tail.offer([events[1], events[2], events[3], events[3]], 0.0)) == [3]
    assert tail.offer([events[3]], 0.0) == []
    assert tail.duplicates == 4


def test_an_event_that_is_early_waits_for_the_one_before_it() -> None:
    tail, events = tail_and_events(4)

    assert tail.offer([events[3], events[2]], 0.0) == []
    assert seqs(tail.offer([events[1]], 0.01)) == [1, 2, 3]
    assert tail.next_deadline() is None


def test_a_held_event_that_comes_again_in_its_turn_comes_out_once() -> None:
    tail, events = tail_and_events(5, hold_limit=1)

    tail.offer([events[3]], 0.0)
    assert seqs(tail.offer([events[1], events[2], events[3]], 0.0)) == [1, 2, 3]

    # Nothing of it is left behind: there is room to hold another.
    tail.offer([events[5]], 0.0)
    assert tail.next_deadline() == GAP_DELAY_S
    assert seqs(tail.offer([events[4]], 0.0)) == [4, 5]


def test_a_gap_is_read_from_the_log_only_when_it_has_lasted() -> None:
    tail, events = tail_and_events(4)

    tail.offer([events[1], events[3]], 100.0)

    assert tail.next_deadline() == 100.0 + GAP_DELAY_S
    assert tail.read_from(100.0 + GAP_DELAY_S / 2) is None
    assert tail.read_from(100.0 + GAP_DELAY_S) == 1
    assert seqs(tail.repair([events[2], events[3], events[4]], complete=True, now=101.0)) == [2, 3, 4]
    assert tail.read_from(1e9) is None
    assert tail.gaps_repaired == 1


def test_more_news_does_not_put_off_a_gap_but_closing_it_starts_the_next_ones_time() -> None:
    tail, events = tail_and_events(9)
    tail.offer([events[2]], 100.0)

    tail.offer([events[5]], 100.04)
    assert tail.next_deadline() == 100.0 + GAP_DELAY_S
    tail.offer([events[1]], 100.045)
    assert tail.position == 2
    assert tail.next_deadline() == 100.045 + GAP_DELAY_S


def test_a_head_known_only_from_a_poll_is_read_at_once() -> None:
    tail, events = tail_and_events(3)

    assert tail.observe(LogBounds(tail.epoch, 1, 3), 7.0) is None

    assert tail.next_deadline() == 7.0
    assert tail.read_from(7.0) == 0
    assert seqs(tail.repair([events[1], events[2], events[3]], complete=True, now=7.0)) == [1, 2, 3]


def test_a_poll_that_is_behind_changes_nothing() -> None:
    tail, _ = tail_and_events(3, head=3)

    assert tail.observe(LogBounds(tail.epoch, 1, 2), 7.0) is None
    assert tail.next_deadline() is None


def test_a_long_gap_is_read_page_by_page_without_waiting() -> None:
    tail, events = tail_and_events(6)
    tail.observe(LogBounds(tail.epoch, 1, 6), 7.0)

    assert tail.read_from(7.0) == 0
    tail.repair([events[1], events[2]], complete=False, now=7.0)
    assert tail.read_from(7.0) == 2
    tail.repair([events[3], events[4]], complete=False, now=7.0)
    assert tail.read_from(7.0) == 4
    tail.repair([events[5], events[6]], complete=False, now=7.0)
    assert tail.read_from(7.0) is None
    assert tail.gaps_repaired == 1


def test_more_early_events_than_may_be_held_are_read_from_the_log_at_once() -> None:
    tail, events = tail_and_events(20, hold_limit=5)

    tail.offer([events[n] for n in range(2, 8)], 100.0)

    assert tail.read_from(100.0) == 0
    assert seqs(tail.repair([events[n] for n in range(1, 9)], complete=True, now=100.0)) == list(range(1, 9))
    assert seqs(tail.offer([events[9]], 100.0)) == [9]


def test_a_head_that_the_log_does_not_have_is_not_asked_for_again() -> None:
    tail, _ = tail_and_events(3)
    tail.expect(1_000_000, 7.0)
    assert tail.read_from(7.0) == 0

    assert tail.repair([], complete=True, now=7.0) == []

    assert tail.read_from(1e9) is None


def test_a_head_that_grew_during_the_read_is_read_again_at_once() -> None:
    tail, events = tail_and_events(3)
    tail.expect(1, 7.0)
    assert tail.read_from(7.0) == 0
    tail.expect(3, 7.0)

    assert seqs(tail.repair([events[1]], complete=True, now=7.0)) == [1]

    assert tail.read_from(7.0) == 1


def test_what_the_log_does_not_have_yet_is_asked_for_less_and_less_often() -> None:
    tail, events = tail_and_events(3)
    tail.offer([events[3]], 0.0)
    now, waits = 0.0, []

    for _ in range(8):
        due = tail.next_deadline()
        assert due is not None
        waits.append(due - now)
        now = due
        assert tail.read_from(now) == 0
        tail.repair([], complete=True, now=now)

    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(GAP_DELAY_S)
    assert waits[-1] == pytest.approx(1.0)
    assert seqs(tail.offer([events[1], events[2]], now)) == [1, 2, 3]


def test_another_epoch_starts_anew_and_is_told() -> None:
    tail, events = tail_and_events(3)
    tail.offer([events[3]], 0.0)
    bounds = LogBounds("bbbbbbbb", 1, 7)

    assert tail.observe(bounds, 0.0) is bounds

    assert (tail.epoch, tail.position) == ("bbbbbbbb", 7)
    assert tail.next_deadline() is None
    assert tail.observe(bounds, 0.0) is None


def test_events_of_another_epoch_do_not_come_out_and_raise_a_doubt() -> None:
    tail, _ = tail_and_events(3)
    _, foreign = tail_and_events(3)

    assert tail.offer([foreign[1]], 0.0) == []
    assert tail.epoch_in_doubt
    tail.observe(LogBounds(tail.epoch, 1, 0), 0.0)
    assert not tail.epoch_in_doubt


class AnyOrder(RuleBasedStateMachine):
    """News in any order, lost, repeated and late; polls that are behind; reads that are cut: the output is the log."""

    @initialize(hold_limit=st.integers(1, 6), before=st.integers(0, 3))
    def begin(self, hold_limit: int, before: int) -> None:
        self.log = MemoryEventLog()
        self.all: list[Event] = self.log.append(WORKSPACE, drafts(before))
        self.came: list[int] = []
        self.before = before
        self.now = 0.0
        self.tail = Tail(hold_limit=hold_limit)
        self.tail.start(LogBounds(self.log._workspace(WORKSPACE).epoch, 1, before))

    def head(self) -> int:
        return len(self.all)

    @rule(count=st.integers(1, 4))
    def commit(self, count: int) -> None:
        self.all += self.log.append(WORKSPACE, drafts(count))

    @precondition(lambda self: self.all)
    @rule(data=st.data())
    def news(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.integers(0, self.head() - 1), max_size=6))
        self.came += seqs(self.tail.offer([self.all[n] for n in chosen], self.now))

    @rule(behind=st.integers(0, 3))
    def poll(self, behind: int) -> None:
        head = max(self.head() - behind, 0)
        assert self.tail.observe(LogBounds(self.tail.epoch, 1, head), self.now) is None

    @rule(ahead=st.integers(1, 1000))
    def claim(self, ahead: int) -> None:
        self.tail.expect(self.head() + ahead, self.now)

    @rule(seconds=st.sampled_from([0.001, 0.02, 0.06, 2.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(page=st.integers(1, 4), interleaved=st.lists(st.integers(0, 20), max_size=3))
    def read(self, page: int, interleaved: list[int]) -> None:
        after = self.tail.read_from(self.now)
        if after is None:
            return
        events = self.all[after : after + page]
        # News may come while the log is read.
        self.came += seqs(self.tail.offer([self.all[n] for n in interleaved if n < self.head()], self.now))
        self.came += seqs(self.tail.repair(events, complete=len(events) < page, now=self.now))

    @invariant()
    def what_came_is_contiguous(self) -> None:
        assert self.came == list(range(self.before + 1, self.before + 1 + len(self.came)))

    @invariant()
    def a_gap_has_a_deadline(self) -> None:
        if self.tail._held:
            assert self.tail.next_deadline() is not None

    def teardown(self) -> None:
        if not hasattr(self, "tail"):
            return
        self.poll(0)
        for _ in range(200):
            due = self.tail.next_deadline()
            if due is None:
                break
            self.now = max(self.now, due)
            self.read(4, [])
        self.poll(0)
        self.read(1000, [])
        assert len(self.came) == self.head() - self.before


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=30)
TestAnyOrder = AnyOrder.TestCase


# The task


class TroubledLog(MemoryEventLog):
    """The twin of a log whose database comes and goes; it counts what it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.broken = False
        self.asked = 0
        self.reads: list[int] = []
        self.gate: asyncio.Event | None = None

    async def bounds(self, workspace: str) -> LogBounds:
        self.asked += 1
        self._fail()
        found = await super().bounds(workspace)
        await self._pause()
        return found

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        self.reads.append(after)
        self._fail()
        found = await super().read(workspace, after, limit)
        await self._pause()
        return found

    def _fail(self) -> None:
        if self.away:
            raise LogUnavailable("away")
        if self.broken:
            raise RuntimeError("a fault in the log's code")

    async def _pause(self) -> None:
        if self.gate is not None:
            await self.gate.wait()


class Scene:
    """A running tail and all that it told."""

    def __init__(self, log: TroubledLog) -> None:
        self.log = log
        self.came: list[int] = []
        self.epochs: list[LogBounds] = []
        self.availability: list[bool] = []
        self.runner = TailRunner(
            WORKSPACE,
            log,
            Tail(),
            lambda events: self.came.extend(seqs(events)),
            self.epochs.append,
            on_unavailable=lambda: self.availability.append(False),
            on_available=lambda: self.availability.append(True),
        )

    def commit(self, count: int = 1) -> list[Event]:
        return self.log.append(WORKSPACE, drafts(count))

    async def until_came(self, last: int) -> None:
        await until(lambda: self.came and self.came[-1] == last, f"event {last}", explain=lambda: f"came: {self.came}")


@asynccontextmanager
async def running(committed: int = 0) -> AsyncIterator[Scene]:
    scene = Scene(TroubledLog())
    scene.commit(committed)
    await scene.runner.start()
    try:
        yield scene
    finally:
        await scene.runner.stop()


async def test_events_in_order_are_delivered_before_offer_returns_and_without_a_read() -> None:
    async with running() as scene:
        scene.runner.offer(scene.commit(3))
        scene.runner.offer(scene.commit(1))

        assert scene.came == [1, 2, 3, 4]
        assert scene.log.reads == []


async def test_a_missing_event_is_read_from_the_log() -> None:
    async with running(2) as scene:
        scene.commit()
        scene.runner.offer(scene.commit())
        assert scene.came == []

        await scene.until_came(4)

        assert scene.came == [3, 4]
        assert scene.runner.tail.gaps_repaired == 1


async def test_a_check_finds_what_nobody_told_of() -> None:
    async with running() as scene:
        scene.commit(3)
        scene.runner.check()

        await scene.until_came(3)

        assert scene.came == [1, 2, 3]


async def test_a_poll_and_an_announced_range_are_read_from_the_log() -> None:
    async with running() as scene:
        scene.commit(2)
        scene.runner.observe(await scene.log.bounds(WORKSPACE))
        await scene.until_came(2)
        [event] = scene.commit()
        scene.runner.expect(event.epoch, event.seq)
        await scene.until_came(3)

        assert scene.came == [1, 2, 3]


async def test_a_long_gap_comes_in_pages_and_in_order() -> None:
    async with running() as scene:
        scene.commit(PAGE * 2 + 10)
        scene.runner.check()

        await scene.until_came(PAGE * 2 + 10)

        assert scene.came == list(range(1, PAGE * 2 + 11))
        assert scene.log.reads == [0, PAGE, PAGE * 2]


async def test_what_is_committed_while_the_tail_starts_is_not_missed() -> None:
    scene = Scene(TroubledLog())
    before = scene.commit(2)
    scene.log.gate = asyncio.Event()
    starting = asyncio.create_task(scene.runner.start())
    await until(lambda: scene.log.asked, "read of the bounds")
    scene.runner.offer([*before, *scene.commit(2)])
    scene.log.gate.set()
    bounds = await starting
    await scene.until_came(4)

    assert bounds.head == 2
    assert scene.came == [3, 4]
    await scene.runner.stop()


async def test_news_during_a_read_is_delivered_once_and_in_order() -> None:
    async with running() as scene:
        scene.log.gate = asyncio.Event()
        lost = scene.commit(2)
        scene.runner.offer(scene.commit())
        await until(lambda: scene.log.reads, "read")
        scene.runner.offer(lost)
        scene.runner.offer(scene.commit())
        scene.log.gate.set()
        scene.log.gate = None
        scene.runner.offer(scene.commit())
        await scene.until_came(5)

        assert scene.came == [1, 2, 3, 4, 5]


async def test_starting_raises_when_the_log_is_away_and_may_be_tried_again() -> None:
    scene = Scene(TroubledLog())
    scene.log.away = True
    with pytest.raises(LogUnavailable):
        await scene.runner.start()

    scene.log.away = False
    await scene.runner.start()
    scene.runner.offer(scene.commit())

    assert scene.came == [1]
    await scene.runner.stop()


async def test_a_log_that_is_away_is_told_once_and_everything_comes_when_it_is_back() -> None:
    async with running() as scene:
        scene.log.away = True
        scene.commit(2)
        scene.runner.check()
        await until(lambda: scene.availability == [False], "word of the loss")
        await until(lambda: scene.log.asked >= 4, "several tries")
        scene.commit(2)
        scene.log.away = False
        await scene.until_came(4)

        assert scene.availability == [False, True]
        assert scene.runner.available
        assert scene.came == [1, 2, 3, 4]


async def test_in_order_events_are_delivered_while_the_log_is_away() -> None:
    async with running() as scene:
        scene.log.away = True
        scene.runner.check()
        await until(lambda: scene.availability == [False], "word of the loss")

        scene.runner.offer(scene.commit())

        assert scene.came == [1]


async def test_a_fault_in_the_log_is_said_loudly_and_does_not_end_the_tail(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as scene:
        scene.log.broken = True
        scene.commit()
        scene.runner.check()
        await until(lambda: scene.availability == [False], "word of the fault")
        scene.log.broken = False
        await scene.until_came(1)

    assert [record for record in caplog.records if record.levelno == logging.ERROR and record.exc_info]


async def test_a_fault_in_a_callback_does_not_end_the_tail(caplog: pytest.LogCaptureFixture) -> None:
    log = TroubledLog()
    came: list[int] = []

    def fault() -> None:
        raise RuntimeError("a fault in a callback")

    runner = TailRunner(
        WORKSPACE,
        log,
        Tail(),
        lambda events: came.extend(seqs(events)),
        lambda bounds: None,
        on_unavailable=fault,
        on_available=fault,
    )
    await runner.start()
    log.away = True
    runner.check()
    await until(lambda: not runner.available, "loss")
    log.away = False
    log.append(WORKSPACE, drafts(1))
    await until(lambda: came == [1], "event")
    await runner.stop()

    assert "a fault in a callback" in caplog.text


@pytest.mark.parametrize("by", ["check", "poll", "event"])
async def test_a_new_epoch_is_told_with_its_bounds_and_the_tail_goes_on_there(by: str) -> None:
    async with running(2) as scene:
        scene.runner.offer(scene.commit())
        old = await scene.log.bounds(WORKSPACE)
        scene.log.new_epoch(WORKSPACE)
        new = await scene.log.bounds(WORKSPACE)
        if by == "check":
            scene.runner.check()
        elif by == "poll":
            scene.runner.observe(new)
        else:
            scene.runner.offer(scene.commit())
        await until(lambda: scene.epochs, "word of the new epoch")
        # Polls that were read before must not bring the old one back.
        scene.runner.observe(old)
        await until(lambda: not scene.runner._check, "answer to the doubt")
        scene.runner.offer(scene.commit())

        assert [bounds.epoch for bounds in scene.epochs] == [new.epoch]
        assert scene.came[-1] == (await scene.log.bounds(WORKSPACE)).head
        assert scene.runner.tail.epoch == new.epoch


async def test_events_that_expired_before_they_could_be_read_start_the_tail_anew() -> None:
    async with running() as scene:
        scene.commit(10)
        scene.log.expire(WORKSPACE, 8)
        scene.runner.check()
        await until(lambda: scene.epochs, "word of the loss")
        scene.runner.offer(scene.commit())

        assert [(bounds.oldest, bounds.head) for bounds in scene.epochs] == [(8, 10)]
        assert scene.came == [11]


async def test_a_log_that_lost_delivered_events_starts_the_tail_anew() -> None:
    async with running() as scene:
        scene.runner.offer(scene.commit(3))
        shorter = MemoryEventLog(new_epoch_id=lambda: scene.runner.tail.epoch)
        shorter.append(WORKSPACE, drafts(1))
        scene.log._workspaces = shorter._workspaces
        scene.runner.check()
        await until(lambda: scene.epochs, "word of the loss")
        scene.runner.offer(scene.commit())

        assert [bounds.head for bounds in scene.epochs] == [1]
        assert scene.came == [1, 2, 3, 2]


async def test_stopping_leaves_no_task_and_nothing_is_delivered_afterwards() -> None:
    tasks = asyncio.all_tasks()
    async with running() as scene:
        scene.log.gate = asyncio.Event()
        scene.runner.check()
        await until(lambda: scene.log.asked == 2, "read")
    scene.runner.offer(scene.commit())
    await scene.runner.stop()

    assert asyncio.all_tasks() == tasks
    assert scene.came == []


async def test_an_idle_tail_asks_nothing() -> None:
    async with running() as scene:
        for _ in range(50):
            scene.runner.offer(scene.commit())
            await asyncio.sleep(0)

        assert scene.log.asked == 1
        assert scene.log.reads == []


async def test_the_runner_works_in_a_context_of_its_own() -> None:
    """What it logs must not carry the id of the request that happened to open the channel."""
    request_id: contextvars.ContextVar[str] = contextvars.ContextVar("request_id", default="none")
    seen: list[str] = []

    class WatchedLog(MemoryEventLog):
        async def bounds(self, workspace: str) -> LogBounds:
            seen.append(request_id.get())
            return await super().bounds(workspace)

    request_id.set("of a request")
    runner = TailRunner("default", WatchedLog(), Tail(), lambda events: None, lambda bounds: None)
    await runner.start()
    runner.check()
    await until(lambda: len(seen) == 2, "second look at the log")
    await runner.stop()

    assert seen == ["of a request", "none"]
