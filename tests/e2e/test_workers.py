"""`serve --workers`: several processes behind one port are one server to whoever uses it."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import httpx2
import psutil
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from taskhub import server_file
from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import MODERN, Answer, api, call, mcp_http
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import SocketRecorder, record
from tests.e2e.harness.waiting import until
from tests.routes.collector import Scraped
from tests.servers import PostgresServer, RedisServer

START_DEADLINE_S = 60.0
DEADLINE_S = 30.0
OLDER = "2025-06-18"
TIMEOUT = aiohttp.ClientTimeout(total=DEADLINE_S)


@pytest.fixture(scope="module")
def module_crew(
    tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess], postgres: PostgresServer
) -> Iterator[TaskHubProcess]:
    redis = RedisServer()
    redis.start()
    environment = {
        "TASKHUB_DATABASE_URL": postgres.create_migrated(),
        "TASKHUB_REDIS_URL": redis.url,
        "TASKHUB_WORKERS": "2",
        # So rare that what is heard sooner came through Redis.
        "TASKHUB_POLL_INTERVAL_MS": "30000",
    }
    hub = TaskHubProcess(tmp_path_factory.mktemp("crew") / "taskhub", environment=environment, name="crew")
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)
    redis.kill()


@pytest.fixture
async def crew(module_crew: TaskHubProcess) -> TaskHubProcess:
    """A server of two workers, which all tests here share."""
    if not module_crew.running:
        await module_crew.start(START_DEADLINE_S)

    async def both_answer() -> bool:
        figures: Any = await fresh(module_crew, "GET", "/events/debug")
        return len(figures["instances"]) == 2 and not figures["partial"]

    await until(both_answer, "answer of both workers", START_DEADLINE_S)
    return module_crew


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


class Streams:
    """Streams of one server, some on each of its workers."""

    def __init__(self, hub: TaskHubProcess, stack: AsyncExitStack) -> None:
        self._hub = hub
        self._stack = stack
        self.by_instance: dict[str, list[SocketRecorder]] = {}

    @property
    def all(self) -> list[SocketRecorder]:
        return [stream for streams in self.by_instance.values() for stream in streams]

    async def open(self, headers: dict[str, str] | None = None) -> SocketRecorder:
        stream = await self._stack.enter_async_context(record(self._hub.url, headers=headers))
        await stream.wait_ready(DEADLINE_S)
        self.by_instance.setdefault(instance_of(stream), []).append(stream)
        return stream

    async def open_on(self, workers: int) -> "Streams":
        """Open streams until so many workers have two at least: which worker takes a connection is the kernel's."""
        for _ in range(100):
            if len([streams for streams in self.by_instance.values() if len(streams) > 1]) == workers:
                return self
            await self.open()
        raise AssertionError(f"100 streams, all on {list(self.by_instance)}")


def instance_of(stream: SocketRecorder) -> str:
    instance: str = stream.named("hello")[0].data["instance"]
    return instance


def workers_of(hub: TaskHubProcess) -> list[psutil.Process]:
    return [child for child in psutil.Process(hub.pid).children() if child.status() != psutil.STATUS_ZOMBIE]


async def beginning(hub: TaskHubProcess) -> str | None:
    """The id of the newest event when a test begins, where there is one."""
    async with api(hub.url) as client:
        log = await client.log()
    return log[-1]["id"] if log else None


async def fresh(hub: TaskHubProcess, method: str, path: str, **options: object) -> dict[str, object]:
    """A request on a connection of its own, so that any worker may take it."""
    async with api(hub.url) as client:
        answer = await client.request(method, path, **options)
        assert answer.status < 300, answer
        found: dict[str, object] = answer.json if answer.body else {}
        return found


async def figures_of(hub: TaskHubProcess) -> Scraped:
    """What a collector is told by whichever worker takes its connection."""
    async with api(hub.url) as client:
        return Scraped.parse((await client.request("GET", "/metrics")).body.decode())


async def test_whichever_worker_a_collector_meets_it_is_told_of_all(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    streams = await Streams(crew, stack).open_on(2)

    for _ in range(10):

        async def whole() -> Scraped | None:
            found = await figures_of(crew)
            return found if found("taskhub_workers_reporting") == 2 else None

        found = await until(whole, "figures of both workers", DEADLINE_S)
        of_each = [found("taskhub_streams", worker=number) for number in ("1", "2")]
        assert sorted(of_each) == sorted(map(len, streams.by_instance.values()))
        assert found("taskhub_streams") == len(streams.all)
        assert found("taskhub_workers") == 2
        assert not [labels for labels in found.labels("taskhub_log_head_seq") if "worker" in labels]


async def test_a_worker_that_was_replaced_has_its_number_again(crew: TaskHubProcess) -> None:
    workers_of(crew)[0].kill()

    async def both() -> bool:
        found = await figures_of(crew)
        started = {value for (name, _), value in found.values.items() if name == "process_start_time_seconds"}
        return (
            found("taskhub_build_info", worker="1") == found("taskhub_build_info", worker="2") == 1
            and len(started) == 2
        )

    await until(both, "figures of the worker and its successor", START_DEADLINE_S)


async def test_it_is_one_server_with_one_address_one_banner_and_one_view_of_all_workers(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    streams = await Streams(crew, stack).open_on(2)

    async def all_answer() -> object:
        debug: Any = await fresh(crew, "GET", "/events/debug")
        return None if debug["partial"] else debug

    debug = await until(all_answer, "answer of every worker", DEADLINE_S)
    views = {each["instance"]: each["connected_clients"] for each in debug["instances"]}
    assert views == {instance: len(found) for instance, found in streams.by_instance.items()}
    assert debug["connected_clients"] == len(streams.all)
    for stream in streams.all:  # whichever worker is asked to end it
        await fresh(crew, "DELETE", f"/events/debug/streams/{stream.headers['taskhub-stream']}")
        await stream.wait_end()
    assert crew.log.count("is ready") == 1
    assert json.loads((crew.data_dir / "server.json").read_text()) == {
        "pid": crew.pid,
        "url": crew.url,
        "auth": "none",
    }
    assert len(server_file.read_all(crew.data_dir)) == 1
    async with api(crew.url) as client:
        # Its messages could reach the other worker.
        assert (await client.request("GET", "/sse")).status == 404


async def test_what_any_worker_writes_every_stream_hears_in_one_order(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    begin = await beginning(crew)
    streams = await Streams(crew, stack).open_on(2)

    async def write(writer: int) -> None:
        key = (await fresh(crew, "POST", "/api/v1/tickets", json={"summary": f"Ticket {writer}"}))["key"]
        for number in range(8):
            await fresh(crew, "PATCH", f"/api/v1/tickets/{key}", json={"remarks": str(number)})

    await asyncio.gather(*map(write, range(6)))
    async with api(crew.url) as client:
        log = [event["id"] for event in await client.log(begin)]
    for stream in streams.all:
        await stream.wait_id(log[-1], DEADLINE_S)

    assert len(log) == 6 * 9
    assert all(stream.ids == log for stream in streams.all)


async def test_what_one_worker_writes_the_streams_of_the_other_hear_at_once(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    streams = await Streams(crew, stack).open_on(2)

    written = []
    for number in range(10):
        answer = await fresh(crew, "POST", "/api/v1/tickets", json={"summary": f"Ticket {number}"})
        written.append(answer["event_id"])
        # One by one: a change of its own would make a worker look into the log, and find the other's there.
        for stream in streams.all:
            await stream.wait_id(str(answer["event_id"]))

    assert all(stream.ids == written for stream in streams.all)


async def test_a_session_of_the_initialize_era_goes_on_whichever_worker_answers(crew: TaskHubProcess) -> None:
    async with mcp_http(crew.url, mode="legacy") as client:
        made = await asyncio.gather(*(call(client, "create_ticket", summary=f"Ticket {n}") for n in range(12)))

    assert len({ticket["key"] for ticket in made}) == 12


async def test_a_question_to_a_person_is_answered_whichever_worker_hears_the_answer(crew: TaskHubProcess) -> None:
    """Each request has a connection of its own, so about every second one meets the other worker."""
    keys = [(await fresh(crew, "POST", "/api/v1/tickets", json={"summary": f"Ticket {n}"}))["key"] for n in range(8)]
    asked: list[str] = []

    async def person(context: object, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={})

    one_by_one = httpx2.AsyncClient(timeout=DEADLINE_S, limits=httpx2.Limits(max_keepalive_connections=0))
    async with (
        one_by_one as http,
        Client(
            streamable_http_client(f"{crew.url}/mcp", http_client=http), mode=MODERN, elicitation_callback=person
        ) as client,
    ):
        for key in keys:
            await call(client, "delete_ticket", ticket_id=key)
    assert len(asked) == len(keys)


async def test_an_older_session_works_on_a_new_connection_for_each_request(crew: TaskHubProcess) -> None:
    headers = await older_session(crew)

    async def tool(name: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; a question to a person is answered with yes, on another connection."""
        body = rpc("tools/call", {"name": name, "arguments": arguments}, 2)
        async with (
            aiohttp.ClientSession(headers=headers, timeout=TIMEOUT) as http,
            http.post(f"{crew.url}/mcp", json=body) as response,
        ):
            async for line in response.content:
                if not line.startswith(b"data: {"):
                    continue
                message = json.loads(line[5:])
                if message.get("method") != "elicitation/create":
                    found: dict[str, Any] = message["result"]["structuredContent"]
                    return found
                yes = {"jsonrpc": "2.0", "id": message["id"], "result": {"action": "accept", "content": {}}}
                assert (await answer_of(crew, headers, yes)).status == 202
        raise AssertionError("no answer")

    made = [await tool("create_ticket", summary=f"Ticket {n}") for n in range(8)]
    # Where the session is not known, nobody can be asked in it: the call says so, and nothing has happened.
    gone = [await tool("delete_ticket", ticket_id=each["key"]) for each in made]
    for each, answer in zip(made, gone, strict=True):
        if answer.get("code") != "confirmation_required":
            assert (answer["key"], answer["version"]) == (each["key"], 2)
        else:
            assert (await tool("get_ticket_detail", ticket_id=each["key"]))["ticket"]["version"] == 1
    another = {**headers, "X-TaskHub-Actor": "user:somebody"}
    refused = await answer_of(crew, another, rpc("tools/list", {}, 3))

    assert len({each["key"] for each in made}) == 8
    assert {answer.get("code") for answer in gone} <= {None, "confirmation_required"}
    assert refused.status == 404


async def older_session(hub: TaskHubProcess) -> dict[str, str]:
    """Open a session of a client that can ask a person; the headers of its requests."""
    capabilities: dict[str, Any] = {"elicitation": {}}
    client = {"protocolVersion": OLDER, "capabilities": capabilities, "clientInfo": {"name": "old", "version": "1"}}
    headers = {"Accept": "application/json, text/event-stream"}
    opened = await answer_of(hub, headers, rpc("initialize", client, 1))
    headers |= {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"], "MCP-Protocol-Version": OLDER}
    await answer_of(hub, headers, rpc("notifications/initialized"))
    return headers


def rpc(method: str, params: dict[str, Any] | None = None, number: int | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params or {}}
    return message if number is None else {**message, "id": number}


async def answer_of(hub: TaskHubProcess, headers: dict[str, str], message: dict[str, Any]) -> Answer:
    """POST one message on a connection of its own."""
    async with api(hub.url, headers) as client:
        return await client.request("POST", "/mcp", json=message)


async def test_a_killed_worker_is_replaced_and_its_clients_resume_without_gap_or_repeat(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    begin = await beginning(crew)
    streams = await Streams(crew, stack).open_on(2)
    before = workers_of(crew)
    async with api(crew.url) as client:
        first = await client.create("Before")
    for stream in streams.all:
        await stream.wait_id(first["event_id"])

    before[0].kill()
    await until(lambda: any(stream.ended for stream in streams.all), "end of a stream", DEADLINE_S)
    (dead,) = [one for one, found in streams.by_instance.items() if any(stream.ended for stream in found)]
    lost = streams.by_instance.pop(dead)
    assert [stream.ended for stream in streams.all] == [False] * len(streams.all)
    # While one worker is away: neither the requests of the others nor those that wait for it are refused.
    written = await asyncio.gather(
        *(fresh(crew, "POST", "/api/v1/tickets", json={"summary": f"Meanwhile {n}"}) for n in range(8))
    )
    resumed = [await streams.open({"Last-Event-ID": stream.last_event_id or ""}) for stream in lost]
    last = await fresh(crew, "POST", "/api/v1/tickets", json={"summary": "After"})
    for stream in streams.all:
        await stream.wait_id(str(last["event_id"]), DEADLINE_S)

    async with api(crew.url) as client:
        log = [event["id"] for event in await client.log(begin)]
    assert len(log) == 1 + len(written) + 1
    assert [stream.ids + again.ids for stream, again in zip(lost, resumed, strict=True)] == [log] * len(lost)
    assert all(stream.ids == log for stream in streams.all if stream not in resumed)
    await until(lambda: len(workers_of(crew)) == 2, "two workers", DEADLINE_S)
    assert "ended unexpectedly" in crew.log


async def test_sighup_replaces_every_worker_and_streams_miss_nothing(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    begin = await beginning(crew)
    streams = await Streams(crew, stack).open_on(2)
    before = {worker.pid for worker in workers_of(crew)}
    session = await older_session(crew)
    writing = asyncio.create_task(write_until_cancelled(crew))

    crew.signal(signal.SIGHUP)
    await until(lambda: not before & {worker.pid for worker in workers_of(crew)}, "replacements", 2 * START_DEADLINE_S)
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    last = await fresh(crew, "POST", "/api/v1/tickets", json={"summary": "After"})
    async with api(crew.url) as client:
        log = [event["id"] for event in await client.log(begin)]
    for stream in streams.all:
        await stream.wait_end()
        assert stream.named("goodbye")[0].data["reconnect"]
        again = await streams.open({"Last-Event-ID": stream.last_event_id or ""})
        await again.wait_id(str(last["event_id"]))
        assert stream.ids + again.ids == log
    reading = rpc("tools/call", {"name": "get_statuses", "arguments": {}}, 2)
    called = await answer_of(crew, session, reading)

    assert log
    assert b"In Progress" in called.body  # without initializing again


async def write_until_cancelled(hub: TaskHubProcess) -> None:
    number = 0
    while True:
        number += 1
        await fresh(hub, "POST", "/events", json={"type": "build.finished", "data": {"number": number}})


async def test_sigterm_says_goodbye_on_every_worker_and_leaves_nothing_behind(
    crew: TaskHubProcess, stack: AsyncExitStack
) -> None:
    """After all that the other tests have done to it."""
    streams = await Streams(crew, stack).open_on(2)
    workers = workers_of(crew)

    assert await crew.stop() == 0

    for stream in streams.all:
        await stream.wait_end()
        assert stream.named("goodbye")[0].data["reason"] == "shutdown"
        assert stream.clean_end
    assert not any(worker.is_running() for worker in workers)
    assert server_file.read(crew.data_dir) is None


async def test_a_database_that_is_away_ends_the_start_with_one_sentence(tmp_path: Path, make_hub: MakeHub) -> None:
    environment = {
        "TASKHUB_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/taskhub",
        "TASKHUB_REDIS_URL": "redis://127.0.0.1:1/0",
    }
    hub = make_hub("--workers", "3", environment=environment)
    hub.launch()

    assert await hub.wait_exit(START_DEADLINE_S) == 1
    assert hub.log.count("taskhub: postgresql://") == 1
    assert "the server could not start" in hub.log
    assert "hunter2" not in hub.log
    assert "Traceback" not in hub.log
