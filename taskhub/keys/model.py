"""API keys as callers see them, and what callers send to make one."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from taskhub.auth.errors import AuthError
from taskhub.auth.principal import ALL_SCOPES, OwnLimits, Scope
from taskhub.numbers import NUMBER, WHOLE

MAX_OVERLAP_S: Final = 30 * 86_400
DEFAULT_OVERLAP_S: Final = 86_400
MAX_STREAMS: Final = 1_000_000
MAX_WRITES_PER_S: Final = 1_000_000
MAX_WRITE_BURST: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without the key itself. `scopes`: null for all that the role of its user may do; a key never may more than
    that. `limits`: null where the settings say all of them. Times are RFC 3339, in UTC; `last_used_at` is true to a
    minute or so."""

    id: str
    user: str
    name: str
    scopes: list[Scope] | None
    created_at: str
    created_by: str
    expires_at: str | None
    revoked_at: str | None
    last_used_at: str | None
    limits: OwnLimits | None = None


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
    """The key is revoked or has expired: there is nothing left to rotate or to change."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"the API key {key_id[:80]} is over; make a new one")


def _unless_empty(limits: OwnLimits) -> OwnLimits | None:
    return None if limits == OwnLimits() else limits


def _each_once(scopes: list[Scope]) -> list[Scope]:
    return sorted(set(scopes))


def _with_zone(time: datetime) -> datetime:
    if time.tzinfo is None:
        raise ValueError("needs a time zone, such as 2027-01-31T00:00:00Z")
    return time


_Scopes = Annotated[list[Scope], Field(min_length=1, max_length=len(ALL_SCOPES)), AfterValidator(_each_once)]
_Input: Final = ConfigDict(extra="forbid", frozen=True)


class KeyLimits(BaseModel):
    """What a key may have instead of what the settings say: those that are absent or null are as the settings say."""

    model_config = _Input

    streams: Annotated[int | None, WHOLE] = Field(
        None, ge=0, le=MAX_STREAMS, description="at a time, by process; instead of SSE_MAX_STREAMS_PER_PRINCIPAL"
    )
    writes_per_s: Annotated[float | None, NUMBER] = Field(
        None, ge=0, le=MAX_WRITES_PER_S, description="changes a second, by process; instead of WRITES_PER_S"
    )
    write_burst: Annotated[int | None, WHOLE] = Field(
        None, ge=1, le=MAX_WRITE_BURST, description="changes at once after a quiet time; instead of WRITE_BURST"
    )

    @property
    def own(self) -> OwnLimits | None:
        """None where the settings say all of them."""
        return _unless_empty(OwnLimits(self.streams, self.writes_per_s, self.write_burst))


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
    limits: KeyLimits | None = Field(None, description="where the settings are not right for it; 0 is no limit")


class KeyChange(BaseModel):
    model_config = _Input

    limits: KeyLimits | None = Field(
        description="those that are given; 0 for no limit, null for what the settings say, of one or of all"
    )

    def applied(self, old: OwnLimits | None) -> OwnLimits | None:
        """The limits that follow from the old ones."""
        if self.limits is None:
            return None
        given = {name: getattr(self.limits, name) for name in self.limits.model_fields_set}
        return _unless_empty(replace(old or OwnLimits(), **given))


class Rotation(BaseModel):
    model_config = _Input

    overlap_s: Annotated[int, WHOLE] = Field(
        DEFAULT_OVERLAP_S, ge=0, le=MAX_OVERLAP_S, description="seconds for which the old key stays good besides"
    )
