"""`taskhub import`."""

import argparse
import asyncio
import sys
from pathlib import Path

from taskhub.cli.parser import load_settings
from taskhub.settings import Settings


def run(parsed: argparse.Namespace) -> int:
    """Take the tickets of a file into the database; 1 when lines were not taken."""
    settings = load_settings(parsed).settings
    return asyncio.run(_import(settings, parsed.file, strict=parsed.strict))


async def _import(settings: Settings, path: Path, *, strict: bool) -> int:
    from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
    from taskhub.opening import open_database_tickets
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import TicketError
    from taskhub.tickets.export import Format
    from taskhub.tickets.imports import ImportInterrupted, ImportRefused

    caller = Caller(Principal("user:local", "default", ALL_SCOPES, authenticated=False), "import")
    form: Format = "csv" if path.suffix.lower() == ".csv" else "jsonl"
    try:
        with path.open("rb") as file:
            async with open_database_tickets(settings) as tickets:
                done = await tickets.import_file(caller, file, form, strict=strict)
    except ImportRefused as refused:
        for bad in refused.lines:
            print(f"{path}:{bad.line}: {bad.reason}", file=sys.stderr)
        print(f"taskhub: {refused}", file=sys.stderr)
        return 1
    except ImportInterrupted as interrupted:
        print(f"taskhub: {path}: {interrupted}; {interrupted.hint}", file=sys.stderr)
        return 1
    except (TicketError, NewerSchema, OSError) as error:
        print(f"taskhub: {path}: {error}", file=sys.stderr)
        return 1
    for bad in done.errors:
        print(f"{path}:{bad.line}: {bad.reason}", file=sys.stderr)
    print(f"{done.created} created, {done.updated} updated, {done.unchanged} unchanged, {done.failed} not taken")
    return 1 if done.failed else 0
