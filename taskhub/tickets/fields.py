"""The fields of a ticket under their three names: in inputs and Ticket, in events and filters, in the table."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

from broadcaster.filters import nearest
from taskhub.tickets.keys import number_of
from taskhub.tickets.model import Priority, ReferenceKind

PRIORITIES: Final[tuple[Priority, ...]] = ("none", "low", "medium", "high", "urgent")
"""In rising order; the table stores the index."""


@dataclass(frozen=True, slots=True)
class Field:
    """`name` as in inputs and Ticket, `event` as in `changes`, compact rows and filters, `column` as in the table and
    in TicketRecord. `kind`: the reference data whose id it holds. `required`: it cannot be cleared.
    `one_line`: it is shown in one, and has no control characters."""

    name: str
    event: str
    column: str
    kind: ReferenceKind | None = None
    required: bool = False
    one_line: bool = False


def _plain(name: str, *, event: str | None = None, required: bool = False, one_line: bool = False) -> Field:
    return Field(name, event or name, event or name, required=required, one_line=one_line)


FIELDS: Final = (
    _plain("summary", required=True, one_line=True),
    _plain("description"),
    Field("status", "status", "status_id", "statuses", required=True),
    _plain("priority"),
    Field("person_in_charge", "assignee", "assignee_id", "users"),
    Field("requestor", "requestor", "requestor_id", "users"),
    Field("account", "account", "account_id", "accounts"),
    Field("category", "category", "category_id", "categories"),
    Field("category_detail", "category_detail", "category_detail_id", "category_details"),
    Field("request_channel", "channel", "channel_id", "request_channels"),
    _plain("reception_at", required=True),
    _plain("scheduled_completion_date", event="due"),
    _plain("completion_date"),
    _plain("actual_effort_hours"),
    Field("response_category", "response_category", "response_category_id", "response_categories"),
    _plain("response_details"),
    _plain("has_defect"),
    _plain("external_ticket_id", one_line=True),
    _plain("remarks"),
    Field("parent", "parent", "parent_no"),
    _plain("waiting_reason"),
    _plain("labels"),
)
"""In the order in which `changes` names them. `phase` follows from the status and is named beside it."""

_SYNONYMS: Final = (
    *((field.name, field.event) for field in FIELDS if field.name != field.event),
    ("person_in_charge", "assignee", "assigned_to", "owner"),
    ("scheduled_completion_date", "scheduled_completion_date_to", "due_date", "due", "deadline"),
    ("scheduled_completion_date_from", "due_from", "due_after"),
    ("scheduled_completion_date_to", "due_to", "due_before"),
    ("summary", "title"),
    ("comment", "description", "data", "body", "text", "note", "message"),
    ("label", "labels", "tag", "tags"),
    ("ticket_id", "task_id", "ticket", "key"),
    ("query", "q", "search"),
    ("sort_by", "sort", "order_by"),
    ("updated_since", "updated_after"),
    ("since", "after"),
    ("lease_token", "token"),
    ("lease_seconds", "seconds", "ttl"),
    ("percent", "progress"),
)
"""Names that mean the same to different faces, or to people who come from another tracker; the best one first."""


def stored(field: Field, value: Any, key_prefix: str) -> Any:
    """A value of `changes` as a record holds it."""
    if field.name == "parent":
        return None if value is None else number_of(key_prefix, value)
    return tuple(value) if field.name == "labels" else value


def suggested_name(unknown: str, allowed: Collection[str]) -> str | None:
    """The one of `allowed`, names of fields or parameters, that `unknown` was most likely meant to be.

    A name that another face has for the same thing comes before one that is only spelt like it.
    """
    spelled = unknown[:80].casefold().replace("-", "_")
    same = (name for names in _SYNONYMS if spelled in names for name in names)
    return next((name for name in same if name in allowed), None) or nearest(unknown, allowed)
