"""The transaction that a change is: what it writes, the place it takes in the log, and its events."""

import secrets
from dataclasses import dataclass
from typing import Final

from sqlalchemy import bindparam, case, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from broadcaster.event import Event, EventDraft
from taskhub.storage import schema

_W: Final = schema.workspaces

_WORKSPACE: Final = select(_W.c.epoch, _W.c.head_seq, _W.c.key_prefix, _W.c.references_version).where(
    _W.c.id == bindparam("workspace")
)

_TAKE: Final = (
    update(_W)
    .where(_W.c.id == bindparam("workspace"))
    .values(
        next_no=_W.c.next_no + bindparam("numbers"),
        head_seq=_W.c.head_seq + bindparam("seqs"),
        references_version=_W.c.references_version + bindparam("reference_changes"),
        # Clocks differ between machines; times in one log never go back.
        head_time=case((_W.c.head_time > bindparam("now"), _W.c.head_time), else_=bindparam("now")),
    )
    .returning(_W.c.next_no, _W.c.head_seq, _W.c.head_time, _W.c.epoch)
)


class UnknownWorkspace(LookupError):
    """There is no such workspace: a credential names one that was removed."""


@dataclass(frozen=True, slots=True)
class WorkspaceState:
    """A workspace's row as a transaction sees it."""

    epoch: str
    head_seq: int
    key_prefix: str
    references_version: int

    @property
    def position(self) -> str:
        return f"{self.epoch}-{self.head_seq}"


@dataclass(frozen=True, slots=True)
class Place:
    """What a transaction took: ticket numbers from `first_no`, seqs from `first_seq`, and the time of its events."""

    epoch: str
    first_no: int
    first_seq: int
    time: str


class Transaction:
    """One unit of work on a workspace.

    Order of locks, the same in every unit so that none waits for another in a circle: idempotency key, tickets by
    number, then the workspace's row. So a unit reads and locks tickets first, calls `take` once when it knows how many
    numbers and events it needs, and after that only inserts and updates rows that it has already locked.
    """

    def __init__(self, connection: AsyncConnection, workspace: str, now: str) -> None:
        self.connection = connection
        self.workspace = workspace
        self.now = now
        self.events: list[Event] = []
        self.nonces: list[int] = []
        self._rows: list[dict[str, object]] = []
        self._place: Place | None = None
        self._taken = 0

    async def state(self) -> WorkspaceState:
        """The workspace's row, unlocked. Raises UnknownWorkspace."""
        return await workspace_state(self.connection, self.workspace)

    async def lock_for_hierarchy(self) -> None:
        """Let one unit at a time change parents: a circle may run through tickets that no one unit locks."""
        if self.connection.dialect.name == "postgresql":
            await self.connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtext('taskhub hierarchy'), hashtext(:workspace))"),
                {"workspace": self.workspace},
            )

    async def take(self, *, events: int, numbers: int = 0, reference_changes: int = 0) -> Place:
        """Take places for `events` events and `numbers` tickets, holding the workspace's row until the commit.

        To be called once. Exactly as many events must then be emitted. A unit that changes reference data says so,
        for others keep copies of it as long as its version stays.
        """
        if self._place is not None:
            raise RuntimeError("a transaction takes its place in the log once")
        taken = await self.connection.execute(
            _TAKE,
            {
                "workspace": self.workspace,
                "numbers": numbers,
                "seqs": events,
                "reference_changes": reference_changes,
                "now": self.now,
            },
        )
        row = taken.first()
        if row is None:
            raise UnknownWorkspace(self.workspace)
        self._taken = events
        self._place = Place(row.epoch, row.next_no - numbers, row.head_seq - events + 1, row.head_time)
        return self._place

    def emit(self, draft: EventDraft) -> Event:
        """Give `draft` the next of the places taken; it is stored when the unit ends."""
        place = self._place
        if place is None or len(self.events) == self._taken:
            raise RuntimeError("no place in the log was taken for this event")
        seq = place.first_seq + len(self.events)
        event = Event(
            workspace=self.workspace,
            epoch=place.epoch,
            seq=seq,
            id=f"{place.epoch}-{seq}",
            time=place.time,
            type=draft.type,
            subject=draft.subject,
            actor=draft.actor,
            origin=draft.origin,
            ticket_version=draft.ticket_version,
            data=draft.data,
        )
        nonce = secrets.randbits(63)
        self.events.append(event)
        self.nonces.append(nonce)
        self._rows.append(
            {
                "workspace_id": self.workspace,
                "seq": seq,
                "id": event.id,
                "time": event.time,
                "type": event.type,
                "subject": event.subject,
                "actor": event.actor,
                "origin": event.origin,
                "ticket_version": event.ticket_version,
                "batch_id": draft.batch_id,
                "request_id": draft.request_id,
                "nonce": nonce,
                "data": draft.data.decode(),
            }
        )
        return event

    async def append(self) -> None:
        """Store the events. Called by the writer, as the last but the completion of an idempotency record."""
        if len(self.events) != self._taken:
            # Committing would leave a hole in the log.
            raise RuntimeError(f"{self._taken} places were taken and {len(self.events)} events emitted")
        if self._rows:
            await self.connection.execute(insert(schema.events), self._rows)


async def workspace_state(connection: AsyncConnection, workspace: str) -> WorkspaceState:
    """A workspace's row. Raises UnknownWorkspace."""
    row = (await connection.execute(_WORKSPACE, {"workspace": workspace})).first()
    if row is None:
        raise UnknownWorkspace(workspace)
    return WorkspaceState(row.epoch, row.head_seq, row.key_prefix, row.references_version)
