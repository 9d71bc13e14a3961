"""A stored ticket as callers, events and filters see it."""

from typing import Any, cast

import orjson

from broadcaster.event import State, state_of
from taskhub.tickets.keys import key_of
from taskhub.tickets.model import Lease, LeaseState, Progress, Ref, Ticket, TicketState
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.reference import References


def compact(record: TicketRecord, references: References, key_prefix: str) -> TicketState:
    """The state that events, lists and snapshots carry."""
    ref = references.ref
    return TicketState(
        key=key_of(key_prefix, record.no),
        version=record.version,
        summary=record.summary,
        status=cast(Ref, ref("statuses", record.status_id)),
        phase=references.phase(record.status_id),
        assignee=ref("users", record.assignee_id),
        requestor=ref("users", record.requestor_id),
        account=ref("accounts", record.account_id),
        category=ref("categories", record.category_id),
        channel=ref("request_channels", record.channel_id),
        priority=record.priority,
        due=record.due,
        labels=record.labels,
        progress=progress_of(record),
        blocked=record.blocked,
        lease=_lease(record),
        updated_at=record.updated_at,
    )


def full(record: TicketRecord, references: References, key_prefix: str) -> Ticket:
    """Everything about the ticket itself."""
    ref = references.ref
    return Ticket(
        key=key_of(key_prefix, record.no),
        version=record.version,
        summary=record.summary,
        description=record.description,
        status=cast(Ref, ref("statuses", record.status_id)),
        phase=references.phase(record.status_id),
        priority=record.priority,
        person_in_charge=ref("users", record.assignee_id),
        requestor=ref("users", record.requestor_id),
        account=ref("accounts", record.account_id),
        category=ref("categories", record.category_id),
        category_detail=ref("category_details", record.category_detail_id),
        request_channel=ref("request_channels", record.channel_id),
        reception_at=record.reception_at,
        scheduled_completion_date=record.due,
        completion_date=record.completion_date,
        actual_effort_hours=record.actual_effort_hours,
        response_category=ref("response_categories", record.response_category_id),
        response_details=record.response_details,
        has_defect=record.has_defect,
        external_ticket_id=record.external_ticket_id,
        remarks=record.remarks,
        parent=None if record.parent_no is None else key_of(key_prefix, record.parent_no),
        waiting_reason=record.waiting_reason,
        labels=record.labels,
        progress=progress_of(record),
        blocked=record.blocked,
        lease=_lease(record),
        created_at=record.created_at,
        updated_at=record.updated_at,
    )


def lease_state(record: TicketRecord) -> LeaseState:
    """Who holds a ticket, and how that went before. The token is told to nobody but the one who claimed it."""
    lease = record.lease
    expiries = 0 if lease is None else lease.expiries
    if lease is None or lease.holder is None:
        return LeaseState(None, None, None, expiries)
    return LeaseState(lease.holder, lease.acquired_at, lease.expires_at, expiries)


def filterable(state: TicketState) -> State:
    """What filters ask of a ticket, the same as from an event that carries this state."""
    return state_of(
        {
            "status": state.status.id,
            "phase": state.phase,
            "assignee": _id(state.assignee),
            "requestor": _id(state.requestor),
            "account": _id(state.account),
            "category": _id(state.category),
            "channel": _id(state.channel),
            "priority": state.priority,
            "labels": state.labels,
        }
    )


def event_data(state: TicketState, changes: dict[str, list[Any]], comment: str | None, **more: object) -> bytes:
    """`data` of an event about a ticket."""
    return orjson.dumps({"ticket": state, "changes": changes, "comment": comment, **more})


def _id(ref: Ref | None) -> str | None:
    return None if ref is None else ref.id


def progress_of(record: TicketRecord) -> Progress | None:
    return None if record.progress_percent is None else Progress(record.progress_percent, record.progress_note)


def _lease(record: TicketRecord) -> Lease | None:
    lease = record.lease
    return None if lease is None or lease.holder is None else Lease(lease.holder, lease.acquired_at, lease.expires_at)
