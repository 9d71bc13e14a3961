"""The transaction that a change is: what it reads and writes, the places it takes in the log, and its events."""

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson
from sqlalchemy import Connection, CursorResult, Executable, Row, Select, bindparam, func, insert, select, update
from sqlalchemy.exc import DBAPIError

from broadcaster.event import Event, EventDraft
from taskhub.storage import schema
from taskhub.storage.times import utc_now

_W: Final = schema.workspaces

_WORKSPACE: Final = select(
    _W.c.epoch,
    _W.c.head_seq,
    _W.c.head_time,
    _W.c.next_no,
    _W.c.key_prefix,
    _W.c.references_version,
    _W.c.ticket_counts,
).where(_W.c.id == bindparam("workspace"))

# Not FOR UPDATE: rows that refer to the workspace may be added meanwhile by whoever is not a unit of work.
_TIMED_WORKSPACE: Final = _WORKSPACE.add_columns(func.clock_timestamp()).with_for_update(key_share=True)

_ADVANCE: Final = (
    update(_W)
    .where(_W.c.id == bindparam("workspace"))
    .values(
        next_no=bindparam("new_no"),
        head_seq=bindparam("new_seq"),
        head_time=bindparam("new_time"),
        references_version=bindparam("new_references"),
        ticket_counts=bindparam("new_counts"),
    )
)
_INSERT_EVENTS: Final = insert(schema.events)


class UnknownWorkspace(LookupError):
    """There is no such workspace: a credential names one that was removed."""


@dataclass(frozen=True, slots=True)
class WorkspaceState:
    """A workspace's row as a transaction sees it."""

    epoch: str
    head_seq: int
    head_time: str
    next_no: int
    key_prefix: str
    references_version: int
    ticket_counts: str

    @property
    def position(self) -> str:
        return f"{self.epoch}-{self.head_seq}"

    @property
    def tickets_by_status(self) -> Counter[str]:
        """How many tickets that are not deleted each status has, by its id."""
        return Counter(orjson.loads(self.ticket_counts))


class Transaction:
    """One unit of work on a workspace, within a database transaction that it may share with others (see group).

    The workspace's row is locked from the beginning. So one unit at a time works on a workspace, on PostgreSQL as on
    SQLite: what it reads is what the units before it left, nothing of it changes meanwhile, and no two units wait for
    each other. Ticket numbers and seqs are counted here and stored once, when the database transaction ends.

    A unit reads through `connection` and changes the database through `execute`, so that it can be undone alone.
    """

    def __init__(
        self, connection: Connection, workspace: str, state: WorkspaceState, now: str, *, shared: bool, references: int
    ) -> None:
        self.connection = connection
        self.workspace = workspace
        self.state = state
        self.now = now
        # Clocks differ between machines; times in one log never go back.
        self.time = max(state.head_time, now)
        self.events: list[Event] = []
        self.drafts: list[EventDraft] = []
        self.transient: list[EventDraft] = []
        self._numbers = 0
        self._counts: Counter[str] = Counter()
        self._reference_changes = 0
        self._committed_references = references
        self._shared = shared
        self._changed = False

    @property
    def references_changed(self) -> bool:
        """Whether this database transaction, by this unit or one before it, has changed reference data."""
        return bool(self._reference_changes) or self.state.references_version != self._committed_references

    @property
    def next_seq(self) -> int:
        """The seq of the event that is emitted next."""
        return self.state.head_seq + len(self.events) + 1

    @property
    def after(self) -> WorkspaceState:
        """The workspace's row as this unit leaves it."""
        if not self.events and not self._numbers and not self._reference_changes:
            return self.state
        return replace(
            self.state,
            head_seq=self.state.head_seq + len(self.events),
            head_time=self.time if self.events else self.state.head_time,
            next_no=self.state.next_no + self._numbers,
            ticket_counts=self._counted(),
            references_version=self.state.references_version + self._reference_changes,
        )

    def execute(
        self, statement: Executable, parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        """Change the database."""
        self._begin_changes()
        return self.connection.execute(statement, parameters)

    def _begin_changes(self) -> None:
        if self._shared and not self._changed:
            # It hides those of the units before, which are never released but by the commit: that saves a round trip.
            self.connection.exec_driver_sql("SAVEPOINT unit")
        self._changed = True

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the unit: when it raises, it is undone alone, and the unit may go on."""
        self._begin_changes()
        kept = len(self.events), len(self.transient), self._numbers, self._reference_changes, self._counts.copy()
        self.connection.exec_driver_sql("SAVEPOINT part")
        try:
            yield
        except (DBAPIError, OSError):  # the transaction may have ended with it
            raise
        except Exception:
            self.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT part")
            events, transient, self._numbers, self._reference_changes, self._counts = kept
            del self.events[events:], self.drafts[events:], self.transient[transient:]
            raise
        self.connection.exec_driver_sql("RELEASE SAVEPOINT part")

    def take_number(self) -> int:
        """The number of a new ticket."""
        self._numbers += 1
        return self.state.next_no + self._numbers - 1

    def count_ticket(self, before: str | None, after: str | None) -> None:
        """To be called with the status that a ticket had and the one that it has, None where there is, or was, no such
        ticket: how many each status has is kept in the workspace's row."""
        if before != after:
            self._counts.update({status: by for status, by in ((before, -1), (after, 1)) if status is not None})

    def _counted(self) -> str:
        if not self._counts:
            return self.state.ticket_counts
        counts = self.state.tickets_by_status
        counts.update(self._counts)
        return orjson.dumps({status: counts[status] for status in sorted(counts) if counts[status]}).decode()

    def change_references(self) -> None:
        """To be called by a unit that changes reference data: others keep copies of it as long as its version stays."""
        self._reference_changes += 1

    def emit(self, draft: EventDraft) -> Event:
        """Give `draft` the next place in the log; it is stored when the database transaction ends."""
        epoch, seq = self.state.epoch, self.next_seq
        event = draft.placed(self.workspace, epoch, seq, id=f"{epoch}-{seq}", time=self.time)
        self.events.append(event)
        self.drafts.append(draft)
        return event

    def tell(self, draft: EventDraft) -> None:
        """Send a transient event once the unit is committed: it has no place in the log."""
        self.transient.append(draft)

    def undo(self) -> None:
        """Take back what this unit changed and what it took."""
        if self._shared and self._changed:
            self.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT unit")
        self.events, self.drafts, self.transient = [], [], []
        self._numbers = self._reference_changes = 0
        self._counts.clear()


def workspace_state(connection: Connection, workspace: str) -> WorkspaceState:
    """A workspace's row. Raises UnknownWorkspace."""
    return WorkspaceState(*_found(connection, _WORKSPACE, workspace))


def lock_workspace(connection: Connection, workspace: str) -> tuple[WorkspaceState, datetime]:
    """A workspace's row, locked until the commit, and the time by the database's clock: machines disagree about what
    has expired. Raises UnknownWorkspace."""
    if connection.dialect.name == "postgresql":
        *row, now = _found(connection, _TIMED_WORKSPACE, workspace)
        return WorkspaceState(*row), now
    # The file is on this machine, and its lock is held already.
    return WorkspaceState(*_found(connection, _WORKSPACE, workspace)), utc_now()


def database_time(connection: Connection) -> datetime:
    """The time by the clock that units are timed by."""
    if connection.dialect.name == "postgresql":
        found: datetime = connection.execute(select(func.clock_timestamp())).scalar_one()
        return found
    return utc_now()


def _found(connection: Connection, statement: Select[*tuple[Any, ...]], workspace: str) -> Row[*tuple[Any, ...]]:
    row = connection.execute(statement, {"workspace": workspace}).first()
    if row is None:
        raise UnknownWorkspace(workspace)
    return row


def advance(connection: Connection, workspace: str, state: WorkspaceState) -> None:
    """Store what units have taken of the workspace's row."""
    connection.execute(
        _ADVANCE,
        {
            "workspace": workspace,
            "new_no": state.next_no,
            "new_seq": state.head_seq,
            "new_time": state.head_time,
            "new_references": state.references_version,
            "new_counts": state.ticket_counts,
        },
    )


def append(connection: Connection, emitted: Sequence[tuple[Event, EventDraft]]) -> int:
    """Store events; the nonce of the last one."""
    noise = secrets.token_bytes(8 * len(emitted))
    rows = []
    for i, (event, draft) in enumerate(emitted):
        nonce = int.from_bytes(noise[8 * i : 8 * i + 8]) >> 1  # 63 bits: the column is signed
        rows.append(
            {
                "workspace_id": event.workspace,
                "seq": event.seq,
                "id": event.id,
                "time": event.time,
                "type": event.type,
                "subject": event.subject,
                "actor": event.actor,
                "origin": event.origin,
                "ticket_version": event.ticket_version,
                "batch_id": draft.batch_id,
                "request_id": draft.request_id,
                "trace": draft.trace,
                "nonce": nonce,
                "data": event.data.decode(),
            }
        )
    connection.execute(_INSERT_EVENTS, rows)
    return nonce
