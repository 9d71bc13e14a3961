"""What callers send: the bodies of REST requests and, extended by the tools, the arguments of MCP tools.

In a change, an absent field is kept and a null one is cleared (`model_fields_set` tells them apart). References accept
an id or a name; the service resolves them. `extra="forbid"`: an unknown field is an error that names it.
"""

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from broadcaster.polling import MAX_WAIT_S
from taskhub.numbers import NUMBER, WHOLE
from taskhub.tickets.model import CommentKind, Phase, Priority, RelationName


def _without_comma(label: str) -> str:
    # Filters of lists and of streams are split at commas: such a label could be given to a ticket, but never asked for.
    if "," in label:
        raise ValueError("a label has no comma: send several labels as a list")
    return label


def _or_null(text: str | None) -> str | None:
    return text or None


def few(values: Any) -> Any:
    """A list as it was given. Raises ValueError when it has so many values that looking for them all takes long."""
    if isinstance(values, list) and len(values) > MAX_WANTED:
        raise ValueError(f"has more than {MAX_WANTED} values")
    return values


MAX_WANTED: Final = 100
"""Values of one filter, any of which a ticket may have."""
FEW: Final = BeforeValidator(few)
MAX_HISTORY: Final = 500
"""Events of a ticket that one answer tells of."""
MAX_COMMENTS: Final = 100
"""Comments that come with a ticket: the newest."""

LongText = Annotated[str, StringConstraints(max_length=65_536)]
Summary = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]
Label = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64), AfterValidator(_without_comma)
]
Key = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=40)]
IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[\x21-\x7e]+$")]


# An empty one is none: two tickets that have none are not the same ticket of another system.
ExternalId = Annotated[
    Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] | None, AfterValidator(_or_null)
]


class Input(BaseModel):
    # Whoever brings the first one waits for its validator, not everybody for all of them at the start.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


class NewAttachment(Input):
    """A link to a file; only http and https addresses."""

    file_name: Annotated[str, StringConstraints(min_length=1, max_length=255)]
    url: Annotated[str, StringConstraints(max_length=2048, pattern=r"^https?://[^\s\x00-\x1f\x7f]+$")]


class TicketFields(Input):
    """The fields that create and update share; every one optional."""

    description: LongText | None = None
    reception_at: datetime | None = Field(default=None, description="RFC 3339 time; now when absent")
    requestor: Name | None = Field(default=None, description="user id or name")
    account: Name | None = Field(default=None, description="account id or name")
    category: Name | None = Field(default=None, description="category id or name")
    category_detail: Name | None = Field(default=None, description="detail of that category, id or name")
    request_channel: Name | None = Field(default=None, description="channel id or name")
    person_in_charge: Name | None = Field(default=None, description="user id or name, or me")
    status: Name | None = Field(default=None, description="status id or name")
    priority: Priority | None = None
    scheduled_completion_date: date | None = Field(default=None, description="due date, YYYY-MM-DD")
    completion_date: date | None = None
    actual_effort_hours: Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False), NUMBER] | None = None
    response_category: Name | None = None
    response_details: LongText | None = None
    has_defect: bool | None = None
    external_ticket_id: ExternalId = None
    remarks: LongText | None = None
    parent: Key | None = Field(default=None, description="key of the parent ticket")
    waiting_reason: Annotated[str, StringConstraints(max_length=1000)] | None = Field(
        default=None, description="required when the status is a waiting one"
    )
    labels: Annotated[list[Label], Field(max_length=50)] | None = None


class NewTicket(TicketFields):
    summary: Summary = Field(description="at most 200 characters")
    attachments: Annotated[list[NewAttachment], Field(max_length=50)] | None = None
    blocked_by: Annotated[list[Key], Field(max_length=50)] | None = Field(
        default=None, description="keys of tickets that must be done first"
    )


class TicketChange(TicketFields):
    summary: Summary | None = None
    comment: LongText | None = Field(default=None, description="a note that goes with the change")


class BulkItem(TicketChange):
    """The change of one ticket in a bulk update."""

    ticket_id: Key
    expected_version: Annotated[int, Field(ge=1), WHOLE] | None = None
    lease_token: Annotated[int, WHOLE] | None = None


class BulkUpdate(Input):
    """Changes of up to 50 tickets, made together: all of them, or with `atomic` false those that can be made."""

    items: Annotated[list[BulkItem], Field(min_length=1, max_length=50)]
    atomic: bool = True
    dry_run: bool = False


class UndoBatch(Input):
    """How to take a batch back: all of its tickets, or with `atomic` false those for which that can be done."""

    atomic: bool = True
    lease_tokens: Annotated[dict[Key, Annotated[int, Field(ge=1), WHOLE]], Field(max_length=50)] = Field(
        default={}, description="of the tickets that you hold, by key"
    )


class NewRelation(Input):
    """A relation to another ticket, as seen from the one that gets it."""

    relation: RelationName
    other: Key


class NewComment(Input):
    comment: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=65_536)]
    kind: CommentKind = "note"


LeaseSeconds = Annotated[int, Field(ge=60, le=86_400), WHOLE]


class NewClaim(Input):
    lease_seconds: LeaseSeconds | None = Field(default=None, description="1800, or as configured, when absent")
    take_over: bool = Field(default=False, description="take it from its holder, which no agent may")


class Release(Input):
    status: Name | None = Field(default=None, description="status id or name; back to do when absent")
    note: LongText | None = Field(
        default=None, description="a comment for who goes on; the reason, when the status is a waiting one"
    )


class Renewal(Input):
    lease_seconds: LeaseSeconds | None = Field(default=None, description="as before when absent")


class ProgressReport(Input):
    percent: Annotated[int, Field(ge=0, le=100), WHOLE]
    note: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] | None = Field(
        default=None, description="what was done, what comes next; kept when absent"
    )


AsOf = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64),
    Field(description="RFC 3339 time or event id: how it was then"),
]

SortBy = Literal["updated", "created", "due", "priority", "key"]


class TicketFilter(Input):
    """Which tickets. Values of one field are alternatives; fields narrow each other."""

    person_in_charge: Annotated[list[Name], FEW] | None = Field(
        default=None, description="user ids or names, me, or none"
    )
    account: Annotated[list[Name], FEW] | None = None
    status: Annotated[list[Name], FEW] | None = None
    category: Annotated[list[Name], FEW] | None = None
    label: Annotated[list[Label], FEW] | None = None
    priority: Annotated[list[Priority], FEW] | None = None
    scheduled_completion_date_from: date | None = None
    scheduled_completion_date_to: date | None = None
    unassigned: bool | None = None
    query: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = Field(
        default=None,
        description='words or a "quoted phrase" in texts, labels, comments; or a key',
    )
    updated_since: datetime | None = None


class ClaimNext(TicketFilter):
    """Which of the tickets that are ready; yours or nobody's, where it does not say whose."""

    lease_seconds: LeaseSeconds | None = Field(default=None, description="1800, or as configured, when absent")


class TicketQuery(TicketFilter):
    """Which tickets to list, and in which order."""

    phase: Annotated[list[Phase], FEW] | None = None
    show_completed: bool = Field(default=False, description="also done and cancelled tickets")
    ready: bool | None = Field(
        default=None, description="only tickets that can be started now: todo, nothing open blocks them"
    )
    sort_by: SortBy = "updated"
    sort_order: Literal["asc", "desc"] = "desc"
    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = 20
    cursor: Annotated[str, StringConstraints(max_length=1000)] | None = None


class ExportQuery(TicketFilter):
    """Which tickets to export."""

    phase: Annotated[list[Phase], FEW] | None = None
    show_completed: bool = Field(default=True, description="also done and cancelled tickets")
    ready: bool | None = None


class BoardQuery(Input):
    """Which tickets to show, by status. Values of one field are alternatives; fields narrow each other."""

    person_in_charge: Annotated[list[Name], FEW] | None = Field(
        default=None, description="user ids or names, me, or none"
    )
    account: Annotated[list[Name], FEW] | None = None
    category: Annotated[list[Name], FEW] | None = None
    label: Annotated[list[Label], FEW] | None = None
    priority: Annotated[list[Priority], FEW] | None = None
    scheduled_completion_date_from: date | None = None
    scheduled_completion_date_to: date | None = None
    as_of: AsOf | None = None
    limit: Annotated[int, Field(ge=1, le=100, description="tickets per status"), WHOLE] = 20


class EventQuery(Input):
    """Which events to read, and how long to wait for the first one."""

    after: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=64)] = Field(
        default="now", description="position, earliest, now, 15m, or an RFC 3339 time"
    )
    filter: Annotated[dict[str, Annotated[str, StringConstraints(max_length=4096)]], Field(max_length=20)] = Field(
        default={},
        description="as of the event stream: type, ticket, actor, origin, changed, status, phase, assignee, "
        "requestor, account, category, channel, priority, label; commas OR, ! negates",
    )
    limit: Annotated[int, Field(ge=1, le=100), WHOLE] = 20
    wait_seconds: Annotated[float, Field(ge=0, le=MAX_WAIT_S, description="for the first one"), NUMBER] = 0
