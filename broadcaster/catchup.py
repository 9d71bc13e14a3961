"""Catching up: what a subscriber missed, from the ring or the log, until it can join the others at the head.

One coroutine serves the replay of a new stream, the return of one that lagged, and the wait of one that came from an
instance that is further than this one. It writes only what the outlet passes on.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final, TypeVar

from broadcaster.errors import LogUnavailable, PositionExpired
from broadcaster.replay import Replay
from broadcaster.slices import GroupKey, Slice
from broadcaster.statistics import Counters
from broadcaster.stream import Reset
from broadcaster.subscriber import Subscriber

T = TypeVar("T")

RETRY_S: Final = (0.25, 0.5, 1.0, 2.0)
"""Waits between reads while the log does not answer; the last one repeats."""


class CatchUp:
    """Brings one subscriber to the head of its hub."""

    def __init__(
        self, subscriber: Subscriber, replay: Replay, counters: Counters, *, on_limit: Callable[[Subscriber], None]
    ) -> None:
        self._subscriber = subscriber
        self._key = GroupKey.of(subscriber.request)
        self._replay = replay
        self._hub = replay.hub
        self._clock = replay.clock
        self._counters = counters
        self._on_limit = on_limit
        self._replayed = 0

    def begin_at_head(self, hello: Callable[[], Mapping[str, object]], retry_ms: int) -> bool:
        """The opening of a new stream that has nothing to catch up with, in one write and without a task of its own:
        most have not. False, and nothing was done, when there is something to send first."""
        subscriber, request, hub = self._subscriber, self._subscriber.request, self._hub
        if request.snapshot is not None or subscriber.reset is not None or subscriber.cursor != hub.head:
            return False
        position = hub.position
        ready = {"position": position, "replayed": 0}
        opening = request.format.control("hello", hello(), position=position, retry_ms=retry_ms)
        if subscriber.write(opening + request.format.control("ready", ready, position=position), 0, self._clock()):
            hub.join(subscriber)
        elif not subscriber.ended():
            subscriber.state = "lagging"  # it joins once it has drained
        return True

    async def begin(self, hello: Callable[[], Mapping[str, object]], retry_ms: int) -> None:
        """The opening of a new stream: hello, snapshot or reset, replay, ready."""
        subscriber, request, reset = self._subscriber, self._subscriber.request, self._subscriber.reset
        if subscriber.ended():
            return
        snapshot_first = subscriber.snapshot_due
        primed = None if snapshot_first else f"{self._hub.epoch}-{subscriber.cursor}"
        subscriber.state = "replaying"
        self._write(request.format.control("hello", hello(), position=primed, retry_ms=retry_ms))
        if reset is not None:
            await self._reset(reset)
        elif snapshot_first:
            await self._send_snapshot()
        await self.resume(first=True)

    async def restart(self, reset: Reset) -> None:
        """The log was replaced under an open stream: say so, and go on from its head."""
        await self._replay.turns.take()
        if self._subscriber.ended():
            return
        self._subscriber.state = "replaying"
        self._subscriber.cursor = self._hub.head
        await self._reset(reset)
        await self.resume(first=True)

    async def resume(self, *, first: bool = False) -> None:
        """Send what lies between the cursor and the head, then join. With `first`, `ready` marks the border."""
        subscriber, hub = self._subscriber, self._hub
        if not subscriber.ended():
            subscriber.state = "replaying" if first else "lagging"
        while not subscriber.ended():
            await subscriber.wait_drained()
            if subscriber.ended():
                return
            if subscriber.cursor == hub.head:
                # From here to the end without an await: no event can come between the last look and the joining.
                if first:
                    ready = {"position": hub.position, "replayed": self._replayed}
                    self._write(subscriber.request.format.control("ready", ready, position=hub.position))
                    first = False
                    continue
                hub.join(subscriber)
                return
            if subscriber.cursor > hub.head:
                # It comes from a faster instance, or the log was already further than this one's tail.
                await self._wait_for_tail()
            else:
                await self._send_page(beginning=first and not self._replayed)

    async def _wait_for_tail(self) -> None:
        """The client has seen more than this instance's tail: wait outside the groups until it is there too."""
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            self._replay.turns.line_up([reached])

        self._hub.when_reached(self._subscriber.cursor, wake)
        self._replay.ask_tail()
        try:
            await reached  # unless the client leaves: then all of this is cancelled
        finally:
            self._hub.forget_waiter(wake)

    async def _send_page(self, *, beginning: bool) -> None:
        subscriber, hub, replay = self._subscriber, self._hub, self._replay
        epoch = hub.epoch
        try:
            events = await self._patiently(lambda: replay.after(subscriber.cursor))
        except PositionExpired as expired:
            start = subscriber.request.start
            if beginning and (start == "earliest" or isinstance(start, datetime)):
                # Where that is, retention has just moved.
                subscriber.cursor = expired.oldest - 1
                return
            requested = f"{hub.epoch}-{subscriber.cursor}"
            subscriber.cursor = hub.head
            await self._reset(Reset("expired", requested), oldest=max(hub.oldest, expired.oldest))
            return
        if events is None or hub.epoch != epoch:
            return
        if events:
            await self._send(replay.slices(self._key, subscriber.cursor, events, subscriber.remaining), events[-1].seq)
        else:
            replay.ask_tail()
            await asyncio.sleep(RETRY_S[0])

    async def _send(self, parts: Sequence[Slice], through: int) -> None:
        """Write one part after the other. With all of them, the subscriber has everything up to `through`."""
        subscriber = self._subscriber
        for number, part in enumerate(parts):
            if number:
                await subscriber.wait_drained()
                await self._replay.turns.take()
            if subscriber.ended():
                return
            now = self._clock()
            self._counters.deliveries.add(part.events, now)
            subscriber.write_raw(part.data, part.events, now)
            subscriber.cursor = max(subscriber.cursor, part.through)
            self._replayed += part.events
            if subscriber.remaining == 0:
                self._on_limit(subscriber)
                return
        subscriber.cursor = max(subscriber.cursor, through)

    async def _patiently(self, read: Callable[[], Awaitable[T]]) -> T | None:
        """What `read` answers, tried again while the log does not; None when the subscriber ended meanwhile."""
        attempt = 0
        while not self._subscriber.ended():
            try:
                return await read()
            except LogUnavailable:
                wait_s = RETRY_S[min(attempt, len(RETRY_S) - 1)]
                await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))  # noqa: S311  # spreads retries, guards nothing
                attempt += 1
        return None

    async def _send_snapshot(self) -> None:
        """All matching tickets; only the last frame carries a position, so that a broken snapshot starts afresh."""
        subscriber = self._subscriber
        read = subscriber.request.snapshot
        subscriber.snapshot_due = read is not None
        snapshot = None if read is None else await self._patiently(read)
        if snapshot is None:
            return
        pages = snapshot.pages or (b"[]",)
        for number, page in enumerate(pages, 1):
            last = number == len(pages)
            data = b'{"tickets":' + page + b',"more":' + (b"false" if last else b"true") + b"}"
            position = str(snapshot.position) if last else None
            self._write(subscriber.request.format.control("snapshot", data, position=position))
            await subscriber.wait_drained()
            if subscriber.ended():
                return
        subscriber.cursor = snapshot.position.seq
        subscriber.snapshot_due = False

    async def _reset(self, reset: Reset, *, oldest: int | None = None) -> None:
        """Say that the client has to start afresh from the cursor, and send it the tickets if it asked for them.

        `oldest`: where the log begins, when that is known better than by the last poll."""
        hub, request = self._hub, self._subscriber.request
        self._subscriber.reset = reset
        position = f"{hub.epoch}-{self._subscriber.cursor}"
        self._counters.resets[reset.reason] += 1
        data = {
            "reason": reset.reason,
            "requested": reset.requested,
            "oldest": f"{hub.epoch}-{(oldest or hub.oldest) - 1}",
            "position": position,
            "snapshot": request.snapshot_url,
        }
        # Who loses the connection before the snapshot's end must not come back with a position that is past it.
        primed = position if request.snapshot is None else None
        self._write(request.format.control("reset", data, position=primed))
        if request.snapshot is not None:
            await self._send_snapshot()
        self._subscriber.reset = None

    def _write(self, frame: bytes) -> None:
        self._subscriber.write(frame, 0, self._clock())
