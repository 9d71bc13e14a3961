"""Tickets as they were: at an event of the log, or at a time.

The newest event about a ticket at or before that point carries its compact state of then; fields that this does not
show are found by taking back the `changes` of the later ones. Events about tickets are kept as long as their tickets.
Names are those of today.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, func, select, tuple_

from broadcaster.errors import InvalidPosition
from broadcaster.event import Position
from taskhub.storage.schema import events
from taskhub.storage.times import to_text
from taskhub.storage.transaction import WorkspaceState
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.fields import FIELDS, stored
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.model import Ref, Ticket, TicketState
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.reference import KIND_OF_FILTER, References
from taskhub.tickets.views import full

_E: Final = events.c
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d(:\d\d(\.\d{1,9})?)?([Zz]|[+ -]\d\d:\d\d)", re.ASCII)
_STATE: Final = TypeAdapter(TicketState)
_ABOUT_TICKETS: Final = (_E.workspace_id == bindparam("workspace"), _E.type.startswith("ticket."))
_FROM: Final = (
    select(_E.seq, _E.id, _E.time)
    .where(_E.workspace_id == bindparam("workspace"), _E.seq >= bindparam("seq"))
    .order_by(_E.seq)
    .limit(1)
)
_CHANGED: Final = select(_E.subject).where(*_ABOUT_TICKETS, _E.seq > bindparam("seq")).distinct()
_LAST: Final = (
    select(_E.subject, func.max(_E.seq))
    .where(*_ABOUT_TICKETS, _E.seq <= bindparam("seq"), _E.subject.in_(bindparam("keys", expanding=True)))
    .group_by(_E.subject)
)
_THEN: Final = select(_E.type, _E.data).where(
    _E.workspace_id == bindparam("workspace"), tuple_(_E.subject, _E.seq).in_(_LAST)
)
_LATER: Final = (
    select(_E.data).where(*_ABOUT_TICKETS, _E.subject == bindparam("key"), _E.seq > bindparam("seq")).order_by(_E.seq)
)
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Past:
    """The tickets of a workspace right after event `seq`."""

    connection: Connection
    workspace: str
    state: WorkspaceState
    references: References
    seq: int

    @property
    def position(self) -> str:
        return f"{self.state.epoch}-{self.seq}"

    def changed_since(self) -> set[int]:
        """The numbers of the tickets that are not as they were, or were not there."""
        found = self.connection.execute(_CHANGED, {"workspace": self.workspace, "seq": self.seq})
        numbers = (number_of(self.state.key_prefix, row.subject) for row in found)
        return {no for no in numbers if no is not None}

    def states(self, numbers: Iterable[int]) -> Iterator[TicketState]:
        """Those of the tickets that were there, as they were."""
        keys = [key_of(self.state.key_prefix, no) for no in numbers]
        for start in range(0, len(keys), _CHUNK):
            some = {"workspace": self.workspace, "seq": self.seq, "keys": keys[start : start + _CHUNK]}
            for row in self.connection.execute(_THEN, some):
                if row.type != "ticket.deleted":
                    yield self._named_as_today(orjson.loads(row.data)["ticket"])

    def ticket(self, record: TicketRecord) -> Ticket | None:
        """All of the ticket that is `record` today; None when it was not there."""
        state = next(self.states([record.no]), None)
        if state is None:
            return None
        before: dict[str, Any] = {}
        later = {"workspace": self.workspace, "seq": self.seq, "key": state.key}
        for row in self.connection.execute(_LATER, later):
            for name, (old, _) in (orjson.loads(row.data).get("changes") or {}).items():
                before.setdefault(name, old)
        # What a reference names may have been removed since: the state of then has the names.
        values = {f.column: stored(f, before[f.event], self.state.key_prefix) for f in FIELDS if f.event in before}
        values["status_id"] = record.status_id
        return replace(
            full(replace(record, **values), self.references, self.state.key_prefix),
            version=state.version, status=state.status, phase=state.phase, progress=state.progress,
            blocked=state.blocked, lease=state.lease, updated_at=state.updated_at, person_in_charge=state.assignee,
            requestor=state.requestor, account=state.account, category=state.category, request_channel=state.channel,
        )  # fmt: skip

    def _named_as_today(self, found: dict[str, Any]) -> TicketState:
        # Events of before there were leases do not tell of them.
        state = _STATE.validate_python({"blocked": False, "lease": None, **found})
        named: dict[str, Any] = {}
        for name, kind in KIND_OF_FILTER.items():
            ref: Ref | None = getattr(state, name)
            if ref is not None and ref.id in self.references.entries[kind].by_id:
                named[name] = self.references.ref(kind, ref.id)
        return replace(state, **named)


def seq_of(connection: Connection, workspace: str, state: WorkspaceState, as_of: str, now: datetime) -> int:
    """The seq of the last event at or before `as_of`: an RFC 3339 time, or the id of an event. Raises InvalidInput."""
    if _TIME.fullmatch(as_of):
        return _seq_at(connection, workspace, state, _stored_time(as_of, state, now))
    try:
        position = Position.parse(as_of)
    except InvalidPosition:
        example = f"2026-11-20T09:00:00Z, or the id of an event such as {state.position}"
        raise _wrong(f"must be an RFC 3339 time such as {example}") from None
    if position.epoch == state.epoch and position.seq <= state.head_seq:
        return position.seq
    row = connection.execute(_FROM, {"workspace": workspace, "seq": position.seq}).first()
    if row is None or row.id != as_of:  # ids of events that a restore brought along have an older epoch
        raise _wrong(f"there is no event {as_of[:80]}; the newest is {state.position}")
    return int(row.seq)


def _stored_time(as_of: str, state: WorkspaceState, now: datetime) -> str:
    try:
        # In a query an unescaped + has become a space.
        time = to_text(datetime.fromisoformat(as_of.upper().replace(" ", "+")))
    except (ValueError, OverflowError):
        raise _wrong(f"{as_of!r} is no time that exists") from None
    if time > max(to_text(now), state.head_time):
        raise _wrong(f"is in the future: it is {to_text(now)} now")
    return time


def _seq_at(connection: Connection, workspace: str, state: WorkspaceState, time: str) -> int:
    """Times never go back in a log, so it halves. For an event that is no longer kept, the next one tells the time."""
    low, high = 0, state.head_seq
    while low < high:
        middle = (low + high + 1) // 2
        row = connection.execute(_FROM, {"workspace": workspace, "seq": middle}).first()
        if row is not None and row.time <= time:
            low = row.seq
        else:
            high = middle - 1
    return low


def _wrong(reason: str) -> InvalidInput:
    return InvalidInput([InputProblem("/as_of", reason)])


def chunks(numbers: Iterable[int]) -> Iterator[Sequence[int]]:
    """Numbers for statements that each name some of them."""
    every = sorted(numbers)
    return (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))
