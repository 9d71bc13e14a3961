"""A ticket service on a database of its own, and MCP served over it on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx2
from aiohttp import web
from mcp.client.client import Client
from mcp.client.session import ElicitationFnT
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, Implementation

from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import ALL_SCOPES, AuthProvider, Caller, Principal
from taskhub.auth.providers import NoAuth
from taskhub.mcp.door import PassOn
from taskhub.mcp.host import McpHost
from taskhub.mcp.registry import ToolRegistry
from taskhub.mcp.wakeups import Watch
from taskhub.storage.database import Database
from taskhub.storage.writer import Writer
from taskhub.tickets.api import Tickets
from taskhub.tickets.service import TicketService

MODERN: Final = "2026-07-28"
DEADLINE_S: Final = 60.0
SECRET: Final = b"0123456789abcdef0123456789abcdef"
ALICE: Final = Caller(Principal("user:alice", "default", ALL_SCOPES, authenticated=False), "mcp_tool")


@asynccontextmanager
async def open_tickets(path: Path) -> AsyncIterator[TicketService]:
    """The ticket service on a migrated database file."""
    database = Database(f"sqlite:///{path}")
    await database.open()
    writer = Writer(database, lambda workspace, events: None)
    try:
        yield TicketService(database, writer)
    finally:
        await writer.close()
        await database.close()


class Served:
    """MCP at `url`, by `host`. `close` ends the server before the test does."""

    def __init__(self, host: McpHost, url: str, runner: web.AppRunner) -> None:
        self.host = host
        self.url = url
        self._runner = runner

    async def close(self) -> None:
        await self.host.stop(5)
        await self._runner.cleanup()

    def client(
        self,
        mode: str = "auto",
        *,
        headers: Mapping[str, str] | None = None,
        name: str = "test client",
        path: str = "/mcp",
        elicit: ElicitationFnT | None = None,
    ) -> Client:
        """The SDK's client: `mode` is `legacy`, `auto` or a version of the 2026 era; `sse` the older transport.

        `elicit` answers questions to a person; without it the client says that it cannot ask.
        """
        information = Implementation(name=name, version="1")
        if mode == "sse":
            transport: Any = sse_client(self.url + path, headers=dict(headers or {}), timeout=DEADLINE_S)
            return Client(transport, mode="legacy", client_info=information, elicitation_callback=elicit)
        http = httpx2.AsyncClient(headers=dict(headers or {}), timeout=DEADLINE_S)
        transport = _closing(self.url + path, http)
        return Client(transport, mode=mode, client_info=information, elicitation_callback=elicit)


@asynccontextmanager
async def _closing(url: str, http: httpx2.AsyncClient) -> AsyncIterator[Any]:
    async with http, streamable_http_client(url, http_client=http) as streams:
        yield streams


@asynccontextmanager
async def serve_mcp(
    tickets: Tickets,
    *,
    auth: AuthProvider | None = None,
    secret: bytes = SECRET,
    transports: tuple[Any, ...] = ("http", "sse"),
    max_age_s: float = 840,
    registry: ToolRegistry | None = None,
    allowed_origins: tuple[str, ...] = (),
    port: int = 0,
    watch: Watch | None = None,
    pass_on: PassOn | None = None,
) -> AsyncIterator[Served]:
    """Serve on a free port, with a guard that authenticates as the product's does."""
    provider = auth or NoAuth()
    host = McpHost(
        tickets,
        secret=secret,
        transports=transports,
        allowed_hosts=("127.0.0.1",),
        allowed_origins=allowed_origins,
        max_age_s=max_age_s,
        version="1.2.3",
        registry=registry,
        watch=watch,
        pass_on=pass_on,
    )

    def guarded(handler: Callable[[web.Request, Caller], Any]) -> Any:
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                principal = await provider.authenticate(request.headers, request.remote)
            except Unauthenticated as refused:
                return web.json_response({"detail": str(refused)}, status=401)
            answer: web.StreamResponse = await handler(request, Caller(principal, "mcp_tool", "request-1"))
            return answer

        return handle

    app = web.Application()
    for method in ("GET", "POST", "DELETE"):
        app.router.add_route(method, "/mcp", guarded(host.handle_mcp))
    app.router.add_route("GET", "/sse", guarded(host.handle_sse))
    app.router.add_route("POST", "/message", guarded(host.handle_message))
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    bound = runner.addresses[0][1]
    await host.start()
    served = Served(host, f"http://127.0.0.1:{bound}", runner)
    try:
        yield served
    finally:
        await served.close()


def data_of(result: CallToolResult) -> dict[str, Any]:
    """The structured content of a result."""
    assert isinstance(result.structured_content, dict), result
    return result.structured_content


def text_of(result: CallToolResult) -> str:
    """The one text of a result."""
    (content,) = result.content
    assert content.type == "text"
    return content.text


async def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    """Return once the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(deadline_s):
        while not condition():
            await asyncio.sleep(0.005)
