"""Arguments of the tools: the inputs of the ticket service plus what only a tool has. Unknown arguments are errors."""

from typing import Annotated, Any, Final, Literal, Protocol, TypeVar

from pydantic import BaseModel, BeforeValidator, Field

from taskhub.numbers import WHOLE
from taskhub.tickets.api import Conditions, Held
from taskhub.tickets.fields import FIELDS
from taskhub.tickets.inputs import (
    BoardQuery,
    ClaimNext,
    IdempotencyKey,
    Input,
    Key,
    Label,
    Name,
    NewComment,
    NewTicket,
    ProgressReport,
    Release,
    TicketChange,
    TicketQuery,
    few,
)
from taskhub.tickets.model import Include, Phase, Priority

Column = Literal[
    "key", "summary", "status", "phase", "assignee", "requestor", "account", "category", "channel", "priority", "due",
    "labels", "progress", "blocked", "lease", "updated", "version",
]  # fmt: skip
DEFAULT_COLUMNS: Final[tuple[Column, ...]] = (
    "key", "summary", "status", "assignee", "priority", "due", "updated", "version",
)  # fmt: skip
# The names that create and update have for the same fields; a model that knows those should not have to guess.
_OTHER_COLUMN_NAMES: Final = {field.name: field.event for field in FIELDS} | {"updated_at": "updated"}

_Body = TypeVar("_Body", bound=BaseModel)


def body_of(arguments: BaseModel, model: type[_Body]) -> _Body:
    """The part of the arguments that is `model`, with the same fields set: an absent field stays absent."""
    given = arguments.model_dump(include=set(model.model_fields), exclude_unset=True)
    return model.model_validate(given)


class _WithToken(Protocol):
    @property
    def lease_token(self) -> int | None: ...
    @property
    def idempotency_key(self) -> str | None: ...


class _WithVersion(_WithToken, Protocol):
    @property
    def expected_version(self) -> int | None: ...


def held(arguments: _WithToken) -> Held:
    return {"lease_token": arguments.lease_token, "idempotency_key": arguments.idempotency_key}


def conditions(arguments: _WithVersion) -> Conditions:
    return {"expected_version": arguments.expected_version, **held(arguments)}


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else few(value)


def _columns(value: Any) -> Any:
    value = _one_or_many(value)
    return [_OTHER_COLUMN_NAMES.get(name, name) for name in value] if isinstance(value, list) else value


Names = Annotated[list[Name], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])]
Labels = Annotated[list[Label], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])]
Phases = Annotated[list[Phase], BeforeValidator(_one_or_many)]
Priorities = Annotated[list[Priority], BeforeValidator(_one_or_many)]
Columns = Annotated[list[Column], BeforeValidator(_columns)]
Parts = Annotated[list[Include], BeforeValidator(_one_or_many)]

# Each is described once, by the first tool that takes it: the list of tools is read in every conversation.
Expected = Annotated[int | None, Field(ge=1), WHOLE]
Token = Annotated[int | None, Field(ge=1), WHOLE]
Confirmed = Annotated[bool, Field(strict=True)]


class ListArguments(TicketQuery):
    person_in_charge: Names | None = Field(default=None, description="user ids or names, me, or none")
    account: Names | None = None
    status: Names | None = None
    phase: Phases | None = None
    category: Names | None = None
    label: Labels | None = None
    priority: Priorities | None = None
    cursor: Annotated[str, Field(max_length=1000)] | None = Field(
        default=None, description="next_cursor of the page before, with the same filters"
    )
    fields: Columns | None = Field(default=None, description="columns to return; key is always there")
    format: Literal["compact", "full", "markdown"] = Field(
        default="compact", description="full: all columns, references as {id, name}; markdown: the text is a table"
    )


class DetailArguments(Input):
    ticket_id: Key
    include: Parts = Field(default=[], description="parts to add")
    history_limit: Annotated[int, Field(ge=1, le=200, description="newest history entries"), WHOLE] = 20


class CreateArguments(NewTicket):
    idempotency_key: IdempotencyKey | None = Field(default=None, description="makes it safe to repeat the call")


class UpdateArguments(TicketChange):
    ticket_id: Key
    expected_version: Expected = Field(
        default=None, description="version you read; the write fails if the ticket changed since"
    )
    lease_token: Token = Field(default=None, description="of your claim")
    idempotency_key: IdempotencyKey | None = None


class StatusArguments(Input):
    task_id: Key
    status: Name = Field(description="status id or name: in_progress, In Progress, completed, ...")
    comment: Annotated[str, Field(max_length=65_536)] | None = Field(
        default=None, description="a note for the history; the reason, when the status is a waiting one"
    )
    expected_version: Expected = None
    lease_token: Token = None
    idempotency_key: IdempotencyKey | None = None


class HistoryArguments(NewComment):
    ticket_id: Key
    lease_token: Token = None
    idempotency_key: IdempotencyKey | None = None


class ClaimArguments(ClaimNext):
    # One value is accepted here as well, but not told of: the schema of the list says what that means, and is long.
    ticket_id: Key | None = Field(default=None, description="this one; no filters then")
    person_in_charge: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    account: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    status: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    category: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    label: Annotated[list[Label], BeforeValidator(_one_or_many)] | None = None
    priority: Annotated[list[Priority], BeforeValidator(_one_or_many)] | None = None
    query: Name | None = None
    idempotency_key: IdempotencyKey | None = None


class BoardArguments(BoardQuery):
    # As of ClaimArguments.
    person_in_charge: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    account: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    category: Annotated[list[Name], BeforeValidator(_one_or_many)] | None = None
    label: Annotated[list[Label], BeforeValidator(_one_or_many)] | None = None
    priority: Annotated[list[Priority], BeforeValidator(_one_or_many)] | None = None
    limit: Annotated[int, Field(ge=1, le=100, description="tickets per status"), WHOLE] = 10


class ReleaseArguments(Release):
    ticket_id: Key
    lease_token: Annotated[int, Field(ge=1), WHOLE]
    idempotency_key: IdempotencyKey | None = None


class ProgressArguments(ProgressReport):
    ticket_id: Key
    lease_token: Token = None
    idempotency_key: IdempotencyKey | None = None


class UsersArguments(Input):
    role: Literal["requester", "agent", "manager", "viewer", "operator"] | None = None


class CategoryDetailsArguments(Input):
    category: Name | None = Field(default=None, description="only details of this category, id or name")


class NoArguments(Input):
    pass
