"""One key that asks far too much and heeds nothing: what it is told, and that nobody else notices."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import DEADLINE_S, until

ROOT: Final = {"x-api-key": "key-of-the-operator-in-the-flood"}
LIMITS: Final = {"streams": 2, "writes_per_s": 0.001, "write_burst": 3}
"""Of the key that floods. Nothing comes back within a test."""
FILES: Final = 400
"""Descriptors of the server, of which one in eight of those for streams may be a refusal that is held."""
MANY: Final = 60
"""More refusals than anybody gets at once (taskhub/limits/insisting.py)."""


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    serve = f"ulimit -n {FILES}; exec {sys.executable} -m taskhub serve --port 0 --no-reload"
    environment = {"TASKHUB_API_KEY": ROOT["x-api-key"]}
    hub = TaskHubProcess(tmp_path_factory.mktemp("flood") / "hub", command=["sh", "-c", serve], environment=environment)
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@dataclass(frozen=True, slots=True)
class Said:
    """An answer, and what came after it until the connection ended."""

    status: int
    headers: dict[str, str]
    body: bytes
    rest: bytes

    @property
    def refused(self) -> bool:
        """As the flood should be: told when to come again, on a connection that is over."""
        return (
            self.status == 429
            and self.headers.get("connection") == "close"
            and json.loads(self.body)["code"] in ("rate_limited", "too_many_streams")
            and int(self.headers["retry-after"]) >= 1
            and self.headers["x-request-id"] == json.loads(self.body)["request_id"]
            and self.rest == b""
        )


class Flooder:
    """Asks with its key, whatever it is told."""

    def __init__(self, port: int, issued: Any) -> None:
        self._port = port
        self.id = issued["key"]["id"]
        self.headers = {"x-api-key": issued["secret"]}
        head = f"Host: localhost\r\nX-API-Key: {issued['secret']}\r\n"
        self.open = f"GET /events/stream?errors=status HTTP/1.1\r\n{head}\r\n".encode()
        self.open_as_browsers = f"GET /events/stream HTTP/1.1\r\n{head}\r\n".encode()
        self.type = f"flood.{self.id}"
        self.body = json.dumps({"type": self.type, "data": {}}).encode()
        self.head = f"{head}Content-Type: application/json\r\nContent-Length: {len(self.body)}\r\n"
        self.write = f"POST /events HTTP/1.1\r\n{self.head}\r\n".encode() + self.body

    async def ask(self, *parts: bytes) -> Said:
        """Send a request in these parts, each on its way before the next, on a connection of its own."""
        async with asyncio.timeout(DEADLINE_S):
            reader, writer = await self.connect()
            try:
                for part in parts:
                    writer.write(part)
                    await asyncio.sleep(0)
                first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
                headers = {name.lower(): text.strip() for name, _, text in (each.partition(":") for each in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                rest = await reader.read() if headers.get("connection") == "close" else b""
            finally:
                writer.close()
        return Said(int(first.split()[1]), headers, body, rest)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def ask_often(self, *parts: bytes) -> list[Said]:
        """The same many times at once."""
        return await asyncio.gather(*(self.ask(*parts) for _ in range(MANY)))

    async def insist(self, *parts: bytes) -> list[Said]:
        """The same until the connections of refusals end with them; all answers."""
        answers: list[Said] = []

        async def told() -> bool:
            answers.extend(await self.ask_often(*parts))
            return any(answer.refused for answer in answers)

        await until(told, "refusal of who insists")
        return answers


@pytest.fixture
async def flooder(hub: TaskHubProcess, request: pytest.FixtureRequest) -> AsyncIterator[Flooder]:
    """Somebody of the test's own."""
    async with api(hub.url, ROOT) as operator:
        yield await a_flooder(operator, hub.port, request.node.name[:60])


async def a_flooder(operator: Api, port: int, name: str) -> Flooder:
    await operator.request("POST", "/api/v1/users", json={"name": name, "role": "agent"})
    made = await operator.request("POST", "/api/v1/keys", json={"user": name, "name": "flood", "limits": LIMITS})
    assert made.status == 201, made
    return Flooder(port, made.json)


async def held(operator: Api) -> int:
    text: str = (await operator.request("GET", "/metrics")).body.decode()
    return int(next(line.split()[1] for line in text.splitlines() if line.startswith("taskhub_limit_refusals_held ")))


async def refused(operator: Api) -> dict[str, int]:
    found: dict[str, int] = (await operator.get("/events/debug"))["refused"]
    return found


async def test_each_of_a_flood_of_changes_is_answered_and_counted_and_nothing_is_changed(
    hub: TaskHubProcess, flooder: Flooder
) -> None:
    async with api(hub.url, ROOT) as operator:
        before = (await refused(operator)).get("writes_per_s", 0)
        answers = await flooder.insist(flooder.write)
        made = [answer for answer in answers if answer.status == 201]

        assert len(made) == LIMITS["write_burst"]
        for answer in answers:
            if answer not in made:
                assert (answer.status, json.loads(answer.body)["code"]) == (429, "rate_limited")
                assert int(answer.headers["retry-after"]) >= 1
        assert (await refused(operator))["writes_per_s"] - before == len(answers) - len(made)
        assert len([event for event in await operator.log() if event["type"] == flooder.type]) == len(made)
        # It may still read.
        assert (await operator.request("GET", "/api/v1/tickets", headers=flooder.headers)).status == 200
        assert "asks on after refusals" in hub.log
        assert hub.log.count("asks on after refusals") < len(answers) / 10


@pytest.mark.parametrize("what", ["write", "open"])
async def test_a_flood_is_refused_before_anything_looks_at_it_that_writes_to_the_log(
    hub: TaskHubProcess, flooder: Flooder, what: str
) -> None:
    if what == "open":
        kept = [await flooder.connect() for _ in range(2)]
        for reader, writer in kept:
            writer.write(flooder.open)
            await reader.readuntil(b"event: ready")
    else:
        kept = []

    async def unseen() -> bool:
        answers = await flooder.insist(getattr(flooder, what))
        return any(answer.refused and answer.headers["x-request-id"] not in hub.log for answer in answers)

    await until(unseen, "refusal by the first bytes")
    for _, writer in kept:
        writer.close()


async def test_streams_beyond_its_share_are_told_in_the_way_that_was_asked_for_until_it_gives_way(
    flooder: Flooder,
) -> None:
    kept = [await flooder.connect() for _ in range(2)]
    async with asyncio.timeout(DEADLINE_S):
        for reader, writer in kept:
            writer.write(flooder.open)
            await reader.readuntil(b"event: ready")
        for answer in await flooder.insist(flooder.open):
            assert (answer.status, json.loads(answer.body)["code"]) == (429, "too_many_streams")
        for answer in await flooder.ask_often(flooder.open_as_browsers):
            assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
            assert answer.body.startswith(b"retry: ")
            assert b"event: goodbye" in answer.body
            assert b'"reason":"limit","reconnect":true' in answer.body
        kept[0][1].close()

        async def opens() -> bool:
            reader, writer = await flooder.connect()
            kept.append((reader, writer))
            writer.write(flooder.open)
            return b" 200 " in await reader.readuntil(b"\r\n")

        await until(opens, "stream in the place of one that ended")
    for _, writer in kept:
        writer.close()


async def test_who_sends_in_parts_or_from_a_page_or_not_all_is_refused_as_well(flooder: Flooder) -> None:
    await flooder.insist(flooder.write)
    of_a_page = f"POST /events HTTP/1.1\r\n{flooder.head}Origin: http://localhost:5173\r\n\r\n".encode() + flooder.body
    parts = await flooder.insist(flooder.write[:40], flooder.write[40:])
    page = await flooder.insist(of_a_page)
    without_body = await flooder.insist(flooder.write[: -len(flooder.body)])

    assert {answer.status for answer in (*parts, *page, *without_body)} == {429}
    assert all(answer.headers["access-control-allow-origin"] == "http://localhost:5173" for answer in page)


async def test_of_what_was_sent_on_one_connection_the_rest_is_not_looked_at(
    hub: TaskHubProcess, flooder: Flooder
) -> None:
    await flooder.insist(flooder.write)
    answers = await asyncio.gather(*(flooder.ask(flooder.write * 20) for _ in range(MANY)))

    assert any(answer.refused for answer in answers)
    async with api(hub.url, ROOT) as operator:
        written = [event for event in await operator.log() if event["type"] == flooder.type]
    assert len(written) == LIMITS["write_burst"]


async def test_others_at_the_same_address_are_served_meanwhile(hub: TaskHubProcess, flooder: Flooder) -> None:
    async with api(hub.url, ROOT) as operator:
        other = await a_flooder(operator, hub.port, "well behaved")
        await flooder.insist(flooder.write)
        over = asyncio.Event()

        async def flood() -> None:
            while not over.is_set():
                await flooder.ask_often(flooder.write)

        flooding = asyncio.create_task(flood())
        try:
            await until(lambda: held(operator), "refusals that are held")
            assert (await other.ask(other.write)).status == 201
            for _ in range(20):
                assert (await operator.request("GET", "/api/v1/tickets", headers=other.headers)).status == 200
                await operator.create("not held up")
        finally:
            over.set()
            await flooding


async def test_a_key_that_insists_is_let_through_when_it_is_given_more(hub: TaskHubProcess, flooder: Flooder) -> None:
    await flooder.insist(flooder.write)
    async with api(hub.url, ROOT) as operator:
        changed = await operator.request(
            "PATCH", f"/api/v1/keys/{flooder.id}", json={"limits": {"writes_per_s": 0, "streams": 0}}
        )
        assert changed.status == 200, changed

    async def made() -> bool:
        return all(answer.status == 201 for answer in await flooder.ask_often(flooder.write))

    await until(made, "changes without a limit")


async def test_no_more_connections_are_held_than_there_is_room_for(hub: TaskHubProcess, flooder: Flooder) -> None:
    async with api(hub.url, ROOT) as operator:
        await flooder.insist(flooder.write)
        most, flooding = 0, asyncio.create_task(flooder.ask_often(flooder.write))

        async def seen() -> bool:
            nonlocal most, flooding
            most = max(most, await held(operator))
            if flooding.done():
                assert all(answer.status == 429 for answer in flooding.result())
                flooding = asyncio.create_task(flooder.ask_often(flooder.write))
            return most > 0

        await until(seen, "refusals that are held")
        assert all(answer.status == 429 for answer in await flooding)

    assert most <= (FILES * 7 // 10 - 64) // 8 < MANY
