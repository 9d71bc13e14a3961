"""Text of tickets: what may be stored, and how it is searched."""

import re
import unicodedata
from typing import Final

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
MAX_WORDS: Final = 20


def unstorable(text: str) -> bool:
    """Whether `text` holds what no database text can: NUL, or half of a surrogate pair."""
    return _UNSTORABLE.search(text) is not None


def has_control(text: str) -> bool:
    """Whether `text` holds control characters, line breaks included."""
    return _CONTROL.search(text) is not None


def searchable(*parts: str | None) -> str:
    """The text that is searched: full-width and half-width, upper and lower case look the same in it."""
    return unicodedata.normalize("NFKC", "\n".join(part for part in parts if part)).casefold()


def words(query: str) -> list[str]:
    """The words of a query, each of which a ticket must contain."""
    return searchable(query).split()[:MAX_WORDS]
