"""A ticket service on a database, a clock that tests set, and callers."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Executable, Row, insert, update
from sqlalchemy.util.concurrency import await_

from broadcaster.event import Event, EventDraft
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal, Scope
from taskhub.doctor.examination import examine
from taskhub.doctor.findings import Problem
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.names import slug
from taskhub.storage.schema import METADATA, workspaces
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket, TicketChange, TicketQuery
from taskhub.tickets.model import Ticket, Written
from taskhub.tickets.service import TicketService

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
DEADLINE_S = 60.0


def caller(actor: str = "user:alice", *, scopes: Iterable[Scope] = ALL_SCOPES, workspace: str = "default") -> Caller:
    return Caller(Principal(actor, workspace, frozenset(scopes), authenticated=True), "rest_api", "r-1")


ALICE = caller()


class World:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = NOON
        self.heard: list[Event] = []
        self.told: list[EventDraft] = []
        """What has no place in the log."""
        self.writer = Writer(database, self._heard, on_transient=self._told, clock=lambda: self.now)
        self.tickets = TicketService(database, self.writer)
        self.log = SqlEventLog(database)

    def _heard(self, workspace: str, events: Sequence[Event]) -> None:
        self.heard += events

    def _told(self, workspace: str, drafts: Sequence[EventDraft]) -> None:
        self.told += drafts

    def tick(self, **delta: float) -> None:
        """Let time pass: a millisecond, or as much as is said."""
        self.now += timedelta(**delta) if delta else timedelta(milliseconds=1)

    async def add(self, kind: str, name: str, **columns: Any) -> str:
        """Add a row of reference data; its id."""
        defaults: dict[str, Any] = {"active": True, "created_at": "", "updated_at": ""}
        defaults |= {"kind": "human", "role": "agent"} if kind == "users" else {"order_no": 100}
        row = {"workspace_id": "default", "id": slug(name), "name": name, **defaults, **columns}
        await self._change_references(insert(METADATA.tables[kind]).values(row))
        return str(row["id"])

    async def change_reference(self, kind: str, id: str, **columns: Any) -> None:
        table = METADATA.tables[kind]
        await self._change_references(update(table).where(table.c.id == id).values(columns))

    async def _change_references(self, change: Executable) -> None:
        raised = update(workspaces).values(references_version=workspaces.c.references_version + 1)
        await execute(self.database, raised, change)

    async def create(self, summary: str = "Printer is on fire", by: Caller = ALICE, **fields: Any) -> Written:
        return await self.tickets.create_ticket(by, NewTicket(summary=summary, **fields))

    async def update(self, key: str, by: Caller = ALICE, **fields: Any) -> Written:
        return await self.tickets.update_ticket(by, key, TicketChange(**fields))

    async def ticket(self, key: str) -> Ticket:
        return (await self.tickets.get_ticket(ALICE, key)).ticket

    async def keys(self, by: Caller = ALICE, **query: Any) -> list[str]:
        """The keys of one page."""
        page = await self.tickets.list_tickets(by, TicketQuery(**query))
        return [ticket.key for ticket in page.tickets]


class Gate:
    """Holds up a unit of work, on whatever thread it runs, until it is opened. To be made on the event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._reached, self._opened = asyncio.Event(), asyncio.Event()

    def open(self) -> None:
        self._opened.set()

    async def reached(self) -> None:
        """Wait until a unit is held up."""
        async with asyncio.timeout(DEADLINE_S):
            await self._reached.wait()

    def pass_through(self, *_: object) -> None:
        """Called by the unit."""
        wait_within(self._pass(), self._loop)

    async def _pass(self) -> None:
        self._reached.set()
        async with asyncio.timeout(DEADLINE_S):
            await self._opened.wait()


def wait_within(waiting: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> None:
    """Let a unit of work wait for something of the event loop, on which it runs on PostgreSQL but not on SQLite."""
    if threading.current_thread() is threading.main_thread():
        await_(waiting)
    else:
        asyncio.run_coroutine_threadsafe(waiting, loop).result(DEADLINE_S)


async def execute(database: Database, *statements: Executable) -> None:
    """Change the database behind the back of the product."""

    def unit(connection: Connection) -> None:
        for statement in statements:
            connection.execute(statement)

    await database.write(unit)


async def rows(database: Database, statement: Executable) -> Sequence[Row[Any]]:
    """What a statement finds."""
    return await database.read(lambda connection: connection.execute(statement).all())


async def ills(database: Database) -> list[Problem]:
    """What the doctor finds; nothing in a database that only the product has written, whatever happened to it."""
    return (await database.read(examine)).problems


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait for a condition, at most for the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.005)
