"""Deleting entries of the audit log when they are old enough, some at a time."""

import asyncio
import logging
from datetime import timedelta
from functools import partial
from typing import Final, Self

from sqlalchemy import Connection, bindparam, delete, select

from taskhub.audit.record import first_id
from taskhub.storage.database import Database
from taskhub.storage.recurring import Recurring
from taskhub.storage.retention import CHUNK, FIRST_LOOK_S, LOOK_EVERY_S, PAUSE_S
from taskhub.storage.schema import audit, workspaces
from taskhub.storage.times import Clock
from taskhub.storage.transaction import database_time

_A: Final = audit.c
_WORKSPACES: Final = select(workspaces.c.id).order_by(workspaces.c.id)
_OLD: Final = (
    select(_A.id)
    .where(_A.workspace_id == bindparam("workspace"), _A.id < bindparam("oldest"))
    .order_by(_A.id)
    .limit(bindparam("chunk"))
)
_DELETE: Final = delete(audit).where(
    _A.workspace_id == bindparam("workspace"), _A.id.in_(bindparam("ids", expanding=True))
)

_log = logging.getLogger(__name__)


class AuditKeeper(Recurring):
    """Deletes entries that are older than `days` (0: none), every few minutes from `async with` to its end; the time
    is the database's, or that of `clock`."""

    def __init__(
        self, database: Database, days: int, *, clock: Clock | None = None, chunk: int = CHUNK, pause_s: float = PAUSE_S
    ) -> None:
        super().__init__("sweep of the audit log", self._keep, every_s=LOOK_EVERY_S, first_s=FIRST_LOOK_S)
        self._database = database
        self._days = days
        self._clock = clock
        self._chunk = chunk
        self._pause_s = pause_s

    async def __aenter__(self) -> Self:
        if self._days:
            await super().__aenter__()
        return self

    async def keep(self) -> int:
        """Delete all that is due; how many. Raises StorageBusy."""
        total = 0
        for workspace in await self._database.read(lambda connection: connection.execute(_WORKSPACES).scalars().all()):
            while True:
                deleted = await self._database.write(partial(self._sweep, workspace=workspace))
                total += deleted
                if deleted < self._chunk:
                    break
                await asyncio.sleep(self._pause_s)
        return total

    async def _keep(self) -> None:
        if deleted := await self.keep():
            _log.info("%s entries of the audit log have expired", deleted)

    def _sweep(self, connection: Connection, workspace: str) -> int:
        now = database_time(connection) if self._clock is None else self._clock()
        oldest = first_id(now - timedelta(days=self._days))
        found = {"workspace": workspace, "oldest": oldest, "chunk": self._chunk}
        ids = connection.execute(_OLD, found).scalars().all()
        if ids:
            connection.execute(_DELETE, {"workspace": workspace, "ids": ids})
        return len(ids)
