"""`taskhub import`."""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, caller_in, run_with_services

if TYPE_CHECKING:
    from taskhub.opening import Services


def run(parsed: argparse.Namespace) -> int:
    """Take the tickets of a file into the database; 1 when lines were not taken."""
    return run_with_services(load_settings(parsed).settings, partial(_import, parsed.file, parsed))


async def _import(path: Path, parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.tickets.errors import TicketError
    from taskhub.tickets.export import Format
    from taskhub.tickets.imports import ImportInterrupted, ImportRefused

    caller = await caller_in(services, parsed.workspace, "import")
    form: Format = "csv" if path.suffix.lower() == ".csv" else "jsonl"
    try:
        with path.open("rb") as file:
            done = await services.tickets.import_file(caller, file, form, strict=parsed.strict)
    except ImportRefused as refused:
        for bad in refused.lines:
            print(f"{path}:{bad.line}: {bad.reason}", file=sys.stderr)
        raise CannotRun(str(refused)) from None
    except ImportInterrupted as interrupted:
        raise CannotRun(f"{path}: {interrupted}; {interrupted.hint}") from None
    except (TicketError, OSError) as error:
        raise CannotRun(f"{path}: {error}") from None
    for bad in done.errors:
        print(f"{path}:{bad.line}: {bad.reason}", file=sys.stderr)
    print(f"{done.created} created, {done.updated} updated, {done.unchanged} unchanged, {done.failed} not taken")
    return 1 if done.failed else 0
