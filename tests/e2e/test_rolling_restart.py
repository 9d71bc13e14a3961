"""Instances behind nginx are restarted one after the other, and nobody who listens or writes loses anything."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.nginx import Nginx
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import DEADLINE_S, until
from tests.servers import PostgresServer, RedisServer

pytestmark = pytest.mark.needs("nginx")

KEY: Final = {"X-API-Key": "e2e-key-" + "k" * 24}
SUBSCRIBERS: Final = 50
WRITERS: Final = 4
PAUSE_S: Final = 0.05
"""Between two writes of one writer, so that a slow machine is not buried in events while an instance starts."""

Event = dict[str, Any]


@pytest.fixture
async def pair(make_hub: MakeHub, postgres: PostgresServer, redis: RedisServer) -> list[TaskHubProcess]:
    """Two servers on one PostgreSQL and one Redis."""
    environment = {
        "TASKHUB_DATABASE_URL": postgres.create_migrated(),
        "TASKHUB_REDIS_URL": redis.url,
        "TASKHUB_API_KEY": KEY["X-API-Key"],
        "TASKHUB_MCP_TRANSPORTS": "http",
        "TASKHUB_DRAIN_S": "60",
    }
    hubs = [make_hub(name=name, environment=environment) for name in ("first", "second")]
    await asyncio.gather(*(hub.start() for hub in hubs))
    return hubs


@pytest.fixture
def stopped_at_the_end() -> Iterator[list[Nginx]]:
    started: list[Nginx] = []
    yield started
    for each in started:
        each.stop()


@pytest.fixture
async def nginx(tmp_path: Path, pair: list[TaskHubProcess], stopped_at_the_end: list[Nginx]) -> Nginx:
    server = Nginx(tmp_path / "nginx", [hub.port for hub in pair])
    stopped_at_the_end.append(server)
    return await server.start()


@pytest.fixture
async def through_nginx(nginx: Nginx) -> AsyncIterator[Api]:
    async with api(nginx.url, KEY) as client:
        yield client


class Subscriber:
    """A client that comes back with its last id whenever its stream ends, as EventSource does."""

    def __init__(self, url: str, query: dict[str, str], wants: Callable[[Event], bool]) -> None:
        self._url = url
        self._query = query
        self.wants = wants
        self.ids: list[str] = []
        self.ready = asyncio.Event()
        self.streams = 0
        self.resets = 0
        self.last_event_id = ""
        self._retry_s = 0.1

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            except AssertionError as error:
                # Neither instance answered nginx. Anything else is a fault.
                if not re.search(r": 50[234], not 200", str(error)):
                    raise
            await asyncio.sleep(self._retry_s)

    async def _listen(self) -> None:
        headers = KEY | ({"Last-Event-ID": self.last_event_id} if self.last_event_id else {})
        # HTTP/1.0: nginx may cut chunks where it likes, and the recorder would not.
        async with record(self._url, self._query, headers=headers, http="1.0") as stream:
            self.streams += 1
            seen = len(self.ids)
            while not stream.ended:
                frames = len(stream.frames)
                await stream.wait_for(lambda: stream.ended or len(stream.frames) > frames, "frame", 4 * DEADLINE_S)  # noqa: B023  # awaited within the turn
                self.ids[seen:] = stream.ids
                self.last_event_id = stream.last_event_id or self.last_event_id
                if stream.named("ready"):
                    self.ready.set()
            self.resets += len(stream.named("reset"))
            for frame in (*stream.named("hello"), *stream.named("goodbye")):
                self._retry_s = min(1.0, frame.retry / 1000 if frame.retry is not None else 0.1)


class Writer:
    """A client that repeats what failed with the same key, and notes what was acknowledged."""

    def __init__(self, client: Api, number: int) -> None:
        self._client = client
        self.number = number
        self.acknowledged: dict[int, str] = {}
        self.repeated = 0
        self.stop = False

    async def run(self) -> None:
        number = 0
        while not self.stop:
            number += 1
            event = {"type": "build.finished", "subject": f"writer/{self.number}", "data": {"number": number}}
            key = {"Idempotency-Key": f"writer-{self.number}-{number}"}
            while True:
                try:
                    answer = await self._client.request("POST", "/events", json=event, headers=key)
                except aiohttp.ClientConnectionError:
                    answer = None
                if answer is not None and answer.status < 300:
                    self.acknowledged[number] = answer.json["id"]
                    break
                assert answer is None or answer.status in (502, 503, 504), answer
                self.repeated += 1
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(PAUSE_S)


def subscribers(url: str) -> list[Subscriber]:
    """A fifth of them hears everything, the others one writer each."""
    found = []
    for number in range(SUBSCRIBERS):
        writer = number % (WRITERS + 1)
        if writer == WRITERS:
            found.append(Subscriber(url, {"type": "build.*"}, lambda event: True))
        else:
            subject = f"writer/{writer}"
            found.append(Subscriber(url, {"subject": subject}, lambda e, subject=subject: e["subject"] == subject))  # type: ignore[misc]  # the default binds it
    return found


async def test_a_rolling_restart_and_a_reload_of_nginx_lose_and_repeat_nothing(
    pair: list[TaskHubProcess], nginx: Nginx, through_nginx: Api
) -> None:
    people = subscribers(nginx.url)
    writers = [Writer(through_nginx, number) for number in range(WRITERS)]
    listening = [asyncio.create_task(each.run()) for each in people]
    writing: list[asyncio.Task[None]] = []
    try:
        for each in people:
            async with asyncio.timeout(DEADLINE_S):
                await each.ready.wait()
        writing += [asyncio.create_task(each.run()) for each in writers]

        async def written(more: int) -> None:
            """Let everybody write on, by so many."""
            wanted = [len(each.acknowledged) + more for each in writers]
            await until(
                lambda: all(len(each.acknowledged) >= least for each, least in zip(writers, wanted, strict=True)),
                "more events",
                explain=lambda: nginx.log[-2000:],
            )

        await written(5)
        for hub in pair:
            hub.signal(signal.SIGTERM)
            assert await hub.wait_exit() == 0
            await written(5)  # by the other one alone
            await hub.restart()
            await written(5)
        await nginx.reload()
        await written(5)

        for writer in writers:
            writer.stop = True
        await asyncio.gather(*writing)
        log = await through_nginx.log()
        for each in people:
            expected = [event["id"] for event in log if each.wants(event)]
            await until(
                lambda each=each, expected=expected: each.ids[-1:] == expected[-1:] or listening_failed(listening),  # type: ignore[misc]  # the defaults bind them
                "the last event",
            )
            assert each.ids == expected
    finally:
        for task in (*listening, *writing):
            task.cancel()
        await asyncio.gather(*listening, *writing, return_exceptions=True)

    acknowledged = {event_id for each in writers for event_id in each.acknowledged.values()}
    assert len(acknowledged) == sum(len(each.acknowledged) for each in writers)
    assert acknowledged == {event["id"] for event in log}
    for writer in writers:
        own = [event["data"]["number"] for event in log if event["subject"] == f"writer/{writer.number}"]
        assert own == list(range(1, len(own) + 1))
    assert all(each.resets == 0 for each in people)
    # Those of the first instance moved at least once, and then those that were all on the second.
    assert sum(each.streams - 1 for each in people) >= SUBSCRIBERS
    assert not any("Traceback" in hub.log for hub in pair)


def listening_failed(listening: list[asyncio.Task[None]]) -> bool:
    """Raise what a listener died of, such as a WireViolation."""
    for task in listening:
        if task.done():
            task.result()
    return False


async def test_heartbeats_events_and_tools_pass_unbuffered_and_streams_outlive_a_reload(
    nginx: Nginx, through_nginx: Api
) -> None:
    async with record(nginx.url, {"heartbeat": "5"}, headers=KEY, http="1.0") as stream:
        await stream.wait_ready()
        assert stream.headers["content-type"] == "text/event-stream"
        made = await through_nginx.create("Heard at once")
        await stream.wait_id(made["event_id"])
        await nginx.reload()
        made = await through_nginx.create("Heard after the reload")
        await stream.wait_id(made["event_id"])

        client_info = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "e", "version": "1"}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client_info}
        accept = {"Accept": "application/json, text/event-stream"}
        answer = await through_nginx.request("POST", "/mcp", json=message, headers=accept)
        assert (answer.status, b"serverInfo" in answer.body) == (200, True), answer
        # A name that is not ours is refused by TaskHub: the header arrives as it was sent.
        refused = await through_nginx.request("GET", "/api/v1/me", headers={"Host": "elsewhere.example"})
        assert refused.json["code"] == "misdirected_request"

        await until(lambda: stream.parser.heartbeats, "heartbeat")
        assert not stream.ended
