"""Text of tickets: what may be stored."""

import re
from typing import Final

_UNSTORABLE: Final = re.compile("[\x00\ud800-\udfff]")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")


def unstorable(text: str) -> bool:
    """Whether `text` holds what no database text can: NUL, or half of a surrogate pair."""
    return _UNSTORABLE.search(text) is not None


def has_control(text: str) -> bool:
    """Whether `text` holds control characters, line breaks included."""
    return _CONTROL.search(text) is not None
