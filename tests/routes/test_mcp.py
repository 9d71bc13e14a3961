"""/mcp, /sse and /message of the whole application, middlewares included."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import pytest
from aiohttp import web
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import SecretStr

from taskhub.app import create_app
from taskhub.mcp import headers as mcp_headers
from taskhub.settings.model import Settings
from tests.routes.conftest import DEADLINE_S
from tests.taskhub.mcp.test_confirmation import Somebody


@asynccontextmanager
async def application(data_dir: Path, **settings: Any) -> AsyncIterator[str]:
    runner = web.AppRunner(create_app(Settings(data_dir=data_dir, **settings)), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    async with application(tmp_path) as found:
        yield found


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_tool_call_is_seen_by_the_rest_api(url: str, http: aiohttp.ClientSession, mode: str) -> None:
    async with Client(f"{url}/mcp", mode=mode) as client:
        await client.call_tool("create_ticket", {"summary": "by a tool"})

    async with http.get(f"{url}/api/v1/tickets/TH-1") as response:
        assert (await response.json())["ticket"]["summary"] == "by a tool"


@pytest.mark.parametrize("path", ["/sse", "/mcp"])
async def test_the_older_transport_works_at_both_addresses(url: str, path: str) -> None:
    async with Client(sse_client(url + path, timeout=DEADLINE_S), mode="legacy") as client:
        assert not (await client.call_tool("create_ticket", {"summary": "x"})).is_error


async def test_a_key_is_asked_for_when_one_is_set(tmp_path: Path, http: aiohttp.ClientSession) -> None:
    async with application(tmp_path, api_key=SecretStr("right")) as url:
        for method, path in (("POST", "/mcp"), ("GET", "/mcp"), ("GET", "/sse"), ("POST", "/message")):
            async with http.request(method, url + path) as response:
                assert response.status == 401
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
        keyed = httpx2.AsyncClient(headers={"Authorization": "Bearer right"}, timeout=DEADLINE_S)
        async with keyed, Client(streamable_http_client(f"{url}/mcp", http_client=keyed)) as client:
            assert (await client.list_tools()).tools


@pytest.mark.parametrize(("method", "path"), [("HEAD", "/mcp"), ("PUT", "/mcp"), ("HEAD", "/sse"), ("GET", "/message")])
async def test_other_methods_are_not_available(url: str, http: aiohttp.ClientSession, method: str, path: str) -> None:
    async with http.request(method, url + path) as response:
        assert response.status == 405
        assert response.headers["Allow"]


async def test_a_page_of_an_allowed_origin_may_send_and_read_what_the_protocol_needs(
    url: str, http: aiohttp.ClientSession
) -> None:
    asked = {
        "Origin": "http://localhost:3000",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": f"{mcp_headers.CORS_ALLOW_HEADER_PREFIX}region",
    }
    async with http.options(f"{url}/mcp", headers=asked) as preflight:
        assert preflight.status == 204
        allowed = {name.strip().lower() for name in preflight.headers["Access-Control-Allow-Headers"].split(",")}

    assert {name.lower() for name in mcp_headers.CORS_ALLOW_HEADERS} <= allowed
    assert "mcp-param-region" in allowed
    headers = {"Origin": "http://localhost:3000", "Accept": "text/event-stream"}
    async with http.get(f"{url}/mcp", headers=headers) as stream:
        assert stream.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
        exposed = stream.headers["Access-Control-Expose-Headers"]
        assert set(mcp_headers.CORS_EXPOSE_HEADERS) <= {name.strip() for name in exposed.split(",")}


async def test_a_server_in_front_of_another_serves_the_same_tools(url: str, tmp_path: Path) -> None:
    async with application(tmp_path / "front", api_base_url=url) as front:
        async with Client(f"{front}/mcp", mode="legacy") as client:
            await client.call_tool("create_ticket", {"summary": "through the front"})
        person = Somebody()
        async with Client(f"{front}/mcp", elicitation_callback=person) as client:
            for _ in range(10):
                await client.call_tool("create_ticket", {"summary": "through the front"})
            items = [{"ticket_id": f"TH-{n}", "priority": "high"} for n in range(1, 12)]
            changed = await client.call_tool("bulk_update_tickets", {"items": items, "idempotency_key": "k"})
            again = await client.call_tool("bulk_update_tickets", {"items": items, "idempotency_key": "k"})
        async with Client(f"{url}/mcp") as client:
            found = await client.call_tool("get_ticket_detail", {"ticket_id": "TH-1", "include": ["history"]})

    assert found.structured_content["ticket"]["summary"] == "through the front"
    assert found.structured_content["history"][0]["actor"] == "agent:mcp"
    assert found.structured_content["ticket"]["version"] == 2
    assert again.structured_content == {**changed.structured_content, "replayed": True}
    assert len(person.asked) == 1
