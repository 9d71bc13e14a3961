"""Tickets whose changes are heard, served over MCP on a real socket; and callers with some scopes only."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from broadcaster.engine import Broadcaster
from broadcaster.options import BroadcastOptions
from broadcaster.relay import LocalRelay
from taskhub.auth.principal import ALL_SCOPES, Principal, Scope
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.world import ALICE, Served, serve_mcp

SCOPES: Final = "X-Scopes"


class ByHeader:
    """Believes whatever scopes a request claims; all of them when it claims none."""

    name = "api_key"

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        claimed = headers.get(SCOPES)
        scopes = ALL_SCOPES if claimed is None else frozenset(cast(Sequence[Scope], claimed.split()))
        return Principal("user:alice", "default", scopes, authenticated=True)


@dataclass(frozen=True, slots=True)
class Live:
    """A server of MCP and what is behind it."""

    tickets: TicketService
    broadcaster: Broadcaster
    served: Served

    async def create(self, summary: str = "a ticket", **fields: Any) -> str:
        return (await self.tickets.create_ticket(ALICE, NewTicket(summary=summary, **fields))).key

    async def change(self, key: str, **fields: Any) -> None:
        await self.tickets.update_ticket(ALICE, key, TicketChange(**fields))

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
            yield Live(tickets, broadcaster, served)
    finally:
        await writer.close()
        await broadcaster.stop()
        await database.close()
