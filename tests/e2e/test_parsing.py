"""Bytes that are no request, and requests whose bodies nobody wants: what their senders are told."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import DEADLINE_S

KEY: Final = "key-of-the-tests-of-parsing"
HEAD: Final = f"Host: localhost\r\nX-API-Key: {KEY}\r\nContent-Type: application/json\r\n"
EVENT: Final = b'{"type":"build.done","data":{}}'
SECRET: Final = b"what-was-sent"
JUNK: Final[dict[bytes, str]] = {
    b"\0\1\2" + SECRET: "bad_request",
    b"WHAT-WAS-SENT / HTTP/1.1\r\n\r\n": "bad_request",
    b"GET /version HTTP/7.1 " + SECRET + b"\r\n\r\n": "bad_request",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: a\r" + SECRET + b"\r\n\r\n": "bad_request",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + SECRET + b"\r\n\r\n": "bad_request",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: " + 30_000 * SECRET[:1] + SECRET + b"\r\n\r\n": "bad_request",
    b"GET /" + SECRET * 3000 + b" HTTP/1.1\r\n\r\n": "bad_request",
    b"GET http:///" + SECRET + b" HTTP/1.1\r\nHost: localhost\r\n\r\n": "bad_request",
    b"GET /version HTTP/1.1\r\nX-API-Key: " + SECRET + b"\r\n\r\n": "bad_host",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\nHost: " + SECRET + b"\r\n\r\n": "bad_host",
    b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"X-Sent: what-was-sent\r\n" * 200 + b"\r\n": "bad_request",
    b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + SECRET + b"\r\n\r\n": "bad_request",
    b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + SECRET: "bad_request",
}
OTHER_SCHEMES: Final = ("ftp://localhost/version", "file://localhost/version", "ws://localhost/version")


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    environment = {"TASKHUB_API_KEY": KEY, "TASKHUB_LOG_FORMAT": "json", "TASKHUB_KEEP_ALIVE_S": "60"}
    hub = TaskHubProcess(tmp_path_factory.mktemp("parsing") / "hub", environment=environment)
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(hub: TaskHubProcess) -> AsyncIterator[Streams]:
    async with asyncio.timeout(DEADLINE_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", hub.port)
        try:
            yield reader, writer
        finally:
            writer.close()


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    """The next answer: status, headers (names in lower case), body."""
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return int(first.split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


@pytest.mark.parametrize(("sent", "code"), JUNK.items(), ids=range(len(JUNK)))
async def test_bytes_that_are_no_request_are_told_of_as_a_problem_without_them(
    hub: TaskHubProcess, sent: bytes, code: str
) -> None:
    async with connected(hub) as (reader, writer):
        writer.write(sent)
        status, headers, body = await answer(reader)
        rest = await reader.read()
    problem = json.loads(body)

    assert (status, problem["status"], problem["code"], rest) == (400, 400, code, b"")
    assert headers["content-type"] == "application/problem+json"
    assert (headers["x-content-type-options"], headers["server"]) == ("nosniff", "TaskHub")
    assert headers["x-request-id"] == problem["request_id"]
    assert problem["detail"]
    assert SECRET not in body.lower()
    assert not [line for line in hub.log.splitlines() if "what-was-sent" in line.lower()]
    assert '"severity": "ERROR"' not in hub.log.replace('":"', '": "')


@pytest.mark.parametrize("target", OTHER_SCHEMES)
async def test_a_target_of_another_scheme_is_refused(hub: TaskHubProcess, target: str) -> None:
    async with connected(hub) as (reader, writer):
        writer.write(f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        status, _, body = await answer(reader)
        writer.write(b"GET http://localhost/version HTTP/1.1\r\nHost: localhost\r\n\r\n")
        of_http, _, _ = await answer(reader)

    assert (status, json.loads(body)["code"], of_http) == (400, "bad_path", 200)


async def test_a_body_that_is_wanted_is_asked_for(hub: TaskHubProcess) -> None:
    async with connected(hub) as (reader, writer):
        writer.write(f"POST /events HTTP/1.1\r\n{HEAD}Expect: 100-continue\r\nContent-Length: 31\r\n\r\n".encode())
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(EVENT)
        status, _, _ = await answer(reader)

    assert (asked, status) == (b"HTTP/1.1 100 Continue\r\n\r\n", 201)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/events", f"{HEAD}Content-Length: 5000000\r\n", 413),
        ("/mcp", f"{HEAD}Content-Length: 50000000\r\nAccept: application/json, text/event-stream\r\n", 413),
        ("/events", "Host: localhost\r\nContent-Type: application/json\r\nContent-Length: 31\r\n", 401),
        ("/api/v1/import", f"{HEAD}Content-Length: 31\r\n", 415),
        ("/events", f"{HEAD}Content-Length: 31\r\nIf-Match: 7\r\n", 400),
    ],
    ids=["too large", "too large for MCP", "nobody", "another type", "a condition"],
)
async def test_a_body_that_is_not_wanted_is_not_asked_for(
    hub: TaskHubProcess, path: str, headers: str, status: int
) -> None:
    async with connected(hub) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\n{headers}Expect: 100-continue\r\n\r\n".encode())
        first, _, _ = await answer(reader)

    assert first == status


async def test_chunks_of_one_byte_are_a_body(hub: TaskHubProcess) -> None:
    body = EVENT + b" " * 20_000
    async with connected(hub) as (reader, writer):
        writer.write(f"POST /events HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        writer.write(b"".join(b"1;a=b\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n")
        status, _, _ = await answer(reader)

    assert status == 201


@pytest.mark.parametrize("path", ["/events", "/nowhere", "/api/v1/import"])
async def test_chunks_that_are_all_framing_end_their_connection(hub: TaskHubProcess, path: str) -> None:
    async with connected(hub) as (reader, writer):
        writer.write(f"POST {path} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n1;".encode())

        async def send() -> None:
            try:
                while True:
                    writer.write(b"x" * 65536)
                    await writer.drain()
            except ConnectionError:
                pass

        sending = asyncio.create_task(send())
        try:
            said = await heard(reader)
            await sending  # ends because nobody reads any more
        finally:
            sending.cancel()

    assert re.findall(rb"HTTP/1\.1 (\d{3})", said) in ([b"400"], [b"404"], [b"415"], [])
    assert "Unhandled" not in hub.log


async def heard(reader: asyncio.StreamReader) -> bytes:
    """All that is said until the connection ends, however it does."""
    said: list[Any] = []
    try:
        while piece := await reader.read(65536):
            said.append(piece)
    except ConnectionError:
        pass
    return b"".join(said)
