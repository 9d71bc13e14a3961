"""Retention: how far back the log of a workspace can be read, and what is deleted of the part before that.

An event is kept for some days, and while it is among the newest so many. What is older is cut off in chunks: each is a
transaction of its own, which moves the workspace's `oldest_seq` over a range and deletes those events of it that are
about no ticket. So at any moment the log is dense from `oldest_seq` on, and before it there are ticket events alone:
they stay as long as their tickets, whose history, undo and past they are.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Self

from sqlalchemy import Connection, Row, bindparam, delete, select, update

from broadcaster.log import LogBounds
from taskhub.failpoints import OFF, Failpoints
from taskhub.storage.database import Database
from taskhub.storage.event_log import last_at
from taskhub.storage.recurring import Recurring
from taskhub.storage.schema import events, workspaces
from taskhub.storage.times import Clock, to_text
from taskhub.storage.transaction import database_time

CHUNK: Final = 500
"""Events that one transaction cuts off while everybody else who writes waits. In a log of a million events of 300 bytes
on SQLite that takes up to 0.1 ms for each, so about as long as a group of writes may take."""
PAUSE_S: Final = 0.05
"""Between two chunks, for the writers of other processes: those that wait for an SQLite file do not line up for it."""
LOOK_EVERY_S: Final = 600.0
FIRST_LOOK_S: Final = 2.0
"""After the start: a process that never runs for long does its part, and lets others go first."""

_W: Final = workspaces.c
_WORKSPACES: Final = select(_W.id, _W.epoch, _W.oldest_seq, _W.head_seq).order_by(_W.id)
_LOCKED: Final = _WORKSPACES.where(_W.id == bindparam("workspace")).with_for_update(key_share=True)
_MOVE: Final = update(workspaces).where(_W.id == bindparam("workspace")).values(oldest_seq=bindparam("oldest"))
_DELETE: Final = delete(events).where(
    events.c.workspace_id == bindparam("workspace"),
    events.c.seq >= bindparam("first"),
    events.c.seq < bindparam("oldest"),
    ~events.c.type.startswith("ticket."),
)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Retention:
    """What of a log can be read: the events of the last `days` (0: all), and at least the newest `min_events`.

    Not less than a day: for so long a published event can be asked for again by its idempotency key.
    """

    days: int = 90
    min_events: int = 100_000

    def oldest(self, connection: Connection, row: Row[str, str, int, int], now: datetime) -> int:
        """Where the log of a workspace should begin. It never begins earlier than it does, and never is empty again:
        by its newest event one knows whether commits were lost."""
        workspace, bounds = row.id, LogBounds(row.epoch, row.oldest_seq, row.head_seq)
        most = bounds.head - max(self.min_events, 1) + 1
        if not self.days or most <= bounds.oldest:
            return bounds.oldest
        expired = last_at(connection, workspace, bounds, to_text(now - timedelta(days=self.days)))
        return min(expired + 1, most)


class RetentionKeeper(Recurring):
    """Cuts logs off where they should begin, every few minutes from `async with` to its end; the time is the
    database's, or that of `clock`.

    Several processes may do so on one database: each chunk begins where the workspace's row says.
    """

    def __init__(
        self,
        database: Database,
        retention: Retention,
        *,
        clock: Clock | None = None,
        failpoints: Failpoints = OFF,
        every_s: float = LOOK_EVERY_S,
        first_s: float = FIRST_LOOK_S,
        pause_s: float = PAUSE_S,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__("cut of old events", self._keep, every_s=every_s, first_s=first_s)
        self._database = database
        self._retention = retention
        self._clock = clock
        self._failpoints = failpoints
        self._pause_s = pause_s
        self._chunk = chunk

    async def __aenter__(self) -> Self:
        if self._retention.days:
            await super().__aenter__()
        return self

    async def keep(self) -> int:
        """Cut off all that is due; how many events were, those of tickets included. Raises StorageBusy."""
        total = 0
        for workspace, oldest in (await self._database.read(self._due)).items():
            while cut := await self._database.write(partial(self._cut, workspace=workspace, target=oldest)):
                total += cut
                await asyncio.sleep(self._pause_s)
        return total

    async def _keep(self) -> None:
        if cut := await self.keep():
            _log.info("%s events have expired", cut)

    def _due(self, connection: Connection) -> dict[str, int]:
        """Where the logs should begin that begin earlier. Found before anybody is locked out: it takes some reading."""
        now = self._now(connection)
        found = connection.execute(_WORKSPACES).all()
        due = {row.id: self._retention.oldest(connection, row, now) for row in found}
        return {row.id: due[row.id] for row in found if due[row.id] > row.oldest_seq}

    def _cut(self, connection: Connection, workspace: str, target: int) -> int:
        """One chunk: by how many events the log begins later. Others may have cut some off meanwhile, and a head that
        went back is another log's."""
        row = connection.execute(_LOCKED, {"workspace": workspace}).one()
        first: int = row.oldest_seq
        oldest: int = min(target, row.head_seq, first + self._chunk)
        if oldest > first:
            connection.execute(_MOVE, {"workspace": workspace, "oldest": oldest})
            self._failpoints.reach("retention.chunk")
            connection.execute(_DELETE, {"workspace": workspace, "first": first, "oldest": oldest})
        return oldest - first

    def _now(self, connection: Connection) -> datetime:
        return database_time(connection) if self._clock is None else self._clock()
