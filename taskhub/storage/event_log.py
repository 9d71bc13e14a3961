"""The event log in the database, as the broadcaster reads it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any, Final

from sqlalchemy import Row, bindparam, select
from sqlalchemy.ext.asyncio import AsyncConnection

from broadcaster.errors import LogUnavailable, PositionExpired
from broadcaster.event import Event
from broadcaster.log import LogBounds
from taskhub.storage.database import Database, to_the_end
from taskhub.storage.schema import events, workspaces
from taskhub.storage.times import to_text
from taskhub.storage.transaction import UnknownWorkspace
from taskhub.tickets.errors import StorageBusy

_BOUNDS: Final = select(workspaces.c.epoch, workspaces.c.oldest_seq, workspaces.c.head_seq).where(
    workspaces.c.id == bindparam("workspace")
)
_PAGE: Final = (
    select(
        events.c.seq, events.c.id, events.c.time, events.c.type, events.c.subject, events.c.actor, events.c.origin,
        events.c.ticket_version, events.c.data,
    )
    .where(events.c.workspace_id == bindparam("workspace"), events.c.seq > bindparam("after"))
    .order_by(events.c.seq)
    .limit(bindparam("limit"))
)  # fmt: skip
_TIME: Final = select(events.c.time).where(
    events.c.workspace_id == bindparam("workspace"), events.c.seq == bindparam("seq")
)


class SqlEventLog:
    """Implements broadcaster.log.EventLog. Raises LogUnavailable when the database is busy or away."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, LogBounds] = {}
        self._known_version: int | None = None
        self._asking = asyncio.Lock()

    @to_the_end
    async def bounds(self, workspace: str) -> LogBounds:
        """A fresh read. Raises LogUnavailable, and UnknownWorkspace."""
        async with self._reading() as connection:
            return await _bounds(connection, workspace)

    async def heads(self, workspaces: Iterable[str]) -> Mapping[str, LogBounds]:
        """The bounds of those of the workspaces that exist. On SQLite an unchanged file costs one pragma."""
        wanted = set(workspaces)
        async with self._asking:
            try:
                version = await self._database.data_version()
            except StorageBusy as error:
                raise LogUnavailable(str(error)) from error
            # The version was asked before the rows: what changes in between is seen at the next call.
            if version is None or version != self._known_version or not wanted <= self._known.keys():
                self._known = await self._checked_heads(wanted)
                self._known_version = version
            return {name: bounds for name, bounds in self._known.items() if name in wanted}

    @to_the_end
    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events after `after`, in order. Raises PositionExpired, LogUnavailable, UnknownWorkspace."""
        async with self._reading() as connection:
            bounds = await _bounds(connection, workspace)
            if after + 1 < bounds.oldest:
                raise PositionExpired(after, bounds.oldest)
            if after >= bounds.head:
                return []
            page = await connection.execute(_PAGE, {"workspace": workspace, "after": after, "limit": limit})
            return [event_of(row, workspace, bounds.epoch) for row in page]

    @to_the_end
    async def seq_at(self, workspace: str, time: datetime) -> int:
        """The seq of the last event at or before `time`, or oldest - 1. Times never go back in a log, so it halves."""
        wanted = to_text(time)
        async with self._reading() as connection:
            bounds = await _bounds(connection, workspace)
            low, high = bounds.oldest - 1, bounds.head
            while low < high:
                middle = (low + high + 1) // 2
                row = (await connection.execute(_TIME, {"workspace": workspace, "seq": middle})).one()
                low, high = (middle, high) if row.time <= wanted else (low, middle - 1)
            return low

    async def _checked_heads(self, wanted: set[str]) -> dict[str, LogBounds]:
        """Heads of logs that still hold what this process saw; a log that does not gets a new epoch first."""
        seen = self._database.seen
        async with self._reading() as connection:
            bounds, lost = await connection.run_sync(seen.heads, wanted)
        if not lost:
            return bounds
        try:
            for workspace in lost:
                await self._database.write(partial(seen.mint, workspace=workspace))
        except StorageBusy as error:
            raise LogUnavailable(str(error)) from error
        async with self._reading() as connection:
            bounds, _ = await connection.run_sync(seen.heads, wanted)
        return bounds

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[AsyncConnection]:
        try:
            async with self._database.read() as connection:
                yield connection
        except StorageBusy as error:
            raise LogUnavailable(str(error)) from error


async def _bounds(connection: AsyncConnection, workspace: str) -> LogBounds:
    row = (await connection.execute(_BOUNDS, {"workspace": workspace})).first()
    if row is None:
        raise UnknownWorkspace(workspace)
    return LogBounds(row.epoch, row.oldest_seq, row.head_seq)


def event_of(row: Row[*tuple[Any, ...]], workspace: str, epoch: str) -> Event:
    """A row of the log as an event, byte for byte what was committed."""
    return Event(
        workspace=workspace,
        epoch=epoch,
        seq=row.seq,
        id=row.id,
        time=row.time,
        type=row.type,
        subject=row.subject,
        actor=row.actor,
        origin=row.origin,
        ticket_version=row.ticket_version,
        data=row.data.encode(),
    )
