"""Who has a credential."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from taskhub.auth.principal import Principal
from taskhub.auth.roles import SCOPES_OF_ROLE

_ACTOR_KINDS: Final = {"human": "user", "agent": "agent", "service": "service"}


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a credential that is good, and until when (as stored; None for ever)."""

    principal: Principal
    expires_at: str | None


def principal_of(user: Any, credential: str, scopes: Iterable[str] | None = None) -> Principal:
    """A user (a row with workspace_id, user_id, kind and role) by a credential with this id.

    It may do what the user's role may, and with `scopes` no more than those.
    """
    allowed = SCOPES_OF_ROLE.get(user.role, frozenset())
    if scopes is not None:
        allowed &= frozenset(scopes)
    actor = f"{_ACTOR_KINDS[user.kind]}:{user.user_id}"
    return Principal(actor, user.workspace_id, allowed, authenticated=True, credential=credential)
