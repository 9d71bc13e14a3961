"""Secrets in what is logged, told or recorded: values under secret names, and secrets inside any text."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

REDACTED: Final = "[redacted]"

_NAME: Final = r"(?:authorization|cookie|passw(?:or)?d|secret|token|api[_-]?key|credential)s?"
# The last word of a key, so that `token` and `session_token` are hidden, `tokens_used` and `author` are not.
_SECRET_KEYS: Final = re.compile(rf"(?:^|[_\-.]){_NAME}$", re.IGNORECASE)
# What TaskHub hands out has a prefix of its own, written large where it begins a sentence. Words such as `months_2026`
# end with one; they are short.
_HANDED_OUT: Final = re.compile(r"[Tt]h[a-df-z]_[A-Za-z0-9_-]{20,}|(?<![A-Za-z])[Tt]h[a-df-z]_[A-Za-z0-9_-]{6,}")
# Lengths are bounded, so that no text takes longer than its own length, however it is made.
_IN_TEXTS: Final = (
    (_HANDED_OUT, REDACTED),
    # Up to the last @: a password that was not encoded may have one, and a slash.
    (
        re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]{0,20}://[^\s:/@]{0,200}:)[^\s'\"<>]{1,1000}(?=@)", re.IGNORECASE),
        rf"\g<keep>{REDACTED}",
    ),
    # To the end of the line: a cookie has several parts.
    (
        re.compile(r"(?P<keep>\b(?:authorization|x-api-key|cookie|set-cookie)\b['\"]?\s*[:=,]\s*)[^\r\n]+", re.I),
        rf"\g<keep>{REDACTED}",
    ),
    (re.compile(r"(?P<keep>\b(?:bearer|basic)\s+)[^\s'\",;]+", re.IGNORECASE), rf"\g<keep>{REDACTED}"),
    (re.compile(r"(?P<keep>[?&;](?:[\w-]*token|key)=)[^&\s'\"#]+", re.IGNORECASE), rf"\g<keep>{REDACTED}"),
    (
        re.compile(
            rf"(?P<keep>{_NAME}\\?['\"]?\s*[:=]\s*)(?P<quote>\\?['\"])(?:(?!(?P=quote)).)+",
            re.IGNORECASE,
        ),
        rf"\g<keep>\g<quote>{REDACTED}",
    ),
    (re.compile(rf"(?P<keep>{_NAME}=)[^&\s'\"#,;\[]+", re.IGNORECASE), rf"\g<keep>{REDACTED}"),
)
# Beside a secret in a text stands one of these: most of what is logged is a word, a path or a number.
_MAY_HOLD_SECRETS: Final = re.compile(r"[=\s]|://|[Tt]h[a-z]_|(?i:authorization|api-key|cookie)")


def redacted(text: str) -> str:
    """The text without the secrets in it."""
    if _MAY_HOLD_SECRETS.search(text):
        for pattern, replacement in _IN_TEXTS:
            text = pattern.sub(replacement, text)
    return text


def without_keys(text: str) -> str:
    """The text without what TaskHub hands out; all else in it stays as it is."""
    return _HANDED_OUT.sub(REDACTED, text) if "h" in text else text


def clean(key: str, value: Any) -> Any:
    """What stands under a key, without secrets, however deep."""
    if value is not None and _names_secret(key):
        return REDACTED
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, bytes | bytearray):
        return redacted(repr(value))
    if isinstance(value, Mapping):
        return {redacted(str(k)): clean(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [clean("", item) for item in value]
    return value


@lru_cache(maxsize=1024)
def _names_secret(key: str) -> bool:
    return _SECRET_KEYS.search(key) is not None
