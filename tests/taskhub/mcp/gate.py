"""A tool that waits until the test lets it go, to look at calls while they run."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

from taskhub.auth.principal import Caller
from taskhub.mcp.registry import Tool, ToolRegistry, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import Input
from tests.taskhub.mcp.world import Served, serve_mcp


class Nothing(Input):
    pass


class Gate:
    """`entered` when the tool was called; it answers after `open`. `cancelled` when it was cancelled instead."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def run(self, caller: Caller, arguments: Nothing) -> ToolResult:
        self.entered.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return ToolResult({"done": True}, "Done.")

    @property
    def registry(self) -> ToolRegistry:
        output = result_schema({"done": {"type": "boolean"}})
        return ToolRegistry([Tool("wait", "Wait", "Wait.", Nothing, output, "tickets:read", "tickets", self.run)])


@asynccontextmanager
async def gated(gate: Gate, **options: Any) -> AsyncIterator[Served]:
    """Serve that tool alone."""
    async with serve_mcp(cast(Tickets, None), registry=gate.registry, **options) as served:
        yield served
