"""API keys as callers see them, and what callers send to make one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from taskhub.auth.errors import AuthError
from taskhub.auth.principal import ALL_SCOPES, Scope

MAX_OVERLAP_S: Final = 30 * 86_400
DEFAULT_OVERLAP_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without the key itself. `scopes`: null for all that the role of its user may do; a key never may more than
    that. Times are RFC 3339, in UTC; `last_used_at` is true to a minute or so."""

    id: str
    user: str
    name: str
    scopes: list[Scope] | None
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None


@dataclass(frozen=True, slots=True)
class IssuedKey:
    """A new key. `secret` is the key itself: it is shown here, once, and kept nowhere."""

    secret: str
    key: ApiKey


class KeyNotFound(AuthError):
    """No such key in this workspace."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no API key {key_id[:80]}")


class KeyOver(AuthError):
    """The key is revoked or has expired: there is nothing left to rotate."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the API key {key_id[:80]} is over; make a new one")


def _each_once(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


def _with_zone(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("needs a time zone, such as 2027-01-31T00:00:00Z")
    return time


_Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(ALL_SCOPES)), AfterValidator(_each_once)]
_Input: Final = ConfigDict(extra="forbid", frozen=True)


class NewKey(BaseModel):
    model_config = _Input

    user: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = Field(
        description="whose key it is, by id or name: what is done with it is done by this user"
    )
    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=100)] = Field(
        description="what it is for, such as `laptop` or `nightly import`"
    )
    scopes: (
        Annotated[list[Scope], Field(min_length=1, max_length=len(ALL_SCOPES)), AfterValidator(_each_once)] | None
    ) = Field(None, description="what it may do; when absent, all that the role of the user may do")
    expires_at: Annotated[datetime, AfterValidator(_with_zone)] | None = Field(
        None, description="when it ends by itself; when absent, never"
    )


class Rotation(BaseModel):
    model_config = _Input

    overlap_s: int = Field(
        DEFAULT_OVERLAP_S, ge=0, le=MAX_OVERLAP_S, description="seconds for which the old key stays good besides"
    )
