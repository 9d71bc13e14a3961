"""The MCP transports over a real socket: eras, callers, lists, refusals."""

import asyncio
import io
from collections.abc import AsyncIterator

import aiohttp
import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from sse_starlette import EventSourceResponse

from taskhub.auth.providers import ApiKeyAuth
from taskhub.mcp.bridge import MAX_BODY_BYTES
from taskhub.mcp.headers import SESSION_HEADER, VERSION_HEADER
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.gate import Gate, gated
from tests.taskhub.mcp.wire import Wire, in_session
from tests.taskhub.mcp.world import DEADLINE_S, MODERN, Served, data_of, serve_mcp, until

EVERY_WAY = ["auto", "legacy", MODERN, "sse"]


def path_of(mode: str) -> str:
    return "/sse" if mode == "sse" else "/mcp"


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def wire(served: Served, http: aiohttp.ClientSession) -> Wire:
    return Wire(http, f"{served.url}/mcp")


@pytest.mark.parametrize("mode", EVERY_WAY)
async def test_a_client_of_every_era_and_transport_lists_and_calls_the_tools(served: Served, mode: str) -> None:
    async with served.client(mode, path=path_of(mode)) as client:
        listed = await client.list_tools()
        created = data_of(await client.call_tool("create_ticket", {"summary": "from a tool"}))
        read = data_of(await client.call_tool("get_ticket_detail", {"ticket_id": created["key"]}))

    assert [tool.name for tool in listed.tools] == [tool.name for tool in served.host.registry.tools]
    assert read["ticket"]["summary"] == "from a tool"
    assert read["ticket"]["version"] == created["version"] == 1


@pytest.mark.parametrize("mode", EVERY_WAY)
async def test_a_failed_call_and_an_unknown_tool_look_the_same_everywhere(served: Served, mode: str) -> None:
    async with served.client(mode, path=path_of(mode)) as client:
        await client.list_tools()  # so that the client checks results against the schemas
        failed = await client.call_tool("get_ticket_detail", {"ticket_id": "TH-99"})
        with pytest.raises(MCPError) as unknown:
            await client.call_tool("dance", {})

    assert failed.is_error
    assert data_of(failed)["code"] == "not_found"
    assert unknown.value.code == INVALID_PARAMS


@pytest.mark.parametrize("mode", EVERY_WAY)
async def test_an_unnamed_caller_goes_by_its_clients_name(served: Served, mode: str) -> None:
    async with served.client(mode, path=path_of(mode), name="Claude Code") as client:
        await client.call_tool("create_ticket", {"summary": "x"})
        history = data_of(await client.call_tool("get_ticket_detail", {"ticket_id": "TH-1", "include": ["history"]}))

    (entry,) = history["history"]
    assert (entry["actor"], entry["origin"]) == ("agent:claude_code", "mcp_tool")


@pytest.mark.parametrize("mode", EVERY_WAY)
async def test_a_caller_that_names_itself_goes_by_that_name(served: Served, mode: str) -> None:
    headers = {"X-TaskHub-Actor": "user:alice"}
    async with served.client(mode, path=path_of(mode), headers=headers) as client:
        await client.call_tool("create_ticket", {"summary": "x"})
        history = data_of(await client.call_tool("get_ticket_detail", {"ticket_id": "TH-1", "include": ["history"]}))

    assert history["history"][0]["actor"] == "user:alice"


@pytest.mark.parametrize(
    ("named", "actor"),
    [
        ({}, "agent:claude_code"),
        ({"X-TaskHub-Actor": "Bot 7"}, "agent:bot_7"),
        ({"X-TaskHub-Actor": "user:alice"}, None),
    ],
)
async def test_clients_that_share_a_key_are_agents_by_their_names(
    tickets: TicketService, named: dict[str, str], actor: str | None
) -> None:
    headers = {"X-API-Key": "right", **named}
    async with (
        serve_mcp(tickets, auth=ApiKeyAuth("right")) as served,
        served.client("legacy", headers=headers, name="Claude Code") as client,
    ):
        await client.call_tool("create_ticket", {"summary": "x"})
        history = data_of(await client.call_tool("get_ticket_detail", {"ticket_id": "TH-1", "include": ["history"]}))

    # With a key nobody is another person; that client goes by its own name then.
    assert history["history"][0]["actor"] == (actor or "agent:claude_code")


async def test_a_client_cannot_take_a_users_name(wire: Wire) -> None:
    session = await wire.open("user:alice")

    await wire.call("create_ticket", {"summary": "x"}, **in_session(session))

    assert await actor_of_first_ticket(wire, session) == "agent:user_alice"


async def actor_of_first_ticket(wire: Wire, session: str) -> str:
    answer = await wire.call("get_ticket_detail", {"ticket_id": "TH-1", "include": ["history"]}, **in_session(session))
    actor: str = answer.data["history"][-1]["actor"]
    return actor


async def test_a_request_without_any_name_is_the_local_users(wire: Wire) -> None:
    await wire.modern("tools/call", {"name": "create_ticket", "arguments": {"summary": "x"}})
    answer = await wire.modern(
        "tools/call", {"name": "get_ticket_detail", "arguments": {"ticket_id": "TH-1", "include": ["history"]}}
    )

    assert answer.data["history"][0]["actor"] == "user:local"


async def test_the_headers_of_each_request_count_also_in_a_session_that_an_earlier_one_opened(wire: Wire) -> None:
    session = await wire.open()

    every = await wire.send("tools/list", **in_session(session))
    reading = await wire.send("tools/list", **in_session(session), X_MCP_Readonly="true")
    reference = await wire.send("tools/list", **in_session(session), X_MCP_Toolsets="reference")
    refused = await wire.call("create_ticket", {"summary": "x"}, **in_session(session), X_MCP_Readonly="true")

    assert [tool["name"] for tool in every.result["tools"]][2] == "create_ticket"
    assert all(tool["annotations"]["readOnlyHint"] for tool in reading.result["tools"])
    assert reference.result["tools"][0]["name"] == "get_users"
    assert refused.data["code"] == "read_only"


async def test_lists_may_be_kept_for_a_while_by_their_caller(wire: Wire) -> None:
    answer = await wire.modern("tools/list")

    assert (answer.result["ttlMs"], answer.result["cacheScope"]) == (300_000, "private")


async def test_the_list_is_one_page(wire: Wire) -> None:
    first = await wire.modern("tools/list")
    second = await wire.modern("tools/list", {"cursor": "2"})

    assert "nextCursor" not in first.result
    assert second.message["error"]["code"] == INVALID_PARAMS


async def test_a_stream_is_opened_at_mcp_by_a_client_that_knows_the_older_transport_alone(served: Served) -> None:
    async with served.client("sse", path="/mcp") as client:
        created = data_of(await client.call_tool("create_ticket", {"summary": "x"}))

    assert created["key"] == "TH-1"


async def test_a_plain_get_at_mcp_that_wants_no_stream_opens_none(served: Served, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{served.url}/mcp", headers={"Accept": "text/html"}) as response:
        assert response.status == 406


async def test_the_older_transport_can_be_turned_off(tickets: TicketService, http: aiohttp.ClientSession) -> None:
    async with serve_mcp(tickets, transports=("http",)) as served:
        stream = {"Accept": "text/event-stream"}
        for method, path in (("GET", "/sse"), ("POST", "/message?session_id=0")):
            async with http.request(method, served.url + path, headers=stream, json={}) as response:
                assert response.status == 404
        async with http.get(f"{served.url}/mcp", headers=stream) as response:
            assert response.status == 400
        async with served.client("legacy") as client:
            assert (await client.list_tools()).tools


async def test_streamable_http_can_be_turned_off(tickets: TicketService, http: aiohttp.ClientSession) -> None:
    async with serve_mcp(tickets, transports=("sse",)) as served:
        assert (await Wire(http, f"{served.url}/mcp").initialize()).status == 404
        async with served.client("sse", path="/mcp") as client:
            assert (await client.list_tools()).tools


@pytest.mark.parametrize(
    ("path", "method"), [("/mcp", "POST"), ("/mcp", "GET"), ("/sse", "GET"), ("/message?session_id=0", "POST")]
)
@pytest.mark.parametrize(
    ("header", "value", "status"),
    [
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example:80", 421),
        ("Origin", "https://evil.example", 403),
    ],
)
async def test_hosts_and_origins_of_others_are_refused(
    served: Served, http: aiohttp.ClientSession, path: str, method: str, header: str, value: str, status: int
) -> None:
    headers = {"Accept": "application/json, text/event-stream", header: value}
    async with http.request(
        method, served.url + path, headers=headers, json={} if method == "POST" else None
    ) as answer:
        assert answer.status == status


async def test_an_allowed_origin_is_let_in_with_and_without_its_port(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets, allowed_origins=("http://localhost:*", "https://board.example")) as served:
        wire = Wire(http, f"{served.url}/mcp")
        for origin in ("http://localhost", "http://localhost:3000", "https://board.example"):
            assert (await wire.initialize(Origin=origin)).status == 200


async def test_a_body_over_four_mebibytes_is_refused(served: Served, http: aiohttp.ClientSession) -> None:
    for path in ("/mcp", "/message"):
        async with http.post(served.url + path, data=io.BytesIO(b" " * (MAX_BODY_BYTES + 1))) as response:
            assert response.status == 413


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b"\xff", b'{"jsonrpc":"2.0","id":1}', b"[]", b"null"])
@pytest.mark.parametrize("version", ["2025-06-18", MODERN, "1999-01-01"])
async def test_a_body_that_is_no_request_gets_a_client_error(
    served: Served, http: aiohttp.ClientSession, body: bytes, version: str
) -> None:
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
        VERSION_HEADER: version,
    }
    async with http.post(f"{served.url}/mcp", data=body, headers=headers) as response:
        assert 400 <= response.status < 500


async def test_a_message_for_a_stream_that_is_not_there_is_refused(served: Served, http: aiohttp.ClientSession) -> None:
    for session, status in (("0" * 32, 404), ("x", 400)):
        async with http.post(f"{served.url}/message?session_id={session}", json={}) as response:
            assert response.status == status


async def test_a_client_that_leaves_cancels_its_call(
    gate: Gate, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventSourceResponse, "DEFAULT_PING_INTERVAL", 1000)  # it is not a ping that finds nobody there
    async with gated(gate) as served:
        wire = Wire(http, f"{served.url}/mcp")
        call = asyncio.create_task(wire.modern("tools/call", {"name": "wait", "arguments": {}}))
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)

        call.cancel()

        await asyncio.wait_for(gate.cancelled.wait(), DEADLINE_S)


async def test_a_session_that_is_open_is_not_another_transports(wire: Wire) -> None:
    session = await wire.open()

    async with wire.http.get(wire.url, headers={"Accept": "text/event-stream", SESSION_HEADER: session}) as stream:
        assert stream.status == 200
        assert stream.headers["Content-Type"].startswith("text/event-stream")
        answer = await wire.send("tools/list", **in_session(session))

    assert answer.result["tools"]


async def test_a_closed_host_says_so(served: Served, http: aiohttp.ClientSession) -> None:
    await served.host.stop(1)

    answer = await Wire(http, f"{served.url}/mcp").initialize()

    assert (answer.status, answer.headers["Retry-After"]) == (503, "2")


async def test_no_task_is_left_when_the_host_has_stopped(tickets: TicketService) -> None:
    before = asyncio.all_tasks()
    async with serve_mcp(tickets) as served:
        for mode in EVERY_WAY:
            async with served.client(mode, path=path_of(mode)) as client:
                await client.list_tools()

    def left() -> set[str]:
        # The SDK's stream library looks for a stopping uvicorn in a task of its own, one per event loop.
        tasks = asyncio.all_tasks() - before
        return {task.get_name() for task in tasks if "_shutdown_watcher" not in repr(task.get_coro())}

    await until(lambda: not left())
