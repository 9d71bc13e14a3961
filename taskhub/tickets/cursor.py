"""Cursors of a list: where the last page ended, signed and bound to the query they came from."""

import base64
import binascii
import hashlib
import hmac
from dataclasses import dataclass
from typing import Final

import orjson

from taskhub.tickets.errors import InputProblem, InvalidInput

_SIGNATURE_BYTES: Final = 12


@dataclass(frozen=True, slots=True)
class Cursor:
    """The last row of a page: its sort value (None where it has none) and its number."""

    value: str | int | None
    no: int


class CursorCodec:
    """Writes and reads cursors that are opaque to clients. `secret` is the deployment's."""

    def __init__(self, secret: bytes) -> None:
        self._key = hashlib.sha256(b"list cursor\0" + secret).digest()

    def encode(self, cursor: Cursor, query: bytes) -> str:
        """The cursor as text; `query` is everything that decides which rows come in which order."""
        body = orjson.dumps([cursor.value, cursor.no])
        return base64.urlsafe_b64encode(self._signature(body, query) + body).decode().rstrip("=")

    def decode(self, text: str, query: bytes) -> Cursor:
        """Raises InvalidInput for a cursor that was changed, made up, or got for another query."""
        try:
            raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (ValueError, binascii.Error):
            raise _invalid() from None
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._signature(body, query)):
            raise _invalid()
        value, no = orjson.loads(body)
        cursor = Cursor(value, no)
        if self.encode(cursor, query) != text:  # the last character has unused bits, and "=" may be added
            raise _invalid()
        return cursor

    def _signature(self, body: bytes, query: bytes) -> bytes:
        return hmac.digest(self._key, len(query).to_bytes(4, "big") + query + body, "sha256")[:_SIGNATURE_BYTES]


def _invalid() -> InvalidInput:
    reason = "is not a cursor of this query: pass next_cursor unchanged, with the same parameters"
    return InvalidInput([InputProblem("/cursor", reason)])
