"""Text of tickets: what may be stored."""

import re
from typing import Final

UNSTORABLE: Final = "must not contain NUL or half of a surrogate pair"
_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
# Those of C1, and the two that are ends of lines as well: what shows or splits a text goes by all of them.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def unstorable(text: str) -> bool:
    """Whether `text` holds what no database text can: NUL, or half of a surrogate pair."""
    return _UNSTORABLE.search(text) is not None


def has_control(text: str) -> bool:
    """Whether `text` holds control characters, line breaks included."""
    return _CONTROL.search(text) is not None
