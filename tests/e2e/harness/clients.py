"""Clients of a server under test: REST, the MCP SDK's client, and the MCP Inspector's command line."""

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
from mcp.client.client import Client
from mcp.client.sse import sse_client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import ResourceUpdatedNotification

from tests.e2e.harness.process import ROOT, clean_environment, run_command
from tests.e2e.harness.tools import node
from tests.e2e.harness.waiting import DEADLINE_S

INSPECTOR: Final = ROOT / "tests/e2e/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
T = TypeVar("T")

MODERN: Final = "2026-07-28"


class Answer:
    """An HTTP answer, read whole."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def __repr__(self) -> str:
        return f"<{self.status} {self.body[:500]!r}>"


class Api:
    """The HTTP surface of a server. Use `api`."""

    def __init__(self, session: aiohttp.ClientSession, base_url: str) -> None:
        self._session = session
        self.base_url = base_url

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with self._session.request(method, self.base_url + path, **options) as response:
            return Answer(response, await response.read())

    async def get(self, path: str, **options: Any) -> Any:
        """GET, expecting 200; returns the JSON."""
        answer = await self.request("GET", path, **options)
        assert answer.status == 200, f"GET {path}: {answer}"
        return answer.json

    async def create(self, summary: str, **fields: Any) -> dict[str, Any]:
        """Create a ticket; returns what the write answered (key, version, event_id, …)."""
        answer = await self.request("POST", "/api/v1/tickets", json={"summary": summary, **fields})
        assert answer.status == 201, answer
        written: dict[str, Any] = answer.json
        return written

    async def change(self, key: str, **fields: Any) -> dict[str, Any]:
        """Change a ticket; returns what the write answered."""
        answer = await self.request("PATCH", f"/api/v1/tickets/{key}", json=fields)
        assert answer.status == 200, answer
        written: dict[str, Any] = answer.json
        return written

    async def publish(self, *events: dict[str, Any]) -> list[str]:
        """Publish events of one's own in one batch; returns their ids."""
        # As a file: aiohttp warns of large bodies given as bytes.
        body = io.BytesIO(json.dumps({"events": list(events)}).encode())
        answer = await self.request("POST", "/events/batch", data=body, headers={"Content-Type": "application/json"})
        assert answer.status == 201, answer
        ids: list[str] = answer.json["ids"]
        return ids

    async def all_tickets(self) -> dict[str, dict[str, Any]]:
        """Every ticket, done ones too, by key, walking all pages."""
        found: dict[str, dict[str, Any]] = {}
        query = "?limit=100&show_completed=true&sort_by=key&sort_order=asc"
        cursor = ""
        while True:
            page = await self.get(f"/api/v1/tickets{query}{cursor}")
            found |= {ticket["key"]: ticket for ticket in page["tickets"]}
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    async def log(self, after: str | None = None) -> list[dict[str, Any]]:
        """The event log by polling, from the beginning or after a position."""
        events: list[dict[str, Any]] = []
        position = after or "earliest"
        while True:
            page = await self.get("/api/v1/events", params={"after": position, "limit": "500"})
            if not page["events"]:
                return events
            events += page["events"]
            position = page["position"]


@contextlib.asynccontextmanager
async def api(base_url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Api]:
    """An HTTP client of the server at `base_url`."""
    async with aiohttp.ClientSession(headers=headers, timeout=aiohttp.ClientTimeout(total=DEADLINE_S)) as session:
        yield Api(session, base_url)


def mcp_http(base_url: str, mode: str = "auto", *, on_update: Callable[[str], None] | None = None) -> Client:
    """The SDK's client on Streamable HTTP; `mode` is `auto`, `legacy`, or a protocol revision.

    `on_update` gets the address of each resource of which an older server tells that it changed.
    """

    async def handle(message: object) -> None:
        if on_update is not None and isinstance(message, ResourceUpdatedNotification):
            on_update(message.params.uri)

    return Client(f"{base_url}/mcp", mode=mode, read_timeout_seconds=DEADLINE_S, message_handler=handle)


def mcp_sse(base_url: str, path: str = "/sse") -> Client:
    """The SDK's client on the older HTTP+SSE pair of endpoints."""
    return Client(sse_client(base_url + path, timeout=DEADLINE_S), mode="legacy", read_timeout_seconds=DEADLINE_S)


@contextlib.asynccontextmanager
async def mcp_stdio(
    *arguments: str,
    environment: Mapping[str, str],
    error_log: Path,
    cwd: Path | None = None,
    command: str = sys.executable,
    mode: str = "auto",
) -> AsyncIterator[Client]:
    """The SDK's client on a process of its own that speaks over stdin and stdout.

    `arguments` default to `-m taskhub stdio`. What the process prints to stderr goes to `error_log`.
    """
    parameters = StdioServerParameters(
        command=command,
        args=list(arguments) or ["-m", "taskhub", "stdio"],
        env=clean_environment(environment),
        cwd=cwd or ROOT,
    )
    with error_log.open("a") as errors:
        async with Client(
            stdio_client(parameters, errlog=errors), mode=mode, read_timeout_seconds=DEADLINE_S
        ) as client:
            yield client


@contextlib.asynccontextmanager
async def in_a_task_of_its_own(opened: contextlib.AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """Enter and leave a context in one task, as the SDK's clients demand: fixtures do so in two."""
    ready: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    leaving = asyncio.Event()

    async def hold() -> None:
        try:
            async with opened as value:
                ready.set_result(value)
                await leaving.wait()
        except BaseException as error:
            if ready.done():
                raise
            ready.set_exception(error)

    task = asyncio.create_task(hold())
    try:
        yield await ready
    finally:
        leaving.set()
        await task


async def call(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must succeed; returns its structured result."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, f"{tool}: {result.content}"
    assert result.structured_content is not None, f"{tool} gave no structured content"
    assert result.content, f"{tool} gave no text"
    found: dict[str, Any] = result.structured_content
    return found


async def call_failing(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool that must fail; returns the structured error."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, f"{tool}({arguments}) did not fail: {result.structured_content}"
    if result.structured_content is not None:
        found: dict[str, Any] = result.structured_content
        return found
    parsed: dict[str, Any] = json.loads(result.content[0].text)  # type: ignore[union-attr]  # a text block, or it raises
    return parsed


async def inspect(*arguments: str, environment: Mapping[str, str] | None = None, cwd: Path | None = None) -> Any:
    """Run the MCP Inspector's command line and return the JSON it prints."""
    patient = ("--connect-timeout", str(round(DEADLINE_S * 1000)))  # a server that it starts may start slowly
    command = (str(node()), str(INSPECTOR), "--cli", *arguments, *patient)
    output = await run_command(*command, environment=environment, cwd=cwd)
    return json.loads(output)
