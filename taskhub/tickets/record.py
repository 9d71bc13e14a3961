"""A ticket as the table holds it, and the statements that read and write it."""

from dataclasses import dataclass, fields
from typing import Any, Final

from sqlalchemy import Row, Select, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from taskhub.storage.schema import ticket_labels, tickets
from taskhub.tickets.fields import PRIORITIES
from taskhub.tickets.keys import key_of
from taskhub.tickets.model import Priority
from taskhub.tickets.text import searchable

_LABEL_SEPARATOR: Final = "\x1f"  # no label holds a control character


@dataclass(frozen=True, slots=True)
class TicketRecord:
    """One row of the table with its labels. References are ids; times and dates are text as stored."""

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
    created_at: str
    updated_at: str
    deleted_at: str | None
    labels: tuple[str, ...]


_COLUMNS: Final = tuple(f.name for f in fields(TicketRecord) if f.name != "labels")

_LABELS: Final = (
    select(func.aggregate_strings(ticket_labels.c.label, _LABEL_SEPARATOR))
    .where(ticket_labels.c.workspace_id == tickets.c.workspace_id, ticket_labels.c.ticket_no == tickets.c.no)
    .scalar_subquery()
    .label("labels")
)


def select_records() -> Select[*tuple[Any, ...]]:
    """A select of whole tickets, to be narrowed; `record_of` reads its rows."""
    return select(*(tickets.c[name] for name in _COLUMNS), _LABELS)


def record_of(row: Row[*tuple[Any, ...]]) -> TicketRecord:
    values = dict(row._mapping)
    values["priority"] = PRIORITIES[values["priority"]]
    values["labels"] = tuple(sorted(values["labels"].split(_LABEL_SEPARATOR))) if values["labels"] else ()
    return TicketRecord(**values)


async def insert_record(connection: AsyncConnection, workspace: str, key_prefix: str, record: TicketRecord) -> None:
    """Add a ticket and its labels."""
    values = _values(record, _COLUMNS)
    values["search_text"] = _search_text(key_prefix, record)
    await connection.execute(insert(tickets), {"workspace_id": workspace, **values})
    await _insert_labels(connection, workspace, record)


async def update_record(
    connection: AsyncConnection, workspace: str, key_prefix: str, before: TicketRecord, after: TicketRecord
) -> None:
    """Write what differs. The row must be locked."""
    values = _values(after, tuple(name for name in _COLUMNS if getattr(before, name) != getattr(after, name)))
    if "summary" in values or "description" in values:
        values["search_text"] = _search_text(key_prefix, after)
    is_it = (tickets.c.workspace_id == workspace, tickets.c.no == after.no)
    await connection.execute(update(tickets).where(*is_it).values(values))
    if before.labels != after.labels:
        labels = ticket_labels.c
        await connection.execute(
            delete(ticket_labels).where(labels.workspace_id == workspace, labels.ticket_no == after.no)
        )
        await _insert_labels(connection, workspace, after)


async def _insert_labels(connection: AsyncConnection, workspace: str, record: TicketRecord) -> None:
    if record.labels:
        rows = [{"workspace_id": workspace, "ticket_no": record.no, "label": label} for label in record.labels]
        await connection.execute(insert(ticket_labels), rows)


def _values(record: TicketRecord, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in names}
    if "priority" in values:
        values["priority"] = PRIORITIES.index(record.priority)
    return values


def _search_text(key_prefix: str, record: TicketRecord) -> str:
    return searchable(key_of(key_prefix, record.no), record.summary, record.description)
