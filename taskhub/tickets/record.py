"""A ticket as the table holds it, and the statements that read and write it."""

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from sqlalchemy import Row, Select, and_, bindparam, delete, func, insert, null, select, update

from taskhub.storage.schema import leases, ticket_labels, tickets
from taskhub.storage.search import TEXTS, add_texts, replace_texts
from taskhub.storage.times import later
from taskhub.storage.transaction import Transaction
from taskhub.tickets.fields import PRIORITIES
from taskhub.tickets.model import Priority

_LABEL_SEPARATOR: Final = "\x1f"  # no label holds a control character


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A ticket's row in the table of leases; there is one once it was claimed. `holder`: None while nobody holds it."""

    token: int
    holder: str | None
    seconds: int
    acquired_at: str
    expires_at: str
    told_seq: int
    expiries: int

    def is_live(self, now: str) -> bool:
        return self.holder is not None and self.expires_at > now

    def renewed(self, now: str) -> "LeaseRecord":
        return replace(self, expires_at=later(now, self.seconds))

    def ended(self) -> "LeaseRecord":
        """Given back."""
        return replace(self, holder=None, expiries=0)

    def expired(self) -> "LeaseRecord":
        """Not given back in time."""
        return replace(self, holder=None, expiries=self.expiries + 1)


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """One row of the table with its labels and its lease. References are ids; times and dates are text as stored."""

    no: int
    version: int
    summary: str
    description: str | None
    status_id: str
    priority: Priority
    assignee_id: str | None
    requestor_id: str | None
    account_id: str | None
    category_id: str | None
    category_detail_id: str | None
    channel_id: str | None
    reception_at: str
    due: str | None
    completion_date: str | None
    actual_effort_hours: float | None
    response_category_id: str | None
    response_details: str | None
    has_defect: bool | None
    external_ticket_id: str | None
    remarks: str | None
    parent_no: int | None
    waiting_reason: str | None
    progress_percent: int | None
    progress_note: str | None
    blocked: bool
    last_attachment: int
    created_at: str
    updated_at: str
    deleted_at: str | None
    labels: tuple[str, ...]
    lease: LeaseRecord | None = None

    @property
    def holder(self) -> str | None:
        """The actor that has claimed the ticket, also when its time is up and that was not yet noticed."""
        return None if self.lease is None else self.lease.holder


_COLUMNS: Final = tuple(f.name for f in fields(TicketRecord) if f.name not in ("labels", "lease"))
_PRIORITY_AT: Final = _COLUMNS.index("priority")
_LABELS_AT: Final = len(_COLUMNS)
_LONG: Final = ("description", "remarks", "response_details")
_LEASE: Final = tuple(f.name for f in fields(LeaseRecord))
_LEASE_COLUMNS: Final = tuple(leases.c[name].label(f"lease_{name}") for name in _LEASE)
_WITH_LEASE: Final = tickets.outerjoin(
    leases, and_(leases.c.workspace_id == tickets.c.workspace_id, leases.c.ticket_no == tickets.c.no)
)

_LABELS: Final = (
    select(func.aggregate_strings(ticket_labels.c.label, _LABEL_SEPARATOR))
    .where(ticket_labels.c.workspace_id == tickets.c.workspace_id, ticket_labels.c.ticket_no == tickets.c.no)
    .scalar_subquery()
    .label("labels")
)


# Made once: SQLAlchemy finds the compiled form of a statement by a key that costs more to make than most take to run.
_INSERT: Final = insert(tickets)
_UPDATE: Final = update(tickets).where(
    tickets.c.workspace_id == bindparam("of_workspace"), tickets.c.no == bindparam("of_no")
)
_INSERT_LEASE: Final = insert(leases)
_UPDATE_LEASE: Final = update(leases).where(
    leases.c.workspace_id == bindparam("of_workspace"), leases.c.ticket_no == bindparam("of_no")
)
_INSERT_LABELS: Final = insert(ticket_labels)
_DELETE_LABELS: Final = delete(ticket_labels).where(
    ticket_labels.c.workspace_id == bindparam("of_workspace"), ticket_labels.c.ticket_no == bindparam("of_no")
)


RECORDS: Final[Select[*tuple[Any, ...]]] = select(
    *(tickets.c[name] for name in _COLUMNS), _LABELS, *_LEASE_COLUMNS
).select_from(_WITH_LEASE)
"""A select of whole tickets, to be narrowed; `record_of` reads its rows."""
COMPACT_RECORDS: Final[Select[*tuple[Any, ...]]] = select(
    *(null().label(name) if name in _LONG else tickets.c[name] for name in _COLUMNS), _LABELS, *_LEASE_COLUMNS
).select_from(_WITH_LEASE)
"""The same for what is only shown in rows: the long texts, up to 192 KiB of a ticket, are null in its records."""


def record_of(row: Row[*tuple[Any, ...]]) -> TicketRecord:
    """A row of RECORDS or COMPACT_RECORDS: the columns, the labels and the lease, in the order of the fields."""
    values, labels, lease = list(row[:_LABELS_AT]), row[_LABELS_AT], row[_LABELS_AT + 1 :]
    values[_PRIORITY_AT] = PRIORITIES[values[_PRIORITY_AT]]
    values.append(tuple(sorted(labels.split(_LABEL_SEPARATOR))) if labels else ())
    values.append(None if lease[0] is None else LeaseRecord(*lease))
    return TicketRecord(*values)


def insert_record(transaction: Transaction, record: TicketRecord) -> None:
    """Add a ticket and its labels."""
    values = _values(record, _COLUMNS)
    values["workspace_id"] = transaction.workspace
    transaction.execute(_INSERT, values)
    _insert_labels(transaction, record)
    add_texts(transaction, record.no, _texts(record))
    transaction.count_ticket(None, _counted_as(record))


def update_record(transaction: Transaction, before: TicketRecord, after: TicketRecord) -> None:
    """Write what differs."""
    values = _values(after, tuple(name for name in _COLUMNS if getattr(before, name) != getattr(after, name)))
    is_it = {"of_workspace": transaction.workspace, "of_no": after.no}
    if values:
        transaction.execute(_UPDATE, {**values, **is_it})
    if before.labels != after.labels:
        transaction.execute(_DELETE_LABELS, is_it)
        _insert_labels(transaction, after)
    if (texts := _texts(after)) != _texts(before):
        replace_texts(transaction, after.no, texts)
    transaction.count_ticket(_counted_as(before), _counted_as(after))


def store_lease(transaction: Transaction, no: int, before: LeaseRecord | None, after: LeaseRecord) -> None:
    """Write a ticket's lease, its first one or what differs from `before`."""
    if before is None:
        values = {name: getattr(after, name) for name in _LEASE}
        transaction.execute(_INSERT_LEASE, {"workspace_id": transaction.workspace, "ticket_no": no, **values})
        return
    values = {name: getattr(after, name) for name in _LEASE if getattr(before, name) != getattr(after, name)}
    if values:
        transaction.execute(_UPDATE_LEASE, {**values, "of_workspace": transaction.workspace, "of_no": no})


def _insert_labels(transaction: Transaction, record: TicketRecord) -> None:
    if record.labels:
        common = {"workspace_id": transaction.workspace, "ticket_no": record.no}
        transaction.execute(_INSERT_LABELS, [{**common, "label": label} for label in record.labels])


def _values(record: TicketRecord, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in names}
    if "priority" in values:
        values["priority"] = PRIORITIES.index(record.priority)
    return values


def _counted_as(record: TicketRecord) -> str | None:
    return None if record.deleted_at is not None else record.status_id


def _texts(record: TicketRecord) -> tuple[str | None, ...]:
    """What a ticket is found by, beside its comments."""
    return (*(getattr(record, name) for name in TEXTS), *record.labels)
