"""The tools of TaskHub and one that does nothing, by TaskHub or by the MCP SDK as it comes.

python -m tests.benchmarks.tools_server taskhub|sdk PORT

Both are set by TASKHUB_ variables and have the same registry over the same services; what differs is who serves them.
"""

import asyncio
import sys
from typing import Any, Final
from unittest.mock import patch

import uvicorn
import uvloop
from mcp.server.transport_security import TransportSecuritySettings

from taskhub.app import open_tickets
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.cli.parser import run
from taskhub.mcp import host, tools
from taskhub.mcp.context import CURRENT, CallContext
from taskhub.mcp.registry import Tool, ToolRegistry, ToolResult
from taskhub.mcp.resources import Resources
from taskhub.mcp.schema import result_schema
from taskhub.mcp.server import build_server
from taskhub.mcp.subscriptions import Subscriptions
from taskhub.settings.loading import load
from taskhub.storage.migrate import migrate
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import Input

CALLER: Final = Caller(Principal("user:bench", "default", ALL_SCOPES, authenticated=True), "mcp_tool")


class Nothing(Input):
    """No arguments."""


async def nothing(caller: Caller, arguments: Nothing) -> ToolResult:
    return ToolResult({"done": True}, "Done.")


def registry(tickets: Tickets) -> ToolRegistry:
    """The tools on offer."""
    output = result_schema({"done": {"type": "boolean"}})
    noop = Tool("noop", "Nothing", "Does nothing.", Nothing, output, "tickets:read", "tickets", nothing)
    return ToolRegistry([*tools.tool_registry(tickets).tools, noop])


async def serve_by_sdk(port: int) -> None:
    """The SDK's application under uvicorn, until SIGTERM."""
    settings = load().settings
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    await asyncio.to_thread(migrate, settings.database_address)
    async with open_tickets(settings) as (tickets, watch):
        assert watch is not None, "these tickets are in a database"
        subscriptions = Subscriptions(watch, Resources(tickets))
        server = build_server(tickets, registry(tickets), version="1", secret=b"0" * 32, subscriptions=subscriptions)
        security = TransportSecuritySettings(enable_dns_rebinding_protection=True, allowed_hosts=["127.0.0.1"])
        application = server.streamable_http_app(transport_security=security)

        async def called(scope: Any, receive: Any, send: Any) -> None:
            CURRENT.set(CallContext(CALLER))
            await application(scope, receive, send)

        config = uvicorn.Config(called, host="127.0.0.1", port=port, log_level="warning", access_log=False)
        await uvicorn.Server(config).serve()


def main(kind: str, port: str) -> int:
    if kind == "sdk":
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve_by_sdk(int(port)))
        return 0
    with patch.object(host, "tool_registry", registry):
        return run(["serve", "--no-reload", "--port", port])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
