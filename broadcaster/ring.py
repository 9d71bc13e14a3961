"""The newest events of a workspace in memory: what serves a subscriber that is a little behind."""

from collections.abc import Sequence

from broadcaster.event import Event


def weight(event: Event) -> int:
    """About how many bytes an event takes once it was matched and framed. Beside its data it keeps its encoding, a
    frame for each format and match, and its data as Python values (measured: 8 KiB for a ticket's 600 bytes)."""
    return 5 * len(event.data) + 5 * 1024


class Ring:
    """Events with contiguous seq up to the newest, bounded by count and by weight in bytes."""

    def __init__(self, max_events: int, max_bytes: int) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._events: list[Event] = []
        self._start = 0
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._events) - self._start

    def extend(self, events: Sequence[Event]) -> None:
        """Append events that follow the newest. The oldest leave when a bound is passed; the newest always stays."""
        self._events.extend(events)
        self._bytes += sum(map(weight, events))
        while len(self) > 1 and (len(self) > self._max_events or self._bytes > self._max_bytes):
            self._bytes -= weight(self._events[self._start])
            self._start += 1
        # Cutting the front off a list costs its length: do it when an eighth of it is dead, not for each event.
        if self._start > 64 and self._start * 8 > len(self._events):
            del self._events[: self._start]
            self._start = 0

    def after(self, seq: int, limit: int) -> Sequence[Event] | None:
        """Up to `limit` events after `seq`, or None when the ring does not reach back that far."""
        if not len(self):
            return None
        first = self._events[self._start].seq
        if seq + 1 < first:
            return None
        begin = self._start + seq + 1 - first
        return self._events[begin : begin + limit]

    def clear(self) -> None:
        self._events.clear()
        self._start = 0
        self._bytes = 0
