"""What instances send each other: one JSON header line, then the events' encodings, one per line.

    {"instance":"a3","workspace":"default","epoch":"k7q2m4xa","first":1042,"last":1043}
    {"specversion":"1.0","id":"k7q2m4xa-1042",…}
    {"specversion":"1.0","id":"k7q2m4xa-1043",…}

Without event lines the receiver reads the range from its log. First and last 0 are transient events, always carried.
"""

from collections.abc import Iterable
from typing import Any, Final

import orjson

from broadcaster.errors import BroadcasterError
from broadcaster.event import Event
from broadcaster.relay import Announcement

CARRY_LIMIT_BYTES: Final = 32 * 1024
"""Up to here events travel with their announcement. Larger ones are cheaper to read from the log than to send to
instances that may not need them."""


class InvalidMessage(BroadcasterError):
    """A message on a relay channel that no instance of this version would send."""


def encode_messages(announcements: Iterable[Announcement], instance: str) -> list[tuple[str, bytes, int]]:
    """(workspace, message, how many announcements it stands for), in order. Announcements of a workspace that continue
    each other share a message as far as it stays under the limit."""
    messages: list[tuple[str, bytes, int]] = []
    open_messages: dict[str, _Message] = {}
    for announcement in announcements:
        message = open_messages.get(announcement.workspace)
        if message is None or not message.take(announcement):
            if message is not None:
                messages.append((message.workspace, message.encode(instance), message.count))
            open_messages[announcement.workspace] = _Message(announcement)
    messages.extend((m.workspace, m.encode(instance), m.count) for m in open_messages.values())
    return messages


def decode_message(message: bytes, own_instance: str) -> Announcement | None:
    """What another instance announced; None for the echo of one's own. Raises InvalidMessage."""
    head, _, body = message.partition(b"\n")
    try:
        header: dict[str, Any] = orjson.loads(head)
        if header["instance"] == own_instance:
            return None
        workspace, epoch, first, last = header["workspace"], header["epoch"], header["first"], header["last"]
        if not (isinstance(workspace, str) and isinstance(epoch, str)):
            raise InvalidMessage("the workspace or the epoch is no text")
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first <= last):
            raise InvalidMessage(f"{first!r} to {last!r} is no range of events")
        lines = body.split(b"\n") if body else []
        if first and len(lines) not in (0, last - first + 1):
            raise InvalidMessage(f"{len(lines)} events for {first} to {last}")
        step = 1 if first else 0
        events = tuple(Event.decode(line, epoch=epoch, seq=first + i * step) for i, line in enumerate(lines))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise InvalidMessage(f"not an announcement: {error}") from error
    if any(event.workspace != workspace for event in events):
        raise InvalidMessage("an event of another workspace")
    return Announcement(workspace, epoch, first, last, events)


class _Message:
    """A message that may still take announcements that continue it."""

    def __init__(self, announcement: Announcement) -> None:
        self.workspace = announcement.workspace
        self.count = 1
        self._epoch = announcement.epoch
        self._first = announcement.first
        self._last = announcement.last
        lines, self._size = _lines(announcement)
        self._carried = _carried(announcement, self._size)
        self._lines = lines if self._carried else []

    def take(self, announcement: Announcement) -> bool:
        """Add an announcement that continues this message; False if it does not, or no longer fits."""
        transient = self._first == 0
        if announcement.epoch != self._epoch or announcement.transient is not transient:
            return False
        if not transient and announcement.first != self._last + 1:
            return False
        lines, size = _lines(announcement)
        if _carried(announcement, size) is not self._carried:
            return False
        if self._carried:
            if self._size + size > CARRY_LIMIT_BYTES:
                return False
            self._lines += lines
        self._size += size
        self._last = announcement.last
        self.count += 1
        return True

    def encode(self, instance: str) -> bytes:
        header = {
            "instance": instance,
            "workspace": self.workspace,
            "epoch": self._epoch,
            "first": self._first,
            "last": self._last,
        }
        return b"\n".join((orjson.dumps(header), *self._lines))


def _lines(announcement: Announcement) -> tuple[list[bytes], int]:
    """The events' encodings, and how many bytes they take."""
    lines = [event.encoded for event in announcement.events]
    return lines, sum(map(len, lines)) + len(lines)


def _carried(announcement: Announcement, size: int) -> bool:
    """Transient events are in no log, so they travel whatever their size (which ingest bounds)."""
    return announcement.transient or (bool(announcement.events) and size <= CARRY_LIMIT_BYTES)
