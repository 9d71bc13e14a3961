"""Ticket keys: `TH-12` is the workspace's prefix and the ticket's number."""

import re
import unicodedata
from typing import Final

_KEY: Final = re.compile(r"([A-Z][A-Z0-9]*)-0*([1-9][0-9]{0,17})")


def key_of(prefix: str, no: int) -> str:
    return f"{prefix}-{no}"


def no_of(key: str) -> int:
    """The number in a key that `key_of` made."""
    return int(key.rpartition("-")[2])


def number_of(prefix: str, key: str) -> int | None:
    """The number in `key`, written in any case, or None when it is no key of this workspace."""
    found = _match(key)
    return int(found[2]) if found is not None and found[1] == prefix else None


def canonical_key(key: str) -> str | None:
    """`key` as this workspace or another would write it; None when it is no key."""
    found = _match(key)
    return None if found is None else f"{found[1]}-{found[2]}"


def _match(key: str) -> re.Match[str] | None:
    return _KEY.fullmatch(unicodedata.normalize("NFKC", key).strip().upper())
