"""Answers within a size: long texts are cut with a mark, long lists end early, and a hint says how to get the rest."""

import json
from collections.abc import Callable
from typing import Any, Final

import orjson

MAX_CHARACTERS: Final = 20_000
"""Of one tool result, its text and its data together: it stays in a model's conversation."""
# A long text is cut to these lengths in turn until all fits, and a list to these numbers of entries, newest kept.
_TEXT_STEPS: Final = (8_000, 4_000, 2_000, 1_000, 400, 200)
_LIST_STEPS: Final = (100, 50, 20, 10, 5, 2)


def size_of(data: Any) -> int:
    """Characters of `data` as JSON."""
    try:
        return len(orjson.dumps(data).decode())
    except orjson.JSONEncodeError:
        # An error repeats what it was given, which may be a number or a text that orjson refuses to write.
        return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")))


def bytes_of(data: Any) -> int:
    """Bytes of `data` as JSON."""
    return len(orjson.dumps(data))


def fitted(
    data: dict[str, Any], limit: int, hint: str, *, keep: str = "newest", size: Callable[[Any], int] = size_of
) -> dict[str, Any]:
    """`data` of a `size` of at most `limit`: where it has more, texts are cut and entries left out, and it says so.

    `keep`: which entries of a list stay. History comes newest first and comments oldest first: `newest` knows by name.
    """
    if size(data) <= limit:
        return data
    noted = {"truncated": True, "hint": hint}
    for length, entries in zip(_TEXT_STEPS, (*_LIST_STEPS,), strict=True):
        shorter = {name: _shortened(name, value, length, entries, keep) for name, value in data.items()} | noted
        if size(shorter) <= limit:
            return _refilled(data, shorter, length, limit, keep, size)
    return {name: _bare(value) for name, value in shorter.items()}


def _shortened(name: str, value: Any, length: int, entries: int, keep: str) -> Any:
    if isinstance(value, list):
        value = value[-entries:] if keep == "newest" and name == "comments" else value[:entries]
        return [cut(item, length) for item in value]
    return cut(value, length)


def _refilled(
    data: dict[str, Any], shorter: dict[str, Any], length: int, limit: int, keep: str, size: Callable[[Any], int]
) -> dict[str, Any]:
    """As many more entries as there is room for, so that a list is not cut to the step below for one entry too many."""
    for name, value in data.items():
        if not isinstance(value, list) or len(value) == len(shorter[name]):
            continue
        least, most = len(shorter[name]), len(value)
        while least < most:
            middle = (least + most + 1) // 2
            if size({**shorter, name: _shortened(name, value, length, middle, keep)}) <= limit:
                least = middle
            else:
                most = middle - 1
        shorter = {**shorter, name: _shortened(name, value, length, least, keep)}
    return shorter


def _bare(value: Any) -> Any:
    """Without the entries of any list."""
    if isinstance(value, dict):
        return {name: _bare(item) for name, item in value.items()}
    return [] if isinstance(value, list) else value


def cut(value: Any, length: int) -> Any:
    """A JSON value with each text in it clipped."""
    if isinstance(value, str):
        return clip(value, length)
    if isinstance(value, list):
        return [cut(item, length) for item in value]
    if isinstance(value, dict):
        return {name: cut(item, length) for name, item in value.items()}
    return value


def clip(text: str, length: int) -> str:
    """At most `length` characters, which must be 40 or more; the last of them say how many are missing."""
    return text if len(text) <= length else f"{text[: length - 40]}… [{len(text) - length + 40} more characters]"
