"""Noticing that commits which were already published are gone, and giving the log a new epoch then.

A database that was restored from a backup, or that failed over to a machine that had not heard of the last commits,
hands out the same places again for other events. A subscriber that has seen the lost ones must be told.
"""

from collections.abc import Collection
from dataclasses import dataclass
from threading import Lock
from typing import Final

from sqlalchemy import Connection, and_, bindparam, select, update

from broadcaster.log import LogBounds, random_epoch
from taskhub.storage.schema import events, workspaces

_HEADS: Final = (
    select(workspaces.c.id, workspaces.c.epoch, workspaces.c.oldest_seq, workspaces.c.head_seq, events.c.nonce)
    .join_from(
        workspaces,
        events,
        and_(events.c.workspace_id == workspaces.c.id, events.c.seq == workspaces.c.head_seq),
        isouter=True,
    )
    .where(workspaces.c.id.in_(bindparam("ids", expanding=True)))
)
_NONCE: Final = select(events.c.nonce).where(
    events.c.workspace_id == bindparam("workspace"), events.c.seq == bindparam("seq")
)


@dataclass(frozen=True, slots=True)
class Seen:
    """The newest event of a log that this process knows to be committed."""

    epoch: str
    seq: int
    nonce: int


class SeenEvents:
    """Per workspace, what this process saw last. It notices when that is no longer in the log."""

    def __init__(self) -> None:
        self._seen: dict[str, Seen] = {}
        self._lock = Lock()  # units that read run on threads

    def committed(self, workspace: str, seen: Seen) -> None:
        """Remember an event committed by this process; commits may be told out of order."""
        with self._lock:
            known = self._seen.get(workspace)
            if known is None or known.epoch != seen.epoch or known.seq < seen.seq:
                self._seen[workspace] = seen

    def heads(self, connection: Connection, ids: Collection[str]) -> tuple[dict[str, LogBounds], list[str]]:
        """The bounds of those workspaces that exist, and which of them lack what was seen."""
        # What a commit adds while this reads may not be in this transaction's view: compare with what was known before.
        before = dict(self._seen)
        bounds: dict[str, LogBounds] = {}
        lost: list[str] = []
        for row in connection.execute(_HEADS, {"ids": sorted(ids)}).all():
            bounds[row.id] = LogBounds(row.epoch, row.oldest_seq, row.head_seq)
            seen = before.get(row.id)
            if seen is not None and _is_lost(connection, row.id, bounds[row.id], seen):
                lost.append(row.id)
            elif row.nonce is not None:
                self.committed(row.id, Seen(row.epoch, row.head_seq, row.nonce))
        return bounds, lost

    def mint(self, connection: Connection, workspace: str) -> None:
        """Give the log a new epoch, unless another process was first. `connection` is writing."""
        locked = select(workspaces.c.epoch, workspaces.c.oldest_seq, workspaces.c.head_seq).where(
            workspaces.c.id == workspace
        )
        row = connection.execute(locked.with_for_update()).one()
        seen = self._seen[workspace]
        if _is_lost(connection, workspace, LogBounds(row.epoch, row.oldest_seq, row.head_seq), seen):
            connection.execute(update(workspaces).where(workspaces.c.id == workspace).values(epoch=random_epoch()))


def _is_lost(connection: Connection, workspace: str, bounds: LogBounds, seen: Seen) -> bool:
    if seen.epoch != bounds.epoch or seen.seq < bounds.oldest:
        return False  # told already by a new epoch, or expired and so beyond telling
    found = connection.execute(_NONCE, {"workspace": workspace, "seq": seen.seq}).scalar_one_or_none()
    return found != seen.nonce
