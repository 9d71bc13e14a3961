"""Creating tickets, changing their fields, and commenting on them."""

from dataclasses import replace
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, insert

from taskhub.storage.schema import attachments, events
from taskhub.tickets import leases, links
from taskhub.tickets.changes import changes_between, comment_of, decide_change, decide_new, names_me, values_of
from taskhub.tickets.cycles import PARENTS
from taskhub.tickets.errors import InputProblem, InvalidInput, VersionConflict
from taskhub.tickets.inputs import NewComment, NewTicket, TicketChange
from taskhub.tickets.keys import key_of
from taskhub.tickets.model import CommentKind, Written
from taskhub.tickets.reads import EVENTS_OF_TICKET, existing
from taskhub.tickets.record import TicketRecord, insert_record
from taskhub.tickets.unit import Related, TicketUnit, check_texts

_MAX_TOLD: Final = 20
"""Events that a conflict tells of. Each may hold several long texts, and they are read while nobody else can write."""
_SINCE: Final = (
    EVENTS_OF_TICKET.where(events.c.ticket_version > bindparam("expected"), events.c.type != "ticket.commented")
    .order_by(events.c.seq)
    .limit(_MAX_TOLD)
)


def create(unit: TicketUnit, new: NewTicket) -> Written:
    """Add a ticket. Raises InvalidInput."""
    if names_me(new):
        unit.add_caller()
    related = Related(unit.prefix)
    parent_no = related.number("/parent", new.parent)
    asked = [related.number(f"/blocked_by/{i}", key) for i, key in enumerate(new.blocked_by or [])]
    rows = unit.records(related.numbers)
    related.check(rows)
    links.check_blockers(unit, asked)
    check_texts((f"/attachments/{i}/file_name", a.file_name) for i, a in enumerate(new.attachments or []))
    check_texts((f"/attachments/{i}/url", a.url) for i, a in enumerate(new.attachments or []))
    record = decide_new(new, unit.situation(parent_no))

    transaction, time = unit.transaction, unit.transaction.time
    blockers = sorted({no for no in asked if no is not None})
    record = replace(
        record, no=transaction.take_number(), created_at=time, updated_at=time,
        blocked=any(unit.is_open(rows[no]) for no in blockers), last_attachment=len(new.attachments or []),
    )  # fmt: skip
    insert_record(transaction, record)
    if new.attachments:
        common = {"workspace_id": transaction.workspace, "created_at": time, "ticket_no": record.no}
        files = [
            {**common, "no": number, "file_name": link.file_name, "url": link.url}
            for number, link in enumerate(new.attachments, start=1)
        ]
        transaction.execute(insert(attachments), files)
    return unit.written(record, links.created(unit, record, [rows[no] for no in blockers]))


def update(
    unit: TicketUnit, key: str, change: TicketChange, expected_version: int | None, lease_token: int | None = None
) -> Written:
    """Change a ticket. Raises InvalidInput, TicketNotFound, TicketGone, LeaseLost, LeaseHeld and VersionConflict."""
    if names_me(change):
        unit.add_caller()
    no = unit.number(key)
    related = Related(unit.prefix)
    parent_no = related.number("/parent", change.parent)
    rows = unit.records({no, *related.numbers})
    before = leases.check(unit, existing(rows.get(no), key), lease_token)
    check_version(unit, before, expected_version)
    related.check(rows)
    if parent_no is not None:
        check_parent(unit, no, parent_no)
    comment = comment_of(change)
    check_texts([("/comment", comment)])

    decision = decide_change(before, change, unit.situation(parent_no))
    if decision is None:
        return unit.unchanged(before) if comment is None else _commented(unit, before, comment, "note")
    leases.guard(unit, before, lease_token, decision.changes)
    return unit.save(before, decision.after, decision.event_type, decision.changes, comment=comment)


def comment(unit: TicketUnit, key: str, new: NewComment, lease_token: int | None = None) -> Written:
    """Add a comment, which raises no version; but an answer to a ticket that waits lets it wait no longer.

    Raises InvalidInput, TicketNotFound, TicketGone and LeaseLost.
    """
    check_texts([("/comment", new.comment)])
    record = leases.check(unit, unit.ticket(key), lease_token)
    if new.kind == "answer" and unit.references.phase(record.status_id) == "waiting":
        return _answered(unit, record, new.comment)
    return _commented(unit, record, new.comment, new.kind)


def check_version(unit: TicketUnit, before: TicketRecord, expected: int | None) -> None:
    """Raise VersionConflict, which says what changed since `expected` and who changed it, from the log: what
    the first events after it changed, with the value of now."""
    if expected is None or expected == before.version:
        return
    key = key_of(unit.prefix, before.no)
    if expected > before.version:
        raise VersionConflict(key, expected, before.version, {}, [])
    since = {"workspace": unit.transaction.workspace, "key": key, "expected": expected}
    first: dict[str, Any] = {}
    last: dict[str, Any] = {}
    actors: dict[str, None] = {}
    version = expected
    for row in unit.transaction.connection.execute(_SINCE, since):
        actors[row.actor] = None
        version = row.ticket_version
        for name, (old, new) in (orjson.loads(row.data).get("changes") or {}).items():
            first.setdefault(name, old)
            last[name] = new
    last |= values_of(before, last, unit.situation())
    changed = {name: [old, last[name]] for name, old in first.items() if old != last[name]}
    raise VersionConflict(key, expected, before.version, changed, list(actors), more=version < before.version)


def check_parent(unit: TicketUnit, no: int, parent_no: int) -> None:
    """Raise InvalidInput when the ticket would be among its own ancestors."""
    if PARENTS.lead(unit, parent_no, no):
        key = key_of(unit.prefix, no)
        reason = "a ticket is not its own parent" if no == parent_no else f"{key} is an ancestor of that ticket"
        raise InvalidInput([InputProblem("/parent", reason)])


def _answered(unit: TicketUnit, before: TicketRecord, body: str) -> Written:
    """What the ticket waited for is there: it can be worked on again."""
    status_id = unit.references.first_status("todo") or unit.references.default_status()
    after = unit.next_version(before, status_id=status_id, waiting_reason=None)
    changes = changes_between(before, after, unit.situation())
    return unit.save(before, after, "ticket.status_changed", changes, comment=body, kind="answer")


def _commented(unit: TicketUnit, record: TicketRecord, body: str, kind: CommentKind) -> Written:
    comment_id = unit.store_comment(record.no, body, kind)
    event = unit.emit("ticket.commented", record, {}, comment=body, comment_id=comment_id, kind=kind)
    return unit.written(record, event, comment_id)
