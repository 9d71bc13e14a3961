"""Whatever happens in whatever order, a subscriber gets every event after its position once, in order."""

import asyncio
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broadcaster import hub as hub_module
from broadcaster.batching import Batching
from broadcaster.event import Position
from tests.broadcaster.streams import WORKSPACE, MemoryOutlet, World, numbered, until

BUFFER = 2_000


@dataclass(slots=True, eq=False)
class Follower:
    """A stream, and what it must have received: every event after `start` that its filter lets through."""

    outlet: MemoryOutlet
    start: int
    odd_only: bool
    gone: bool = False

    def expected(self, head: int) -> list[int]:
        return [n for n in range(self.start + 1, head + 1) if not self.odd_only or n % 2]


STEPS = st.one_of(
    st.tuples(st.just("commit"), st.integers(1, 12)),
    st.tuples(st.just("append"), st.integers(1, 12)),
    st.tuples(st.just("join"), st.tuples(st.integers(0, 200), st.booleans(), st.booleans(), st.booleans())),
    st.tuples(st.just("stall"), st.integers(0, 20)),
    st.tuples(st.just("drain"), st.integers(0, 20)),
    st.tuples(st.just("leave"), st.integers(0, 20)),
    st.tuples(st.just("turn"), st.integers(1, 6)),
)


async def play(steps: list[tuple[str, object]]) -> None:
    world = await World.open(buffer_bytes=BUFFER, ring_events=15, poll_interval_s=0.01)
    epoch = (await world.log.bounds(WORKSPACE)).epoch
    followers: list[Follower] = []
    head = 0

    def drafts(count: int) -> list[object]:
        return [numbered(head + i, type="odd.one" if (head + i) % 2 else "even.one") for i in range(1, count + 1)]

    for step, value in steps:
        if step in ("commit", "append"):
            assert isinstance(value, int)
            (world.commit if step == "commit" else world.append)(*drafts(value))  # type: ignore[arg-type]  # EventDrafts
            head += value
        elif step == "join":
            assert isinstance(value, tuple)
            back, odd_only, batched, stalled = value
            start = max(0, head - back)
            outlet = await world.connect(
                "type=odd.one" if odd_only else "",
                start=Position(epoch, start),
                batching=Batching(0.01, 5) if batched else Batching(),
                stalled=stalled,
            )
            followers.append(Follower(outlet, start, odd_only))
        elif step == "turn":
            assert isinstance(value, int)
            for _ in range(value):
                await asyncio.sleep(0)
        elif followers:
            assert isinstance(value, int)
            follower = followers[value % len(followers)]
            if follower.gone:
                continue
            if step == "stall":
                follower.outlet.stall()
            elif step == "drain":
                follower.outlet.drain()
            else:
                follower.gone = True
                follower.outlet.abort()

    staying = [follower for follower in followers if not follower.gone]
    for follower in staying:
        follower.outlet.drain()
    await until(lambda: all(len(f.outlet.numbers) >= len(f.expected(head)) for f in staying))

    for follower in staying:
        assert follower.outlet.numbers == follower.expected(head)
        # One flush of at most the limit, and the frames of the opening.
        assert follower.outlet.most_buffered <= BUFFER + 1_000
    for follower in followers:
        if follower.gone:
            got = follower.outlet.numbers
            assert got == follower.expected(head)[: len(got)]
    await world.broadcaster.stop()


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=60), st.integers(1, 4))
def test_every_stream_is_exact_over_joins_stalls_drains_and_disconnects(
    steps: list[tuple[str, object]], writes_per_turn: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hub_module, "WRITES_PER_TURN", writes_per_turn)
        asyncio.run(play(steps))
