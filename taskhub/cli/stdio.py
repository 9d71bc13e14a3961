"""`taskhub stdio`: the MCP tools over standard input and output."""

import argparse
import asyncio

from taskhub import __version__
from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun
from taskhub.settings.model import Settings


def run(parsed: argparse.Namespace) -> int:
    """Serve one client until it closes standard input."""
    settings = load_settings(parsed, "api_base_url").settings

    from taskhub import logs
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import StorageBusy

    # Only warnings: most clients show whatever comes on standard error to people.
    logs.configure(level="warning" if settings.log_level == "info" else settings.log_level, json=settings.json_logs)
    try:
        asyncio.run(_serve(settings, parsed))
    except (NewerSchema, StorageBusy) as error:
        raise CannotRun.on(settings, error) from None
    return 0


async def _serve(settings: Settings, parsed: argparse.Namespace) -> None:
    from taskhub.app import open_tickets
    from taskhub.stdio import run_stdio

    async with open_tickets(settings) as (tickets, watch):
        await run_stdio(
            tickets,
            version=__version__,
            actor=parsed.actor,
            read_only=parsed.read_only,
            toolsets=parsed.toolsets,
            watch=watch,
        )
