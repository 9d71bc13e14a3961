"""Streams take their connection over from aiohttp: nothing of it stays behind, on either event loop, and the ordinary
handler does the same where a connection cannot be taken over."""

import asyncio
import errno
import fcntl
import gc
import os
import random
import socket
import struct
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from broadcaster import connection as connection_module
from broadcaster.connection import Connection
from broadcaster.engine import Broadcaster
from broadcaster.event import EventDraft
from broadcaster.subscriber import Subscriber
from routes import takeover
from routes.keys import BROADCASTER
from routes.outlet import TransportOutlet
from tests.routes.conftest import DEADLINE_S, Hub

LOOPS = ["asyncio", "uvloop"]
GET = b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
READY = b"event: ready\n"
DRAFT = EventDraft(type="build.finished", actor="user:local", origin="rest_api", data=b"{}", transient=True)


@pytest.fixture
def no_takeover(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections as of a server that is not aiohttp's."""
    monkeypatch.setattr(takeover, "take_over", lambda *args, **options: False)


def outlets(hub: Hub) -> list[Any]:
    subscribers: dict[str, Subscriber] = hub.app[BROADCASTER]._subscribers
    return [subscriber.outlet for subscriber in subscribers.values()]


def connections(hub: Hub) -> int:
    """How many connections aiohttp knows of."""
    assert hub.runner.server is not None
    return len(hub.runner.server.connections)


def alive(*kinds: type) -> int:
    """How many objects of these kinds there are."""
    gc.collect()
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


async def until(condition: Any) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.005)


async def tasks_at_rest(hub: Hub) -> int:
    """How many tasks there are without a client, once a stream was open: what the workspace needs lingers."""
    async with hub.stream() as stream:
        await stream.until("ready")
    await hub.session.close()
    await until(lambda: not outlets(hub) and connections(hub) == 0)
    return len(asyncio.all_tasks())


async def test_an_idle_stream_leaves_nothing_of_aiohttp_behind(hub: Hub) -> None:
    tasks = await tasks_at_rest(hub)
    async with AsyncExitStack() as stack:
        for _ in range(20):
            reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
            stack.callback(writer.close)
            writer.write(GET)
            async with asyncio.timeout(DEADLINE_S):
                await reader.readuntil(READY)
        kinds = [type(outlet) for outlet in outlets(hub)]
        await until(lambda: connections(hub) == 0 and len(asyncio.all_tasks()) <= tasks)
        leftovers = alive(RequestHandler, web.Request, web.StreamResponse)
    await until(lambda: not outlets(hub))

    assert kinds == [Connection] * 20
    assert leftovers == 0
    assert alive(Connection, Subscriber) == 0


async def test_what_a_client_sends_after_its_request_is_ignored(hub: Hub) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(GET + b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
    async with asyncio.timeout(DEADLINE_S):
        await reader.readuntil(READY)
    writer.write(b"noise\r\n" * 10_000)
    await writer.drain()
    await hub.publish(subject="after the noise")
    async with asyncio.timeout(DEADLINE_S):
        received = await reader.readuntil(b"after the noise")
    writer.close()

    assert received.count(b"HTTP/1.1") == 0


async def test_a_stream_needs_no_second_descriptor(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(descriptor: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("broadcaster.connection.os.dup", none_left)
    async with hub.stream("limit=1") as stream:
        await stream.until("ready")
        sent = await hub.publish()
        frames = await stream.rest()

    assert [frame.id for frame in frames[:1]] == [sent["id"]]
    await until(lambda: not outlets(hub))


async def test_a_stream_that_cannot_begin_leaves_nothing_behind(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("made to fail")

    monkeypatch.setattr(Broadcaster, "start_stream", fail)
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(GET)
    async with asyncio.timeout(DEADLINE_S):
        with suppress(ConnectionError):
            await reader.read()
    writer.close()

    await until(lambda: not outlets(hub) and connections(hub) == 0)
    assert hub.app[BROADCASTER].counters.ends.total() == 1


async def test_a_client_that_closes_its_half_is_gone(hub: Hub) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(GET)
    async with asyncio.timeout(DEADLINE_S):
        await reader.readuntil(READY)
        writer.write_eof()
        await reader.read()
    writer.close()

    await until(lambda: not outlets(hub))


async def test_a_stream_that_the_server_ends_is_flushed_and_has_its_last_chunk(hub: Hub) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(GET.replace(b"/stream", b"/stream?limit=1"))
    async with asyncio.timeout(DEADLINE_S):
        await reader.readuntil(READY)
        await hub.publish(data={"text": "x" * 60_000})
        rest = await reader.read()
    writer.close()

    assert b"event: goodbye\n" in rest
    assert rest.endswith(b"\r\n0\r\n\r\n")
    await until(lambda: not outlets(hub))


@pytest.mark.parametrize("handler", ["taken over", "ordinary"])
async def test_clients_that_come_and_go_at_any_moment_are_counted_exactly_and_forgotten(
    hub: Hub, handler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if handler == "ordinary":
        monkeypatch.setattr(takeover, "take_over", lambda *args, **options: False)
    dice = random.Random(4)
    tasks = await tasks_at_rest(hub)

    async def visit() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        writer.write(GET[: dice.choice([10, len(GET), len(GET), len(GET)])])
        match dice.randrange(4):
            case 0:
                await asyncio.sleep(dice.random() * 0.01)  # a random moment, not a wait
            case 1:
                await asyncio.wait({asyncio.ensure_future(reader.read(100))}, timeout=0.05)
            case 2:
                writer.write_eof()
        if dice.random() < 0.5:  # a reset instead of an orderly end
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.close()

    for _ in range(20):
        await asyncio.gather(*(visit() for _ in range(10)), return_exceptions=True)
        hub.app[BROADCASTER].publish_transient("default", [DRAFT])

    await until(lambda: hub.app[BROADCASTER].statistics().connected_clients == 0)
    await until(lambda: connections(hub) == 0 and len(asyncio.all_tasks()) <= tasks)
    counters = hub.app[BROADCASTER].counters
    assert counters.streams_opened == counters.ends.total()


@pytest.mark.usefixtures("no_takeover")
async def test_the_ordinary_handler_serves_a_stream_from_head_to_last_chunk(hub: Hub) -> None:
    async with hub.stream("limit=2") as stream:
        await stream.until("ready")
        kinds = [type(outlet) for outlet in outlets(hub)]
        sent = [await hub.publish(subject=f"s{n}") for n in range(2)]
        frames = await stream.rest()

    assert kinds == [TransportOutlet]
    assert [frame.id for frame in frames[:2]] == [event["id"] for event in sent]
    assert [frame.event for frame in frames] == ["message", "message", "goodbye"]
    await until(lambda: not outlets(hub))


class Numbered:
    """What a connection must not write through: the number of a descriptor, whoever has it by now."""

    def __init__(self, number: int) -> None:
        self._number = number

    def send(self, data: bytes) -> int:
        return os.write(self._number, data)

    def close(self) -> None:
        pass


@pytest.mark.parametrize("through", ["its own descriptor", "a number"])
async def test_a_lost_connection_never_writes_to_the_one_that_took_its_descriptor(
    hub: Hub, through: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine hears late that connections are gone, while others come; the number is the control that must fail."""
    if through == "a number":
        monkeypatch.setattr(
            connection_module, "duplicate", lambda transport: Numbered(transport.get_extra_info("socket").fileno())
        )
    lost = Connection.connection_lost
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(Connection, "connection_lost", lambda self, exc: loop.call_later(0.2, lost, self, exc))
    strangers = rounds = 0
    async with asyncio.timeout(DEADLINE_S * 3), AsyncExitStack() as stack:
        while rounds < 10 and not strangers:
            rounds += 1
            subjects = [f"round-{rounds}-{which}-{n}" for which in ("first", "second") for n in range(5)]
            for _, writer in [await listening(hub, subject) for subject in subjects[:5]]:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                writer.close()
            second = [await listening(hub, subject) for subject in subjects[5:]]
            for _, writer in second:
                stack.callback(writer.close)
            for subject in subjects:
                hub.app[BROADCASTER].publish_transient("default", [replace(DRAFT, subject=subject)])
            for reader, _ in second:
                strangers += (await reader.readuntil(b"-second-")).count(b"-first-")
    await until(lambda: not outlets(hub))

    assert bool(strangers) == (through == "a number")


async def listening(hub: Hub, subject: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream of the events about a subject, ready. Its end here has a high number, so low ones are the server's."""
    with socket.create_connection(("127.0.0.1", hub.port)) as low:
        high = socket.socket(fileno=fcntl.fcntl(low.fileno(), fcntl.F_DUPFD, 300))
    high.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=high)
    writer.write(GET.replace(b"/stream", f"/stream?subject={subject}".encode()))
    await reader.readuntil(READY)
    await reader.readuntil(b"\n\n")
    return reader, writer
