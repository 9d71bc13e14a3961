"""One run: servers, followers and writers under a schedule of faults; then everything is healed and counted."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.chaos.faults import Fault, schedule
from tests.chaos.invariants import check_records, check_writes
from tests.chaos.ordeal import Ordeal
from tests.chaos.writers import BUILDS, LABELS, PRIORITIES, STATUSES, SUBJECTS, Writers
from tests.e2e.harness.cluster import Cluster
from tests.e2e.harness.exactness import read_log
from tests.e2e.harness.followers import Follower, all_have, following
from tests.e2e.harness.process import run_taskhub

_CONVERGED_IN_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of everything. `pause_s`: the mean time between two writes of a writer."""

    seed: int
    seconds: float
    followers: int = 200
    writers: int = 8
    pause_s: float = 0.05


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run that held every promise went through."""

    faults: int
    events: int
    deliveries: int
    connections: int
    writes: int
    repeated: int
    refusals: dict[str, int]
    notices: int
    complaints: Sequence[str]


def random_query(chance: random.Random, *, board: bool) -> dict[str, str]:
    """A filter, of all sorts; of a board none that hides some changes of the tickets that it shows."""
    choices: dict[str, Callable[[], str]] = {
        "type": lambda: chance.choice(("ticket.*", "task_updated", "!ticket.commented", "build.*", *BUILDS)),
        "subject": lambda: chance.choice(("TH-*", "TH-1*", "!repo/*", *SUBJECTS)),
        "origin": lambda: chance.choice(("mcp_tool", "rest_api", "!mcp_tool")),
        "changed": lambda: chance.choice(("status", "labels,priority", "!status")),
        "status": lambda: chance.choice((*STATUSES, "received,completed", "!completed")),
        "phase": lambda: chance.choice(("active", "todo,review", "!done")),
        "priority": lambda: chance.choice((*PRIORITIES, "high,urgent", "!none")),
        "label": lambda: chance.choice((*LABELS, "none", "!later", "urgent,vip")),
        "assignee": lambda: chance.choice(("none", "!none")),
    }
    possible = [name for name in choices if not board or name not in ("type", "origin", "changed")]
    names = chance.sample(possible, chance.choice((0, 1, 1, 1, 2, 2, 3)))
    return {name: choices[name]() for name in names}


async def run(plan: Plan, cluster: Cluster, say: Callable[[str], None]) -> Outcome:
    """Start the cluster, let it suffer, and close it. Raises AssertionError when a promise was broken."""
    faults = schedule(plan.seed, plan.seconds)
    try:
        await cluster.start()
        return await _run_on(cluster, plan, faults, say)
    except Exception as error:
        error.add_note(cluster.logs())
        raise
    finally:
        await asyncio.to_thread(cluster.close)


async def _run_on(cluster: Cluster, plan: Plan, faults: Sequence[Fault], say: Callable[[str], None]) -> Outcome:
    chance = random.Random(plan.seed)
    followers = [
        Follower(
            f"follower {number}",
            cluster.urls,
            random_query(chance, board=number % 4 == 3),
            random.Random(f"{plan.seed} {number}"),
            snapshot=number % 4 == 3,
        )
        for number in range(plan.followers)
    ]
    writers = Writers(cluster.urls, plan.seed, plan.pause_s)
    ordeal = Ordeal(cluster, followers, chance)
    async with following(followers), _beside(ordeal.manage()):
        writing = [asyncio.create_task(writers.run(number)) for number in range(plan.writers)]
        async with _beside(*writing):
            await _suffer(ordeal, faults, say)
            say("everything is healed")
            await cluster.healthy()
            writers.stop()
            async with asyncio.timeout(_CONVERGED_IN_S):
                await asyncio.gather(*writing)
        log = await read_log(cluster.database_url)
        await all_have(followers, log, _CONVERGED_IN_S)
    check_writes(log, writers.writes)
    await check_records(log, cluster.database_url)
    await _doctor(cluster)
    resets = {follower.name: follower.resets for follower in followers if follower.resets}
    assert not resets, f"nothing was lost, and yet streams were reset: {resets}"
    assert not ordeal.unasked_exits, "\n".join(ordeal.unasked_exits)
    return Outcome(
        faults=len(faults),
        events=len(log),
        deliveries=sum(len(follower.got) for follower in followers),
        connections=sum(follower.connections for follower in followers),
        writes=len(writers.writes),
        repeated=sum(write.attempts > 1 for write in writers.writes),
        refusals=dict(sorted(writers.refusals.items(), key=lambda item: -item[1])),
        notices=sum(len(follower.notices) for follower in followers),
        complaints=cluster.complaints(),
    )


@contextlib.asynccontextmanager
async def _beside(*work: Awaitable[None]) -> AsyncIterator[None]:
    """Let this go on until the block is left; it ends then."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _suffer(ordeal: Ordeal, faults: Sequence[Fault], say: Callable[[str], None]) -> None:
    """Let the faults happen at their times; return when all are over."""
    clock = asyncio.get_running_loop().time
    began = clock()
    async with asyncio.TaskGroup() as group:
        for fault in faults:
            await asyncio.sleep(max(0.0, began + fault.at_s - clock()))
            say(str(fault))
            group.create_task(ordeal.suffer(fault))


async def _doctor(cluster: Cluster) -> None:
    """The product's own look at its database: the log, and that the tickets are what it says."""
    environment = {"TASKHUB_DATABASE_URL": cluster.database_url}
    await run_taskhub("doctor", environment=environment)
