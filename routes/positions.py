"""Where to start: the forms of `since=` and `after=`, and the precedence of what a client sends."""

from datetime import datetime

from broadcaster.errors import InvalidPosition, InvalidStart
from broadcaster.event import Position
from broadcaster.polling import start_of
from broadcaster.stream import Start
from routes.errors import Fault


def parse_start(text: str, parameter: str, now: datetime) -> Start | Fault:
    """What `since=` or `after=` means; a Fault when it means nothing."""
    try:
        return start_of(text, now)
    except InvalidStart as wrong:
        return Fault(str(wrong), parameter=parameter)


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
