"""Calls that take long tell of their progress, and end at once when they are cancelled."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
import pytest
from mcp.shared.dispatcher import ProgressFnT

from taskhub.mcp import progress
from tests.taskhub.mcp.live import open_live
from tests.taskhub.mcp.world import DEADLINE_S, MODERN, Served, data_of, until

ERAS: Final = ("legacy", MODERN)
Told = list[tuple[float, float | None, str | None]]


def into(told: Told) -> ProgressFnT:
    async def tell(progress: float, total: float | None, message: str | None) -> None:
        told.append((progress, total, message))

    return tell


@pytest.mark.parametrize("mode", ERAS)
async def test_a_wait_for_events_tells_how_long_it_has_lasted_until_something_happens(
    database_file: Path, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.01)
    told: Told = []
    async with open_live(database_file) as live, live.served.client(mode) as client:
        waiting = asyncio.create_task(
            client.call_tool("get_events", {"wait_seconds": 50}, progress_callback=into(told))
        )
        await until(lambda: len(told) > 2)
        await live.create("Something")
        found = data_of(await asyncio.wait_for(waiting, DEADLINE_S))

    assert [event["type"] for event in found["events"]] == ["ticket.created"]
    assert told[0] == (0.0, 50.0, "0 of 50 seconds")
    assert [value for value, _, _ in told] == sorted({value for value, _, _ in told})
    assert {total for _, total, _ in told} == {50}


@pytest.mark.parametrize("mode", ERAS)
async def test_a_change_of_many_tickets_tells_when_it_began_and_when_it_is_done(served: Served, mode: str) -> None:
    told: Told = []
    items = [{"ticket_id": f"TH-{n}", "priority": "high"} for n in (1, 2, 3)]
    async with served.client(mode) as client:
        for _ in items:
            await client.call_tool("create_ticket", {"summary": "x"})
        await client.call_tool("bulk_update_tickets", {"items": items}, progress_callback=into(told))
        refused = await client.call_tool("bulk_update_tickets", {"items": [{"ticket_id": "TH-9"}]})

    assert told == [(0, 3, "0 of 3 tickets"), (3, 3, "3 of 3 tickets")]
    assert data_of(refused)["code"] == "batch_failed"


@pytest.mark.parametrize("mode", [*ERAS, "sse"])
async def test_a_wait_that_is_cancelled_leaves_nothing_behind(database_file: Path, mode: str) -> None:
    told: Told = []
    async with open_live(database_file) as live, live.served.client(mode) as client:
        before = _waiting()
        with anyio.CancelScope() as scope:
            async with asyncio.TaskGroup() as group:
                group.create_task(_end_when(lambda: bool(told) and _waiting() > before, scope))
                call = client.call_tool("get_events", {"wait_seconds": 50}, progress_callback=into(told))
                await call
        await until(lambda: _waiting() == before)
        key = data_of(await client.call_tool("create_ticket", {"summary": "The connection goes on"}))["key"]

    assert key == "TH-1"


async def test_a_listener_that_is_gone_takes_nothing_from_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "INTERVAL_S", 0.001)
    failed = asyncio.Event()

    async def report(value: float, total: float | None, message: str | None) -> None:
        if value:
            failed.set()
            raise ConnectionResetError

    async with progress.reported(report, progress.Extent(50, "seconds")):
        await failed.wait()
        await until(lambda: _waiting() == 0)


def _waiting() -> int:
    return sum(task.get_name() == "mcp progress" for task in asyncio.all_tasks())


async def _end_when(condition: Callable[[], bool], scope: anyio.CancelScope) -> None:
    await until(condition)
    scope.cancel()


@pytest.mark.parametrize("mode", ERAS)
async def test_a_write_that_was_committed_stays_when_its_call_is_cancelled(database_file: Path, mode: str) -> None:
    async with open_live(database_file) as live, live.served.client(mode) as client:
        key = await live.create("Changed")
        heard = asyncio.Event()
        end = await live.broadcaster.watch("default", lambda events: heard.set())
        call = asyncio.create_task(client.call_tool("update_ticket", {"ticket_id": key, "priority": "high"}))
        await asyncio.wait_for(heard.wait(), DEADLINE_S)
        call.cancel()
        await asyncio.wait((call,))
        end()
        after = data_of(await client.call_tool("get_ticket_detail", {"ticket_id": key, "include": ["history"]}))

    assert after["ticket"]["priority"] == "high"
    assert [entry["type"] for entry in after["history"]] == ["ticket.updated", "ticket.created"]
