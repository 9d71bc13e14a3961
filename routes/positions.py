"""Where to start: the forms of `since=` and `after=`, and the precedence of what a client sends."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from broadcaster.errors import InvalidPosition
from broadcaster.event import Position
from broadcaster.stream import Start
from routes.errors import Fault

FORMS: Final = "earliest, now, an event id, a duration such as 15m, or an RFC 3339 time"
_DURATION: Final = re.compile(r"(\d{1,6})(s|m|h|d)")
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+ -]\d\d:\d\d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_start(text: str, parameter: str, now: datetime) -> Start | Fault:
    """What `since=` or `after=` means; a Fault when it means nothing."""
    if text == "earliest":
        return "earliest"
    if text == "now":
        return "now"
    if duration := _DURATION.fullmatch(text):
        seconds = int(duration[1]) * _SECONDS[duration[2]]
        return max(now - timedelta(seconds=seconds), _BEGINNING) if seconds < _MAX_SECONDS else _BEGINNING
    if _TIME.fullmatch(text):
        try:
            # In a query an unescaped + has become a space.
            return datetime.fromisoformat(text.upper().replace(" ", "+")).astimezone(UTC)
        except (ValueError, OverflowError):
            return Fault(f"{text!r} is no time that exists", parameter=parameter)
    try:
        return Position.parse(text)
    except InvalidPosition:
        return Fault(f"must be {FORMS}", parameter=parameter)


def resume_start(text: str) -> Start:
    """What a client's last event id means. A bad one is answered by a `reset` in the stream, for an error status would
    stop a browser's EventSource for good."""
    try:
        return Position.parse(text)
    except InvalidPosition:
        return "invalid"


def printable(text: str) -> str:
    """What a client sent as a position, safe to repeat to it: headers may hold bytes that are no UTF-8."""
    return text[:64].encode("ascii", "replace").decode()


_BEGINNING: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS: Final = 100 * 365 * 86400
