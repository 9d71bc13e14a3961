"""Numbers that come as text, in queries, files and arguments: only as JSON writes them.

Python reads much else as a number, `1_0` as ten and `+1` as one, which other programs on the way, or who sent it, take
for something else. WHOLE and NUMBER stand last in an `Annotated` type, behind its limits.
"""

import re
from typing import Any, Final

from pydantic import BeforeValidator

_PLAIN: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_WHOLE: Final = re.compile(r"-?(?:0|[1-9][0-9]*)")


def _whole(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and not _WHOLE.fullmatch(value)):
        raise ValueError("must be a whole number, written with digits alone")
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and not _PLAIN.fullmatch(value)):
        raise ValueError("must be a number such as 15 or 0.5")
    return value


WHOLE: Final = BeforeValidator(_whole)
NUMBER: Final = BeforeValidator(_plain)
