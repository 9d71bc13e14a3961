"""What a role may do: fixed sets of scopes."""

from collections.abc import Mapping
from typing import Final

from taskhub.auth.principal import ALL_SCOPES, Scope

_READING: Final[frozenset[Scope]] = frozenset(("tickets:read", "events:read"))
_WORKING: Final[frozenset[Scope]] = _READING | {"tickets:write", "events:publish"}

SCOPES_OF_ROLE: Final[Mapping[str, frozenset[Scope]]] = {
    "viewer": _READING,
    "requester": _READING | {"tickets:write"},
    "agent": _WORKING,
    "manager": _WORKING | {"reference:write"},
    "operator": ALL_SCOPES,
}
