"""Replay: what the subscribers of one workspace share while they catch up.

A client that comes back alone and ten thousand that come back after a restart do the same; but those that need the
same page of the log read it once, those that are equal to the hub and at the same place encode it once, and each waits
for its turn between its writes.
"""

from collections.abc import Callable, Sequence
from typing import Final

from broadcaster.event import Event
from broadcaster.frames import Item
from broadcaster.hub import Hub
from broadcaster.log import EventLog
from broadcaster.pages import PAGE, LogPages
from broadcaster.slices import GroupKey, Slice, slices
from broadcaster.turns import Turns

MAX_RENDERED_BYTES: Final = 4 * 1024 * 1024

LINGER_S: Final = 10.0
"""Pages and slices are given up when nobody has caught up for so long: a crowd comes back within seconds."""


class Replay:
    """Pages and slices for those who are behind the hub's head. After use you must `stop`."""

    def __init__(
        self,
        hub: Hub,
        log: EventLog,
        turns: Turns,
        *,
        clock: Callable[[], float],
        timestamp: Callable[[], str],
        buffer_bytes: int,
        ask_tail: Callable[[], None],
    ) -> None:
        self.hub = hub
        self.turns = turns
        self.clock = clock
        self.ask_tail = ask_tail
        """Have the tail look at the log now."""
        self._pages = LogPages(hub.workspace, log, hub.epoch, turns)
        self._timestamp = timestamp
        self._buffer_bytes = buffer_bytes
        self._rendered: dict[tuple[GroupKey, int, int], Sequence[Slice]] = {}
        self._rendered_bytes = 0
        self._used = clock()

    async def after(self, seq: int) -> Sequence[Event]:
        """Events that follow `seq`, as many as are at hand, from the ring or else from the log; none when the log has
        none. Takes a turn. Raises PositionExpired and LogUnavailable."""
        events = self.hub.ring.after(seq, PAGE)
        if events is None:
            self._used = self.clock()
            return await self._pages.after(seq)
        await self.turns.take()
        return events

    def slices(self, key: GroupKey, after: int, events: Sequence[Event], limit: int | None) -> Sequence[Slice]:
        """What of these events, the ones that follow `after`, passes the filter; at most `limit` of them."""
        if limit is not None:
            return self._render(key, after, events, limit)
        place = key, after, events[-1].seq
        parts = self._rendered.get(place)
        if parts is None:
            parts = self._rendered[place] = self._render(key, after, events, None)
            self._rendered_bytes += _size(parts)
            while self._rendered_bytes > MAX_RENDERED_BYTES and len(self._rendered) > 1:
                self._rendered_bytes -= _size(self._rendered.pop(next(iter(self._rendered))))
        self._used = self.clock()
        return parts

    def _render(self, key: GroupKey, after: int, events: Sequence[Event], limit: int | None) -> list[Slice]:
        matching = key.filter.match
        items: list[Item] = []
        for event in events:
            match = matching(event)
            if match is not None:
                items.append((event, match))
        return slices(
            items,
            key,
            self._timestamp,
            buffer_bytes=self._buffer_bytes,
            after=after,
            head=events[-1].seq,
            limit=limit,
        )

    def observe(self, oldest: int) -> None:
        """What a poll found, now and then: `oldest` is the first event that the log still has."""
        self._pages.expire(oldest)
        if self.clock() - self._used >= LINGER_S:
            self.clear()

    def clear(self) -> None:
        """Forget everything that was read, such as when the log begins anew."""
        self._pages.clear(self.hub.epoch)
        self._rendered.clear()
        self._rendered_bytes = 0

    async def stop(self) -> None:
        """End the reads that are under way."""
        await self._pages.stop()


def _size(parts: Sequence[Slice]) -> int:
    """About what they take, those without a byte included."""
    return 200 + sum(len(part.data) + 200 for part in parts)
