"""A stream cut at any byte goes on, on the other server, with exactly what was missing."""

import asyncio
from typing import Any, Final

import aiohttp
import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api
from tests.e2e.harness.frames import FrameParser
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import DEADLINE_S
from tests.servers import PostgresServer

_QUERIES: Final[tuple[dict[str, str], ...]] = (
    {},
    {"type": "!ticket.created"},
    {"status": "in_progress"},
    {"label": "vip", "changed": "status"},
    {"priority": "!none", "origin": "mcp_tool"},
    {"subject": "repo/*", "names": "1"},
    {"batch": "5", "batch_max": "4"},
    {"assignee": "none", "batch": "2000", "batch_max": "3"},
)


@pytest.fixture
async def pair(make_hub: MakeHub, postgres: PostgresServer) -> tuple[TaskHubProcess, TaskHubProcess]:
    """Two servers on one database, and a log in which tickets enter and leave the filters above."""
    environment = {"TASKHUB_DATABASE_URL": postgres.create_migrated()}
    first, second = (make_hub(name=name, environment=environment) for name in ("first", "second"))
    await asyncio.gather(first.start(), second.start())
    async with api(first.url) as client:
        for number in range(3):
            labels = ["vip", "後で"] if number else []
            key = (await client.create(f"Ticket {number}", labels=labels, person_in_charge="me"))["key"]
            await client.change(key, status="in_progress", priority="high")
            await client.change(key, labels=["vip"], person_in_charge=None, comment="a 🎫 for you")
            await client.publish({"type": "build.finished", "subject": f"repo/{number}", "data": {"n": number}})
            await client.change(key, status="completed")
    return first, second


async def recorded(url: str, query: dict[str, str]) -> bytes:
    """The bytes of a stream from the beginning of the log until it is live."""
    body = b""
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{url}/events/stream", params={"since": "earliest", **query}) as response,
    ):
        async for data in response.content.iter_any():
            body += data
            if b"event: ready\n" in body and body.endswith(b"\n\n"):
                break
    return body


def states(body: bytes) -> dict[str | None, set[int]]:
    """Of a client cut off at each byte in turn: the last id that it knows → how many events it has been given then."""
    parser = FrameParser()
    found: dict[str | None, set[int]] = {None: {0}}
    given = 0
    for place in range(len(body)):
        given += sum(len(frame.events) for frame in parser.feed(body[place : place + 1]))
        found.setdefault(parser.last_event_id, set()).add(given)
    return found


def events_of(body: bytes) -> list[dict[str, Any]]:
    return [event for frame in FrameParser().feed(body) for event in frame.events]


async def test_a_stream_cut_at_any_byte_goes_on_with_the_exact_rest_on_the_other_server(
    pair: tuple[TaskHubProcess, TaskHubProcess],
) -> None:
    first, second = pair
    for query in _QUERIES:
        body = await recorded(first.url, query)
        events = events_of(body)
        cuts = states(body)
        for last_id, given in cuts.items():
            # One id, one state: where an id stood for two, one of them would lose or repeat something.
            (count,) = given
            headers = {} if last_id is None else {"Last-Event-ID": last_id}
            async with record(second.url, {"since": "earliest", **query}, headers=headers) as stream:
                await stream.wait_ready()

                assert stream.events == events[count:], f"{query} cut after {last_id}"
        if "batch" not in query:
            assert len(cuts) > len(events) > 2, query


def test_an_id_that_is_told_before_its_event_would_be_found() -> None:
    hello = b"retry: 1\nid: a-0\nevent: hello\ndata: {}\n\n"
    early = b"id: a-1\nevent: heartbeat\ndata: {}\n\n"
    event = b'id: a-1\nevent: message\ndata: {"id": "a-1"}\n\n'

    assert states(hello + event) == {None: {0}, "a-0": {0}, "a-1": {1}}
    assert states(hello + early + event)["a-1"] == {0, 1}
