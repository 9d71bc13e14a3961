"""A subscriber that comes back with its last id gets the exact rest, whatever happened in between."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.checkout import copy_of_the_code
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until

STATUSES = ("received", "in_progress", "verifying", "completed")


def build_events(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"type": "build.finished", "subject": f"repo/{n % 3}", "data": {"n": n}} for n in range(first, first + count)
    ]


def resuming(last_id: str) -> dict[str, str]:
    """The headers with which a client comes back; none on its first visit."""
    return {"Last-Event-ID": last_id} if last_id else {}


@contextlib.asynccontextmanager
async def changing_tickets(base_url: str, writers: int = 4) -> AsyncIterator[list[str]]:
    """Create and change tickets without pause until the block is left; yields the ids of the acknowledged events.

    A server that goes away is waited for; a write that got no answer is not counted.
    """
    acknowledged: list[str] = []
    stopping = asyncio.Event()

    async def write(number: int) -> None:
        chance = random.Random(number)
        keys: list[str] = []
        async with api(base_url) as client:
            while not stopping.is_set():
                try:
                    if len(keys) < 3:
                        answer = await client.create(f"Ticket of writer {number}")
                        keys.append(answer["key"])
                    else:
                        change = {"status": chance.choice(STATUSES), "remarks": str(chance.random())}
                        answer = await client.change(chance.choice(keys), **change)
                    acknowledged.append(answer["event_id"])
                except aiohttp.ClientError:
                    await asyncio.sleep(0.02)  # the server is away; this is no wait for a condition

    tasks = [asyncio.create_task(write(number)) for number in range(writers)]
    try:
        yield acknowledged
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def test_streams_cut_at_random_moments_resume_without_a_gap_or_a_repeat(hub: TaskHubProcess, rest: Api) -> None:
    before = (await rest.log())[-1:]
    since = before[0]["id"] if before else "earliest"
    collected: list[dict[str, Any]] = []
    last_id = ""
    chance = random.Random(7)

    async with changing_tickets(hub.url):
        for _ in range(12):
            async with record(hub.url, {"since": since}, headers=resuming(last_id)) as stream:
                await stream.wait_events(chance.randrange(1, 25))
                stream.cut()
                await stream.wait_end()
                collected += stream.events
                last_id = stream.last_event_id or ""
    expected = await rest.log(since if before else None)
    async with record(hub.url, headers=resuming(last_id)) as stream:
        ready = await stream.wait_ready()
        collected += stream.events

        assert [e["id"] for e in collected] == [e["id"] for e in expected]
        assert ready.data["replayed"] == len(stream.events)
        assert stream.frames[0].data["resume"] == "complete"


async def test_after_kill_9_every_acknowledged_change_arrives_once_and_in_order(make_hub: MakeHub) -> None:
    hub = await make_hub().start()
    collected: list[dict[str, Any]] = []
    last_id = ""

    async with changing_tickets(hub.url) as acknowledged:
        for _ in range(3):
            async with record(hub.url, {"since": "earliest"}, headers=resuming(last_id)) as stream:
                await stream.wait_events(40)
                await hub.kill()
                await stream.wait_end()
                collected += stream.events
                last_id = stream.last_event_id or ""
            await hub.restart()
    async with api(hub.url) as client:
        expected = await client.log()
        tickets = await client.all_tickets()
        async with record(hub.url, headers=resuming(last_id)) as stream:
            await stream.wait_ready()
            collected += stream.events

    ids = [e["id"] for e in expected]
    assert [e["id"] for e in collected] == ids
    assert set(acknowledged) <= set(ids)
    newest = {e["subject"]: e["data"]["ticket"] for e in expected}
    assert newest == tickets


async def test_a_reload_loses_nothing_and_refuses_nobody(make_hub: MakeHub, tmp_path: Any) -> None:
    checkout = copy_of_the_code(tmp_path / "checkout")
    hub = await make_hub(reload=True, checkout=checkout).start()
    first_instance = await serving_instance(hub)

    async with knocking(hub.port) as refused, changing_tickets(hub.url, writers=2) as acknowledged:
        async with record(hub.url, {"since": "earliest"}) as stream:
            await stream.wait_events(20)
            source = checkout / "taskhub/tickets/model.py"
            source.write_text(source.read_text() + "\n# saved\n")
            goodbye = await stream.wait_frame("goodbye")
            await stream.wait_end()
            collected, last_id = stream.events, stream.last_event_id or ""
        async with record(hub.url, headers=resuming(last_id)) as stream:
            await stream.wait_events(20)
            collected += stream.events
            last_id = stream.last_event_id or ""
    async with api(hub.url) as client, record(hub.url, headers=resuming(last_id)) as stream:
        await stream.wait_ready()
        collected += stream.events
        expected = await client.log()

    assert goodbye.data["reconnect"] is True
    assert goodbye.data["retry_ms"] <= 2000
    assert goodbye.retry == goodbye.data["retry_ms"]
    assert [e["id"] for e in collected] == [e["id"] for e in expected]
    assert set(acknowledged) <= {e["id"] for e in expected}
    assert refused == []
    assert await serving_instance(hub) != first_instance


@contextlib.asynccontextmanager
async def knocking(port: int) -> AsyncIterator[list[OSError]]:
    """Open a new connection again and again until the block is left; yields the refusals."""
    refused: list[OSError] = []
    stopping = asyncio.Event()

    async def knock() -> None:
        while not stopping.is_set():
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                await writer.wait_closed()
            except OSError as error:
                refused.append(error)
            await asyncio.sleep(0.005)  # a pace, not a wait

    task = asyncio.create_task(knock())
    try:
        yield refused
    finally:
        stopping.set()
        await task


async def serving_instance(hub: TaskHubProcess) -> str:
    """What tells one serving process from its successor: the instance that a stream's hello names."""
    async with record(hub.url) as stream:
        hello = await stream.wait_frame("hello")
        return str(hello.data["instance"])


@pytest.mark.parametrize("query", [{}, {"status": "in_progress,verifying"}, {"status": "!completed"}])
async def test_a_snapshot_and_the_events_after_it_give_the_tickets_table(
    hub: TaskHubProcess, rest: Api, query: dict[str, str]
) -> None:
    board: dict[str, dict[str, Any]] = {}
    async with contextlib.AsyncExitStack() as stack:
        async with changing_tickets(hub.url):
            await until(rest.all_tickets, "tickets")
            streams = []
            for _ in range(5):
                stream = await stack.enter_async_context(record(hub.url, {**query, "snapshot": 1}))
                await stream.wait_ready()
                streams.append(stream)
        table = await rest.all_tickets()
        marker = (await rest.publish({"type": "build.finished", "data": {}}))[0]
        end = await rest.create("The end", status="in_progress")
        table[end["key"]] = (await rest.all_tickets())[end["key"]]
        wanted = {key: ticket for key, ticket in table.items() if matches(ticket, query)}
        for stream in streams:
            await stream.wait_id(end["event_id"])

            board = {t["key"]: t for frame in stream.named("snapshot") for t in frame.data["tickets"]}
            first = len(board)
            for event in stream.events:
                if event["type"].startswith("ticket."):
                    key, state = event["subject"], event["data"]["ticket"]
                    assert key not in board or state["version"] == board[key]["version"] + 1, "not the next change"
                    if event.get("match") == "leave":
                        del board[key]
                    else:
                        assert event.get("match") != "enter" or key not in board
                        board[key] = state
            assert board == wanted, f"{first} in the snapshot"
            snapshots = stream.named("snapshot")
            assert [f.data["more"] for f in snapshots] == [True] * (len(snapshots) - 1) + [False]
            assert all(f.id is None for f in [stream.frames[0], *snapshots[:-1]])
            assert snapshots[-1].id is not None
            positions = [int(str(f.id).split("-")[1]) for f in stream.frames if f.id is not None]
            assert all(a <= b for a, b in itertools.pairwise(positions))
            assert (marker in stream.ids) == (query == {})


def matches(ticket: dict[str, Any], query: dict[str, str]) -> bool:
    status = ticket["status"]["id"]
    match query.get("status"):
        case None:
            return True
        case "!completed":
            return bool(status != "completed")
        case values:
            return status in values.split(",")


async def test_a_position_that_cannot_be_resumed_is_answered_by_a_reset_in_band(hub: TaskHubProcess, rest: Api) -> None:
    await rest.publish(*build_events(2))
    head = (await rest.log())[-1]["id"]
    epoch, seq = head.split("-")
    cases = {
        "epoch_changed": f"{'aaaaaaaa' if epoch != 'aaaaaaaa' else 'bbbbbbbb'}-1",
        "ahead": f"{epoch}-{int(seq) + 1_000_000}",
        "invalid": "nonsense",
    }
    for reason, requested in cases.items():
        async with record(hub.url, headers={"Last-Event-ID": requested}) as stream:
            reset = await stream.wait_frame("reset")
            await stream.wait_ready()

            assert (reset.data["reason"], reset.data["requested"], reset.id) == (reason, requested, head)
            assert stream.frames[0].data["resume"] == "reset"
        async with record(hub.url, {"snapshot": 1}, headers={"Last-Event-ID": requested}) as stream:
            await stream.wait_ready()

            assert [f.event for f in stream.frames[:2]] == ["hello", "reset"]
            assert stream.named("snapshot")[-1].data["more"] is False


async def test_where_a_stream_begins_follows_the_documented_precedence(hub: TaskHubProcess, rest: Api) -> None:
    ids = await rest.publish(*build_events(5))

    async def replayed(query: dict[str, str], **headers: str) -> list[str]:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with record(hub.url, {"type": "build.finished", **query}, headers=sent) as stream:
            await stream.wait_ready()
            return stream.ids[-5:]

    assert await replayed({}) == []
    assert await replayed({"since": "now"}) == []
    assert await replayed({"since": "earliest"}) == ids
    assert await replayed({"since": ids[2]}) == ids[3:]
    assert await replayed({"since": "15m"}) == ids
    assert await replayed({"since": "earliest", "last_event_id": ids[1]}) == ids[2:]
    assert await replayed({"since": "earliest", "last_event_id": ids[1]}, Last_Event_ID=ids[3]) == ids[4:]
