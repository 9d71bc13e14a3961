"""Several processes on one database: what changes through one is heard on every other."""

import asyncio
import json
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp.shared.subscriptions import ResourceUpdated
from redis import Redis

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import Api, api, call, mcp_http, mcp_stdio
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import DEADLINE_S, until
from tests.servers import PostgresServer, RedisServer


@pytest.fixture
async def pair(make_hub: MakeHub, postgres: PostgresServer, redis: RedisServer) -> list[TaskHubProcess]:
    """Two servers on one PostgreSQL and one Redis, started at the same moment on an empty database."""
    environment = {
        "TASKHUB_DATABASE_URL": postgres.create_migrated(),
        "TASKHUB_REDIS_URL": redis.url,
        # So rare that what is heard sooner came through Redis.
        "TASKHUB_POLL_INTERVAL_MS": "60000",
    }
    hubs = [make_hub(name=name, environment=environment) for name in ("first", "second")]
    await asyncio.gather(*(hub.start() for hub in hubs))
    return hubs


async def subscribed(redis: RedisServer, count: int) -> None:
    """Wait until so many instances hear what is said in Redis. A stream may be ready before its instance does."""
    with Redis.from_url(redis.url) as operator:

        def subscriptions() -> int:
            channels = operator.pubsub_channels("*:*:*")  # those of workspaces
            return sum(number for name in channels for _, number in operator.pubsub_numsub(name))

        await until(lambda: subscriptions() == count, "subscription of every instance")


async def heard_through_redis(hub: TaskHubProcess, count: int) -> None:
    """Wait until the instance was told of so many changes by the others."""

    async def heard() -> bool:
        # The instance that was asked comes first.
        return bool((await client.get("/events/debug"))["instances"][0]["relay"]["received"] >= count)

    async with api(hub.url) as client:
        await until(heard, f"{count} announcements")


async def test_a_change_through_one_instance_is_heard_on_the_other_through_redis(
    pair: list[TaskHubProcess], redis: RedisServer
) -> None:
    first, second = pair
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(record(hub.url)) for hub in pair]
        for stream in streams:
            await stream.wait_ready()
        await subscribed(redis, len(pair))
        written = []
        async with mcp_http(first.url) as here, mcp_http(second.url) as there:
            for number in range(5):
                made = await call(here, "create_ticket", summary=f"Made on the first {number}")
                # One by one: a change of its own would make an instance look into the log, and find the others' there.
                await streams[1].wait_id(made["event_id"])
                moved = await call(there, "update_task_status", task_id=made["key"], status="in_progress")
                await streams[0].wait_id(moved["event_id"])
                written += [made["event_id"], moved["event_id"]]

        assert [stream.ids for stream in streams] == [written, written]
        for hub in pair:
            await heard_through_redis(hub, 5)
        async with api(first.url) as one, api(second.url) as other:
            assert await one.all_tickets() == await other.all_tickets()


async def test_a_change_through_one_instance_wakes_mcp_subscriptions_of_both_eras_on_the_other(
    pair: list[TaskHubProcess], redis: RedisServer
) -> None:
    first, second = pair
    async with api(first.url) as client:
        key = (await client.create("Watched from the other instance"))["key"]
        watched = f"taskhub://tickets/{key}"
        async with AsyncExitStack() as stack:
            modern = await stack.enter_async_context(mcp_http(second.url, "2026-07-28"))
            listening = await stack.enter_async_context(modern.listen(resource_subscriptions=[watched]))
            woken: list[str] = []
            older = await stack.enter_async_context(mcp_http(second.url, "legacy", on_update=woken.append))
            with pytest.warns(MCPDeprecationWarning):  # of the SDK, for the client of the older era
                await older.subscribe_resource(watched)
            await subscribed(redis, 1)

            await client.change(key, priority="high")

            assert await asyncio.wait_for(anext(listening), DEADLINE_S) == ResourceUpdated(watched)
            await until(lambda: woken == [watched], "wake-up of the older client")
            for mcp in (modern, older):
                (read,) = (await mcp.read_resource(watched)).contents
                assert json.loads(read.text)["ticket"]["priority"] == "high"  # type: ignore[union-attr]  # it is text


async def test_simultaneous_writers_on_both_instances_give_both_streams_one_order(
    pair: list[TaskHubProcess], redis: RedisServer
) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(record(hub.url)) for hub in pair]
        for stream in streams:
            await stream.wait_ready()
        await subscribed(redis, len(pair))
        clients = [await stack.enter_async_context(api(hub.url)) for hub in pair]

        async def write(client: Api, writer: int) -> None:
            key = (await client.create(f"Ticket of writer {writer}"))["key"]
            for number in range(15):
                await client.change(key, remarks=str(number))

        await asyncio.gather(*(write(clients[n % 2], n) for n in range(8)))
        log = [event["id"] for event in await clients[0].log()]
        for stream in streams:
            await stream.wait_id(log[-1])

        assert len(log) == 8 * 16
        assert [stream.ids for stream in streams] == [log, log]
        assert [event["id"] for event in await clients[1].log()] == log


async def test_transient_events_cross_instances_and_are_not_kept(
    pair: list[TaskHubProcess], redis: RedisServer
) -> None:
    async with record(pair[1].url) as stream, api(pair[0].url) as client:
        await stream.wait_ready()
        await subscribed(redis, 1)
        event = {"type": "presence.seen", "data": {"who": "alice"}, "transient": True}
        answer = await client.request("POST", "/events", json=event)
        assert answer.status == 201, answer
        await stream.wait_events(1)

        assert (stream.events[0]["type"], stream.named("message")[0].id) == ("presence.seen", None)
        assert await client.log() == []


@pytest.fixture
async def embedded(make_hub: MakeHub) -> TaskHubProcess:
    return await make_hub().start()


async def test_a_stdio_process_on_the_same_sqlite_file_is_heard_on_the_servers_stream(
    embedded: TaskHubProcess, tmp_path: Path
) -> None:
    async with record(embedded.url) as stream, api(embedded.url) as client:
        await stream.wait_ready()
        async with mcp_stdio(environment=embedded.environment, error_log=tmp_path / "stdio.log") as stdio:
            written = []
            for number in range(3):
                made = await call(stdio, "create_ticket", summary=f"From stdio {number}")
                # Found by looking at the file's version, about once a second; not by what the server itself writes.
                await stream.wait_id(made["event_id"])
                changed = await client.change(made["key"], status="in_progress")
                moved = await call(stdio, "update_task_status", task_id=made["key"], status="completed")
                written += [made["event_id"], changed["event_id"], moved["event_id"]]
                await stream.wait_id(moved["event_id"])

        assert stream.ids == written
        assert [e["origin"] for e in stream.events[:3]] == ["mcp_tool", "rest_api", "mcp_tool"]


async def test_a_server_and_stdio_processes_write_one_sqlite_file_at_once(
    embedded: TaskHubProcess, tmp_path: Path
) -> None:
    async with record(embedded.url) as stream, api(embedded.url) as client, AsyncExitStack() as stack:
        await stream.wait_ready()
        processes = [
            await stack.enter_async_context(
                mcp_stdio(environment=embedded.environment, error_log=tmp_path / f"stdio-{n}.log")
            )
            for n in range(2)
        ]

        async def by_rest() -> list[str]:
            return [(await client.create(f"REST {n}"))["event_id"] for n in range(15)]

        writers = [by_rest()]
        for process in processes:

            async def by_tool(stdio: object = process) -> list[str]:
                return [
                    (await call(stdio, "create_ticket", summary=f"Tool {n}"))["event_id"]  # type: ignore[arg-type]  # the default binds it
                    for n in range(15)
                ]

            writers.append(by_tool())
        written = [event_id for ids in await asyncio.gather(*writers) for event_id in ids]
        log = [event["id"] for event in await client.log()]
        await stream.wait_id(log[-1])

        assert stream.ids == log
        assert sorted(written) == sorted(log)
    with sqlite3.connect(embedded.data_dir / "taskhub.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


async def test_a_server_that_is_killed_leaves_the_other_one_serving_its_streams(pair: list[TaskHubProcess]) -> None:
    first, second = pair
    async with api(first.url) as client:
        made = await client.create("Before")
    async with record(first.url, {"since": "earliest"}) as stream:
        await stream.wait_id(made["event_id"])
        last_id = stream.last_event_id or ""
    await first.kill()

    async with api(second.url) as client, record(second.url, headers={"Last-Event-ID": last_id}) as stream:
        await stream.wait_ready()
        changed = await until(lambda: client.change(made["key"], status="in_progress"), "a change")
        await stream.wait_id(changed["event_id"])

        assert stream.ids == [changed["event_id"]]
        assert stream.frames[0].data["resume"] == "complete"
