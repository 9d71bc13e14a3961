"""Who receives what, in which frames."""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import pytest

from broadcaster import hub as hub_module
from broadcaster.batching import Batching
from broadcaster.event import Event
from broadcaster.frames import Format
from broadcaster.group import Group
from broadcaster.hub import Scheduler
from tests.broadcaster.streams import WORKSPACE, MemoryOutlet, World, numbered, settle, ticket_event, until


async def test_every_subscriber_gets_every_event_once_and_in_order(world: World) -> None:
    outlets = [await world.listen() for _ in range(3)]

    for draft in world.numbered(50):
        world.commit(draft)
    await until(lambda: all(len(outlet.events) == 50 for outlet in outlets))

    assert all(outlet.numbers == list(range(1, 51)) for outlet in outlets)
    assert [frame.id for frame in outlets[0].frames[2:]] == [event["id"] for event in outlets[0].events]


async def test_equal_filters_share_one_match_and_one_encoding(world: World) -> None:
    outlets = [await world.listen("type=build.*,deploy.*") for _ in range(5)]
    outlets += [await world.listen("type=deploy.*,build.*") for _ in range(5)]

    (event,) = world.commit(*world.numbered(1))
    await until(lambda: all(outlet.events for outlet in outlets))

    statistics = world.broadcaster.statistics()
    assert statistics.channels[0].groups == 1
    assert len(event.frames) == 1


async def test_a_stream_gets_only_what_its_filter_lets_through(world: World) -> None:
    builds, everything = await world.listen("type=build.*"), await world.listen()

    world.commit(*world.numbered(1), *world.numbered(1, type="deploy.done"), *world.numbered(1))
    await until(lambda: len(everything.events) == 3)

    assert (builds.numbers, everything.numbers) == ([1, 3], [1, 2, 3])


async def test_a_ticket_that_moves_through_the_filter_enters_updates_and_leaves(world: World) -> None:
    outlet = await world.listen("status=doing&type=ticket.created")

    world.commit(ticket_event("TH-1", "todo"))
    world.commit(ticket_event("TH-1", "doing", was="todo"))
    world.commit(ticket_event("TH-1", "doing", was="doing"))
    world.commit(ticket_event("TH-1", "done", was="doing"))
    world.commit(ticket_event("TH-2", "doing"))
    await until(lambda: len(outlet.events) == 3)

    # The update inside the filter is hidden by `type`; the flips are not, or the view would go stale.
    assert [(event["subject"], event["match"]) for event in outlet.events] == [
        ("TH-1", "enter"),
        ("TH-1", "leave"),
        ("TH-2", "enter"),
    ]


async def test_events_of_one_turn_go_out_in_one_write(world: World) -> None:
    outlet = await world.listen()
    before = outlet.writes

    for draft in world.numbered(20):
        world.commit(draft)
    await until(lambda: len(outlet.events) == 20)

    assert outlet.writes - before == 1


async def test_names_give_each_event_its_type_as_the_name(world: World) -> None:
    outlet = await world.listen(format=Format("sse", names=True))

    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)

    assert outlet.names == ["hello", "ready", "build.finished"]


async def test_a_batch_sends_the_first_at_once_and_the_rest_in_one_frame(world: World) -> None:
    outlet = await world.listen(batching=Batching(window_s=50.0))

    world.commit(*world.numbered(1))
    await until(lambda: outlet.numbers == [1])
    last = [world.commit(draft)[0] for draft in world.numbered(5)][-1]
    await settle()
    waiting = list(outlet.numbers)
    world.clock.advance(50.0)
    await until(lambda: len(outlet.events) == 6)

    assert waiting == [1]
    assert outlet.names[2:] == ["message", "batch_update"]
    assert outlet.frames[-1].id == last.position


async def test_a_batch_that_is_full_does_not_wait(world: World) -> None:
    outlet = await world.listen(batching=Batching(window_s=1000.0, max_events=3))
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)

    world.commit(*world.numbered(3))
    await until(lambda: len(outlet.events) == 4)

    assert outlet.names[2:] == ["message", "batch_update"]


async def test_a_batch_that_fills_while_its_window_is_open_does_not_wait(world: World) -> None:
    outlet = await world.listen(batching=Batching(window_s=1000.0, max_events=3))
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)
    world.commit(*world.numbered(1))
    await settle()

    world.commit(*world.numbered(2))
    await until(lambda: outlet.numbers == [1, 2, 3, 4])


async def test_a_batch_of_others_delays_nobody(world: World) -> None:
    batched = await world.listen(batching=Batching(window_s=1000.0))
    prompt = await world.listen()

    for number, draft in enumerate(world.numbered(3), 1):
        world.commit(draft)
        # On a slow machine a round follows the one before at a distance.
        await until(partial(_has_heard, prompt, number))

    assert (batched.numbers, prompt.numbers) == ([1], [1, 2, 3])


def _has_heard(outlet: MemoryOutlet, count: int) -> bool:
    return len(outlet.events) == count


async def test_coalescing_keeps_the_newest_event_of_a_ticket_with_the_whole_span_of_its_changes(world: World) -> None:
    outlet = await world.listen("status=doing", batching=Batching(window_s=50.0, coalesce=True))
    world.commit(ticket_event("TH-9", "doing"))
    await until(lambda: outlet.events)

    world.commit(ticket_event("TH-1", "doing", was="todo", n=1))
    world.commit(ticket_event("TH-2", "doing", was="todo", n=2))
    world.commit(ticket_event("TH-1", "review", was="doing", n=3))
    world.commit(ticket_event("TH-1", "doing", was="review", n=4))
    world.commit(ticket_event("TH-2", "todo", was="doing", n=5))
    world.clock.advance(50.0)
    await until(lambda: len(outlet.events) == 2)

    newest = outlet.events[-1]
    assert (newest["subject"], newest["match"], newest["coalesced"]) == ("TH-1", "enter", 3)
    assert newest["data"]["changes"] == {"status": ["todo", "doing"]}
    assert outlet.frames[-1].event == "batch_update"


async def test_coalesced_events_say_so_without_a_batch_too(world: World) -> None:
    outlet = await world.listen(batching=Batching(coalesce=True))

    world.commit(ticket_event("TH-1", "todo", n=1), ticket_event("TH-1", "doing", was="todo", n=2))
    await until(lambda: outlet.events)

    assert outlet.names[2:] == ["message"]
    assert (outlet.numbers, outlet.events[0]["coalesced"]) == ([2], 2)


@pytest.mark.parametrize("window_s", [0.0, 0.05])
async def test_no_position_passes_an_event_that_is_coalesced_into_a_later_frame(world: World, window_s: float) -> None:
    outlet = await world.listen(batching=Batching(window_s=window_s, max_events=1, coalesce=True))
    first, *_, last = world.commit(
        ticket_event("TH-1", "todo", n=1),
        ticket_event("TH-2", "todo", n=2),
        ticket_event("TH-3", "todo", n=3),
        ticket_event("TH-2", "doing", was="todo", n=4),
    )
    await until(lambda: len(outlet.events) == 3)

    # After the second frame the ticket of the third still lacks the event 2.
    assert outlet.numbers == [1, 3, 4]
    assert [frame.id for frame in outlet.frames[2:]] == [first.position, None, last.position]


async def test_a_late_joiner_gets_only_what_came_after_it(world: World) -> None:
    early = await world.listen(batching=Batching(window_s=0.1))
    world.commit(*world.numbered(1))
    await until(lambda: early.events)
    world.commit(*world.numbered(2))
    late = await world.listen(batching=Batching(window_s=0.1))
    world.commit(*world.numbered(1))
    await until(lambda: len(early.events) == 4 and late.events)

    assert (early.numbers, late.numbers) == ([1, 2, 3, 4], [4])


async def test_a_limit_ends_the_stream_after_exactly_so_many_events(world: World) -> None:
    limited, other = await world.listen(limit=3), await world.listen()

    world.commit(*world.numbered(10))
    await until(lambda: "goodbye" in limited.names and len(other.events) == 10)

    goodbye = limited.frames[-1].data
    assert (limited.numbers, goodbye["reason"], goodbye["reconnect"]) == ([1, 2, 3], "done", False)
    assert other.numbers == list(range(1, 11))


async def test_a_limit_counts_in_replay_too(world: World) -> None:
    world.append(*world.numbered(10))

    outlet = await world.listen(start="earliest", limit=4)

    assert (outlet.numbers, outlet.frames[-1].event) == ([1, 2, 3, 4], "goodbye")


async def test_the_goodbye_of_a_limit_passes_no_event_that_was_not_sent(world: World) -> None:
    start = await world.broadcaster.position(WORKSPACE)
    live = await world.listen(limit=1)
    first, _, _ = world.commit(*world.numbered(3))
    replayed = await world.connect(limit=1, start=start)
    await until(lambda: "goodbye" in live.names and "goodbye" in replayed.names)

    assert live.frame("goodbye").data["position"] == first.position
    assert replayed.frame("goodbye").data["position"] == first.position


@pytest.mark.parametrize("replay", [False, True])
async def test_a_limit_counts_coalesced_events_as_one(world: World, replay: bool) -> None:
    start = await world.broadcaster.position(WORKSPACE)
    batching = Batching(window_s=0.05, coalesce=True)
    outlet = None if replay else await world.listen(limit=2, batching=batching)

    world.commit(
        ticket_event("TH-1", "todo", n=1),
        ticket_event("TH-1", "doing", was="todo", n=2),
        ticket_event("TH-2", "todo", n=3),
        ticket_event("TH-3", "todo", n=4),
    )
    outlet = outlet or await world.connect(start=start, limit=2, batching=batching)
    await until(lambda: "goodbye" in outlet.names)

    assert outlet.numbers == [2, 3]


async def test_a_reader_that_stalls_on_transient_events_gets_nothing_twice(world: World) -> None:
    outlet = await world.listen()
    world.commit(*world.numbered(3))
    await until(lambda: len(outlet.events) == 3)
    outlet.stall()
    for draft in world.numbered(3, size=40_000, transient=True):
        world.broadcaster.publish_transient(WORKSPACE, [draft])
    await settle()
    outlet.drain()
    world.commit(*world.numbered(1))
    await until(lambda: 7 in outlet.numbers)

    # What did not fit is dropped, as transient events may be.
    assert outlet.numbers == [1, 2, 3, 4, 7]


async def test_transient_events_reach_who_is_live_and_carry_no_position(world: World) -> None:
    outlet = await world.listen()

    world.broadcaster.publish_transient(WORKSPACE, [numbered(1, type="cursor.moved", transient=True)])
    await until(lambda: outlet.events)
    later = await world.listen(start="earliest")

    assert outlet.frames[-1].id is None
    assert later.events == []


async def test_a_large_fan_out_is_sliced_and_still_exact(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 7)
    outlets = [await world.listen() for _ in range(40)]

    for draft in world.numbered(5):
        world.commit(draft)
    latecomer = await world.listen()
    for draft in world.numbered(5):
        world.commit(draft)
        await settle()
    await until(lambda: all(len(outlet.events) == 10 for outlet in outlets) and len(latecomer.events) == 5)

    assert all(outlet.numbers == list(range(1, 11)) for outlet in outlets)
    assert latecomer.numbers == [6, 7, 8, 9, 10]


async def test_a_very_large_fan_out_is_cut_finer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 20)
    monkeypatch.setattr(hub_module, "WIDE_FLUSH", 50)
    outlets = [await world.listen() for _ in range(51)]

    world.commit(*world.numbered(1))
    writes = await writes_per_turn(outlets, lambda: all(outlet.events for outlet in outlets))

    assert max(writes) == 5


async def test_a_fan_out_lets_threads_run_between_its_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes give up the interpreter's lock and take it back before a thread can have it."""
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 10)
    rests: list[float] = []
    monkeypatch.setattr("broadcaster.hub.time.sleep", rests.append)
    busy = False
    world = await World.open(threads_busy=lambda: busy)
    outlets = [await world.listen() for _ in range(40)]

    world.commit(*world.numbered(1))
    await until(lambda: all(len(outlet.events) == 1 for outlet in outlets))
    undisturbed, busy = len(rests), True
    world.commit(*world.numbered(1))
    await until(lambda: all(len(outlet.events) == 2 for outlet in outlets))
    await world.broadcaster.stop()

    assert (undisturbed, len(rests)) == (0, 4)


async def test_what_comes_while_a_flush_is_under_way_goes_out_as_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 2)
    outlets = [await world.listen() for _ in range(10)]
    before = outlets[0].writes

    for draft in world.numbered(100):
        world.commit(draft)
        await asyncio.sleep(0)
    await until(lambda: all(len(outlet.events) == 100 for outlet in outlets))

    assert all(outlet.numbers == list(range(1, 101)) for outlet in outlets)
    # A flush to ten members takes five turns of two writes, so five events share one.
    assert outlets[0].writes - before <= 30


async def test_a_reader_that_caught_up_between_two_slices_gets_nothing_twice(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 1)
    outlets = [await world.listen() for _ in range(4)]
    outlets[1].stall()

    world.commit(*world.numbered(1))
    await until(lambda: outlets[0].events, pause_s=0)
    world.commit(*world.numbered(1))
    await until(lambda: outlets[1].buffered(), pause_s=0)
    outlets[1].drain()
    await until(lambda: all(len(outlet.events) >= 2 for outlet in outlets))
    await settle()

    assert [outlet.numbers for outlet in outlets] == [[1, 2]] * 4


async def test_a_stream_with_a_limit_that_stalls_goes_on_where_it_was(world: World) -> None:
    outlet = await world.listen(limit=30)
    outlet.stall()
    world.commit(*world.numbered(20, size=10_000))
    await settle()
    assert outlet.buffered() < 80_000

    outlet.drain()
    world.commit(*world.numbered(20))
    await until(lambda: "goodbye" in outlet.names)

    assert outlet.numbers == list(range(1, 31))


async def test_distinct_filters_are_found_by_their_most_selective_value(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outlets = {n: await world.listen(f"subject=T{n}") for n in range(30)}
    asked: list[Group] = []
    hub = world.broadcaster._channels[WORKSPACE].hub
    candidates = hub._index.candidates

    def count(event: Event) -> Iterator[Group]:
        for group in candidates(event):
            asked.append(group)
            yield group

    monkeypatch.setattr(hub._index, "candidates", count)

    world.commit(*world.numbered(1, subject="T7"))
    await until(lambda: outlets[7].events)

    assert len(asked) == 1
    assert not any(outlet.events for n, outlet in outlets.items() if n != 7)


async def test_ndjson_has_one_object_a_line(world: World) -> None:
    outlet = await world.connect(format=Format("ndjson"))
    await until(lambda: outlet.lines and outlet.lines[-1]["event"] == "ready")
    (event,) = world.commit(*world.numbered(1))
    await until(lambda: outlet.lines and len(outlet.lines) == 3)

    assert outlet.lines is not None
    assert [line["event"] for line in outlet.lines] == ["hello", "ready", "message"]
    assert (outlet.lines[2]["id"], outlet.lines[2]["data"]["data"]) == (event.position, {"n": 1})


async def writes_per_turn(outlets: Sequence[MemoryOutlet], done: Callable[[], object]) -> list[int]:
    """How many writes each loop turn brings until `done()`."""
    counts = [sum(outlet.writes for outlet in outlets)]
    for _ in range(10_000):
        if done():
            break
        await asyncio.sleep(0)
        counts.append(sum(outlet.writes for outlet in outlets))
    assert done()
    return [later - earlier for earlier, later in itertools.pairwise(counts)]


async def test_heartbeats_and_notices_to_all_are_sliced_like_events(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 10)
    outlets = [await world.listen() for _ in range(50)]
    world.commit(*world.numbered(1))
    await until(lambda: any(outlet.events for outlet in outlets), pause_s=0)

    world.broadcaster.tick(asyncio.get_running_loop().time() + 20.0)
    world.broadcaster.relay_changed(False)
    writes = await writes_per_turn(outlets, lambda: all("notice" in outlet.names for outlet in outlets))
    await until(lambda: all(outlet.events for outlet in outlets))

    assert max(writes) <= 10
    assert all(outlet.numbers == [1] and outlet.parser.heartbeats for outlet in outlets)


async def test_a_goodbye_in_the_middle_of_a_flush_brings_that_stream_up_to_date_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 4)
    outlets = [await world.listen() for _ in range(40)]
    (event,) = world.commit(*world.numbered(1))
    await until(lambda: outlets[0].events, pause_s=0)
    (waiting,) = world.commit(*world.numbered(1))
    served = [outlet for outlet in outlets if outlet.events]
    early, late = served[0], outlets[-1]

    for leaving in (early, late):
        assert leaving.subscriber is not None
        world.broadcaster.end(leaving.subscriber, "rotate")
    told = [outlet.frame("goodbye").data["position"] for outlet in (early, late)]
    others = [outlet for outlet in outlets if outlet not in (early, late)]
    then = [outlet.numbers for outlet in others]
    await until(lambda: all(len(outlet.events) == 2 for outlet in outlets))

    assert told == [waiting.position] * 2
    assert then == [[1] if outlet in served else [] for outlet in others]
    assert all(outlet.numbers == [1, 2] for outlet in outlets)
    assert event.position != waiting.position


async def test_a_position_is_told_to_a_large_group_in_slices_and_after_its_events(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 10)
    monkeypatch.setattr(hub_module, "HEARTBEAT_EVENT_AFTER", 3)
    outlets = [await world.listen("type=rare.one") for _ in range(50)]
    others = world.commit(*world.numbered(3))

    world.broadcaster.tick(asyncio.get_running_loop().time() + 20.0)
    (rare,) = world.commit(*world.numbered(1, type="rare.one"))
    writes = await writes_per_turn(outlets, lambda: all("heartbeat" in outlet.names for outlet in outlets))

    assert max(writes) <= 10
    assert {tuple(outlet.names) for outlet in outlets} == {("hello", "ready", "message", "heartbeat")}
    assert {outlet.frame("heartbeat").id for outlet in outlets} == {rare.position}
    assert rare.seq == others[-1].seq + 1


async def test_streams_that_end_at_their_limit_are_sliced_too(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 10)
    outlets = [await world.listen(limit=2) for _ in range(50)]

    world.commit(*world.numbered(3))
    writes = await writes_per_turn(outlets, lambda: all("goodbye" in outlet.names for outlet in outlets))

    # An event frame and a goodbye for each.
    assert max(writes) <= 20
    assert all(outlet.numbers == [1, 2] for outlet in outlets)


async def test_a_small_group_need_not_wait_for_the_flush_of_a_large_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 4)
    many = [await world.listen("type=to.all") for _ in range(100)]
    one = await world.listen("type=to.one")
    world.commit(*world.numbered(1, type="to.all"))
    await until(lambda: many[0].events, pause_s=0)

    world.commit(*world.numbered(1, type="to.one"))
    await until(lambda: one.events, pause_s=0)

    assert not all(outlet.events for outlet in many)


async def test_events_that_come_in_the_pause_after_a_flush_go_out_together(world: World) -> None:
    outlet = await world.listen()
    hub = world.broadcaster._channels[WORKSPACE].hub
    clock = SlowWrites(outlet)
    loop = asyncio.get_running_loop()
    hub._scheduler = Scheduler(
        loop.call_soon, lambda _, function: loop.call_later(0, function), clock.now, lambda: False
    )
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)
    before = outlet.writes

    for draft in world.numbered(20):
        world.commit(draft)
        await asyncio.sleep(0)
    in_the_pause = outlet.writes
    clock.time += SlowWrites.WRITE_S
    await until(lambda: len(outlet.events) == 21)

    assert (in_the_pause - before, outlet.writes - before) == (0, 1)


class SlowWrites:
    """A clock that moves only by the writes of one outlet."""

    WRITE_S = 0.01

    def __init__(self, outlet: MemoryOutlet) -> None:
        self.time = 1000.0
        write = outlet.write

        def slow(data: bytes) -> int:
            self.time += self.WRITE_S
            return write(data)

        outlet.write = slow  # type: ignore[method-assign]  # this one outlet is slow

    def now(self) -> float:
        return self.time


async def test_a_limit_that_is_reached_while_the_log_begins_anew_ends_the_stream(world: World) -> None:
    outlet = await world.listen(limit=2)
    world.commit(*world.numbered(2))
    channel = world.broadcaster._channels[WORKSPACE]

    world.log.new_epoch(WORKSPACE)
    channel._epoch_changed(await world.log.bounds(WORKSPACE))

    assert outlet.names == ["hello", "ready", "message", "message", "goodbye"]


async def test_the_position_of_a_batch_is_that_of_its_stored_events(world: World) -> None:
    outlet = await world.listen(batching=Batching(window_s=0.05))
    world.commit(*world.numbered(1))
    await until(lambda: outlet.events)

    world.broadcaster.publish_transient(WORKSPACE, [numbered(2, transient=True)])
    (stored,) = world.commit(numbered(3))
    await until(lambda: len(outlet.events) == 3)

    assert (outlet.frames[-1].event, outlet.frames[-1].id) == ("batch_update", stored.position)


async def test_a_reader_that_stalls_on_a_heartbeat_before_a_flush_reaches_it_misses_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "WRITES_PER_TURN", 5)
    outlets = [await world.listen() for _ in range(40)]
    world.commit(*world.numbered(1))
    await until(lambda: outlets[0].events, pause_s=0)
    last = outlets[-1]
    assert not last.events

    last.stall()
    world.broadcaster._heartbeat(last.subscriber, 0.0)  # type: ignore[arg-type]  # it has one
    await until(lambda: last.buffered(), pause_s=0)
    reached = last.waiting
    last.drain()
    await until(lambda: all(outlet.events for outlet in outlets))

    assert reached == b":\n"
    assert all(outlet.numbers == [1] for outlet in outlets)
