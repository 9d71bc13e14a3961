"""A server that is told to stop says goodbye, finishes its work and exits in its drain time."""

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import Final

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api, call, mcp_http, mcp_sse
from tests.e2e.harness.streams import record, record_with_curl
from tests.e2e.harness.waiting import until

KEY: Final = {"X-API-Key": "e2e-key-" + "k" * 24}
# Development never waits long; production gives streams half the drain time to take their goodbyes. It is so long here
# that a server which waits for it to pass does not exit while a test waits for its end.
PRODUCTION: Final = {"TASKHUB_ENV": "production", "TASKHUB_API_KEY": KEY["X-API-Key"], "TASKHUB_DRAIN_S": "600"}


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
    await hub.restart()
    async with api(hub.url) as client:
        kept = set(await client.all_tickets())

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
        assert hub.running
        hub.signal(signal.SIGTERM)

        await hub.wait_exit()
