"""Taking tickets, working on them and giving them back: what changes a lease."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from sqlalchemy import Connection, or_, select

from taskhub.auth.principal import Caller, Principal
from taskhub.storage.schema import comments, ticket_relations
from taskhub.storage.schema import leases as leases_table
from taskhub.storage.times import later
from taskhub.tickets import leases
from taskhub.tickets.changes import comment_of, decide_change
from taskhub.tickets.errors import (
    Blocked,
    InputProblem,
    InvalidInput,
    LeaseHeld,
    NotClaimable,
    NothingReady,
    TakeOverRefused,
)
from taskhub.tickets.inputs import ClaimNext, NewClaim, ProgressReport, Release, Renewal, TicketChange, TicketQuery
from taskhub.tickets.keys import key_of
from taskhub.tickets.model import Claimed, Comment, Reported, Written
from taskhub.tickets.queries import next_ready, resolve
from taskhub.tickets.reads import comment_of_row
from taskhub.tickets.record import LeaseRecord, TicketRecord, store_lease
from taskhub.tickets.reference import CLOSED_PHASES, UnknownReference
from taskhub.tickets.unit import TicketUnit, check_texts
from taskhub.tickets.views import progress_of

EXPIRE_AT_MOST: Final = 100
"""Leases that one unit ends: everybody else in the workspace waits for it."""
PARKED_AFTER: Final = 3
"""So many expiries in a row are no accident: somebody should look at the ticket before it is claimed again."""
MAX_TOLD: Final = 20
"""Comments that one progress report is answered with; the next one gets those that are left."""


def system(workspace: str) -> Caller:
    """TaskHub itself, which gives back what others have left lying."""
    return Caller(Principal("system:taskhub", workspace, frozenset(), authenticated=False), "system")


def claim(unit: TicketUnit, key: str, new: NewClaim, default_s: int) -> Claimed:
    """Take a ticket. Raises TicketNotFound, TicketGone, LeaseHeld, TakeOverRefused, NotClaimable and Blocked."""
    if new.take_over and not unit.caller.principal.is_person:
        raise TakeOverRefused(unit.caller.principal.actor)
    record = unit.ticket(key)
    key = key_of(unit.prefix, record.no)
    if (lease := record.lease) is not None and lease.holder is not None:
        if not lease.is_live(unit.transaction.now):
            record = expire(unit.by(system(unit.transaction.workspace)), record, lease)
        elif not new.take_over:
            raise LeaseHeld(key, lease.holder, lease.expires_at)
    status = unit.references.status_by_id[record.status_id]
    if status.phase in CLOSED_PHASES:
        raise NotClaimable(key, status.name)
    if record.blocked:
        raise Blocked(key, _open_blockers(unit, record.no))
    return _take(unit, record, new.lease_seconds or default_s)


def claim_next(unit: TicketUnit, asked: ClaimNext, default_s: int) -> Claimed:
    """Take the ready ticket that comes first: by priority, then by due date, then by number. Raises InvalidInput and
    NothingReady.

    Tickets of others are left to them, unless the filter says whose it should be."""
    # What has been left lying may come before everything that is ready now.
    expire_overdue(unit.by(system(unit.transaction.workspace)))
    given = asked.model_dump(exclude_unset=True, exclude={"lease_seconds"})
    if asked.person_in_charge is None and asked.unassigned is None:
        given["person_in_charge"] = ["me", "none"]  # what somebody else was given is not there to be taken
    query = resolve(TicketQuery(**given, ready=True), unit.references, unit.caller.principal, unit.prefix)
    _check_to_do(unit, query.statuses or ())
    no = next_ready(unit.transaction.connection, unit.transaction.workspace, query, unit.references)
    if no is None:
        raise NothingReady
    return _take(unit, unit.records([no])[no], asked.lease_seconds or default_s)


def release(unit: TicketUnit, key: str, asked: Release, lease_token: int | None) -> Written:
    """Give a ticket back. Raises TicketNotFound, TicketGone, LeaseHeld, LeaseLost, and InvalidInput, also without a
    token where nobody holds it."""
    before, lease = _held(unit, key, lease_token)
    check_texts([("/note", asked.note)])
    status_id = _status_after(unit, before, asked)
    fields: dict[str, Any] = {"status": status_id, "comment": asked.note}
    if unit.references.phase(status_id) == "todo":
        fields["person_in_charge"] = None
    change = TicketChange(**fields)
    after, changes = _changed(unit, before, change)
    after = replace(after, lease=lease.ended())
    return unit.save(before, after, "ticket.released", changes, comment=comment_of(change))


def renew(unit: TicketUnit, key: str, asked: Renewal, lease_token: int | None) -> Claimed:
    """Let a lease run its full time from now on. Raises what `release` raises."""
    record, lease = _held(unit, key, lease_token)
    if asked.lease_seconds is not None:
        lease = unit.renew_lease(record.no, lease, asked.lease_seconds)
        record = replace(record, lease=lease)
    return _claimed(replace(unit.unchanged(record), noop=False), lease)


def report(unit: TicketUnit, key: str, asked: ProgressReport, lease_token: int | None) -> Reported:
    """Say how far the work is, and hear what others have said. Raises TicketNotFound, TicketGone, LeaseHeld, LeaseLost
    and InvalidInput."""
    check_texts([("/note", asked.note)])
    before = leases.check(unit, unit.ticket(key), lease_token, ("progress",))
    told: list[Comment] = []
    more = False
    lease = before.lease
    if lease_token is not None and lease is not None:
        told, more = _untold(unit, before.no, lease)
        told_seq = int(told[-1].id) if more else unit.transaction.next_seq - 1
        lease = replace(lease, told_seq=told_seq)
        store_lease(unit.transaction, before.no, before.lease, lease)
        before = replace(before, lease=lease)
    note = (asked.note or None) if "note" in asked.model_fields_set else before.progress_note
    after = replace(before, progress_percent=asked.percent, progress_note=note)
    if after == before:
        written = unit.unchanged(before)
    else:
        after = unit.next_version(after)
        changes = {"progress": [progress_of(before), progress_of(after)]}
        written = unit.save(before, after, "ticket.progress", changes)
    expires_at = lease.expires_at if lease_token is not None and lease is not None else None
    return Reported(
        written.key, written.version, written.event_id, written.position, noop=written.noop,
        lease_expires_at=expires_at, comments=told, more=more,
    )  # fmt: skip


def overdue_workspaces(connection: Connection, now: str) -> Sequence[str]:
    """Where leases have run out and nobody has noticed."""
    c = leases_table.c
    statement = select(c.workspace_id).distinct().where(c.holder.is_not(None), c.expires_at <= now)
    return connection.execute(statement).scalars().all()


def expire_overdue(unit: TicketUnit) -> int:
    """Give back tickets whose leases have run out, the longest overdue first; how many. The unit must be of `system`.

    When it is EXPIRE_AT_MOST there may be more."""
    c = leases_table.c
    workspace, now = unit.transaction.workspace, unit.transaction.now
    overdue = (
        select(c.ticket_no)
        .where(c.workspace_id == workspace, c.holder.is_not(None), c.expires_at <= now)
        .order_by(c.expires_at)
        .limit(EXPIRE_AT_MOST)
    )
    numbers = unit.transaction.connection.execute(overdue).scalars().all()
    records = unit.records(numbers)
    for no in numbers:
        if (lease := records[no].lease) is not None:
            expire(unit, records[no], lease)
    return len(numbers)


def expire(unit: TicketUnit, before: TicketRecord, lease: LeaseRecord) -> TicketRecord:
    """Give back a ticket whose lease has run out. The unit must be of `system`."""
    lease = lease.expired()
    references = unit.references
    waiting = references.first_status("waiting") if lease.expiries % PARKED_AFTER == 0 else None
    fields: dict[str, Any] = {"person_in_charge": None}
    if waiting is not None:
        reason = f"claimed {lease.expiries} times and never given back in time, last by {before.holder}"
        fields |= {"status": waiting, "waiting_reason": reason}
    else:
        fields["status"] = references.first_status("todo") or references.default_status()
    after, changes = _changed(unit, before, TicketChange(**fields))
    after = replace(after, lease=lease)
    unit.save(before, after, "ticket.lease_expired", changes)
    return after


def _take(unit: TicketUnit, before: TicketRecord, seconds: int) -> Claimed:
    fields = {"person_in_charge": unit.add_caller()}
    if unit.references.phase(before.status_id) != "active":
        status_id = unit.references.first_status("active")
        if status_id is None:
            raise InvalidInput([InputProblem("/status", "no status for work under way is in use")])
        fields["status"] = status_id
    after, changes = _changed(unit, before, TicketChange(**fields))
    now, actor, last = unit.transaction.now, unit.caller.principal.actor, before.lease
    token, expiries = (1, 0) if last is None else (last.token + 1, last.expiries)
    lease = LeaseRecord(token, actor, seconds, now, later(now, seconds), unit.transaction.next_seq, expiries)
    changes = {**changes, "lease": [before.holder, actor]}
    return _claimed(unit.save(before, replace(after, lease=lease), "ticket.claimed", changes), lease)


def _changed(
    unit: TicketUnit, before: TicketRecord, change: TicketChange
) -> tuple[TicketRecord, Mapping[str, list[Any]]]:
    """The next version, which there is even when nothing but the lease is to change."""
    decision = decide_change(before, change, unit.situation())
    return (unit.next_version(before), {}) if decision is None else (decision.after, decision.changes)


def _held(unit: TicketUnit, key: str, lease_token: int | None) -> tuple[TicketRecord, LeaseRecord]:
    """A ticket that the caller holds, and its renewed lease."""
    record = leases.check(unit, unit.ticket(key), lease_token, ("lease",))
    if lease_token is None or record.lease is None:
        reason = (
            f"is required, and nobody holds {key_of(unit.prefix, record.no)} now: claim it, then send the lease_token "
            "of the answer, as the header TaskHub-Lease-Token or as an argument"
        )
        raise InvalidInput([InputProblem("/lease_token", reason)])
    return record, record.lease


def _check_to_do(unit: TicketUnit, status_ids: Iterable[str | None]) -> None:
    """Raise InvalidInput when a ticket in one of these statuses would never be ready, however long one waits."""
    references = unit.references
    never = [references.status_by_id[each].name for each in status_ids if each and references.phase(each) != "todo"]
    if never:
        to_do = references.statuses_in(["todo"])
        offered = [status.name for status in references.statuses if status.id in to_do]
        reason = f"a ticket that is {never[0]} is never ready: claim it by its key"
        raise InvalidInput([InputProblem("/status", reason, tuple(offered))])


def _claimed(written: Written, lease: LeaseRecord) -> Claimed:
    return Claimed(
        written.key, written.version, written.event_id, written.position,
        lease_token=lease.token, lease_expires_at=lease.expires_at,
    )  # fmt: skip


def _status_after(unit: TicketUnit, before: TicketRecord, asked: Release) -> str:
    """The id of the status that a released ticket gets. Raises InvalidInput."""
    references = unit.references
    if asked.status is None:
        return references.first_status("todo") or references.default_status()
    try:
        status_id = references.entries["statuses"].find(asked.status, keeping=before.status_id)
    except UnknownReference as error:
        raise InvalidInput([error.problem("/status")]) from None
    status = references.status_by_id[status_id]
    if status.phase == "waiting" and not (asked.note or "").strip():
        reason = f"the status {status.name} needs a reason: say in note what the ticket is waiting for"
        raise InvalidInput([InputProblem("/note", reason)])
    return status_id


def _open_blockers(unit: TicketUnit, no: int) -> list[str]:
    """The keys of the open tickets that block one."""
    r = ticket_relations.c
    statement = select(r.from_no).where(r.workspace_id == unit.transaction.workspace, r.to_no == no, r.kind == "blocks")
    found = unit.records(unit.transaction.connection.execute(statement).scalars().all())
    return [key_of(unit.prefix, number) for number, record in sorted(found.items()) if unit.is_open(record)]


def _untold(unit: TicketUnit, no: int, lease: LeaseRecord) -> tuple[list[Comment], bool]:
    """Comments that were made without the token since the holder was last told of any, oldest first, and whether there
    are more than fit into one answer.

    Not those of other actors: agents that share a key are one actor, and the holder is the lease.
    """
    c = comments.c
    statement = (
        select(comments)
        .where(
            c.workspace_id == unit.transaction.workspace, c.ticket_no == no, c.seq > lease.told_seq,
            or_(c.lease_token.is_(None), c.lease_token != lease.token),
        )
        .order_by(c.seq)
        .limit(MAX_TOLD + 1)
    )  # fmt: skip
    found = [comment_of_row(row) for row in unit.transaction.connection.execute(statement)]
    return found[:MAX_TOLD], len(found) > MAX_TOLD
