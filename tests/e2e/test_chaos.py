"""Faults of every kind at once, and then the count: nothing lost, nothing twice. And that the count would find it.

`python -m tests.chaos` is the same for longer, with more subscribers.
"""

import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from tests.chaos.faults import KINDS, schedule
from tests.chaos.invariants import check_writes
from tests.chaos.run import Plan, run
from tests.chaos.writers import Write
from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api
from tests.e2e.harness.cluster import Cluster
from tests.e2e.harness.exactness import Logged, NotExact, read_log
from tests.e2e.harness.followers import Follower, all_have, following
from tests.e2e.harness.process import TaskHubProcess

_SABOTAGED: Final = """
import sys
from broadcaster import tail
from taskhub.__main__ import main

class Sabotaged(tail.TailRunner):
    def __init__(self, workspace, log, tail, deliver, *arguments, **options):
        def sabotage(events):
            for event in events:
                if event.seq == 5 and {how!r} == "loses":
                    continue
                deliver([event])
                if event.seq == 5 and {how!r} == "repeats":
                    deliver([event])
        super().__init__(workspace, log, tail, sabotage, *arguments, **options)

import broadcaster.channel
broadcaster.channel.TailRunner = Sabotaged
sys.argv = ["taskhub", "serve", "--no-reload", "--port", "0"]
main()
"""
"""A server whose streams lose or repeat one event of the log."""


async def test_through_any_faults_every_subscriber_gets_every_change_once_and_in_order(tmp_path: Path) -> None:
    plan = Plan(seed=853, seconds=12, followers=24, writers=4)  # servers, services and followers all suffer
    try:
        cluster = Cluster(tmp_path)
    except FileNotFoundError as missing:
        pytest.skip(f"missing {missing}")

    outcome = await run(plan, cluster, lambda line: None)

    assert outcome.faults == len(schedule(plan.seed, plan.seconds)) > 0
    assert outcome.deliveries > 0


def test_a_seed_brings_the_same_faults_again_and_long_runs_bring_all() -> None:
    assert schedule(4, 600) == schedule(4, 600) != schedule(5, 600)
    assert {(fault.target, fault.kind) for fault in schedule(4, 600)} == {
        (target, kind) for target, kinds in KINDS.items() for kind in kinds
    }
    assert all(fault.at_s + fault.for_s <= 600 for fault in schedule(4, 600))


def followers_of(hub: TaskHubProcess, lose: Callable[[str], bool] = lambda event_id: False) -> list[Follower]:
    queries: list[dict[str, str]] = [{}, {"type": "ticket.*"}, {"status": "received"}, {"origin": "mcp_tool"}]
    return [
        Follower(f"follower {n}", [hub.url], query, random.Random(n), lose=lambda event: lose(event.id))
        for n, query in enumerate(queries)
    ]


async def followed(hub: TaskHubProcess, followers: list[Follower], deadline_s: float = 60.0) -> None:
    """Ten tickets made while they follow; raises NotExact."""
    async with following(followers), api(hub.url) as client:
        for follower in followers:
            await follower.connected()
        for number in range(10):
            await client.create(f"Ticket {number}")
        log = await read_log(f"sqlite:///{hub.data_dir / 'taskhub.db'}")
        await all_have(followers, log, deadline_s)


async def test_followers_of_a_sound_server_have_what_the_log_holds_for_them(hub: TaskHubProcess) -> None:
    followers = followers_of(hub)
    await followed(hub, followers)

    assert [len(follower.got) for follower in followers] == [10, 10, 10, 0]


@pytest.mark.parametrize("how", ["loses", "repeats"])
async def test_the_count_finds_a_server_that_breaks_its_promise(make_hub: MakeHub, how: str) -> None:
    hub = make_hub(command=[sys.executable, "-c", _SABOTAGED.format(how=how)])
    await hub.start()

    with pytest.raises(NotExact, match=r"got (9|11) events, due were 10; they part at [45]"):
        await followed(hub, followers_of(hub))


async def test_the_count_finds_a_subscriber_that_forgets_one_event(hub: TaskHubProcess) -> None:
    # Of ten events in a row, one ends with a 0.
    with pytest.raises(NotExact, match="got 9 events, due were 10"):
        await followed(hub, followers_of(hub, lambda event_id: event_id.endswith("0")), deadline_s=1.0)


def logged(seq: int, marker: str) -> Logged:
    return Logged(seq, f"abc-{seq}", "build.finished", None, "user:a", "rest_api", None, {"marker": marker})


@pytest.mark.parametrize(
    ("log", "write"),
    [
        ([], Write("one", "abc-1")),
        ([logged(1, "one"), logged(2, "one")], Write("one", "abc-1")),
        ([logged(1, "one"), logged(2, "one")], Write("one", None)),
        ([logged(1, "one")], Write("one", "abc-2")),
        ([logged(1, "other")], Write("one", None)),
    ],
    ids=["lost", "made twice", "unanswered and made twice", "answered as another", "of nobody"],
)
def test_the_count_finds_writes_that_are_lost_or_made_twice(log: list[Logged], write: Write) -> None:
    with pytest.raises(AssertionError):
        check_writes(log, [write])
