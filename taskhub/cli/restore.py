"""`taskhub restore`."""

import argparse
import contextlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from taskhub import server_file
from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, local_caller
from taskhub.cli.termination import exiting_when_terminated, run_to_the_end
from taskhub.settings.model import Settings

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from taskhub.storage.backup_file import Header


def run(parsed: argparse.Namespace) -> int:
    """Make the database what a backup says. Raises CannotRun; then it is as it was."""
    settings = load_settings(parsed).settings
    if str(parsed.file) == "-" and sys.stdin.isatty():
        raise CannotRun("nobody types a backup: name a file, or lead one to standard input")

    from taskhub.storage.whole_files import BeingWritten

    name = "standard input" if str(parsed.file) == "-" else str(parsed.file)
    try:
        with _received(settings, parsed.file) as file:
            return run_to_the_end(_restore(settings, file, name, replace=parsed.replace))
    except (BeingWritten, OSError) as error:
        raise CannotRun(str(error)) from None


async def _restore(settings: Settings, file: Path, name: str, *, replace: bool) -> int:
    from taskhub.storage.backup_file import BadBackup
    from taskhub.storage.database_file import CannotKeepOwner
    from taskhub.storage.migrate import NewerSchema
    from taskhub.storage.occupancy import DatabaseInUse
    from taskhub.storage.restore import NewerTables, NotEmpty, NotOurs, restore
    from taskhub.tickets.errors import StorageBusy

    try:
        done = await restore(settings.database_address, file, replace=replace, finish=_record)
    except DatabaseInUse as error:
        raise CannotRun(f"{CannotRun.on(settings, error)}{_servers(settings)}; stop it first") from None
    except NewerSchema as error:
        newer = f"its schema ({error.revision}) is that of a newer TaskHub: update this one"
        raise CannotRun(f"{name}: {newer}") from None
    except (BadBackup, OSError) as error:
        raise CannotRun(str(error).replace(str(file), name)) from None
    except (NotEmpty, NotOurs, NewerTables, CannotKeepOwner, StorageBusy) as error:
        raise CannotRun.on(settings, error) from None
    print(f"{done.rows['tickets']} tickets and {done.rows['events']} events of {done.header.created_at} restored")
    for workspace, now in done.workspaces.items():
        was = "" if now.was is None else f" after event {now.was.head_seq} of epoch {now.was.epoch}"
        print(f"{workspace}: {now.tickets} tickets, {now.events} events; its log goes on{was} in epoch {now.epoch}")
    return 0


def _record(connection: "Connection", header: "Header") -> None:
    """Every workspace has gone back to what it was then."""
    from sqlalchemy import select

    from taskhub.audit.record import Entry, record
    from taskhub.storage.schema import workspaces

    for workspace in connection.execute(select(workspaces.c.id).order_by(workspaces.c.id)).scalars().all():
        told = Entry.by(local_caller(workspace), "database.restored", backup_of=header.created_at)
        record(connection, told)


@contextlib.contextmanager
def _received(settings: Settings, file: Path) -> Iterator[Path]:
    """The file of the backup: what comes from standard input is put into one, for it is read twice."""
    if str(file) != "-":
        yield file
        return

    from taskhub.storage.database_file import DatabaseFiles
    from taskhub.storage.urls import driver_url, sqlite_path
    from taskhub.storage.whole_files import unfinished

    database = sqlite_path(driver_url(settings.database_address)[0])
    with contextlib.ExitStack() as stack:
        stack.enter_context(exiting_when_terminated())
        part: IO[bytes]
        if database is None:
            part = stack.enter_context(tempfile.NamedTemporaryFile(prefix="taskhub-", suffix=".backup"))
            path = Path(part.name)
        else:
            # Where there is room for the database.
            target = DatabaseFiles(database).path
            target.parent.mkdir(parents=True, exist_ok=True)
            path, part = stack.enter_context(unfinished(target))
        shutil.copyfileobj(sys.stdin.buffer, part)
        part.flush()
        yield path


def _servers(settings: Settings) -> str:
    """Those that say in the data directory that they run; the embedded database is theirs."""
    running = server_file.read_all(settings.data_dir) if settings.embedded else []
    return "".join(f", such as the server {server.url} (pid {server.pid})" for server in running[:1])
