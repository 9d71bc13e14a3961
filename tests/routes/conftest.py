"""TaskHub as it is served, in this process: the real services on a database of the test's own, on a real socket."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
import uvloop
from aiohttp import web

from taskhub.app import create_app
from taskhub.settings.model import Settings
from tests.migrated import migrated_file

DEADLINE_S = 30.0
"""Generous, for it only matters to a test that fails; with what `request` adds less than the 50 s of a long poll."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    @property
    def code(self) -> str:
        assert self.headers["Content-Type"] == "application/problem+json", self
        problem = self.json
        assert problem["status"] == self.status
        assert problem["request_id"] == self.headers["X-Request-ID"]
        assert problem["title"]
        assert problem["type"] == f"urn:taskhub:problem:{problem['code']}"
        code: str = problem["code"]
        return code

    @property
    def named(self) -> dict[str, dict[str, Any]]:
        """The parts that `errors` names → what it says of each."""
        errors = self.json["errors"]
        return {error.get("parameter") or error.get("pointer") or error.get("header") or "": error for error in errors}


@dataclass(slots=True)
class Frame:
    """One SSE block. `lines` are its fields as they came."""

    event: str
    data: Any
    id: str | None
    retry: int | None
    lines: list[str]


@dataclass(slots=True, eq=False)
class Stream:
    """A client of /events/stream. Every wait has a deadline."""

    response: aiohttp.ClientResponse
    comments: int = 0
    seen: list[Frame] = field(default_factory=list)

    async def frame(self) -> Frame:
        """The next frame. Raises EOFError at the end of the stream."""
        lines: list[str] = []
        async with asyncio.timeout(DEADLINE_S):
            while True:
                line = (await self.response.content.readline()).decode()
                if not line:
                    raise EOFError
                if line == ":\n":
                    self.comments += 1
                elif line == "\n":
                    break
                else:
                    lines.append(line.removesuffix("\n"))
        fields = dict(line.split(": ", 1) for line in lines)
        retry = int(fields["retry"]) if "retry" in fields else None
        frame = Frame(fields["event"], orjson.loads(fields["data"]), fields.get("id"), retry, lines)
        self.seen.append(frame)
        return frame

    async def until(self, event: str) -> Frame:
        """The next frame of this name."""
        while (frame := await self.frame()).event != event:
            pass
        return frame

    async def caught_up(self) -> list[Frame]:
        """The frames up to and with `ready`: all that was there when the stream was opened."""
        frames = [await self.frame()]
        while frames[-1].event != "ready":
            frames.append(await self.frame())
        return frames

    async def rest(self) -> list[Frame]:
        """All frames up to the end of the stream."""
        frames: list[Frame] = []
        while True:
            try:
                frames.append(await self.frame())
            except EOFError:
                return frames

    async def line(self) -> Any:
        """The next NDJSON line."""
        async with asyncio.timeout(DEADLINE_S):
            return orjson.loads(await self.response.content.readline())


@dataclass(slots=True, eq=False)
class Hub:
    """A running TaskHub."""

    app: web.Application
    runner: web.AppRunner
    port: int
    session: aiohttp.ClientSession

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with (
            asyncio.timeout(DEADLINE_S + 5),
            self.session.request(method, self.url + path, **options) as response,
        ):
            return Answer(response.status, response.headers, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Answer:
        return await self.request("POST", path, json=json, **options)

    async def create(self, summary: str, **fields: Any) -> Any:
        answer = await self.post("/api/v1/tickets", {"summary": summary, **fields})
        assert answer.status == 201, answer
        return answer.json

    async def publish(self, type: str = "build.finished", **fields: Any) -> Any:
        answer = await self.post("/events", {"type": type, "data": {}, **fields})
        assert answer.status == 201, answer
        return answer.json

    @asynccontextmanager
    async def stream(self, query: str = "", **headers: str) -> AsyncIterator[Stream]:
        async with self.session.get(f"{self.url}/events/stream?{query}", headers=headers) as response:
            assert response.status == 200, await response.text()
            yield Stream(response)

    async def raw(self, request: bytes, until: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
        """Send bytes as they are; the answer's status, headers (names in lower case) and body.

        The body is read to its end, or with `until` to where these bytes come.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                lines = head.decode().split("\r\n")
                headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
                length = headers.get("content-length")
                if until is not None:
                    body = await reader.readuntil(until)
                else:
                    body = await reader.readexactly(int(length)) if length is not None else await reader.read()
        finally:
            writer.close()
        return int(lines[0].split()[1]), headers, body


Start = Callable[..., Awaitable[Hub]]

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the loop that a server has where it can; a module with `LOOPS` names others as well."""
    names = getattr(item.getparent(pytest.Module).obj, "LOOPS", ["uvloop"])  # type: ignore[union-attr]  # it has one
    return {name: LOOPS[name] for name in names}


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Start a TaskHub with these settings; it ends with the test."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Hub:
            if not (tmp_path / "taskhub.db").exists():
                shutil.copy(migrated_file(), tmp_path / "taskhub.db")
            app = create_app(Settings(data_dir=tmp_path, poll_interval_ms=50, **settings))
            runner = web.AppRunner(
                app,
                handler_cancellation=True,
                access_log=None,
                auto_decompress=False,
                max_field_size=16384,
                shutdown_timeout=1,
            )
            await runner.setup()
            stack.push_async_callback(runner.cleanup)
            await web.TCPSite(runner, "127.0.0.1", settings.get("port", 0)).start()
            session = await stack.enter_async_context(aiohttp.ClientSession())
            return Hub(app, runner, runner.addresses[0][1], session)

        yield start


@pytest.fixture
async def hub(start: Start) -> Hub:
    return await start()
