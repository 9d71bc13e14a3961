"""Frames: events and control messages as the bytes of one stream format.

SSE follows the WHATWG HTML standard, section Server-sent events: LF only, every block that is not a comment has
`event:` and `data:`, and `id:` and `retry:` stand only inside such blocks. A heartbeat is the two bytes colon and LF:
a comment that is followed by a blank line, or a block without data, makes phantom events in several client libraries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import orjson

from broadcaster.event import Event

Item = tuple[Event, str]
"""An event and its match for the filter of a stream: "" or enter, leave, update."""


@dataclass(frozen=True, slots=True)
class Format:
    """`sse` or `ndjson`; with `names`, an SSE event is named by its type, for `addEventListener`."""

    kind: Literal["sse", "ndjson"]
    names: bool = False

    @property
    def heartbeat(self) -> bytes:
        """What keeps an idle connection alive without being an event."""
        return b":\n" if self.kind == "sse" else b'{"event":"heartbeat"}\n'

    def event(self, event: Event, match: str) -> bytes:
        """One event in a frame of its own, made once for each format and match."""
        key = (f"{self.kind}{self.names:d}", match)
        frame = event.frames.get(key)
        if frame is None:
            position = None if event.transient else event.position
            frame = event.frames[key] = self.coalesced(event, match, None, position)
        return frame

    def coalesced(self, event: Event, match: str, count: int | None, position: str | None) -> bytes:
        """One event that stands for `count` others in a frame of its own, made anew each time."""
        name = event.type if self.names else "message"
        return self._frame(name, with_match(event, match, count), position)

    def batch(self, items: Sequence[Item], counts: Mapping[str, int], timestamp: str, *, position: str | None) -> bytes:
        """Several events in one frame. `counts`: event id → how many events it stands for, where more than one."""
        body = b",".join(with_match(event, match, counts.get(event.id)) for event, match in items)
        data = b'{"events":[' + body + b'],"timestamp":"' + timestamp.encode() + b'"}'
        return self._frame("batch_update", data, position)

    def control(
        self, name: str, data: Mapping[str, Any] | bytes, *, position: str | None = None, retry_ms: int | None = None
    ) -> bytes:
        """A frame of the stream's own, such as hello or goodbye. `data` is JSON-able or already encoded."""
        encoded = data if isinstance(data, bytes) else orjson.dumps(data)
        return self._frame(name, encoded, position, retry_ms)

    def _frame(self, name: str, data: bytes, position: str | None, retry_ms: int | None = None) -> bytes:
        if self.kind == "sse":
            retry = b"" if retry_ms is None else b"retry: %d\n" % retry_ms
            place = b"" if position is None else b"id: " + position.encode() + b"\n"
            return retry + place + b"event: " + name.encode() + b"\ndata: " + data + b"\n\n"
        place = b"" if position is None else b'"id":"' + position.encode() + b'",'
        retry = b"" if retry_ms is None else b'"retry":%d,' % retry_ms
        return b"{" + place + retry + b'"event":"' + name.encode() + b'","data":' + data + b"}\n"


SSE: Final = Format("sse")


def with_match(event: Event, match: str, count: int | None = None) -> bytes:
    """The event's JSON with `match`, where the filter asks for a state, and with how many events it stands for."""
    encoded = event.encoded
    extra = b""
    if match:
        extra = b',"match":"' + match.encode() + b'"'
    if count is not None:
        extra += b',"coalesced":%d' % count
    return encoded[:-1] + extra + b"}" if extra else encoded


def chunk(data: bytes) -> bytes:
    """`data` as one chunk of an HTTP/1.1 chunked body (RFC 9112, section 7.1)."""
    return b"%x\r\n" % len(data) + data + b"\r\n"
