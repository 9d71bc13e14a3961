"""What users grant to applications, as they see it, and what applications get for it."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from taskhub.auth.errors import AuthError
from taskhub.auth.principal import Scope

GRANT_CLAIM: Final = "grant_id"
"""What a token of TaskHub's own server says besides: which grant it was issued for."""
ACCESS_TOKEN_S: Final = 600
CODE_S: Final = 60
IDLE: Final = timedelta(days=30)
"""A grant that nobody has used for so long has expired."""


@dataclass(frozen=True, slots=True)
class Grant:
    """An application that a user has connected. `host`: where the user was sent back to. `used_at` is true to a minute
    or so; the grant ends at `expires_at` unless the application refreshes its token before. Times are RFC 3339, in
    UTC."""

    id: str
    user: str
    client_id: str
    name: str
    host: str
    scopes: list[Scope]
    created_at: str
    used_at: str | None
    expires_at: str


@dataclass(frozen=True, slots=True)
class Issued:
    """What an application gets: a refresh token, and what its access token shall say. `scopes` are what the user may do
    now of what was granted and asked for."""

    grant: str
    user: str
    client_id: str
    resource: str
    scopes: frozenset[Scope]
    refresh_token: str


@dataclass(frozen=True, slots=True)
class Authorization:
    """What a user agreed to. `challenge` is that of PKCE, by S256."""

    client_id: str
    client_name: str
    redirect_uri: str
    challenge: str
    resource: str
    scopes: frozenset[Scope]


class GrantNotFound(AuthError):
    """No such grant, or one that is over, or somebody else's."""

    def __init__(self, grant_id: str) -> None:
        super().__init__(f"there is no connected application {grant_id[:80]}")
