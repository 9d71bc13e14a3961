"""MCP is loaded by the first who speaks it, once, and never when the server is about to stop."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from taskhub.auth.principal import Caller
from taskhub.auth.providers import NoAuth
from taskhub.mcp import host as host_module
from taskhub.mcp.door import McpDoor
from taskhub.mcp.host import McpHost
from taskhub.mcp.opened import OpenedStreams
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.wire import Wire
from tests.taskhub.mcp.world import SECRET

NOBODY = NoAuth()


@pytest.fixture
def door(tickets: TicketService) -> McpDoor:
    def make(opened: OpenedStreams) -> McpHost:
        return host_module.McpHost(
            tickets, secret=SECRET, transports=("http", "sse"), allowed_hosts=("127.0.0.1",),
            allowed_origins=(), max_age_s=840, version="1.2.3", opened=opened,
        )  # fmt: skip

    return McpDoor(make, tickets=tickets, transports=("http", "sse"))


@asynccontextmanager
async def serving(door: McpDoor) -> AsyncIterator[Wire]:
    async def handle(request: web.Request) -> web.StreamResponse:
        principal = await NOBODY.authenticate(request.headers, request.remote)
        return await door.handle_mcp(request, Caller(principal, "mcp_tool", "request-1"))

    app = web.Application()
    app.router.add_route("*", "/mcp", handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as http:
        try:
            yield Wire(http, f"http://127.0.0.1:{runner.addresses[0][1]}/mcp")
        finally:
            await door.stop(0)
            await runner.cleanup()


class Counted:
    """McpHost, counting how many are made; `fails` of them are not."""

    def __init__(self, fails: int = 0) -> None:
        self.made = 0
        self.fails = fails
        self.let = threading.Event()
        self.let.set()

    def __call__(self, *arguments: Any, **options: Any) -> McpHost:
        self.made += 1
        self.let.wait(30)
        if self.made <= self.fails:
            raise OSError("no room on the device")
        return McpHost(*arguments, **options)


async def test_many_who_come_first_find_one_host(door: McpDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    monkeypatch.setattr(host_module, "McpHost", counted)
    async with serving(door) as wire:
        sessions = await asyncio.gather(*(wire.open() for _ in range(10)))
        listed = await wire.send("tools/list", Mcp_Session_Id=sessions[0])

    assert counted.made == 1
    assert len(set(sessions)) == 10
    assert listed.result["tools"]


async def test_one_who_leaves_takes_nothing_from_the_others(door: McpDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    counted.let.clear()
    monkeypatch.setattr(host_module, "McpHost", counted)
    async with serving(door) as wire:
        leaving = asyncio.create_task(wire.open())
        staying = asyncio.create_task(wire.open())
        while not counted.made:
            await asyncio.sleep(0.01)
        leaving.cancel()
        counted.let.set()

        assert await staying


async def test_what_could_not_be_loaded_is_loaded_by_the_next(door: McpDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "McpHost", Counted(fails=1))
    async with serving(door) as wire:
        with pytest.raises(OSError, match="no room"):
            await door.host()

        assert await wire.open()


async def test_a_server_that_stops_loads_nothing_any_more(door: McpDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted()
    monkeypatch.setattr(host_module, "McpHost", counted)
    async with serving(door) as wire:
        await door.stop(0)
        answer = await wire.send("tools/list")

    assert (answer.status, counted.made) == (503, 0)
    assert answer.headers["Retry-After"]


async def test_a_server_that_stops_while_it_loads_stops_what_it_has_loaded(
    door: McpDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted()
    counted.let.clear()
    monkeypatch.setattr(host_module, "McpHost", counted)
    loading = asyncio.create_task(door.host())
    while not counted.made:
        await asyncio.sleep(0.01)
    stopping = asyncio.create_task(door.stop(0))
    counted.let.set()
    await stopping

    assert (await loading).draining


async def test_until_then_nothing_is_told_and_nothing_taken(door: McpDoor) -> None:
    await door.take(b"{}")
    door.scopes_changed(["key_1"])
    await door.stop(0)
