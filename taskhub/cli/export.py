"""`taskhub export`."""

import argparse
import asyncio
import sys
from collections.abc import Callable

from taskhub.cli.parser import load_settings
from taskhub.settings import Settings, mask_url


def run(parsed: argparse.Namespace) -> int:
    """Write all tickets of the database to standard output."""
    settings = load_settings(parsed).settings
    return asyncio.run(_export(settings, parsed.format, sys.stdout.buffer.write))


async def _export(settings: Settings, form: str, write: Callable[[bytes], object]) -> int:
    from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
    from taskhub.opening import open_database_tickets
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import StorageBusy
    from taskhub.tickets.export import Format, header, line
    from taskhub.tickets.inputs import ExportQuery

    caller = Caller(Principal("user:local", "default", ALL_SCOPES, authenticated=False), "system")
    chosen: Format = "jsonl" if form == "jsonl" else "csv"
    try:
        async with open_database_tickets(settings) as tickets:
            write(header(chosen))
            async for page in tickets.export(caller, ExportQuery()):
                for ticket in page:
                    write(line(ticket, chosen))
    except (NewerSchema, StorageBusy) as error:
        print(f"taskhub: {mask_url(settings.database_address)}: {error}", file=sys.stderr)
        return 1
    sys.stdout.flush()
    return 0
