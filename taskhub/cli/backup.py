"""`taskhub backup`."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, local_caller
from taskhub.cli.termination import run_to_the_end
from taskhub.settings.model import Settings

if TYPE_CHECKING:
    from taskhub.storage.backup_file import Trailer
    from taskhub.storage.database import Database


def run(parsed: argparse.Namespace) -> int:
    """Write the whole database to a file, or to standard output. Raises CannotRun."""
    settings = load_settings(parsed).settings
    if str(parsed.file) == "-" and sys.stdout.isatty():
        raise CannotRun("a backup is not for a terminal: name a file, or lead standard output to one")
    return run_to_the_end(_backup(settings, parsed.file, force=parsed.force))


async def _record(database: "Database", made: "Trailer") -> None:
    """The backup is there, and a database that cannot be written may be why somebody wants one."""
    from taskhub.audit.log import AuditLog
    from taskhub.audit.record import DEPLOYMENT, Entry
    from taskhub.tickets.errors import StorageBusy

    tickets, events = made.rows["tickets"], made.rows["events"]
    told = Entry.by(local_caller(DEPLOYMENT), "database.backed_up", tickets=tickets, events=events)
    try:
        if await database.schema_is_current():
            await AuditLog(database).record(told)
    except StorageBusy as error:
        print(f"taskhub: the backup is made, and not in the audit log: {error}", file=sys.stderr)


async def _backup(settings: Settings, path: Path, *, force: bool) -> int:
    from taskhub.opening import open_database_as_it_is
    from taskhub.storage.backup import EmptyDatabase, backup, dump
    from taskhub.storage.backup_file import BadBackup, CannotWrite
    from taskhub.storage.migrate import NewerSchema
    from taskhub.storage.whole_files import BeingWritten
    from taskhub.tickets.errors import StorageBusy

    try:
        async with open_database_as_it_is(settings) as database:
            if str(path) == "-":
                made = await database.read(lambda connection: dump(connection, sys.stdout.buffer))
                sys.stdout.flush()
            else:
                made = await backup(database, path, replace=force)
            await _record(database, made)
    except FileExistsError:
        raise CannotRun(f"{path} exists; --force replaces it") from None
    except CannotWrite as error:
        raise CannotRun(f"{path}: {error}") from None
    except (BeingWritten, BadBackup, OSError) as error:
        raise CannotRun(str(error)) from None
    except (EmptyDatabase, NewerSchema, StorageBusy) as error:
        raise CannotRun.on(settings, error) from None
    verified = "" if str(path) == "-" else ", read again and found whole"
    counts = f"{made.rows['tickets']} tickets and {made.rows['events']} events"
    print(f"{counts} backed up{verified}", file=sys.stderr if str(path) == "-" else sys.stdout)
    return 0
