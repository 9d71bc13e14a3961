"""What secrets that TaskHub makes look like: `thk_` for an API key, `ths_` for a session, `thl_` for a sign-in link,
`tht_` for a stream token, then random bits and a checksum of them in letters, digits, `-` and `_`: 256 bits in 48 of
these, or of a stream token, which stands in addresses and is good for hours, 128 in 24.

The prefix says of what kind a secret is, and lets scanners of repositories and logs recognise it; the checksum tells a
mistyped one from a revoked one without asking anybody.
"""

import base64
import binascii
import hashlib
import re
import secrets
import zlib
from typing import Final

API_KEY_PREFIX: Final = "thk_"
SESSION_PREFIX: Final = "ths_"  # no secret itself
SIGN_IN_LINK_PREFIX: Final = "thl_"
STREAM_TOKEN_PREFIX: Final = "tht_"  # noqa: S105  # as above
_RANDOM_BYTES: Final = 32
_FORM: Final = re.compile(r"th[a-z]_((?:[A-Za-z0-9_-]{24}){1,2})")


def new_secret(prefix: str, random: bytes | None = None) -> str:
    """A new secret, of these 16 or 32 bytes where they are given. Whoever has it is who it was made for; store its
    `digest`, never the secret."""
    random = secrets.token_bytes(_RANDOM_BYTES) if random is None else random
    return prefix + base64.urlsafe_b64encode(random + _checksum(random)).decode()


def well_formed(secret: str) -> bool:
    """Whether a text can be a secret at all."""
    if (found := _FORM.fullmatch(secret)) is None:
        return False
    try:
        decoded = base64.urlsafe_b64decode(found[1])
    except binascii.Error:
        return False
    random = decoded[: len(decoded) * 8 // 9]
    return decoded[len(random) :] == _checksum(random)


def digest(secret: str) -> str:
    """SHA-256 in hexadecimal: enough for what is random already, where a password would need a slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _checksum(random: bytes) -> bytes:
    return zlib.crc32(random).to_bytes(4, "big")[-(len(random) // 8) :]
