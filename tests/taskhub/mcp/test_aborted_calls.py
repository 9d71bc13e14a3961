"""Clients that leave in the middle of a call, at any moment of it: nothing stays but what was committed."""

import asyncio
import gc
import json
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from taskhub.mcp.bridge import Exchange
from taskhub.mcp.headers import VERSION_HEADER
from taskhub.mcp.modern import ModernCall
from taskhub.tickets.inputs import NewTicket, TicketQuery
from tests.taskhub.mcp.wire import ACCEPT, Wire, in_session
from tests.taskhub.mcp.world import ALICE, MODERN, Served, serve_mcp, until
from tests.taskhub.world import World

# The SDK leaves the queues of an older response to the collector when its client has left; nothing waits at them.
pytestmark = pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning")

CALLS: Final = 250
"""Of each era, on each database."""
AT_ONCE: Final = 10
TURNS: Final = 60
"""The event loop turns less often than this while a call is served."""


class Clients:
    """Callers of one server that hang up. `session`: that of the older era, None in the 2026 one."""

    def __init__(self, served: Served, session: str | None, key: str) -> None:
        self._port = int(served.url.rpartition(":")[2])
        self._session = session
        self._key = key
        self._dice = random.Random(7)  # moments, not secrets

    async def hang_up(self, count: int) -> None:
        """Make so many calls, each of which is given up at a moment of its own; every other one would write."""
        numbers = iter(range(count))

        async def some() -> None:
            for number in numbers:
                await self._hang_up(number)

        await asyncio.gather(*(some() for _ in range(AT_ONCE)))

    async def _hang_up(self, number: int) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", self._port)
        tool, arguments = (
            ("create_ticket", written(self._session, number))
            if number % 2
            else ("get_ticket_detail", {"ticket_id": self._key, "include": ["history", "comments"]})
        )
        request = self._request(tool, arguments)
        writer.write(request[: self._dice.randint(1, len(request))] if number % 10 == 0 else request)
        for _ in range(self._dice.randint(0, TURNS)):
            await asyncio.sleep(0)
        writer.transport.abort()

    def _request(self, tool: str, arguments: Mapping[str, Any]) -> bytes:
        params: dict[str, Any] = {"name": tool, "arguments": dict(arguments)}
        if self._session is None:
            keys = "io.modelcontextprotocol/protocolVersion", "io.modelcontextprotocol/clientCapabilities"
            params["_meta"] = {keys[0]: MODERN, keys[1]: {}, "progressToken": "t"}
            headers = {VERSION_HEADER: MODERN, "Mcp-Method": "tools/call", "Mcp-Name": tool}
        else:
            headers = in_session(self._session)
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        head = {"Host": "127.0.0.1", "Accept": ACCEPT, "Content-Type": "application/json", **headers}
        lines = ["POST /mcp HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
        return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def written(session: str | None, number: int) -> dict[str, str]:
    """The arguments of a call that creates a ticket."""
    era = "2026" if session is None else "older"
    return {"summary": f"{era} {number}", "idempotency_key": f"{era}-{number}"}


def writing() -> list[str]:
    """The writes that go on although nobody waits for them any more."""
    return [name for task in asyncio.all_tasks() if (name := task.get_name()).startswith("unit of work")]


def alive() -> Counter[str]:
    """What there is of requests, by kind."""
    gc.collect()
    return Counter(
        type(each).__name__ for each in gc.get_objects() if isinstance(each, ModernCall | Exchange | web.Request)
    )


@pytest.mark.parametrize("era", ["2026", "older"])
async def test_calls_that_are_given_up_leave_nothing_but_what_they_committed(world: World, era: str) -> None:
    key = (await world.tickets.create_ticket(ALICE, NewTicket(summary="to read"))).key
    connector = aiohttp.TCPConnector(force_close=True)  # a connection that stays open keeps its last request
    async with serve_mcp(world.tickets) as served, aiohttp.ClientSession(connector=connector) as http:
        wire = Wire(http, f"{served.url}/mcp")
        session = await wire.open() if era == "older" else None
        kept = alive()  # the request that opened the session, as long as that is there
        clients = Clients(served, session, key)
        sessions = served.host._sessions._known._server_instances
        await clients.hang_up(AT_ONCE)  # what is made once is there after that
        await until(lambda: served.host._running == 0 and not writing())
        tasks, opened = len(asyncio.all_tasks()), list(sessions)

        await clients.hang_up(CALLS)

        await until(lambda: served.host._running == 0 and not writing() and len(asyncio.all_tasks()) <= tasks)
        await until(lambda: alive() <= kept)
        assert list(sessions) == opened
        assert not any(transport._request_streams for transport in sessions.values())
        committed = {ticket.summary for ticket in await everything(world)}
        for number in range(1, CALLS, 2):
            arguments = written(session, number)
            sent = {"name": "create_ticket", "arguments": arguments}
            again = await (
                wire.modern("tools/call", sent)
                if session is None
                else wire.call("create_ticket", arguments, **in_session(session))
            )
            assert again.data.get("replayed", False) == (arguments["summary"] in committed)
        assert Counter(ticket.summary for ticket in await everything(world)).most_common(1)[0][1] == 1


async def everything(world: World) -> list[Any]:
    """All tickets."""
    found: list[Any] = []
    cursor = None
    while True:
        page = await world.tickets.list_tickets(ALICE, TicketQuery(limit=100, cursor=cursor))
        found += page.tickets
        if (cursor := page.next_cursor) is None:
            return found
