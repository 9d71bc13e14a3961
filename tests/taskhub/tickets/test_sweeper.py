"""The sweep of leases: it goes on whatever happens to it, and ends with the process that it belongs to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web
from sqlalchemy import update

from routes.keys import DATABASE, TICKETS
from taskhub import app as composition
from taskhub.settings.model import Settings
from taskhub.storage.database import Database
from taskhub.storage.schema import leases
from taskhub.tickets.api import Tickets
from taskhub.tickets.errors import StorageBusy
from taskhub.tickets.inputs import NewClaim, NewTicket
from taskhub.tickets.sweeper import LeaseSweeper
from tests.taskhub.world import ALICE, execute, until


def sweeps() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name() == "sweep of leases"]


async def test_the_sweep_goes_on_whatever_happens_to_it(caplog: pytest.LogCaptureFixture) -> None:
    calls = 0

    async def expire() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise StorageBusy
        if calls == 2:
            raise ValueError("a surprise")
        return calls

    async with LeaseSweeper(expire, every_s=0.001):
        await until(lambda: calls >= 4)

    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the sweep of leases has failed"
    ]
    assert sweeps() == []


async def test_the_sweep_ends_while_it_waits_for_the_database() -> None:
    waiting = asyncio.Event()

    async def expire() -> int:
        waiting.set()
        await asyncio.Event().wait()
        return 0

    async with LeaseSweeper(expire, every_s=0.001):
        await waiting.wait()

    assert sweeps() == []


@asynccontextmanager
async def server(settings: Settings, seen: Callable[[Database], None]) -> AsyncIterator[Tickets]:
    app = composition.create_app(settings)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    seen(app[DATABASE])
    yield app[TICKETS]
    await runner.cleanup()


@asynccontextmanager
async def tools_alone(settings: Settings, seen: Callable[[Database], None]) -> AsyncIterator[Tickets]:
    async with composition.open_tickets(settings) as (tickets, _):
        database = Database(settings.database_address)
        await database.open()
        seen(database)
        yield tickets
        await database.close()


@pytest.mark.parametrize("process", [server, tools_alone])
async def test_every_process_that_writes_sweeps(
    process: Callable[[Settings, Callable[[Database], None]], AbstractAsyncContextManager[Tickets]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(composition, "LeaseSweeper", partial(LeaseSweeper, every_s=0.01))
    databases: list[Database] = []
    async with process(Settings(data_dir=tmp_path), databases.append) as tickets:
        await tickets.create_ticket(ALICE, NewTicket(summary="Printer"))
        await tickets.claim_ticket(ALICE, "TH-1", NewClaim())
        await execute(databases[0], update(leases).values(expires_at="2026-01-01T00:00:00.000Z"))
        await until(lambda: free(tickets))

    assert sweeps() == []


async def free(tickets: Tickets) -> bool:
    return (await tickets.get_ticket(ALICE, "TH-1")).ticket.phase == "todo"
