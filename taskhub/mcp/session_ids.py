"""Ids of older-era sessions that any process of the deployment can judge.

What a client gets is `<the SDK's id>.<the client's name>.<signature>`. The signature binds the id to whoever opened the
session, so another caller's or an invented id is worth nothing; and a process that never saw the session (after a
restart, or another worker) can tell that the id is good and knows the client's name: all that a tool call needs.
"""

import base64
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

from taskhub.auth.principal import Principal

_PURPOSE: Final = b"taskhub mcp session 1"
_SIGNATURE_BYTES: Final = 24
_MAX_CLIENT_LENGTH: Final = 100
_MAX_ID_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True)
class Session:
    """`inner` is the id that the SDK knows; `client` the MCP client's name, where it gave one."""

    inner: str
    client: str | None


class SessionIds:
    """Issues and reads session ids. `secret` is the deployment's."""

    def __init__(self, secret: bytes) -> None:
        self._key = hmac.digest(secret, _PURPOSE, "sha256")

    def issue(self, inner: str, principal: Principal, client: str | None) -> str:
        named = _encode((client or "")[:_MAX_CLIENT_LENGTH].encode())
        return f"{inner}.{named}.{self._signature(inner, named, principal)}"

    def read(self, text: str, principal: Principal) -> Session | None:
        """The session of an id issued to this principal; None for any other text."""
        if len(text) > _MAX_ID_LENGTH or not text.isascii() or text.count(".") != 2:
            return None
        inner, named, signature = text.split(".")
        if not hmac.compare_digest(signature, self._signature(inner, named, principal)):
            return None
        return Session(inner, _decode(named).decode() or None)

    def _signature(self, inner: str, named: str, principal: Principal) -> str:
        # Neither part can hold a NUL, so no two different pairs read the same.
        signed = "\0".join((inner, named, principal.actor, principal.workspace)).encode()
        return _encode(hmac.new(self._key, signed, hashlib.sha256).digest()[:_SIGNATURE_BYTES])


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
