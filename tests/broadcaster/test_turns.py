"""Many coroutines share the loop, a few in each of its turns."""

import asyncio
import itertools

import pytest

from broadcaster import turns as turns_module
from broadcaster.turns import Turns


@pytest.fixture
async def turns(monkeypatch: pytest.MonkeyPatch) -> Turns:
    monkeypatch.setattr(turns_module, "TURNS_PER_LOOP_TURN", 3)
    return Turns(asyncio.get_running_loop().call_soon)


async def test_a_few_go_on_at_once_and_the_others_in_order_in_later_loop_turns(turns: Turns) -> None:
    seen: list[int] = []

    async def work(number: int) -> None:
        await turns.take()
        seen.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(10)]
    counts = [0]
    while len(seen) < 10:
        await asyncio.sleep(0)
        counts.append(len(seen))
    await asyncio.gather(*tasks)

    assert seen == list(range(10))
    assert max(later - earlier for earlier, later in itertools.pairwise(counts)) == 3


async def test_a_cancelled_one_takes_nobodys_turn(turns: Turns) -> None:
    seen: list[int] = []

    async def work(number: int) -> None:
        await turns.take()
        seen.append(number)

    tasks = [asyncio.create_task(work(number)) for number in range(8)]
    await asyncio.sleep(0)
    for task in tasks[3:6]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert seen == [0, 1, 2, 6, 7]


async def test_turns_that_nobody_waits_for_leave_the_loop_alone(turns: Turns) -> None:
    planned: list[object] = []
    loop = asyncio.get_running_loop()
    quiet = Turns(lambda function: planned.append(loop.call_soon(function)))

    await quiet.take()
    for _ in range(10):
        await asyncio.sleep(0)

    assert len(planned) == 1
