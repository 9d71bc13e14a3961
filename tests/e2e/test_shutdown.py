"""A server that is told to stop says goodbye, finishes its work and exits in its drain time."""

import asyncio
import itertools
import json
import signal
import statistics
from contextlib import AsyncExitStack
from typing import Any, Final

import asyncpg

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import MODERN, Api, api, call, mcp_http, mcp_sse
from tests.e2e.harness.crowd import crowd
from tests.e2e.harness.databases import database_url
from tests.e2e.harness.exactness import read_log
from tests.e2e.harness.streams import record, record_with_curl
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer, RedisServer

KEY: Final = {"X-API-Key": "e2e-key-" + "k" * 24}
# Development never waits long; production gives streams half the drain time to take their goodbyes. It is so long here
# that a server which waits for it to pass does not exit while a test waits for its end.
PRODUCTION: Final = {"TASKHUB_ENV": "production", "TASKHUB_API_KEY": KEY["X-API-Key"], "TASKHUB_DRAIN_S": "600"}
STREAMS_WINDOW_MS: Final = 300_000


async def test_sigterm_says_goodbye_to_every_stream_and_exits_within_the_drain_time(make_hub: MakeHub) -> None:
    hub = await make_hub(environment=PRODUCTION).start()
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(record(hub.url, headers=KEY)) for _ in range(8)]
        key = f"X-API-Key: {KEY['X-API-Key']}"
        curl = await stack.enter_async_context(record_with_curl(f"{hub.url}/events/stream", "-H", key))
        for stream in [*streams, curl]:
            await stream.wait_ready()
        async with api(hub.url, headers=KEY) as client:
            last = await client.create("The last one")

        hub.signal(signal.SIGTERM)
        status = await hub.wait_exit()

        for stream in [*streams, curl]:
            await stream.wait_end()
            goodbye = stream.frames[-1]
            assert stream.ids == [last["event_id"]]
            assert (goodbye.event, goodbye.data["reason"], goodbye.data["reconnect"]) == ("goodbye", "shutdown", True)
            assert goodbye.data["position"] == last["event_id"]
            assert goodbye.retry == goodbye.data["retry_ms"]
        assert all(stream.clean_end for stream in streams)
        assert len({stream.frames[-1].retry for stream in streams}) > 1, "everybody would come back at once"
        assert status == 0
    assert "Traceback" not in hub.log


async def test_open_mcp_connections_do_not_hold_up_the_end(make_hub: MakeHub) -> None:
    hub = await make_hub(environment={"TASKHUB_DRAIN_S": "600"}).start()
    async with mcp_http(hub.url, "legacy") as http, mcp_sse(hub.url) as sse:
        await call(http, "get_statuses")
        await call(sse, "get_statuses")

        hub.signal(signal.SIGTERM)
        status = await hub.wait_exit(deadline_s=45)  # a request that runs is waited for a tenth of the drain time

    assert status == 0
    assert "Traceback" not in hub.log


async def test_a_write_that_runs_when_the_signal_comes_is_answered_and_kept(make_hub: MakeHub) -> None:
    hub = await make_hub(environment={"TASKHUB_DRAIN_S": "60"}).start()
    async with api(hub.url) as client:
        writes = [asyncio.create_task(client.create(f"Number {n}")) for n in range(20)]
        await asyncio.wait(writes, return_when=asyncio.FIRST_COMPLETED)
        hub.signal(signal.SIGTERM)
        answers = await asyncio.gather(*writes, return_exceptions=True)
        assert await hub.wait_exit() == 0
    acknowledged = {answer["key"] for answer in answers if isinstance(answer, dict)}
    kept = {event.subject for event in await read_log(database_url(hub))}

    assert acknowledged
    assert acknowledged <= kept


async def test_while_draining_readiness_fails_and_liveness_holds_and_a_second_signal_ends_it_at_once(
    make_hub: MakeHub,
) -> None:
    hub = await make_hub(environment=PRODUCTION).start()
    async with api(hub.url, headers=KEY) as client, record(hub.url, headers=KEY, receive_buffer=4096) as stuck:
        # A client that takes nothing keeps its goodbye from being flushed, so the drain lasts.
        await stuck.wait_ready()
        stuck.pause()
        event = {"type": "build.log", "data": {"text": "x" * 60_000}}
        for _ in range(4):
            await client.publish(*[event] * 50)

        hub.signal(signal.SIGTERM)
        await until(lambda: hub.status("/readyz") == 503, "a draining server")
        assert hub.status("/healthz") == 200
        claimed = await client.request("POST", "/api/v1/tickets/claim-next")
        assert (claimed.status, claimed.json["code"], claimed.json["retryable"]) == (503, "draining", True)
        assert int(claimed.headers["Retry-After"]) > 0
        made = await client.create("Everything else goes on")
        assert (await client.get(f"/api/v1/tickets/{made['key']}"))["ticket"]["summary"] == "Everything else goes on"
        assert hub.running
        hub.signal(signal.SIGTERM)

        await hub.wait_exit()


async def use_tool(client: Api, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool without a session; returns its structured result, or error."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {
        "jsonrpc": "2.0", "id": 1, "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": meta},
    }  # fmt: skip
    headers = {
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN,
        "Mcp-Method": "tools/call", "Mcp-Name": tool,
    }  # fmt: skip
    answer = await client.request("POST", "/mcp", json=message, headers=headers)
    assert answer.status == 200, answer
    # A stream of one message, or of more where there is something to say before.
    *_, last = [line for line in answer.body.decode().splitlines() if line.startswith(("data: ", "{"))]
    found: dict[str, Any] = json.loads(last.removeprefix("data: "))["result"]["structuredContent"]
    return found


async def test_a_crowd_leaves_spread_out_and_what_runs_is_finished_and_heard_elsewhere(
    make_hub: MakeHub, postgres: PostgresServer, redis: RedisServer
) -> None:
    environment = PRODUCTION | {
        "TASKHUB_DATABASE_URL": postgres.create_migrated(),
        "TASKHUB_REDIS_URL": redis.url,
        # So rare that what is heard sooner came through Redis.
        "TASKHUB_POLL_INTERVAL_MS": "60000",
        "TASKHUB_SSE_MAX_STREAMS_PER_PRINCIPAL": "0",
        "TASKHUB_SSE_NEW_STREAMS_PER_S": "0",
    }
    leaving, staying = (make_hub(name=name, environment=environment) for name in ("leaving", "staying"))
    await asyncio.gather(leaving.start(), staying.start())
    lock, look = [await asyncpg.connect(environment["TASKHUB_DATABASE_URL"]) for _ in range(2)]
    try:
        async with AsyncExitStack() as stack:
            people = await stack.enter_async_context(crowd(leaving.url, 2000, KEY))
            there = await stack.enter_async_context(record(staying.url, headers=KEY))
            here, elsewhere = [await stack.enter_async_context(api(hub.url, KEY)) for hub in (leaving, staying)]
            await there.wait_ready()
            first = await here.create("Before")
            await there.wait_id(first["event_id"])

            polls = [
                asyncio.create_task(here.get(f"/api/v1/events?after={first['event_id']}&wait=50")),
                asyncio.create_task(use_tool(here, "get_events", after=first["event_id"], wait_seconds=50)),
            ]
            async with lock.transaction():
                await lock.execute("SELECT 1 FROM workspaces FOR UPDATE")
                new = {"json": {"summary": "Slow"}}
                writes = [asyncio.create_task(here.request("POST", "/api/v1/tickets", **new)) for _ in range(3)]
                tool_writes = [asyncio.create_task(use_tool(here, "create_ticket", summary="Slow")) for _ in range(3)]
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                await until(lambda: look.fetchval(waits), "write that waits")
                leaving.signal(signal.SIGTERM)
                await until(lambda: leaving.status("/readyz") == 503, "a draining server")
            answers = await asyncio.gather(*writes)
            written = [answer.json for answer in answers if answer.status == 201]
            # On a machine so slow that the database gave up waiting for the lock, the answer says so.
            assert {answer.json["code"] for answer in answers if answer.status != 201} <= {"storage_busy"}
            written += [answer for answer in await asyncio.gather(*tool_writes) if "key" in answer]
            polled = await asyncio.gather(*polls)
            assert await leaving.wait_exit() == 0

            # What ran was answered, and everybody else has heard of it.
            assert {"position"} <= polled[0].keys() & polled[1].keys()
            kept = await elsewhere.all_tickets()
            assert {ticket["key"] for ticket in written} < kept.keys()
            after = await elsewhere.create("After")
            log = [event["id"] for event in await elsewhere.log()]
            await there.wait_id(after["event_id"])
            assert there.ids == log
            assert {ticket["event_id"] for ticket in written} < set(log)
            assert len(kept) + 1 == len(log) == len(written) + 2

            # Everybody was told, and when to come back.
            await people.wait_end()
            retries = []
            for member in people.members:
                frames, proper_end = member.read()
                goodbye = frames[-1]
                assert proper_end
                assert (goodbye.event, goodbye.data["reason"], goodbye.data["reconnect"]) == (
                    "goodbye", "shutdown", True,
                )  # fmt: skip
                assert goodbye.retry == goodbye.data["retry_ms"]
                heard = [event["id"] for frame in frames for event in frame.events]
                assert heard == log[: len(heard)]
                assert goodbye.data["position"] == heard[-1]
                retries.append(goodbye.data["retry_ms"])
    finally:
        await lock.close()
        await look.close()
    assert "Traceback" not in leaving.log
    # Evenly over the window: of 2000, each tenth of it gets 200 give or take 13.
    assert 0.1 * STREAMS_WINDOW_MS <= min(retries) <= max(retries) <= STREAMS_WINDOW_MS
    tenths = statistics.quantiles(retries, n=10)
    width = 0.9 * STREAMS_WINDOW_MS / 10
    assert all(0.5 * width < high - low < 1.5 * width for low, high in itertools.pairwise(tenths))
    # In random order: neither the first to come nor the last leaves first.
    came = {member: number for number, member in enumerate(people.members)}
    went = [came[member] for member in people.left]
    assert len(went) == len(came)
    assert abs(statistics.correlation(range(len(went)), went)) < 0.5
