"""Operators ask one instance, and all of them answer."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import SocketRecorder, record
from tests.e2e.harness.waiting import until
from tests.servers import RedisServer


@pytest.fixture
async def pair(module_pair: list[TaskHubProcess]) -> list[TaskHubProcess]:
    """Two servers on one PostgreSQL and one Redis, which all tests here share; nobody is connected to them."""
    await asyncio.gather(*(hub.start() for hub in module_pair if not hub.running))
    async with api(module_pair[0].url) as client:

        async def quiet() -> bool:
            figures = await client.get("/events/debug")
            whole = len(figures["instances"]) == len(module_pair) and not figures["partial"]
            return whole and figures["connected_clients"] == 0

        await until(quiet, "both instances without streams")
    return module_pair


@pytest.fixture
async def here(pair: list[TaskHubProcess]) -> AsyncIterator[Api]:
    """A client of the first instance."""
    async with api(pair[0].url) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def knows(client: Api, count: int) -> bool:
    """Whether so many instances answer, and nobody is missed."""
    figures = await client.get("/events/debug")
    return len(figures["instances"]) == count and not figures["partial"]


async def stream(hub: TaskHubProcess, stack: AsyncExitStack, **query: str) -> SocketRecorder:
    opened = await stack.enter_async_context(record(hub.url, query))
    await opened.wait_ready()
    return opened


def id_of(stream: SocketRecorder) -> str:
    return stream.headers["taskhub-stream"]


async def test_figures_are_those_of_all_instances_and_of_each(
    pair: list[TaskHubProcess], here: Api, stack: AsyncExitStack
) -> None:
    before = await here.get("/events/debug")
    streams = [await stream(hub, stack) for hub in (pair[0], pair[1], pair[1])]
    made = await here.create("Seen by three")
    for each in streams:
        await each.wait_id(made["event_id"])
    figures = await here.get("/events/debug")

    own, other = figures["instances"]
    then = [each["events_sent"] for each in (before, *before["instances"])]
    assert not figures["partial"]
    assert own["instance"] == streams[0].named("hello")[0].data["instance"]
    assert other["instance"] == streams[1].named("hello")[0].data["instance"]
    assert [each["connected_clients"] for each in (figures, own, other)] == [3, 1, 2]
    now = [each["events_sent"] for each in (figures, own, other)]
    assert [sent - earlier for sent, earlier in zip(now, then, strict=True)] == [3, 1, 2]
    assert figures["last_event_time"] == max(own["last_event_time"], other["last_event_time"])
    assert {each["id"] for each in other["streams"]} == {id_of(streams[1]), id_of(streams[2])}


async def test_a_stream_elsewhere_is_explained_and_ended_from_here(
    pair: list[TaskHubProcess], here: Api, stack: AsyncExitStack
) -> None:
    there = await stream(pair[1], stack, type="ticket.created")
    kept = await stream(pair[1], stack)
    made = await here.create("Shown")
    changed = await here.change(made["key"], remarks="Hidden")
    await there.wait_id(made["event_id"])
    await kept.wait_id(changed["event_id"])

    async def verdict(event: str, of: str) -> str:
        found: str = (await here.get("/events/debug/explain", params={"event": event, "stream": of}))["verdict"]
        return found

    assert await verdict(made["event_id"], id_of(there)) == "sent"
    assert await verdict(changed["event_id"], id_of(there)) == "filtered"
    assert (await here.request("DELETE", f"/events/debug/streams/{id_of(there)}")).status == 204
    await there.wait_end()
    assert there.named("goodbye")[0].data["reason"] == "rotate"
    again = await here.request("DELETE", f"/events/debug/streams/{id_of(there)}")
    assert (again.status, again.json["code"]) == (404, "not_found")
    assert not kept.ended


async def test_an_instance_that_hangs_is_missed_and_what_it_may_have_is_not_denied(
    pair: list[TaskHubProcess], here: Api, stack: AsyncExitStack
) -> None:
    own, there = await stream(pair[0], stack), await stream(pair[1], stack)
    made = await here.create("Something to explain")
    os.kill(pair[1].pid, signal.SIGSTOP)
    try:
        figures = await here.get("/events/debug")
        ended = await here.request("DELETE", f"/events/debug/streams/{id_of(there)}")
        params = {"event": made["event_id"], "stream": id_of(there)}
        explained = await here.request("GET", "/events/debug/explain", params=params)
        ended_here = await here.request("DELETE", f"/events/debug/streams/{id_of(own)}")
    finally:
        os.kill(pair[1].pid, signal.SIGCONT)

    assert (figures["partial"], figures["connected_clients"], len(figures["instances"])) == (True, 1, 1)
    assert [(each.status, each.json["code"]) for each in (ended, explained)] == [(503, "not_all_answered")] * 2
    assert ended.headers["Retry-After"]
    assert ended_here.status == 204
    await until(lambda: knows(here, 2), "both instances")


async def test_without_redis_each_instance_speaks_for_itself_and_says_so_and_one_that_stopped_is_not_missed(
    pair: list[TaskHubProcess], here: Api, stack: AsyncExitStack, module_redis: RedisServer
) -> None:
    own, there = await stream(pair[0], stack), await stream(pair[1], stack)
    module_redis.kill()

    async def alone() -> bool:
        figures = await here.get("/events/debug")
        return bool(figures["partial"]) and figures["instances"][0]["relay"]["state"] == "down"

    await until(alone, "loss of Redis")
    figures = await here.get("/events/debug")
    assert (figures["connected_clients"], len(figures["instances"])) == (1, 1)
    assert (await here.request("DELETE", f"/events/debug/streams/{id_of(there)}")).status == 503
    assert (await here.request("DELETE", f"/events/debug/streams/{id_of(own)}")).status == 204

    module_redis.start()
    await until(lambda: knows(here, 2), "both instances")
    assert (await here.request("DELETE", f"/events/debug/streams/{id_of(there)}")).status == 204

    assert await pair[1].stop() == 0
    await until(lambda: knows(here, 1), "one instance")
