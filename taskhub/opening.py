"""The database, its writer and its tickets, each open for as long as a block lasts.

Apart from the composition root, for commands: what serves HTTP and MCP takes longer to import than they take to run.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from broadcaster.event import Event, EventDraft
from taskhub.audit.log import AuditLog
from taskhub.failpoints import OFF, Failpoints
from taskhub.keys.store import KeyStore
from taskhub.metrics.meters import Meters
from taskhub.oauth.clients import RegisteredClients
from taskhub.oauth.grants import GrantStore
from taskhub.settings.model import Settings
from taskhub.sign_in.service import SignIn
from taskhub.sign_in.sessions import SessionStore
from taskhub.storage.database import Database
from taskhub.storage.migrate import migrate
from taskhub.storage.writer import Writer
from taskhub.tickets.service import TicketService
from taskhub.workspaces import WorkspaceStore

READ_ALL_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Services:
    """What works on one database."""

    tickets: TicketService
    keys: KeyStore
    audit: AuditLog
    workspaces: WorkspaceStore
    sign_in: SignIn
    grants: GrantStore
    oauth_clients: RegisteredClients
    database: Database


@contextlib.asynccontextmanager
async def open_database(
    settings: Settings, failpoints: Failpoints, meters: Meters | None = None
) -> AsyncIterator[Database]:
    """The database with the newest schema; made where there is none. Raises NewerSchema and StorageBusy."""
    if settings.embedded:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    await asyncio.to_thread(migrate, settings.database_address, failpoints)
    database = Database(settings.database_address, meters=meters)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@contextlib.asynccontextmanager
async def open_writer(
    database: Database,
    on_commit: Callable[[str, Sequence[Event]], None] = lambda workspace, events: None,
    on_transient: Callable[[str, Sequence[EventDraft]], object] = lambda workspace, drafts: None,
    failpoints: Failpoints = OFF,
) -> AsyncIterator[Writer]:
    """Its only writer in this process."""
    writer = Writer(database, on_commit, on_transient=on_transient, failpoints=failpoints)
    try:
        yield writer
    finally:
        await writer.close()


@contextlib.asynccontextmanager
async def open_services(settings: Settings) -> AsyncIterator[Services]:
    """What works on the database, for a command; servers on it notice within a poll what the command writes."""
    failpoints = Failpoints.parse(settings.failpoints)
    async with (
        open_database(settings, failpoints) as database,
        open_writer(database, failpoints=failpoints) as writer,
    ):
        sessions = SessionStore(database, idle_s=settings.session_idle_s, max_s=settings.session_max_s)
        with contextlib.closing(SignIn(database, sessions)) as sign_in:
            yield Services(
                TicketService(database, writer),
                KeyStore(database),
                AuditLog(database),
                WorkspaceStore(database),
                sign_in,
                GrantStore(database, (await database.deployment()).secret),
                RegisteredClients(database),
                database,
            )


@contextlib.asynccontextmanager
async def open_database_as_it_is(settings: Settings) -> AsyncIterator[Database]:
    """The database, neither made nor migrated, for a command that reads all of it: its statements may take long.

    Raises FileNotFoundError when the file is not there, and StorageBusy.
    """
    database = Database(settings.database_address, pool_size=1, busy_timeout_s=READ_ALL_TIMEOUT_S)
    if database.path is not None and not database.path.exists():
        raise FileNotFoundError(errno.ENOENT, "there is no database", str(database.path))
    await database.open()
    try:
        yield database
    finally:
        await database.close()
