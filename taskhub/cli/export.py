"""`taskhub export`."""

import argparse
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from taskhub.cli.parser import load_settings
from taskhub.cli.services import caller_in, run_with_services

if TYPE_CHECKING:
    from taskhub.opening import Services


def run(parsed: argparse.Namespace) -> int:
    """Write all tickets of the database to standard output."""
    return run_with_services(load_settings(parsed).settings, partial(_export, parsed, sys.stdout.buffer.write))


async def _export(parsed: argparse.Namespace, write: Callable[[bytes], object], services: "Services") -> int:
    from taskhub.tickets.export import Format, header, line
    from taskhub.tickets.inputs import ExportQuery

    caller = await caller_in(services, parsed.workspace)
    form: Format = "jsonl" if parsed.format == "jsonl" else "csv"
    write(header(form))
    async for page in services.tickets.export(caller, ExportQuery()):
        for ticket in page:
            write(line(ticket, form))
    sys.stdout.flush()
    return 0
