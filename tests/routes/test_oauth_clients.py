"""Real MCP clients that know the address of the server alone, and get in through the issuer that it names."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

import aiohttp
import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata
from pydantic import AnyUrl

from routes.keys import TICKETS
from taskhub.tickets.reference_inputs import NewUser
from tests.issuer import Issuer
from tests.oauth_client import Kept
from tests.routes.conftest import DEADLINE_S, Hub, Start
from tests.servers import free_port
from tests.taskhub.world import ALICE


class Browser:
    """The person's part: follows the address to the issuer, who sends it back with a code."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._sent_back = ""

    async def open(self, address: str) -> None:
        async with self._session.get(address, allow_redirects=False) as response:
            self._sent_back = response.headers["Location"]

    async def answer(self) -> AuthorizationCodeResult:
        told = parse_qs(urlsplit(self._sent_back).query)
        return AuthorizationCodeResult(code=told["code"][0], state=told["state"][0], iss=told["iss"][0])


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def hub(start: Start, issuer: Issuer) -> Hub:
    """At an address that is known before it listens, for that is what tokens are for."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    issuer.resource = f"{url}/mcp"
    hub = await start(auth="oauth", public_url=url, oauth_issuer=issuer.url, port=port)
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Alice", role="manager"))
    return hub


@asynccontextmanager
async def authorizing(hub: Hub) -> AsyncIterator[tuple[OAuthClientProvider, Kept]]:
    browser, kept = Browser(hub.session), Kept()
    metadata = OAuthClientMetadata(client_name="tests", redirect_uris=[AnyUrl("http://127.0.0.1:9/callback")])
    yield OAuthClientProvider(f"{hub.url}/mcp", metadata, kept, browser.open, browser.answer), kept


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_client_finds_the_issuer_and_asks_for_more_when_it_needs_more(
    hub: Hub, issuer: Issuer, mode: str
) -> None:
    issuer.grants = frozenset({"tickets:read"})  # a person who lets it look, at first
    async with (
        authorizing(hub) as (auth, kept),
        httpx2.AsyncClient(auth=auth, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(f"{hub.url}/mcp", http_client=http), mode=mode) as client,
    ):
        looked = await client.call_tool("get_ticket_list", {})
        assert kept.tokens is not None
        assert kept.tokens.scope == "tickets:read"
        issuer.grants = frozenset({"tickets:read", "tickets:write"})
        made = await client.call_tool("create_ticket", {"summary": "by a client that was let in"})
        again = await client.call_tool("get_ticket_list", {})

    assert not looked.is_error, looked
    assert not made.is_error, made
    assert not again.is_error, again
    assert kept.tokens.scope == "tickets:read tickets:write"
    assert len(issuer.scopes_asked) == 2
    assert set(issuer.scopes_asked[0].split()) == {"tickets:read", "tickets:write", "events:read"}
    assert set(issuer.resources_asked) == {f"{hub.url}/mcp"}


async def test_a_client_of_the_older_transport_gets_in_the_same_way(hub: Hub, issuer: Issuer) -> None:
    async with (
        authorizing(hub) as (auth, _),
        Client(sse_client(f"{hub.url}/sse", timeout=DEADLINE_S, auth=auth), mode="legacy") as client,
    ):
        assert not (await client.call_tool("create_ticket", {"summary": "x"})).is_error


async def test_what_a_client_does_is_done_by_an_agent_of_its_user(hub: Hub, issuer: Issuer) -> None:
    async with (
        authorizing(hub) as (auth, kept),
        httpx2.AsyncClient(auth=auth, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(f"{hub.url}/mcp", http_client=http)) as client,
    ):
        await client.call_tool("create_ticket", {"summary": "x"})
    assert kept.tokens is not None

    headers = {"Authorization": f"Bearer {kept.tokens.access_token}"}
    history = await hub.get("/api/v1/tickets/TH-1/history", headers=headers)

    assert {entry["actor"] for entry in history.json["items"]} == {"agent:alice.mcp"}
