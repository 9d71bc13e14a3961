"""What a stream token is, and for how long."""

import secrets
from dataclasses import dataclass

from taskhub.auth import secret
from taskhub.auth.principal import Principal

Parameters = tuple[tuple[str, str], ...]
"""Of a stream, as in its query: names, which may repeat, and texts."""


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """For how long a token is good, in seconds: until it is used first, after its stream was last seen open, and at
    most. What is open is seen every `seen_every_s`."""

    first_use_s: float = 60
    kept_s: float = 900
    most_s: float = 12 * 3600
    seen_every_s: float = 60


@dataclass(frozen=True, slots=True)
class StreamToken:
    """A stored token that is good now. `credential` is what its owner came with when it was made; where that was
    nothing that is stored, `issuer` says what vouched. `expires_at`: the end, as stored."""

    id: str
    principal: Principal
    issuer: str
    parameters: Parameters
    expires_at: str


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token. `token` opens the stream that was asked for, as `/events/stream?token=`, first before
    `first_use_before`, and again and again until `expires_at`, as long as it is not left closed for 15 minutes."""

    token: str
    url: str
    first_use_before: str
    expires_at: str


def new_secret() -> str:
    """A new token; store its digest, never the token."""
    return secret.new_secret(secret.STREAM_TOKEN_PREFIX, secrets.token_bytes(16))
