"""Who has a credential."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from taskhub.auth.principal import Principal
from taskhub.auth.roles import SCOPES_OF_ROLE

_ACTOR_KINDS: Final = {"human": "user", "agent": "agent", "service": "service"}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a credential that is good, and until when (as stored; None for ever)."""

    principal: Principal
    expires_at: str | None


AT_A_TIME: Final = 500
"""Ids in one statement: databases bind only so many."""


def parts(ids: Collection[str]) -> Iterator[list[str]]:
    """Some ids at a time. Sorted: whoever locks their rows does so in the same order."""
    wanted = sorted(ids)
    return (wanted[start : start + AT_A_TIME] for start in range(0, len(wanted), AT_A_TIME))


def principal_of(user: Any, credential: str, scopes: Iterable[str] | None = None) -> Principal:
    """A user (a row with workspace_id, user_id, kind and role) by a credential with this id.

    It may do what the user's role may, and with `scopes` no more than those.
    """
    allowed = SCOPES_OF_ROLE.get(user.role, frozenset())
    if scopes is not None:
        allowed &= frozenset(scopes)
    actor = f"{_ACTOR_KINDS[user.kind]}:{user.user_id}"
    return Principal(actor, user.workspace_id, allowed, authenticated=True, credential=credential)


def holder_of_grant(user: Any, credential: str, scopes: Iterable[str], expires_at: str | None) -> Holder:
    """The same by what an application was granted: it may ask for what else the user's role may."""
    principal = principal_of(user, credential, scopes)
    more = SCOPES_OF_ROLE.get(user.role, frozenset()) - principal.scopes
    return Holder(replace(principal, grantable=more), expires_at)
