"""Slices: what waits for equal subscribers, as the bytes of a few writes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from broadcaster.batching import Batching, Span, coalesce
from broadcaster.filters import Filter
from broadcaster.frames import Format, Item, chunk
from broadcaster.stream import StreamRequest


@dataclass(frozen=True, slots=True)
class GroupKey:
    """What makes two subscribers equal to the hub. Heartbeat, limit and timeout are each subscriber's own."""

    filter: Filter
    format: Format
    chunked: bool
    batching: Batching
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_hash", hash((self.filter, self.format, self.chunked, self.batching)))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def of(cls, request: StreamRequest) -> "GroupKey":
        return cls(request.filter, request.format, request.chunked, request.batching)


@dataclass(frozen=True, slots=True)
class Slice:
    """Bytes for one write, in their transfer coding: what they carry, and the seq up to which a reader then has all."""

    data: bytes
    events: int
    through: int


def slices(
    items: Sequence[Item],
    key: GroupKey,
    timestamp: Callable[[], str],
    *,
    buffer_bytes: int,
    after: int,
    head: int,
    limit: int | None = None,
) -> list[Slice]:
    """The items as slices of at most `buffer_bytes` (or one larger frame).

    A reader has everything up to `after` before them and up to `head` with them. At most `limit` events are sent; when
    that leaves some out, the slices reach no further than what was sent.
    """
    spans: Mapping[str, Span] = {}
    if key.batching.coalesce and len(items) > 1:
        items, spans = coalesce(items, key.filter)
    reaches = _reaches(items, spans)
    if limit is not None and limit < len(items):
        items, reaches = items[:limit], reaches[:limit]
        head = max(reaches, default=after)
    return _cut(_render(items, reaches, spans, key, timestamp), buffer_bytes, key.chunked, after, head)


def _reaches(items: Sequence[Item], spans: Mapping[str, Span]) -> list[int]:
    """For each item the seq up to which a reader has all that matched once it has this item and those before it; 0 for
    none: the item is transient, or stands before one that coalesces events older than it."""
    if not spans:
        return [event.seq for event, _ in items]
    reaches: list[int] = []
    oldest_to_come: float = math.inf
    for event, _ in reversed(items):
        reaches.append(event.seq if event.seq < oldest_to_come else 0)
        if not event.transient:
            first = spans[event.id].first if event.id in spans else event.seq
            oldest_to_come = min(oldest_to_come, first)
    return reaches[::-1]


_Frame = tuple[bytes, int, int]
"""A frame's bytes, how many events it carries, and the seq it reaches (0 for none)."""


def _render(
    items: Sequence[Item],
    reaches: Sequence[int],
    spans: Mapping[str, Span],
    key: GroupKey,
    timestamp: Callable[[], str],
) -> list[_Frame]:
    """The frames for these items. With batching, at most `max_events` in each, and a single event is a plain one."""
    plain = key.format.event
    unbatched = key.batching.window_s == 0
    if unbatched and not spans:
        return [(plain(event, match), 1, event.seq) for event, match in items]
    counts = {event_id: span.count for event_id, span in spans.items()}
    frames: list[_Frame] = []
    size = 1 if unbatched else key.batching.max_events
    for start in range(0, len(items), size):
        part = items[start : start + size]
        reach = max(reaches[start : start + size])
        # Its epoch, too, is that of the event reached: a transient one beside it has none.
        position = next((event.position for event, _ in part if event.seq == reach), None) if reach else None
        event, match = part[0]
        if len(part) == 1 and not spans:
            frame = plain(event, match)
        elif unbatched:
            frame = key.format.coalesced(event, match, counts.get(event.id), position)
        else:
            frame = key.format.batch(part, counts, timestamp(), position=position)
        frames.append((frame, len(part), reach))
    return frames


def _cut(frames: Sequence[_Frame], buffer_bytes: int, chunked: bool, after: int, head: int) -> list[Slice]:
    joined: list[Slice] = []
    parts: list[bytes] = []
    size = events = 0
    through = after
    for data, count, reach in frames:
        if parts and size + len(data) > buffer_bytes:
            joined.append(_slice(parts, events, through, chunked))
            parts, size, events = [], 0, 0
        parts.append(data)
        size += len(data)
        events += count
        through = max(through, reach)
    if parts:
        joined.append(_slice(parts, events, head, chunked))
    return joined


def _slice(parts: list[bytes], events: int, through: int, chunked: bool) -> Slice:
    data = parts[0] if len(parts) == 1 else b"".join(parts)
    return Slice(chunk(data) if chunked else data, events, through)
