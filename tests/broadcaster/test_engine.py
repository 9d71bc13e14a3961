"""Streams from admission to goodbye: positions, replay, slow readers, time."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime

import pytest

from broadcaster import channels as channels_module
from broadcaster.engine import Broadcaster
from broadcaster.errors import LogUnavailable
from broadcaster.event import Event, Position
from broadcaster.memory_log import MemoryEventLog
from broadcaster.options import BroadcastOptions
from broadcaster.relay import Announcement, LocalRelay
from broadcaster.stream import Snapshot, StreamRefused
from tests.broadcaster.streams import WORKSPACE, MemoryOutlet, World, numbered, settle, ticket_event, until
from tests.clock import LoopClock


async def position(world: World, seq: int) -> Position:
    return Position((await world.log.bounds(WORKSPACE)).epoch, seq)


async def test_a_new_stream_is_primed_with_the_head_and_told_that_it_is_live(world: World) -> None:
    world.append(*world.numbered(3))

    outlet = await world.listen()

    head = str(await position(world, 3))
    assert outlet.names == ["hello", "ready"]
    assert outlet.frame("hello").id == outlet.frame("ready").id == head
    assert (outlet.frame("hello").data["resume"], outlet.frame("ready").data["replayed"]) == ("none", 0)


async def test_a_position_gets_exactly_what_came_after_it_and_then_the_live_events(world: World) -> None:
    world.append(*world.numbered(10))

    outlet = await world.listen(start=await position(world, 4))
    world.commit(*world.numbered(2))
    await until(lambda: len(outlet.events) == 8)

    assert outlet.numbers == [5, 6, 7, 8, 9, 10, 11, 12]
    assert outlet.frame("ready").data["replayed"] == 6
    assert outlet.names.index("ready") == 7


async def test_replay_and_live_events_meet_without_a_gap_or_a_repetition(world: World) -> None:
    world.append(*world.numbered(1200))
    outlets: list[MemoryOutlet] = []

    async def keep_committing() -> None:
        for draft in world.numbered(300):
            world.commit(draft)
            await asyncio.sleep(0)

    writing = asyncio.create_task(keep_committing())
    for _ in range(10):
        outlets.append(await world.connect(start="earliest"))
        await asyncio.sleep(0)
    await writing
    await until(lambda: all(len(outlet.events) == 1500 for outlet in outlets))

    assert all(outlet.numbers == list(range(1, 1501)) for outlet in outlets)


async def test_a_time_starts_after_the_last_event_before_it(world: World) -> None:
    world.append(*world.numbered(3))

    everything = await world.listen(start=datetime(2020, 1, 1, tzinfo=UTC))
    nothing = await world.listen(start=datetime(2100, 1, 1, tzinfo=UTC))

    assert (everything.numbers, nothing.numbers) == ([1, 2, 3], [])


@pytest.mark.parametrize("reason", ["expired", "epoch_changed", "ahead", "invalid"])
async def test_an_unusable_position_gets_a_reset_that_says_why(world: World, reason: str) -> None:
    world.append(*world.numbered(10))
    world.log.expire(WORKSPACE, 6)
    start = {
        "expired": await position(world, 2),
        "epoch_changed": Position("zzzzzzzz", 3),
        "ahead": await position(world, 99),
        "invalid": "invalid",
    }[reason]

    outlet = await world.listen(start=start, requested="as sent")

    reset = outlet.frame("reset")
    assert outlet.names == ["hello", "reset", "ready"]
    assert outlet.frame("hello").data["resume"] == "reset"
    assert (reset.data["reason"], reset.data["requested"], reset.id) == (
        reason,
        "as sent",
        str(await position(world, 10)),
    )


async def test_the_oldest_position_in_a_reset_can_be_resumed_from(world: World) -> None:
    world.append(*world.numbered(10))
    world.log.expire(WORKSPACE, 6)
    refused = await world.listen(start=await position(world, 1))

    outlet = await world.listen(start=Position.parse(refused.frame("reset").data["oldest"]))

    assert outlet.numbers == [6, 7, 8, 9, 10]


def snapshot_of(world: World, pages: list[bytes]) -> Callable[[], Awaitable[Snapshot]]:
    async def read() -> Snapshot:
        bounds = await world.log.bounds(WORKSPACE)
        return Snapshot(Position(bounds.epoch, bounds.head), pages)

    return read


async def test_a_snapshot_comes_before_what_changed_after_it_and_only_its_end_has_a_position(world: World) -> None:
    world.append(*world.numbered(3))

    outlet = await world.listen(snapshot=snapshot_of(world, [b'[{"key":"TH-1"}]', b'[{"key":"TH-2"}]']))
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)

    assert outlet.names == ["hello", "snapshot", "snapshot", "ready", "message"]
    assert [frame.id for frame in outlet.frames[:3]] == [None, None, str(await position(world, 3))]
    assert [frame.data["more"] for frame in outlet.frames[1:3]] == [True, False]


async def test_a_snapshot_that_is_ahead_of_the_tail_waits_for_it(world: World) -> None:
    first = await world.listen()
    world.append(*world.numbered(5))  # not announced: the tail finds them by its poll

    outlet = await world.listen(snapshot=snapshot_of(world, [b"[]"]))
    world.commit(*world.numbered(1))
    await until(lambda: len(first.events) == 6 and outlet.events)

    assert (first.numbers, outlet.numbers) == ([1, 2, 3, 4, 5, 6], [6])


async def test_a_reset_on_a_snapshot_stream_is_followed_by_a_fresh_snapshot(world: World) -> None:
    world.append(*world.numbered(3))

    outlet = await world.listen(start=Position("zzzzzzzz", 3), snapshot=snapshot_of(world, [b"[]", b"[]"]))
    head = await position(world, 3)

    assert outlet.names == ["hello", "reset", "snapshot", "snapshot", "ready"]
    # A client that is cut off in between comes back with its old position, and gets all of this again.
    assert [frame.id for frame in outlet.frames[:4]] == [None, None, None, str(head)]
    assert outlet.frame("reset").data["position"] == str(head)


async def test_a_new_epoch_on_a_snapshot_stream_gives_no_position_before_the_snapshot_ends(world: World) -> None:
    outlet = await world.listen(snapshot=snapshot_of(world, [b"[]"]))
    before = len(outlet.frames)

    world.log.new_epoch(WORKSPACE)
    await until(lambda: outlet.names[before:] == ["reset", "snapshot", "ready"])

    assert outlet.frames[before].id is None
    assert outlet.frames[before + 1].id == str(await position(world, 0))


async def test_a_new_epoch_resets_every_open_stream_in_band(world: World) -> None:
    outlet = await world.listen()
    world.commit(*world.numbered(3))
    await until(lambda: len(outlet.events) == 3)

    world.log.new_epoch(WORKSPACE)
    await until(lambda: "reset" in outlet.names and outlet.names[-1] == "ready")
    bounds = await world.log.bounds(WORKSPACE)
    world.commit(*world.numbered(1))
    await until(lambda: len(outlet.events) == 4)

    assert outlet.frame("reset").data["reason"] == "epoch_changed"
    assert outlet.frame("reset").id == f"{bounds.epoch}-{bounds.head}"


async def test_an_observer_sees_every_stored_event_and_a_new_epoch_until_it_ends(world: World) -> None:
    seen: list[int | None] = []
    second: list[object] = []

    def observe(events: Sequence[Event] | None) -> None:
        seen.extend([None] if events is None else [event.seq for event in events])

    def fail(events: Sequence[Event] | None) -> None:
        raise RuntimeError("an observer's own fault")

    world.append(*world.numbered(2))
    end = await world.broadcaster.watch(WORKSPACE, observe)
    await world.broadcaster.watch(WORKSPACE, fail)
    await world.broadcaster.watch(WORKSPACE, second.append)
    world.commit(*world.numbered(2))
    world.append(*world.numbered(1))  # by another instance that could not say so: the poll finds it
    await until(lambda: seen == [3, 4, 5])
    world.log.new_epoch(WORKSPACE)
    await until(lambda: seen[-1] is None)

    end()
    end()
    world.commit(*world.numbered(1))
    await until(lambda: second and second[-1] is not None)
    assert seen == [3, 4, 5, None]


async def test_a_workspace_that_is_watched_is_not_idle(world: World) -> None:
    end = await world.broadcaster.watch(WORKSPACE, lambda events: None)
    (channel,) = world.broadcaster._channels
    assert channel.in_use

    end()

    assert not channel.in_use


async def test_a_client_from_a_faster_instance_waits_until_the_tail_is_there(world: World) -> None:
    await world.listen()
    world.append(*world.numbered(3))  # another instance: its subscriber has seen all three

    outlet = await world.listen(start=await position(world, 3))
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)

    assert outlet.numbers == [4]


async def test_a_stalled_reader_delays_nobody_keeps_little_and_gets_everything_when_it_reads_again(
    world: World,
) -> None:
    stalled, healthy = await world.listen(), await world.listen()
    stalled.stall()

    for draft in world.numbered(200, size=4000):
        world.commit(draft)
        await settle()
    await until(lambda: len(healthy.events) == 200)

    assert healthy.numbers == list(range(1, 201))
    assert stalled.most_buffered < 2 * world.broadcaster.options.buffer_bytes
    assert stalled.events == []

    stalled.drain()
    await until(lambda: len(stalled.events) == 200)
    world.commit(*world.numbered(1))
    await until(lambda: len(stalled.events) == 201)

    assert stalled.numbers == list(range(1, 202))


async def test_a_reader_that_lags_beyond_the_ring_is_served_from_the_log() -> None:
    world = await World.open(ring_events=10)
    stalled, healthy = await world.listen(), await world.listen()
    stalled.stall()
    for draft in world.numbered(100):
        world.commit(draft)
        await settle()

    stalled.drain()
    await until(lambda: len(stalled.events) == len(healthy.events) == 100)

    assert stalled.numbers == healthy.numbers == list(range(1, 101))
    await world.broadcaster.stop()


async def test_one_flush_hands_a_reader_at_most_the_buffer_limit() -> None:
    world = await World.open(buffer_bytes=10_000)
    outlet = await world.listen()
    outlet.stall()

    world.commit(*world.numbered(50, size=1000))
    await settle()

    assert 0 < outlet.buffered() <= 10_000
    outlet.drain()
    await until(lambda: len(outlet.events) == 50)
    assert outlet.numbers == list(range(1, 51))
    await world.broadcaster.stop()


async def test_a_replay_waits_for_its_reader_instead_of_piling_up() -> None:
    world = await World.open(buffer_bytes=10_000)
    world.append(*world.numbered(100, size=1000))

    outlet = await world.connect(start="earliest", stalled=True)
    await settle()
    waiting = outlet.buffered()
    while not outlet.numbers or outlet.numbers[-1] != 100:
        outlet.drain()
        outlet.stall()
        await settle()

    assert waiting <= 11_000
    assert outlet.most_buffered <= 11_000
    assert outlet.numbers == list(range(1, 101))
    outlet.drain()
    await world.broadcaster.stop()


async def test_a_reader_that_takes_nothing_for_the_write_timeout_is_cut(world: World) -> None:
    outlet = await world.listen()
    outlet.stall()
    world.commit(*world.numbered(1))
    await settle()
    assert outlet.subscriber is not None

    now = asyncio.get_running_loop().time()
    for second in range(80):
        world.broadcaster.tick(now + second)
    await until(lambda: world.broadcaster.statistics().connected_clients == 0)

    assert outlet.closed


async def test_an_idle_stream_gets_heartbeats_that_are_no_events(world: World) -> None:
    outlet = await world.listen(heartbeat_s=5.0)
    frames = len(outlet.frames)

    now = asyncio.get_running_loop().time()
    for second in range(12):
        world.broadcaster.tick(now + second)
    await until(lambda: outlet.parser.heartbeats)

    assert len(outlet.frames) == frames


async def test_a_narrow_filter_is_told_the_position_once_the_head_is_far_past_it(world: World) -> None:
    narrow = await world.listen("type=rare.event", heartbeat_s=5.0)
    wide = await world.listen()
    for draft in world.numbered(1000):
        world.commit(draft)
    await until(lambda: len(wide.events) == 1000)

    now = asyncio.get_running_loop().time()
    for second in range(7):
        world.broadcaster.tick(now + second)
    await until(lambda: "heartbeat" in narrow.names)

    heartbeat = narrow.frame("heartbeat")
    assert heartbeat.id == heartbeat.data["position"] == str(await position(world, 1000))
    assert narrow.events == []


async def test_a_stream_rotates_at_its_maximum_age() -> None:
    world = await World.open(max_age_s=30.0)
    outlet = await world.listen()

    now = asyncio.get_running_loop().time()
    for second in range(32):
        world.broadcaster.tick(now + second)

    goodbye = outlet.frames[-1]
    assert (goodbye.event, goodbye.data["reason"], goodbye.data["reconnect"]) == ("goodbye", "rotate", True)
    await world.broadcaster.stop()


async def test_streams_rotate_at_times_of_their_own_and_none_after_the_maximum_age() -> None:
    # Hosts that cut long requests off do so at a fixed time, and a stream that is cut off hears no goodbye.
    world = await World.open(max_age_s=100.0, max_age_jitter=0.1)

    ages = [(await world.listen()).frames[0].data["max_age_s"] for _ in range(50)]

    assert 90 <= min(ages) < max(ages) <= 100
    await world.broadcaster.stop()


async def test_a_timeout_ends_the_stream_as_done(world: World) -> None:
    outlet = await world.listen(timeout_s=0.05)

    await until(lambda: "goodbye" in outlet.names)

    assert outlet.frames[-1].data["reason"] == "done"


async def test_a_stream_that_left_before_its_timeout_is_not_kept_until_then(world: World) -> None:
    outlet = await world.listen(timeout_s=86_400.0)
    seen = weakref.ref(outlet)

    outlet.abort()
    await settle()
    del outlet
    gc.collect()

    assert seen() is None


async def test_goodbye_comes_after_everything_that_waited(world: World) -> None:
    from broadcaster.batching import Batching

    outlet = await world.listen(batching=Batching(window_s=1000.0))
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)
    world.commit(*world.numbered(3))
    await settle()

    await world.broadcaster.drain(1.0)

    assert outlet.numbers == [1, 2, 3, 4]
    goodbye = outlet.frames[-1]
    assert (goodbye.event, goodbye.data["position"]) == ("goodbye", str(await position(world, 4)))
    assert goodbye.data["reason"] == "shutdown"
    assert goodbye.retry == goodbye.data["retry_ms"]


async def test_stopping_leaves_no_task_behind(world: World) -> None:
    before = asyncio.all_tasks()
    other = await World.open()
    await other.listen()
    stalled = await other.listen()
    stalled.stall()
    other.commit(*other.numbered(1))

    await other.broadcaster.drain(0.05)
    await other.broadcaster.stop()
    await settle()

    assert asyncio.all_tasks() == before
    assert other.broadcaster.statistics().connected_clients == 0


class SlowLog(MemoryEventLog):
    """A log whose reads last until `go_on`, and do not end at once when they are cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.reading = 0

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        await self._wait()
        return await super().read(workspace, after, limit)

    async def seq_at(self, workspace: str, time: datetime) -> int:
        await self._wait()
        return await super().seq_at(workspace, time)

    async def _wait(self) -> None:
        self.reading += 1
        try:
            await self.go_on.wait()
        finally:
            await settle()
            self.reading -= 1


async def slow_world() -> tuple[World, SlowLog]:
    log = SlowLog()
    clock = LoopClock()
    world = World(log, Broadcaster(log, LocalRelay(), BroadcastOptions(), clock=clock.time), clock)
    await world.broadcaster.start()
    return world, log


async def test_stopping_waits_for_the_replay_of_a_client_that_just_left() -> None:
    world, log = await slow_world()
    start = await world.broadcaster.position(WORKSPACE)
    world.append(*world.numbered(3))
    outlet = await world.connect(start=start)
    await until(lambda: log.reading)
    assert outlet.subscriber is not None

    outlet.subscriber.disconnected()
    await world.broadcaster.stop()

    assert log.reading == 0


async def test_a_workspace_is_not_closed_while_its_log_is_slow_to_admit_a_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels_module, "LINGER_S", 0.0)
    world, log = await slow_world()
    connecting = asyncio.create_task(world.connect(start=datetime.now(UTC)))
    await until(lambda: log.reading)
    for _ in range(2):
        await world.broadcaster._channels.close_idle(0.0)

    log.go_on.set()
    outlet = await connecting
    await until(lambda: "ready" in outlet.names)

    await world.broadcaster.stop()


class Doorbell(LocalRelay):
    """A relay that keeps what it was told."""

    def __init__(self) -> None:
        self.announced: list[Announcement] = []

    def announce(self, announcement: Announcement) -> None:
        self.announced.append(announcement)


async def test_what_is_committed_after_the_last_goodbye_is_still_announced() -> None:
    log, relay = MemoryEventLog(), Doorbell()
    broadcaster = Broadcaster(log, relay, BroadcastOptions())
    await broadcaster.start()
    await broadcaster.drain(0.0)

    broadcaster.committed(WORKSPACE, log.append(WORKSPACE, [numbered(1), numbered(2)]))
    await broadcaster.stop()

    assert [(told.first, told.last) for told in relay.announced] == [(1, 2)]


async def test_no_stream_is_admitted_past_the_limit_or_while_draining() -> None:
    world = await World.open(max_streams=1)
    await world.listen()

    with pytest.raises(StreamRefused) as full:
        await world.listen()
    await world.broadcaster.stop()
    with pytest.raises(StreamRefused) as draining:
        await world.listen()

    assert (full.value.reason, draining.value.reason) == ("limit", "shutdown")


async def test_streams_that_come_together_do_not_get_past_the_limit() -> None:
    world = await World.open(max_streams=1)

    outcomes = await asyncio.gather(*(world.listen() for _ in range(5)), return_exceptions=True)

    assert [isinstance(outcome, StreamRefused) for outcome in outcomes].count(True) == 4
    await world.broadcaster.stop()


async def test_replayed_events_count_as_sent(world: World) -> None:
    start = await world.broadcaster.position(WORKSPACE)
    world.append(*world.numbered(3))

    await world.listen(start=start)

    assert world.broadcaster.statistics().events_sent == 3


async def test_a_disconnected_stream_leaves_nothing_behind(world: World) -> None:
    outlet = await world.listen("ticket=TH-1")
    assert outlet.subscriber is not None

    outlet.subscriber.disconnected()
    outlet.subscriber.disconnected()

    hub = world.broadcaster._channels[WORKSPACE].hub
    assert (world.broadcaster.statistics().connected_clients, hub.groups) == (0, {})
    assert len(hub._index) == 0
    assert not any(world.broadcaster._timekeeper._buckets.values())


async def test_events_committed_elsewhere_are_found_by_the_poll(world: World) -> None:
    outlet = await world.listen()

    world.append(*world.numbered(3))
    await until(lambda: len(outlet.events) == 3)

    assert outlet.numbers == [1, 2, 3]


async def test_waiting_beyond_a_position_ends_with_the_next_event(world: World) -> None:
    waiting = asyncio.create_task(world.broadcaster.wait_beyond(WORKSPACE, 0, 60.0))
    await settle()

    world.commit(numbered(1))

    assert await waiting
    assert not await world.broadcaster.wait_beyond(WORKSPACE, 1, 0.01)


async def test_positions_never_pass_an_event_that_was_not_sent(world: World) -> None:
    """Whatever a client has seen, resuming from its last id gives exactly the rest."""
    drafts = [ticket_event(f"TH-{n % 5}", ("todo", "doing", "done")[n % 3], was="todo", n=n) for n in range(60)]
    outlet = await world.listen("status=doing")
    for draft in drafts:
        world.commit(draft)
    await until(lambda: world.broadcaster.statistics().channels[0].head.endswith("-60"))
    await settle()
    full = outlet.numbers

    for cut in range(1, len(outlet.frames)):
        seen = [event["data"]["n"] for frame in outlet.frames[:cut] for event in frame.events]
        last_id = [frame.id for frame in outlet.frames[:cut] if frame.id][-1]
        rest = await world.listen("status=doing", start=Position.parse(last_id))
        assert seen + rest.numbers == full


class FailingLog(MemoryEventLog):
    """A log that does not answer the first `failures` reads."""

    failures = 0

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        if self.failures:
            self.failures -= 1
            raise LogUnavailable
        return await super().read(workspace, after, limit)


async def test_a_replay_or_snapshot_waits_for_a_log_that_does_not_answer() -> None:
    log = FailingLog()
    world = await World.open(log)
    world.append(*world.numbered(5))
    unread = [LogUnavailable()]

    async def snapshot() -> Snapshot:
        if unread:
            raise unread.pop()
        return Snapshot(await position(world, 5), [b"[]"])

    log.failures = 1
    replayed = await world.listen(start="earliest")
    snapped = await world.listen(snapshot=snapshot)

    assert replayed.numbers == [1, 2, 3, 4, 5]
    assert snapped.names == ["hello", "snapshot", "ready"]
    assert not unread
    await world.broadcaster.stop()


class CountingLog(MemoryEventLog):
    reads = 0

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        self.reads += 1
        await settle()
        return await super().read(workspace, after, limit)


async def test_clients_that_come_back_together_after_a_restart_share_the_reads_of_the_log() -> None:
    log = CountingLog()
    world = await World.open(log)
    world.append(*world.numbered(700))

    starts = [await position(world, 600 + n % 80) for n in range(200)]
    outlets = [await world.connect(start=start) for start in starts]
    await until(lambda: all("ready" in outlet.names for outlet in outlets))

    assert log.reads == 1
    assert all(outlet.numbers == list(range(start.seq + 1, 701)) for start, outlet in zip(starts, outlets, strict=True))
    await world.broadcaster.stop()


async def test_equal_streams_that_resume_from_the_same_place_are_sent_the_same_bytes(world: World) -> None:
    world.append(*world.numbered(50))
    start = await position(world, 10)
    sent: list[bytes] = []
    for _ in range(3):
        outlet = await world.connect(start=start)
        write = outlet.write

        def note(data: bytes, write: Callable[[bytes], int] = write) -> int:
            sent.append(data)
            return write(data)

        outlet.write = note  # type: ignore[method-assign]  # the bytes themselves, not their copies, are looked at
        await until(lambda outlet=outlet: "ready" in outlet.names)  # type: ignore[misc]  # the loop's value

    pages = [data for data in sent if b'"n": 11}' in data]
    assert len(pages) == 3
    assert pages[0] is pages[1] is pages[2]


async def test_a_goodbye_before_the_snapshots_end_tells_no_position(world: World) -> None:
    """A client that came back with one would never get the pages that were not sent."""
    outlet = await world.connect(snapshot=snapshot_of(world, [b'[{"key":"TH-1"}]', b'[{"key":"TH-2"}]']), stalled=True)
    assert outlet.subscriber is not None
    await until(lambda: outlet.buffered() > 0)
    world.broadcaster.end(outlet.subscriber, "rotate")
    outlet.drain()

    assert "ready" not in outlet.names
    assert outlet.frame("goodbye").data["position"] is None


async def test_a_log_that_begins_anew_before_a_streams_hello_leaves_it_a_hello() -> None:
    world = await World.open(poll_interval_s=600.0)  # it is told of the new epoch below, and finds none by itself
    await world.listen()
    channel = world.broadcaster._channels[WORKSPACE]
    world.commit(*world.numbered(3))
    outlet = await world.connect(start="earliest")

    world.log.new_epoch(WORKSPACE)
    bounds = await world.log.bounds(WORKSPACE)
    channel._epoch_changed(bounds)
    await until(lambda: "ready" in outlet.names)

    assert outlet.names == ["hello", "reset", "ready"]
    assert outlet.frame("hello").id == f"{bounds.epoch}-{bounds.head}"
    await world.broadcaster.stop()


async def test_many_that_read_again_at_once_get_their_turns_and_everything(world: World) -> None:
    outlets = [await world.listen() for _ in range(200)]
    for outlet in outlets:
        outlet.stall()
    world.commit(*world.numbered(1))
    await until(lambda: all(outlet.buffered() for outlet in outlets))
    world.commit(*world.numbered(5))

    for outlet in outlets:
        outlet.drain()
    await settle()
    after_some_turns = sum(len(outlet.events) == 6 for outlet in outlets)
    await until(lambda: all(len(outlet.events) == 6 for outlet in outlets))

    assert after_some_turns < 200
    assert all(outlet.numbers == [1, 2, 3, 4, 5, 6] for outlet in outlets)


async def test_a_goodbye_before_a_reset_was_told_leaves_the_client_its_old_position(world: World) -> None:
    outlet = await world.listen()
    (event,) = world.commit(*world.numbered(1))
    await until(lambda: outlet.events)
    channel = world.broadcaster._channels[WORKSPACE]

    world.log.new_epoch(WORKSPACE)
    channel._epoch_changed(await world.log.bounds(WORKSPACE))
    assert outlet.subscriber is not None
    world.broadcaster.end(outlet.subscriber, "rotate")

    assert outlet.frame("goodbye").data["position"] == event.position
