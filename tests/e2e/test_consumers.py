"""Consumers written with what people use receive a known sequence, and nothing that was not sent."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api
from tests.e2e.harness.consumers import (
    Consumer,
    chromium_consumer,
    curl_consumer,
    httpx_consumer,
    node_consumer,
    wait_for_event,
)
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import Recorder, record
from tests.e2e.harness.waiting import until

Opener = Callable[[str], AbstractAsyncContextManager[Consumer]]

CONSUMERS = [
    pytest.param(chromium_consumer, id="chromium", marks=pytest.mark.needs("chromium")),
    pytest.param(node_consumer, id="npm-eventsource", marks=pytest.mark.needs("npm packages")),
    pytest.param(httpx_consumer, id="httpx-sse"),
    pytest.param(curl_consumer, id="curl", marks=pytest.mark.needs("curl")),
]


@pytest.fixture(scope="module")
def quick_heart_process(
    tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]
) -> Iterator[TaskHubProcess]:
    """A server whose streams carry a heartbeat every second, so that some fall into each test; not started."""
    environment = {"TASKHUB_SSE_HEARTBEAT_S": "1"}
    hub = TaskHubProcess(tmp_path_factory.mktemp("quick") / "taskhub", environment=environment, name="quick")
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest.fixture
async def quick_heart(quick_heart_process: TaskHubProcess) -> TaskHubProcess:
    """The same server, running."""
    return quick_heart_process if quick_heart_process.running else await quick_heart_process.start()


async def next_heartbeat(stream: Recorder) -> None:
    """Wait until a heartbeat has passed on this stream, and so on every other that is as old."""
    heartbeats = stream.parser.heartbeats
    await stream.wait_for(lambda: stream.parser.heartbeats > heartbeats, "heartbeat")


async def is_ready(consumer: Consumer) -> bool:
    return any(entry["event"] == "ready" for entry in await consumer.seen())


@pytest.mark.parametrize("consumer_of", CONSUMERS)
async def test_a_consumer_is_given_a_known_sequence_and_no_phantoms(
    quick_heart: TaskHubProcess, consumer_of: Opener
) -> None:
    url = f"{quick_heart.url}/events/stream"
    async with api(quick_heart.url) as client, record(quick_heart.url) as reference, consumer_of(url) as consumer:
        await reference.wait_ready()
        await until(lambda: is_ready(consumer), "ready")
        wanted = []
        for number in range(3):
            await next_heartbeat(reference)
            made = await client.create(f'改行と "quotes" and 🎫 {number}')
            moved = await client.change(made["key"], status="in_progress", comment="line one\r\nline two\u2028three")
            wanted += [made["event_id"], moved["event_id"]]
        wanted += await client.publish(*[{"type": "build.finished", "data": {"n": n}} for n in range(3)])
        await reference.wait_id(wanted[-1])
        await next_heartbeat(reference)
        seen = await wait_for_event(consumer, wanted[-1])

        assert [e["event"] for e in seen] == ["hello", "ready"] + ["message"] * len(wanted)
        assert [e["id"] for e in seen[2:]] == wanted
        assert [e["data"] for e in seen[2:]] == reference.events[-len(wanted) :]
        assert seen[2]["data"]["data"]["ticket"]["summary"] == '改行と "quotes" and 🎫 0'
        assert seen[3]["data"]["data"]["comment"] == "line one\r\nline two\u2028three"


@pytest.mark.parametrize("consumer_of", CONSUMERS)
async def test_a_consumer_of_batches_and_snapshots_is_given_them_whole(
    quick_heart: TaskHubProcess, consumer_of: Opener
) -> None:
    async with api(quick_heart.url) as client:
        for number in range(3):
            await client.create(f"For the snapshot {number}", labels=["snapshot"])
        url = f"{quick_heart.url}/events/stream?snapshot=1&batch=300&type=build.*,ticket.*"
        async with consumer_of(url) as consumer:
            await until(lambda: is_ready(consumer), "ready")
            wanted = await client.publish(*[{"type": "build.finished", "data": {"n": n}} for n in range(20)])
            seen = await wait_for_event(consumer, wanted[-1])
            tickets = await client.all_tickets()

    names = [e["event"] for e in seen]
    given = [
        event["id"]
        for entry in seen
        if entry["event"] in ("message", "batch_update")
        for event in entry["data"].get("events", [entry["data"]])
    ]
    assert given == wanted
    assert "batch_update" in names
    assert set(names) == {"hello", "snapshot", "ready", "message", "batch_update"} - (
        set() if "message" in names else {"message"}
    )
    snapshot = {t["key"]: t for entry in seen if entry["event"] == "snapshot" for t in entry["data"]["tickets"]}
    assert snapshot == tickets


@pytest.mark.parametrize("consumer_of", [p for p in CONSUMERS if p.id in ("chromium", "npm-eventsource")])
async def test_a_consumer_that_reconnects_by_itself_misses_nothing_when_the_server_is_killed(
    make_hub: MakeHub, consumer_of: Opener
) -> None:
    hub = await make_hub().start()
    async with consumer_of(f"{hub.url}/events/stream") as consumer:
        await until(lambda: is_ready(consumer), "ready")
        async with api(hub.url) as client:
            wanted = [(await client.create("Before the crash"))["event_id"]]
        await wait_for_event(consumer, wanted[0])
        await hub.kill()
        await hub.restart()
        async with api(hub.url) as client:
            wanted += [(await client.create(f"After the crash {n}"))["event_id"] for n in range(3)]
        seen = await wait_for_event(consumer, wanted[-1])

    assert [e["id"] for e in seen if e["event"] == "message"] == wanted
    assert [e["event"] for e in seen].count("hello") == 2
