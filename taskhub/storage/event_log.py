"""The event log in the database, as the broadcaster reads it."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Row, bindparam, select

from broadcaster.errors import LogUnavailable, PositionExpired
from broadcaster.event import Event
from broadcaster.log import LogBounds
from taskhub.storage.database import Database
from taskhub.storage.schema import events, workspaces
from taskhub.storage.times import to_text
from taskhub.storage.transaction import UnknownWorkspace
from taskhub.tickets.errors import StorageBusy

T = TypeVar("T")

_BOUNDS: Final = select(workspaces.c.epoch, workspaces.c.oldest_seq, workspaces.c.head_seq).where(
    workspaces.c.id == bindparam("workspace")
)
_PAGE: Final = (
    select(
        events.c.seq, events.c.id, events.c.time, events.c.type, events.c.subject, events.c.actor, events.c.origin,
        events.c.ticket_version, events.c.trace, events.c.data,
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

    async def bounds(self, workspace: str) -> LogBounds:
        """A fresh read. Raises LogUnavailable, and UnknownWorkspace."""
        return await self._read(partial(_bounds, workspace=workspace))

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

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events after `after`, in order. Raises PositionExpired, LogUnavailable, UnknownWorkspace."""

        def read(connection: Connection) -> Sequence[Event]:
            bounds = _bounds(connection, workspace)
            if after + 1 < bounds.oldest:
                raise PositionExpired(after, bounds.oldest)
            if after >= bounds.head:
                return []
            page = connection.execute(_PAGE, {"workspace": workspace, "after": after, "limit": limit})
            return [event_of(row, workspace, bounds.epoch) for row in page]

        return await self._read(read)

    async def seq_at(self, workspace: str, time: datetime) -> int:
        """The seq of the last event at or before `time`, or oldest - 1. Raises LogUnavailable, UnknownWorkspace."""
        wanted = to_text(time)

        def find(connection: Connection) -> int:
            return last_at(connection, workspace, _bounds(connection, workspace), wanted)

        return await self._read(find)

    async def _checked_heads(self, wanted: set[str]) -> dict[str, LogBounds]:
        """Heads of logs that still hold what this process saw; a log that does not gets a new epoch first."""
        seen = self._database.seen
        bounds, lost = await self._read(partial(seen.heads, ids=wanted))
        if not lost:
            return bounds
        try:
            for workspace in lost:
                await self._database.write(partial(seen.mint, workspace=workspace))
        except StorageBusy as error:
            raise LogUnavailable(str(error)) from error
        bounds, _ = await self._read(partial(seen.heads, ids=wanted))
        return bounds

    async def _read(self, unit: Callable[[Connection], T]) -> T:
        try:
            return await self._database.read(unit)
        except StorageBusy as error:
            raise LogUnavailable(str(error)) from error


def _bounds(connection: Connection, workspace: str) -> LogBounds:
    row = connection.execute(_BOUNDS, {"workspace": workspace}).first()
    if row is None:
        raise UnknownWorkspace(workspace)
    return LogBounds(row.epoch, row.oldest_seq, row.head_seq)


def last_at(connection: Connection, workspace: str, bounds: LogBounds, time: str) -> int:
    """The seq of the last event at or before `time` that the log has, or oldest - 1. Times never go back in a log, so
    it halves."""
    low, high = bounds.oldest - 1, bounds.head
    while low < high:
        middle = (low + high + 1) // 2
        found = connection.execute(_TIME, {"workspace": workspace, "seq": middle}).scalar_one()
        low, high = (middle, high) if found <= time else (low, middle - 1)
    return low


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
        trace=row.trace,
        data=row.data.encode(),
    )
