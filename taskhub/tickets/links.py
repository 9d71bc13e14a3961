"""Relations between tickets, and the files that are attached to one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, Literal

from sqlalchemy import bindparam, delete, insert, or_, select

from broadcaster.event import Event
from taskhub.storage.schema import attachments, ticket_relations
from taskhub.tickets import leases
from taskhub.tickets.cycles import BLOCKING
from taskhub.tickets.errors import InputProblem, InvalidInput, TicketCycle
from taskhub.tickets.inputs import NewAttachment
from taskhub.tickets.keys import key_of
from taskhub.tickets.model import RelationName, Written
from taskhub.tickets.reads import existing, seen_from
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.unit import TicketUnit, check_texts

MAX_ATTACHMENTS: Final = 50
MAX_RELATIONS: Final = 200
"""Of one ticket: each event about them names them all."""

Kind = Literal["blocks", "related", "duplicates"]
_Edge = tuple[int, Kind, int]
"""A relation as it is stored: from, kind, to."""

_R: Final = ticket_relations.c
_A: Final = attachments.c
_OF_TICKET: Final = select(_R.from_no, _R.kind, _R.to_no).where(
    _R.workspace_id == bindparam("workspace"), or_(_R.from_no == bindparam("no"), _R.to_no == bindparam("no"))
)
_INSERT: Final = insert(ticket_relations)
_DELETE: Final = delete(ticket_relations).where(
    _R.workspace_id == bindparam("workspace_id"),
    _R.from_no == bindparam("from_no"),
    _R.kind == bindparam("kind"),
    _R.to_no == bindparam("to_no"),
)
_ATTACHED: Final = (
    select(_A.no, _A.file_name, _A.url)
    .where(_A.workspace_id == bindparam("workspace"), _A.ticket_no == bindparam("no"))
    .order_by(_A.no)
)
_DELETE_ATTACHMENT: Final = delete(attachments).where(
    _A.workspace_id == bindparam("of_workspace"),
    _A.ticket_no == bindparam("of_ticket"),
    _A.no == bindparam("of_no"),
)


def link(unit: TicketUnit, key: str, relation: RelationName, other: str, lease_token: int | None) -> Written:
    """Relate a ticket to another. Raises InvalidInput, TicketCycle, TicketNotFound, TicketGone and LeaseLost."""
    record, partner = _both(unit, key, other, lease_token)
    edge = _edge(record.no, relation, partner.no)
    before = {no: _relations(unit, no) for no in (record.no, partner.no)}
    if edge in before[record.no]:
        return unit.unchanged(record)
    for no, edges in before.items():
        if len(edges) >= MAX_RELATIONS:
            raise InvalidInput([InputProblem("/other", _too_many(unit, no))])
    if edge[1] == "blocks":
        _check_acyclic(unit, edge[0], edge[2])
    unit.transaction.execute(_INSERT, {**_row(unit, edge), "created_at": unit.transaction.time})
    return _save(unit, "ticket.linked", edge, record, partner, before)


def check_blockers(unit: TicketUnit, asked: Sequence[int | None]) -> None:
    """Raise InvalidInput for each ticket among `blocked_by` of a new one that has as many relations as it may have."""
    full = [no for no in set(asked) if no is not None and len(_relations(unit, no)) >= MAX_RELATIONS]
    if full:
        raise InvalidInput([InputProblem(f"/blocked_by/{asked.index(no)}", _too_many(unit, no)) for no in sorted(full)])


def created(unit: TicketUnit, record: TicketRecord, blockers: Sequence[TicketRecord]) -> Event:
    """Tell of a new ticket, which these tickets block.

    Its first event says by what it is blocked; each blocker gets an event and a version, as of any relation.
    """
    edges: dict[int, _Edge] = {blocker.no: (blocker.no, "blocks", record.no) for blocker in blockers}
    before = {no: _relations(unit, no) for no in edges}
    if edges:
        rows = [{**_row(unit, edge), "created_at": unit.transaction.time} for edge in edges.values()]
        unit.transaction.execute(_INSERT, rows)
    changes = {"relations": [[], _in_words(unit, record.no, edges.values())]} if edges else {}
    event = unit.emit("ticket.created", record, changes)
    for blocker in blockers:
        edge = edges[blocker.no]
        after = before[blocker.no] | {edge}
        _save_one(unit, "ticket.linked", edge, blocker, record, [before[blocker.no], after], {})
    return event


def unlink(unit: TicketUnit, key: str, relation: RelationName, other: str, lease_token: int | None) -> Written:
    """End a relation. Raises InvalidInput, TicketNotFound, TicketGone and LeaseLost."""
    record, partner = _both(unit, key, other, lease_token)
    edge = _edge(record.no, relation, partner.no)
    before = {no: _relations(unit, no) for no in (record.no, partner.no)}
    if edge not in before[record.no]:
        return unit.unchanged(record)
    unit.transaction.execute(_DELETE, _row(unit, edge))
    written = _save(unit, "ticket.unlinked", edge, record, partner, before)
    # Those who wait for `ticket.unblocked` wait for it whatever the reason is, so it is an event of its own.
    unit.update_blocked([edge[2]])
    return replace(written, version=unit.records([record.no])[record.no].version)


def attach(unit: TicketUnit, key: str, new: NewAttachment, lease_token: int | None) -> Written:
    """Attach a file to a ticket. Raises InvalidInput, TicketNotFound, TicketGone and LeaseLost."""
    check_texts([("/file_name", new.file_name), ("/url", new.url)])
    record = leases.check(unit, unit.ticket(key), lease_token)
    before = _attached(unit, record.no)
    if len(before) >= MAX_ATTACHMENTS:
        raise InvalidInput([InputProblem("", f"a ticket has at most {MAX_ATTACHMENTS} attachments")])
    # Never that of one that was removed: who removes that once more, late, must not remove another one.
    number = record.last_attachment + 1
    row = {
        "workspace_id": unit.transaction.workspace, "ticket_no": record.no, "no": number, "file_name": new.file_name,
        "url": new.url, "created_at": unit.transaction.time,
    }  # fmt: skip
    unit.transaction.execute(insert(attachments), row)
    names = [attached.file_name for attached in before]
    after = unit.next_version(record, last_attachment=number)
    return _save_attachments(unit, record, after, [names, [*names, new.file_name]], number, new.file_name, new.url)


def detach(unit: TicketUnit, key: str, number: int, lease_token: int | None) -> Written:
    """Remove an attachment by its number. Raises TicketNotFound, TicketGone and LeaseLost."""
    record = leases.check(unit, unit.ticket(key), lease_token)
    before = _attached(unit, record.no)
    gone = next((row for row in before if row.no == number), None)
    if gone is None:
        return unit.unchanged(record)
    where = {"of_workspace": unit.transaction.workspace, "of_ticket": record.no, "of_no": number}
    unit.transaction.execute(_DELETE_ATTACHMENT, where)
    names = [[row.file_name for row in before], [row.file_name for row in before if row.no != number]]
    return _save_attachments(unit, record, unit.next_version(record), names, number, gone.file_name, gone.url)


def _both(unit: TicketUnit, key: str, other: str, lease_token: int | None) -> tuple[TicketRecord, TicketRecord]:
    no, partner_no = unit.number(key), unit.number(other)
    found = unit.records({no, partner_no})
    record, partner = existing(found.get(no), key), existing(found.get(partner_no), other)
    if no == partner_no:
        raise InvalidInput([InputProblem("/other", "a ticket has no relation to itself: name another one")])
    return leases.check(unit, record, lease_token), partner


def _edge(no: int, relation: RelationName, other: int) -> _Edge:
    match relation:
        case "blocks" | "duplicates":
            return no, relation, other
        case "blocked_by":
            return other, "blocks", no
        case "duplicated_by":
            return other, "duplicates", no
        case "related":  # the same from both sides, and stored once
            return min(no, other), "related", max(no, other)


def _row(unit: TicketUnit, edge: _Edge) -> dict[str, Any]:
    return {"workspace_id": unit.transaction.workspace, "from_no": edge[0], "kind": edge[1], "to_no": edge[2]}


def _relations(unit: TicketUnit, no: int) -> set[_Edge]:
    """Those to deleted tickets too: they are there again when the tickets are."""
    found = unit.transaction.connection.execute(_OF_TICKET, {"workspace": unit.transaction.workspace, "no": no})
    return {(row.from_no, row.kind, row.to_no) for row in found}


def _check_acyclic(unit: TicketUnit, blocker: int, blocked: int) -> None:
    """Raise TicketCycle when `blocked` blocks `blocker` already, itself or over others.

    Deleted tickets count: restoring one must not close a circle.
    """
    if way := BLOCKING.way(unit, blocked, blocker):
        raise TicketCycle([key_of(unit.prefix, no) for no in (blocker, *way)])


def _save(
    unit: TicketUnit, event_type: str, edge: _Edge, record: TicketRecord, partner: TicketRecord,
    before: dict[int, set[_Edge]],
) -> Written:  # fmt: skip
    """The next version of both tickets, after the relation was stored or removed; what the first one's write answers.

    That a ticket is blocked from now on goes into the same event.
    """
    blocked = unit.blocked([edge[2]])[edge[2]]
    answers = []
    for ticket, other in ((record, partner), (partner, record)):
        newly = {"blocked": True} if ticket.no == edge[2] and blocked and not ticket.blocked else {}
        relations = [before[ticket.no], _relations(unit, ticket.no)]
        answers.append(_save_one(unit, event_type, edge, ticket, other, relations, newly))
    return answers[0]


def _save_one(
    unit: TicketUnit, event_type: str, edge: _Edge, ticket: TicketRecord, other: TicketRecord,
    relations: Sequence[set[_Edge]], newly: Mapping[str, bool],
) -> Written:  # fmt: skip
    """The next version of one of the two tickets; `relations` before and after, `newly`: that it is blocked now."""
    changes: dict[str, list[Any]] = {"relations": [_in_words(unit, ticket.no, edges) for edges in relations]}
    changes |= {name: [not value, value] for name, value in newly.items()}
    relation = {
        "relation": seen_from(edge[1], outgoing=edge[0] == ticket.no), "ticket": key_of(unit.prefix, other.no),
    }  # fmt: skip
    return unit.save(ticket, unit.next_version(ticket, **newly), event_type, changes, relation=relation)


def _too_many(unit: TicketUnit, no: int) -> str:
    return f"{key_of(unit.prefix, no)} has {MAX_RELATIONS} relations, and no ticket has more"


def _in_words(unit: TicketUnit, no: int, edges: Iterable[_Edge]) -> list[str]:
    """`blocks TH-2`, and so on, as seen from the ticket `no`."""
    seen = [
        (seen_from(kind, outgoing=from_no == no), to_no if from_no == no else from_no) for from_no, kind, to_no in edges
    ]
    return [f"{relation} {key_of(unit.prefix, other)}" for relation, other in sorted(seen)]


def _attached(unit: TicketUnit, no: int) -> Sequence[Any]:
    return unit.transaction.connection.execute(_ATTACHED, {"workspace": unit.transaction.workspace, "no": no}).all()


def _save_attachments(
    unit: TicketUnit, record: TicketRecord, after: TicketRecord, names: list[Any], number: int, file_name: str, url: str
) -> Written:
    attachment = {"id": str(number), "file_name": file_name, "url": url}
    return unit.save(record, after, "ticket.updated", {"attachments": names}, attachment=attachment)
