"""A revoked API key ends what it opened on every instance, whoever revokes it, and also while Redis is away."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.streams import SocketRecorder, record
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer, RedisServer

SESSION = "Mcp-Session-Id"
LEGACY = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}
PAIR = {"TASKHUB_AUTH": "api_key"}


@pytest.fixture
async def pair(module_pair: list[TaskHubProcess]) -> list[TaskHubProcess]:
    """Two servers on one PostgreSQL and one Redis, which ask for stored keys and have no other."""
    await asyncio.gather(*(hub.start() for hub in module_pair if not hub.running))
    return module_pair


@pytest.fixture
async def root(pair: list[TaskHubProcess]) -> AsyncIterator[Api]:
    """An operator at the first instance, with a key made on the command line."""
    made = await run_taskhub("keys", "create", "--user", "root", "--role", "operator", environment=pair[0].environment)
    async with api(pair[0].url, bearing(made.strip())) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def bearing(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


async def make(root: Api) -> tuple[str, str]:
    """A new key: its id, and the key."""
    answer = await root.request("POST", "/api/v1/keys", json={"user": "root", "name": "short-lived"})
    assert answer.status == 201, answer
    return answer.json["key"]["id"], answer.json["secret"]


async def opened(hub: TaskHubProcess, stack: AsyncExitStack, secret: str) -> SocketRecorder:
    stream = await stack.enter_async_context(record(hub.url, headers=bearing(secret)))
    await stream.wait_ready()
    return stream


async def mcp_stream(client: Api, stack: AsyncExitStack) -> SocketRecorder:
    """The stream of an older MCP session."""
    hello = {
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "watcher", "version": "1"},
        },
    }  # fmt: skip
    answer = await client.request("POST", "/mcp", json=hello, headers=LEGACY)
    assert answer.status == 200, answer
    headers: Mapping[str, str] = {**LEGACY, SESSION: answer.headers[SESSION], **client_headers(client)}
    told = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert (await client.request("POST", "/mcp", json=told, headers=headers)).status == 202
    return await stack.enter_async_context(record(client.base_url, headers=headers, path="/mcp"))


def client_headers(client: Api) -> dict[str, str]:
    return {"Authorization": client._session.headers["Authorization"]}


async def test_a_revocation_ends_streams_on_every_instance(
    pair: list[TaskHubProcess], root: Api, stack: AsyncExitStack
) -> None:
    key, secret = await make(root)
    streams = [await opened(hub, stack, secret) for hub in pair]
    there = await stack.enter_async_context(api(pair[1].url, bearing(secret)))
    session = await mcp_stream(there, stack)

    assert (await root.request("DELETE", f"/api/v1/keys/{key}")).status == 204

    for stream in streams:
        await stream.wait_end()
        assert stream.named("goodbye")[0].data["reason"] == "revoked"
    await session.wait_end()
    for hub in pair:
        assert (await root.request("GET", "/api/v1/me")).status == 200
        async with api(hub.url, bearing(secret)) as late:
            assert (await late.request("GET", "/api/v1/me")).status == 401
            assert (await late.request("POST", "/mcp", json={}, headers=LEGACY)).status == 401


async def test_without_redis_a_revocation_is_noticed_by_the_poll(
    pair: list[TaskHubProcess], root: Api, module_redis: RedisServer, stack: AsyncExitStack
) -> None:
    key, secret = await make(root)
    there = await opened(pair[1], stack, secret)
    kept = await opened(pair[1], stack, (await make(root))[1])
    module_redis.kill()
    try:
        assert (await root.request("DELETE", f"/api/v1/keys/{key}")).status == 204

        await there.wait_end()
        assert there.named("goodbye")[0].data["reason"] == "revoked"
        assert not kept.ended
    finally:
        module_redis.start()


async def test_a_key_revoked_on_the_command_line_ends_streams_of_servers(
    pair: list[TaskHubProcess], root: Api, stack: AsyncExitStack
) -> None:
    key, secret = await make(root)
    stream = await opened(pair[0], stack, secret)

    printed = await run_taskhub("keys", "revoke", key, environment=pair[0].environment)

    assert key in printed
    await stream.wait_end()
    assert stream.named("goodbye")[0].data["reason"] == "revoked"
    listed = await run_taskhub("keys", "list", environment=pair[0].environment)
    assert "revoked" in next(line for line in listed.splitlines() if line.startswith(key))


async def test_a_key_replaces_another_without_a_gap(
    pair: list[TaskHubProcess], root: Api, stack: AsyncExitStack
) -> None:
    key, secret = await make(root)
    stream = await opened(pair[1], stack, secret)

    printed = await run_taskhub("keys", "rotate", key, "--overlap", "1h", environment=pair[0].environment)

    async with api(pair[1].url, bearing(secret)) as old, api(pair[1].url, bearing(printed.strip())) as new:
        me = [await client.get("/api/v1/me") for client in (old, new)]
        assert me[0] == me[1]
        made = await new.create("By the new key")
    await stream.wait_id(made["event_id"])


async def test_while_the_database_is_away_nobody_gets_in(
    pair: list[TaskHubProcess], root: Api, postgres: PostgresServer, stack: AsyncExitStack
) -> None:
    _, secret = await make(root)
    stream = await opened(pair[0], stack, secret)
    async with api(pair[0].url, bearing(secret)) as client:
        postgres.stop()
        try:

            async def refused() -> bool:
                answer = await client.request("GET", "/api/v1/me")
                return answer.status == 503

            await until(refused, "503 while keys cannot be read")
            assert not stream.ended
        finally:
            postgres.start()

        async def let_in() -> bool:
            return (await client.request("GET", "/api/v1/me")).status == 200

        await until(let_in, "the key is known again")


async def test_signing_out_ends_streams_on_every_instance(pair: list[TaskHubProcess], stack: AsyncExitStack) -> None:
    printed = await run_taskhub("users", "sign-in-link", "Olga", "--role", "viewer", environment=pair[0].environment)
    link = printed.strip().partition("#link=")[2]
    page = {"Sec-Fetch-Site": "same-origin"}
    streams: list[SocketRecorder] = []
    async with api(pair[0].url) as browser:
        opened = await browser.request("POST", "/api/v1/session", json={"link": link}, headers=page)
        assert opened.status == 201, opened
        secret = opened.headers["Set-Cookie"].partition(";")[0].partition("=")[2]
        for hub in pair:
            cookie = {**page, "Cookie": f"taskhub_session_{hub.port}={secret}"}
            streams.append(await stack.enter_async_context(record(hub.url, headers=cookie)))
            await streams[-1].wait_ready()

        cookie = {**page, "Cookie": f"taskhub_session_{pair[0].port}={secret}"}
        assert (await browser.request("DELETE", "/api/v1/session", headers=cookie)).status == 204

    for stream in streams:
        await stream.wait_end()
        assert stream.named("goodbye")[0].data["reason"] == "revoked"
