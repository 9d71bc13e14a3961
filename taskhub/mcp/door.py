"""What an application has of MCP before anybody speaks it: the host, loaded by the first request.

The SDK and the models of two eras are a third of what a server would hold in memory and half of its start; one that
only fans out events never needs them.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

from aiohttp import web

from taskhub.auth.principal import Caller
from taskhub.mcp.bridge import error_response
from taskhub.mcp.opened import OpenedStreams
from taskhub.tickets.api import Tickets

if TYPE_CHECKING:
    from taskhub.mcp.host import McpHost

STOPPING: Final = "the server is stopping"

Transport = Literal["http", "sse"]
PassOn = Callable[[bytes], Awaitable[object]]


class McpDoor:
    """Lets requests to the host, which `make` makes when the first one comes; of the streams that it opens `opened`
    knows from the start. `tickets` and `transports` are the host's."""

    def __init__(
        self, make: Callable[[OpenedStreams], McpHost], *, tickets: Tickets, transports: Collection[Transport]
    ) -> None:
        self.tickets = tickets
        self.transports = frozenset(transports)
        self.opened = OpenedStreams()
        self.draining = False
        self._make = partial(make, self.opened)
        self._host: McpHost | None = None
        self._loading: asyncio.Task[McpHost] | None = None

    async def host(self) -> McpHost:
        """The host, open for requests."""
        if self._host is not None:
            return self._host
        if self._loading is None:
            # In a context of its own: what it starts is for everybody, and not for the request that needs it first.
            self._loading = asyncio.get_running_loop().create_task(
                self._load(), name="mcp loading", context=contextvars.Context()
            )
        return await asyncio.shield(self._loading)

    async def _load(self) -> McpHost:
        try:
            host = await asyncio.to_thread(self._make)
            await host.start()
            self._host = host
            return host
        finally:
            self._loading = None

    async def handle_mcp(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """GET, POST and DELETE /mcp."""
        return self._stopped() or await (await self.host()).handle_mcp(request, caller)

    async def handle_sse(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """GET /sse."""
        return self._stopped() or await (await self.host()).handle_sse(request, caller)

    async def handle_message(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """POST /message."""
        return self._stopped() or await (await self.host()).handle_message(request, caller)

    def _stopped(self) -> web.Response | None:
        """The answer where nobody has spoken MCP before the server stops: nothing is loaded for that any more."""
        late = self.draining and self._host is None and self._loading is None
        return error_response(503, STOPPING, retry_after_s=2) if late else None

    async def take(self, message: bytes) -> None:
        """A message that another process passed on. Where nobody has spoken MCP no session is that it could be for."""
        if self._host is not None:
            await self._host.take(message)

    def scopes_changed(self, credentials: Iterable[str]) -> None:
        """Callers with these credentials may do something else than before."""
        if self._host is not None:
            self._host.scopes_changed(credentials)

    async def stop(self, grace_s: float) -> None:
        """As McpHost's; nothing is loaded any more."""
        self.draining = True
        if self._loading is not None:
            await asyncio.wait((self._loading,))
        if self._host is not None:
            await self._host.stop(grace_s)
