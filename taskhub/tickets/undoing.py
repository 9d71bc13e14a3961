"""Taking back what a batch did to one ticket."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, select

from taskhub.storage.schema import events
from taskhub.tickets import leases
from taskhub.tickets.changes import changes_between, type_of_change
from taskhub.tickets.errors import Conflict, InvalidInput, LeaseHeld, LeaseLost, UndoConflict
from taskhub.tickets.fields import FIELDS, Field, stored
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.model import Written
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.unit import TicketUnit
from taskhub.tickets.writes import check_parent

_FIELDS: Final = {field.event: field for field in FIELDS}
"""What is taken back, by its name in `changes`. `phase` follows from the status, `blocked` from other tickets; leases
and comments stay."""
_SINCE: Final = (
    select(events)
    .where(
        events.c.workspace_id == bindparam("workspace"),
        events.c.subject.in_(bindparam("keys", expanding=True)),
        events.c.seq > bindparam("seq"),
        events.c.type.startswith("ticket."),
    )
    .order_by(events.c.seq)
)


@dataclass(frozen=True, slots=True)
class Change:
    """Who changed a field last since the batch, and when."""

    actor: str
    time: str


@dataclass(frozen=True, slots=True)
class Past:
    """What a batch did to a ticket, field → [before, after] as in events, and what was changed since then."""

    key: str
    no: int
    changes: Mapping[str, Sequence[Any]]
    since: Mapping[str, Change]


def pasts(unit: TicketUnit, made: Iterable[Row[Any]], last_seq: int) -> list[Past]:
    """Of the events of a batch, those tickets that it changed, the last one first: so each step back leads to where
    things have been before. `last_seq`: where the batch ended."""
    changes: dict[str, dict[str, list[Any]]] = {}
    for event in made:
        found = orjson.loads(event.data).get("changes") or {}
        told = {name: pair for name, pair in found.items() if name in _FIELDS}
        if told:
            changes[event.subject] = changes.pop(event.subject, {}) | told
    parameters = {"workspace": unit.transaction.workspace, "keys": list(changes), "seq": last_seq}
    since: dict[str, dict[str, Change]] = {key: {} for key in changes}
    for event in unit.transaction.connection.execute(_SINCE, parameters) if changes else ():
        for name in orjson.loads(event.data).get("changes") or {}:
            since[event.subject][name] = Change(event.actor, event.time)
    return [
        Past(key, no, changes[key], since[key])
        for key in reversed(changes)
        if (no := number_of(unit.prefix, key)) is not None
    ]


def undo(unit: TicketUnit, batch_id: str, past: Past, lease_token: int | None) -> Written:
    """Give a ticket the values that it had before the batch. Raises UndoConflict."""
    before = unit.records([past.no])[past.no]
    after = replace(before, **{field.column: value for field, value in _values(unit, past)})
    conflicts = _since(unit, past, before) or _removed(unit, past) or _unsound(unit, past, before, after)
    if conflicts:
        raise UndoConflict(batch_id, conflicts)
    changes = changes_between(before, after, unit.situation())
    try:
        before = leases.check(unit, before, lease_token, changes)
    except (LeaseHeld, LeaseLost) as refused:
        raise UndoConflict(batch_id, [_not_the_holder(past, before, refused)]) from None
    if not changes:
        return unit.unchanged(before)
    after = unit.next_version(replace(after, lease=before.lease))
    return unit.save(before, after, type_of_change(before, after), changes)


def _values(unit: TicketUnit, past: Past) -> list[tuple[Field, Any]]:
    """The fields with what records held in them."""
    return [(_FIELDS[name], stored(_FIELDS[name], pair[0], unit.prefix)) for name, pair in past.changes.items()]


def _since(unit: TicketUnit, past: Past, before: TicketRecord) -> list[Conflict]:
    """What has become of the ticket since: it is deleted, or a field was changed again."""
    if before.deleted_at is not None:
        return [_conflict(past, "deleted", f"{past.key} was deleted")]
    # What has its former value again needs no undoing, whoever gave it back.
    return [
        _conflict(past, field.event, f"{field.event} of {past.key} was changed")
        for field, value in _values(unit, past)
        if field.event in past.since and getattr(before, field.column) != value
    ]


def _removed(unit: TicketUnit, past: Past) -> list[Conflict]:
    """The former values that are there no more: reference data that nothing referred to may be removed."""
    return [
        Conflict(past.key, field.event, None, None, f"{value!r}, the former {field.event} of {past.key}, was removed")
        for field, value in _values(unit, past)
        if field.kind is not None and value is not None and value not in unit.references.entries[field.kind].by_id
    ]


def _unsound(unit: TicketUnit, past: Past, before: TicketRecord, after: TicketRecord) -> list[Conflict]:
    """What was changed since in other fields, or tickets, and does not go with the former values."""
    references = unit.references
    conflicts: list[Conflict] = []
    if after.category_detail_id is not None:
        category = references.detail_by_id[after.category_detail_id].category.id
        if category != after.category_id:
            conflicts.append(_conflict(past, "category_detail", f"category_detail of {past.key} was changed"))
    if references.phase(after.status_id) == "done" and after.completion_date is None:
        reason = f"the former status of {past.key}, {after.status_id!r}, is one of done tickets now"
        conflicts.append(Conflict(past.key, "status", None, None, reason))
    if references.phase(after.status_id) == "waiting" and not (after.waiting_reason or "").strip():
        conflicts.append(_conflict(past, "waiting_reason", f"waiting_reason of {past.key} was changed"))
    if after.parent_no is not None and after.parent_no != before.parent_no:
        parent = key_of(unit.prefix, after.parent_no)
        if unit.records([after.parent_no])[after.parent_no].deleted_at is not None:
            reason = f"{parent}, the former parent of {past.key}, was deleted"
            conflicts.append(Conflict(past.key, "parent", None, None, reason))
        try:
            check_parent(unit, after.no, after.parent_no)
        except InvalidInput:
            reason = f"{parent}, the former parent of {past.key}, is below it now"
            conflicts.append(Conflict(past.key, "parent", None, None, reason))
    return conflicts


def _not_the_holder(past: Past, before: TicketRecord, refused: LeaseHeld | LeaseLost) -> Conflict:
    if refused.holder is None or before.lease is None:
        return Conflict(past.key, "lease", None, None, str(refused))
    return Conflict(past.key, "lease", refused.holder, before.lease.acquired_at, str(refused))


def _conflict(past: Past, field: str, what: str) -> Conflict:
    by = past.since.get(field)
    if by is None:
        return Conflict(past.key, field, None, None, what)
    return Conflict(past.key, field, by.actor, by.time, f"{what} by {by.actor} at {by.time}")
