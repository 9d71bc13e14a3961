"""Units of work on the threads of an SQLite file."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from taskhub.storage import threads
from taskhub.storage.database_file import SameFile
from taskhub.storage.threads import Threads
from taskhub.tickets.errors import StorageBusy
from tests.taskhub.world import DEADLINE_S, until


class Blocked:
    """A unit that goes on when it is told to."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, connection: Connection) -> str:
        self.begun.set()
        assert self.go.wait(DEADLINE_S)
        return "done"


def direct(connection: Connection, unit: Callable[[Connection], str]) -> str:
    return unit(connection)


@pytest.fixture
async def one_thread(tmp_path: Path) -> AsyncIterator[Threads]:
    path = tmp_path / "x.db"
    path.touch()
    found = Threads(create_engine(f"sqlite:///{path}"), SameFile(path), 1, DEADLINE_S)
    yield found
    await found.dispose()


async def test_a_unit_that_has_not_begun_when_its_caller_is_gone_never_runs(one_thread: Threads) -> None:
    blocked, ran = Blocked(), list[int]()

    def note(connection: Connection) -> str:
        ran.append(1)
        return "noted"

    first = asyncio.ensure_future(one_thread.run(direct, blocked))
    await until(blocked.begun.is_set)
    abandoned = [asyncio.ensure_future(one_thread.run(direct, note)) for _ in range(100)]
    await asyncio.sleep(0)
    for task in abandoned:
        task.cancel()
    await asyncio.gather(*abandoned, return_exceptions=True)
    await until(lambda: one_thread.busy == 1)
    blocked.go.set()

    assert (await first, await one_thread.run(direct, note), ran) == ("done", "noted", [1])


async def test_a_unit_that_has_begun_ends_though_its_caller_is_gone(one_thread: Threads) -> None:
    blocked = Blocked()
    task = asyncio.ensure_future(one_thread.run(direct, blocked))
    await until(blocked.begun.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert one_thread.busy == 1
    blocked.go.set()
    await one_thread.wait_idle()


async def test_a_queue_that_is_full_says_so_at_once(one_thread: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "MAX_WAITING", 2)
    blocked = Blocked()
    tasks = [asyncio.ensure_future(one_thread.run(direct, blocked)) for _ in range(3)]
    await until(lambda: one_thread.busy == 3)

    with pytest.raises(StorageBusy, match="too many reads and writes wait for the database"):
        await one_thread.run(direct, blocked)

    blocked.go.set()
    assert await asyncio.gather(*tasks) == ["done"] * 3
