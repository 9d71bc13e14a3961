"""An MCP client hears when its lists have changed, which they do with the role behind its key."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import PromptListChangedNotification, ResourceListChangedNotification, ToolListChangedNotification

from routes.keys import API_KEYS, MCP, TICKETS
from taskhub.keys.model import NewKey
from taskhub.tickets.reference_inputs import NewUser
from tests.routes.conftest import DEADLINE_S, Hub, Start
from tests.taskhub.world import ALICE

ROOT = {"x-api-key": "k-bootstrap"}
MODERN = "2026-07-28"


@pytest.fixture
async def locked(start: Start) -> Hub:
    """A hub that asks for keys, with Carol, who is an agent."""
    hub = await start(api_key="k-bootstrap")
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    return hub


@pytest.fixture
async def carols(locked: Hub) -> str:
    return (await locked.app[API_KEYS].create(ALICE, NewKey(user="carol", name="laptop"))).secret


@asynccontextmanager
async def connected(hub: Hub, key: str, mode: str, heard: asyncio.Queue[object] | None = None) -> AsyncIterator[Client]:
    """An MCP client with a key. `heard` gets what it is told on its stream."""

    async def hear(message: object) -> None:
        if heard is not None:
            heard.put_nowait(message)

    async with httpx2.AsyncClient(headers={"x-api-key": key}, timeout=DEADLINE_S) as http:
        transport = streamable_http_client(f"{hub.url}/mcp", http_client=http)
        async with Client(transport, mode=mode, message_handler=hear, read_timeout_seconds=DEADLINE_S) as client:
            yield client


async def become(hub: Hub, role: str) -> None:
    answer = await hub.request("PATCH", "/api/v1/users/carol", json={"role": role}, headers=ROOT)
    assert answer.status == 200, answer


async def tools(client: Client) -> set[str]:
    return {tool.name for tool in (await client.list_tools()).tools}


async def test_a_listen_stream_tells_that_the_lists_have_changed(locked: Hub, carols: str) -> None:
    async with (
        connected(locked, carols, MODERN) as client,
        client.listen(tools_list_changed=True, resource_subscriptions=["taskhub://board"]) as subscription,
    ):
        assert subscription.honored.tools_list_changed
        assert "create_ticket" in await tools(client)

        await become(locked, "viewer")

        async with asyncio.timeout(DEADLINE_S):
            event = await anext(aiter(subscription))
        while type(event).__name__ == "ResourceUpdated":  # a change of users is one of the board's names
            async with asyncio.timeout(DEADLINE_S):
                event = await anext(aiter(subscription))
        assert type(event).__name__ == "ToolsListChanged"
        assert "create_ticket" not in await tools(client)


async def test_an_older_session_is_told_that_the_lists_have_changed(locked: Hub, carols: str) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()
    async with connected(locked, carols, "legacy", heard) as client:
        assert "create_ticket" in await tools(client)

        await become(locked, "viewer")

        expected = {ToolListChangedNotification, PromptListChangedNotification, ResourceListChangedNotification}
        async with asyncio.timeout(DEADLINE_S):
            while expected:
                expected.discard(type(await heard.get()))
        assert "create_ticket" not in await tools(client)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_where_lists_never_change_nothing_is_promised(hub: Hub, mode: str) -> None:
    async with connected(hub, "none", mode) as client:
        capabilities = client.server_capabilities

        assert capabilities.tools is not None
        assert not capabilities.tools.list_changed


async def test_where_lists_may_change_both_eras_promise_to_tell(locked: Hub, carols: str) -> None:
    for mode in ("auto", "legacy"):
        async with connected(locked, carols, mode) as client:
            assert client.server_capabilities.tools is not None
            assert client.server_capabilities.tools.list_changed


async def test_a_client_that_has_left_is_told_nothing(locked: Hub, carols: str) -> None:
    async with connected(locked, carols, "legacy") as client:
        await client.list_tools()
    async with connected(locked, carols, MODERN) as client, client.listen(tools_list_changed=True):
        pass
    subscriptions = (await locked.app[MCP].host()).subscriptions
    assert subscriptions is not None

    async with asyncio.timeout(DEADLINE_S):
        while subscriptions.lists._listeners:
            await asyncio.sleep(0.01)
