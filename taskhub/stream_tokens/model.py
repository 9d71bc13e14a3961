"""What a stream token is: `tht_`, then 128 random bits and a checksum of them, in 24 letters, digits, `-` and `_`."""

import base64
import binascii
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final

from taskhub.auth.principal import Principal

PREFIX: Final = "tht_"
_RANDOM_BYTES: Final = 16
_CHECKSUM_BYTES: Final = 2
_FORM: Final = re.compile(rf"{PREFIX}[A-Za-z0-9_-]{{24}}")

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
    random = secrets.token_bytes(_RANDOM_BYTES)
    return PREFIX + base64.urlsafe_b64encode(random + _checksum(random)).decode()


def well_formed(secret: str) -> bool:
    """Whether a text can be a token at all."""
    if not _FORM.fullmatch(secret):
        return False
    try:
        decoded = base64.urlsafe_b64decode(secret.removeprefix(PREFIX))
    except binascii.Error:
        return False
    return decoded[_RANDOM_BYTES:] == _checksum(decoded[:_RANDOM_BYTES])


def _checksum(random: bytes) -> bytes:
    return zlib.crc32(random).to_bytes(4, "big")[-_CHECKSUM_BYTES:]
