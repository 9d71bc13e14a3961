"""What the ticket service returns. orjson writes these as they stand; a remote client reads them back by type."""

from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal["todo", "active", "waiting", "review", "done", "cancelled"]
Priority = Literal["none", "low", "medium", "high", "urgent"]
CommentKind = Literal["note", "question", "answer", "decision"]
RelationName = Literal["blocks", "blocked_by", "related", "duplicates", "duplicated_by"]
Include = Literal["history", "comments", "relations", "attachments", "lease"]
ReferenceKind = Literal[
    "users", "accounts", "categories", "category_details", "statuses", "request_channels", "response_categories"
]


@dataclass(frozen=True, slots=True)
class Ref:
    """A reference to a row of reference data: its stable id and its present name."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Progress:
    percent: int
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds a ticket, and until when unless it is renewed."""

    holder: str
    acquired_at: str
    expires_at: str


@dataclass(frozen=True, slots=True)
class TicketState:
    """The compact state that events, snapshots and lists carry: what a board shows and a filter asks for.

    Dates are `YYYY-MM-DD`, times RFC 3339 in UTC with milliseconds. `blocked`: a ticket that is open blocks this one.
    """

    key: str
    version: int
    summary: str
    status: Ref
    phase: Phase
    assignee: Ref | None
    requestor: Ref | None
    account: Ref | None
    category: Ref | None
    channel: Ref | None
    priority: Priority
    due: str | None
    labels: tuple[str, ...]
    progress: Progress | None
    blocked: bool
    lease: Lease | None
    updated_at: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """Everything about a ticket but its comments, history, relations and attachments. Field names are the model's,
    the same that create and update accept."""

    key: str
    version: int
    summary: str
    description: str | None
    status: Ref
    phase: Phase
    priority: Priority
    person_in_charge: Ref | None
    requestor: Ref | None
    account: Ref | None
    category: Ref | None
    category_detail: Ref | None
    request_channel: Ref | None
    reception_at: str
    scheduled_completion_date: str | None
    completion_date: str | None
    actual_effort_hours: float | None
    response_category: Ref | None
    response_details: str | None
    has_defect: bool | None
    external_ticket_id: str | None
    remarks: str | None
    parent: str | None
    waiting_reason: str | None
    labels: tuple[str, ...]
    progress: Progress | None
    blocked: bool
    lease: Lease | None
    created_at: str
    updated_at: str


@dataclass(frozen=True, slots=True)
class Comment:
    id: str
    author: str
    kind: CommentKind
    body: str
    created_at: str


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One event about the ticket, newest first in a list; `changes` is field → [before, after]."""

    event_id: str
    time: str
    type: str
    actor: str
    origin: str
    version: int | None
    changes: dict[str, list[Any]]
    comment: str | None


@dataclass(frozen=True, slots=True)
class Relation:
    """`relation` as seen from this ticket: it `blocks` the other one, or is `blocked_by` it."""

    relation: RelationName
    ticket: str
    summary: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class Attachment:
    id: str
    file_name: str
    url: str
    created_at: str


@dataclass(frozen=True, slots=True)
class LeaseState:
    """`expiries`: how often in a row nobody gave the ticket back in time. The rest is null while nobody holds it."""

    holder: str | None
    acquired_at: str | None
    expires_at: str | None
    expiries: int


@dataclass(frozen=True, slots=True)
class TicketDetail:
    """A ticket with the parts asked for; a part that was not asked for is null."""

    ticket: Ticket
    history: list[HistoryEntry] | None = None
    comments: list[Comment] | None = None
    relations: list[Relation] | None = None
    attachments: list[Attachment] | None = None
    lease: LeaseState | None = None


@dataclass(frozen=True, slots=True)
class TicketPage:
    """One page of a list. `position` was read before the rows: listening from it misses nothing."""

    tickets: list[TicketState]
    next_cursor: str | None
    position: str


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events as streams carry them, the position to go on after, and whether there are more of them now."""

    events: list[dict[str, Any]]
    position: str
    more: bool


@dataclass(frozen=True, slots=True)
class BoardColumn:
    """A status with how many tickets it has, and those of them that were changed last."""

    status: Ref
    phase: Phase
    count: int
    tickets: list[TicketState]


@dataclass(frozen=True, slots=True)
class Board:
    """The statuses in their order, and the position at which that was true."""

    columns: list[BoardColumn]
    position: str


@dataclass(frozen=True, slots=True)
class Written:
    """What a write did. `noop`: nothing changed, so no version and no event. `replayed`: the stored answer of an
    earlier call with the same idempotency key. `comment_id` where the call added a comment."""

    key: str
    version: int
    event_id: str | None
    position: str
    noop: bool = False
    replayed: bool = False
    comment_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed(Written):
    """What a claim or a renewal did. Whoever knows `lease_token` holds the ticket until `lease_expires_at`."""

    lease_token: int
    lease_expires_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported(Written):
    """What a progress report did. `comments`: what was said since the claim, or since the report before, by whoever did
    not show the token of this lease. `more`: there are others, with which the next report is answered."""

    lease_expires_at: str | None
    comments: list[Comment]
    more: bool = False


@dataclass(frozen=True, slots=True)
class ItemError:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class ItemResult:
    """What became of one ticket of a batch. `version`: the one it has now. `changes`: field → [before, after]; where
    nothing was stored, what would have changed."""

    key: str
    ok: bool
    version: int | None = None
    event_id: str | None = None
    noop: bool = False
    changes: dict[str, list[Any]] = field(default_factory=dict)
    error: ItemError | None = None


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What a batch of changes did. `applied`: false when nothing of it was stored, for a dry run or a failed item.
    `batch_id`: what undoes it; null when nothing changed. `undoes`: the batch that this one took back."""

    batch_id: str | None
    atomic: bool
    dry_run: bool
    applied: bool
    results: list[ItemResult]
    position: str
    undoes: str | None = None
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class BatchChange:
    """One event of a batch."""

    key: str
    version: int
    event_id: str
    type: str
    changes: dict[str, list[Any]]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as it was made, with what it changed, oldest first."""

    id: str
    actor: str
    created_at: str
    undoes: str | None
    undone_by: str | None
    changes: list[BatchChange]


@dataclass(frozen=True, slots=True)
class ReferenceWritten:
    """What a change of reference data did; `noop` and `replayed` as of Written."""

    id: str
    name: str
    event_id: str | None
    position: str
    noop: bool = False
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class User:
    id: str
    name: str
    email: str | None
    kind: Literal["human", "agent", "service"]
    role: Literal["requester", "agent", "manager", "viewer", "operator"]
    active: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """A row of accounts, categories, request channels or response categories."""

    id: str
    name: str
    order_no: int
    active: bool


@dataclass(frozen=True, slots=True)
class CategoryDetail:
    id: str
    category: Ref
    name: str
    order_no: int
    active: bool


@dataclass(frozen=True, slots=True)
class Status:
    id: str
    name: str
    order_no: int
    phase: Phase
    is_default: bool
    active: bool


@dataclass(frozen=True, slots=True)
class TicketSnapshot:
    """All matching tickets and the position at which that was true (one repeatable-read transaction)."""

    epoch: str
    seq: int
    tickets: list[TicketState] = field(default_factory=list)
