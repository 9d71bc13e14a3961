"""A TaskHub server with the fixtures of the MCP conformance suite added: `python -m tests.e2e.conformance`.

The suite calls tools, resources and prompts by fixed names. Everything else is the server as it is shipped: its
application, middlewares, routes, transports and sessions, and its own tools beside the fixtures. Settings come from the
environment; the port is a free one, written into the data directory as ever.
"""

import asyncio
import warnings
from collections.abc import AsyncIterator

from aiohttp import web
from mcp.shared.exceptions import MCPDeprecationWarning

from routes.keys import MCP
from taskhub import logs
from taskhub.app import create_app
from taskhub.listening import listen
from taskhub.serve import serve
from taskhub.settings.loading import load
from tests.e2e.conformance.fixtures import add_fixtures


async def _fixtures(app: web.Application) -> AsyncIterator[None]:
    add_fixtures((await app[MCP].host()).server)
    yield


async def main() -> None:
    """Serve until SIGTERM."""
    settings = load({"port": 0}).settings
    logs.configure(level=settings.log_level, json=settings.json_logs)
    app = create_app(settings)
    app.cleanup_ctx.append(_fixtures)  # after the services: it needs the MCP host that they bring
    with listen(settings.host, settings.port, move_on=False) as sock:
        await serve(app, settings, sock, on_ready=print)


if __name__ == "__main__":
    # Sampling and log messages, which the suite still asks for, are deprecated as of the 2026 revision.
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    asyncio.run(main())
