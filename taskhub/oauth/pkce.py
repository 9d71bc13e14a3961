"""Proof Key for Code Exchange (RFC 7636), by S256 alone."""

import base64
import hashlib
import hmac
import re
from typing import Final

_VERIFIER: Final = re.compile(r"[A-Za-z0-9\-._~]{43,128}", re.ASCII)
_CHALLENGE: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


def is_verifier(text: str) -> bool:
    """Whether a text can be a verifier (RFC 7636, 4.1)."""
    return _VERIFIER.fullmatch(text) is not None


def is_challenge(text: str) -> bool:
    """Whether a text can be the S256 challenge of some verifier."""
    return _CHALLENGE.fullmatch(text) is not None


def challenge_of(verifier: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode().rstrip("=")


def verifies(verifier: str, challenge: str) -> bool:
    """Whether who has the verifier made the challenge."""
    return is_verifier(verifier) and hmac.compare_digest(challenge_of(verifier), challenge)
