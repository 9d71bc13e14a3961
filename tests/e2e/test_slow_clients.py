"""Clients that send a request drop by drop are cut off, and hold up nobody."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.e2e.harness.clients import api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import DEADLINE_S

HEAD = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
DROP_S = 0.1


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    """A server that waits a second for what it should wait for longer."""
    environment = {"TASKHUB_KEEP_ALIVE_S": "1", "TASKHUB_BODY_READ_S": "1"}
    hub = TaskHubProcess(tmp_path_factory.mktemp("impatient") / "taskhub", environment=environment, name="impatient")
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


async def dripped(port: int, start: bytes, drop: bytes) -> bytes:
    """What the server answers, until it closes the connection, to one that never comes to an end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drip() -> None:
        while True:
            writer.write(drop)
            await writer.drain()
            await asyncio.sleep(DROP_S)

    writer.write(start)
    dripping = asyncio.create_task(drip())
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        dripping.cancel()
        await asyncio.gather(dripping, return_exceptions=True)
        writer.close()


async def test_a_head_that_never_ends_is_cut_off(hub: TaskHubProcess) -> None:
    slow = [asyncio.create_task(dripped(hub.port, HEAD, b"X: y\r\n")) for _ in range(20)]
    slow += [asyncio.create_task(dripped(hub.port, b"GET /", b"x")), asyncio.create_task(dripped(hub.port, b"", b""))]
    async with api(hub.url) as client:
        await client.get("/api/v1/tickets")

        assert await asyncio.gather(*slow) == [b""] * 22
        await client.get("/api/v1/tickets")


@pytest.mark.parametrize("path", ["/events", "/mcp"])
async def test_a_body_that_never_ends_is_refused(hub: TaskHubProcess, path: str) -> None:
    head = HEAD.replace(b"/events", path.encode()) + b"Accept: application/json, text/event-stream\r\n"
    answers = await asyncio.gather(
        dripped(hub.port, head + b"Content-Length: 100000\r\n\r\n", b" "),
        dripped(hub.port, head + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
    )

    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_asks_nothing_more_is_closed(hub: TaskHubProcess) -> None:
    request = b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n"

    assert (await dripped(hub.port, request, b"")).startswith(b"HTTP/1.1 200 ")
    # Another request begins in time and does not come to its end.
    assert (await dripped(hub.port, request + b"GET /version HTTP/1.1\r\n", b"X: y\r\n")).count(b"HTTP/1.1 ") == 1
