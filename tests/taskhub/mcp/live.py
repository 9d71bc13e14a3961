"""Tickets whose changes are heard, served over MCP on a real socket; and callers with some scopes only."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from sqlalchemy import insert

from broadcaster.engine import Broadcaster
from broadcaster.event import EventDraft
from broadcaster.options import BroadcastOptions
from broadcaster.relay import LocalRelay
from taskhub.auth.principal import ALL_SCOPES, Principal, Scope
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.schema import workspaces
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.world import ALICE, Served, serve_mcp

SCOPES: Final = "X-Scopes"
WORKSPACE: Final = "X-Workspace"


class ByHeader:
    """Believes whatever scopes and workspace a request claims; all scopes when it claims none."""

    name = "api_key"

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        claimed = headers.get(SCOPES)
        scopes = ALL_SCOPES if claimed is None else frozenset(cast(Sequence[Scope], claimed.split()))
        return Principal("user:alice", headers.get(WORKSPACE, "default"), scopes, authenticated=True)


@dataclass(frozen=True, slots=True)
class Live:
    """A server of MCP and what is behind it."""

    tickets: TicketService
    broadcaster: Broadcaster
    served: Served
    writer: Writer
    database: Database

    async def create(self, summary: str = "a ticket", **fields: Any) -> str:
        return (await self.tickets.create_ticket(ALICE, NewTicket(summary=summary, **fields))).key

    async def change(self, key: str, **fields: Any) -> None:
        await self.tickets.update_ticket(ALICE, key, TicketChange(**fields))

    async def emit(self, event_type: str, workspace: str = "default") -> None:
        """Store an event that is about no ticket."""
        draft = EventDraft(event_type, "user:alice", "rest_api", b"{}")
        await self.writer.run(workspace, lambda transaction: transaction.emit(draft))

    async def add_workspace(self, name: str) -> None:
        row = {
            "id": name, "key_prefix": name[:2].upper(), "name": name, "next_no": 1, "epoch": "e", "head_seq": 0,
            "head_time": "", "oldest_seq": 1, "references_version": 1, "created_at": "",
        }  # fmt: skip
        await self.database.write(lambda connection: connection.execute(insert(workspaces), row))

    @property
    def left_behind(self) -> int:
        """What is there for subscriptions: streams, wants, observers of the hub."""
        subscriptions = self.served.host.subscriptions
        assert subscriptions is not None
        observers = sum(len(channel.observers) for channel in self.broadcaster._channels)
        return subscriptions.listening + subscriptions.wakeups.open + observers


@asynccontextmanager
async def open_live(path: Path, **options: Any) -> AsyncIterator[Live]:
    """The tickets of a database file with everything that makes their changes heard."""
    database = Database(f"sqlite:///{path}")
    await database.open()
    broadcaster = Broadcaster(SqlEventLog(database), LocalRelay(), BroadcastOptions())
    await broadcaster.start()
    writer = Writer(database, broadcaster.committed)
    tickets = TicketService(database, writer)
    try:
        async with serve_mcp(tickets, auth=ByHeader(), watch=broadcaster.watch, **options) as served:
            yield Live(tickets, broadcaster, served, writer, database)
    finally:
        await writer.close()
        await broadcaster.stop()
        await database.close()
