"""What callers send to change reference data. In a change, an absent field is kept."""

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints

from taskhub.numbers import WHOLE
from taskhub.tickets.inputs import Input, Name
from taskhub.tickets.model import Phase, ReferenceKind

OrderNo = Annotated[int, Field(ge=0, le=1_000_000), WHOLE]
Email = Annotated[str, StringConstraints(strip_whitespace=True, max_length=320, pattern=r"^[^\s@\x00]+@[^\s@\x00]+$")]
UserKind = Literal["human", "agent", "service"]
UserRole = Literal["requester", "agent", "manager", "viewer", "operator"]


class ReferenceInput(Input):
    name: Name
    active: bool = True


class NewUser(ReferenceInput):
    email: Email | None = None
    kind: UserKind = "human"
    role: UserRole = "agent"


class NewReference(ReferenceInput):
    order_no: OrderNo | None = None


class NewDetail(NewReference):
    category: Name


class NewStatus(NewReference):
    phase: Phase
    is_default: bool = False


class ReferenceChange(Input):
    name: Name | None = None
    active: bool | None = None


class UserChange(ReferenceChange):
    email: Email | None = None
    kind: UserKind | None = None
    role: UserRole | None = None


class OrderedChange(ReferenceChange):
    order_no: OrderNo | None = None


class StatusChange(OrderedChange):
    phase: Phase | None = None
    is_default: bool | None = None


NEW: Final[Mapping[ReferenceKind, type[ReferenceInput]]] = {
    "users": NewUser,
    "accounts": NewReference,
    "categories": NewReference,
    "category_details": NewDetail,
    "statuses": NewStatus,
    "request_channels": NewReference,
    "response_categories": NewReference,
}
CHANGE: Final[Mapping[ReferenceKind, type[ReferenceChange]]] = {
    "users": UserChange,
    "accounts": OrderedChange,
    "categories": OrderedChange,
    "category_details": OrderedChange,
    "statuses": StatusChange,
    "request_channels": OrderedChange,
    "response_categories": OrderedChange,
}
