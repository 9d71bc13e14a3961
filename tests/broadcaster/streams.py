"""What the engine's tests share: an outlet in memory that can stall, drafts, and a broadcaster over the log's twin."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broadcaster.engine import Broadcaster
from broadcaster.event import Event, EventDraft
from broadcaster.filters import parse_filter
from broadcaster.memory_log import MemoryEventLog
from broadcaster.options import BroadcastOptions
from broadcaster.relay import LocalRelay
from broadcaster.stream import StreamRequest
from broadcaster.subscriber import Subscriber
from tests.clock import LoopClock
from tests.e2e.harness.frames import Frame, FrameParser

WORKSPACE = "default"


class MemoryOutlet:
    """The twin of a connection. `stall` makes its kernel take nothing until `drain`; what it takes is parsed."""

    def __init__(self) -> None:
        self.parser = FrameParser()
        self.lines: list[dict[str, Any]] | None = None
        """The objects of an NDJSON stream; None where the stream is SSE."""
        self.writes = 0
        self.accepted_bytes = 0
        self.waiting = b""
        self.stalled = False
        self.closed = False
        self.most_buffered = 0
        self.subscriber: Subscriber | None = None

    def write(self, data: bytes) -> int:
        if self.closed:
            return 0
        self.writes += 1
        self.accepted_bytes += len(data)
        if self.stalled:
            self.waiting += data
            self.most_buffered = max(self.most_buffered, len(self.waiting))
        else:
            self._take(data)
        return len(self.waiting)

    def buffered(self) -> int:
        return len(self.waiting)

    def close(self) -> None:
        self.closed = True
        if not self.stalled:
            self._gone()

    def abort(self) -> None:
        self.closed = True
        self._gone()

    def stall(self) -> None:
        self.stalled = True

    def drain(self) -> None:
        """The client reads again: what waited is taken, and the subscriber is told."""
        self.stalled = False
        taken, self.waiting = self.waiting, b""
        self._take(taken)
        if self.closed:
            self._gone()
        elif self.subscriber is not None:
            self.subscriber.drained()

    def _take(self, data: bytes) -> None:
        if self.lines is None:
            self.parser.feed(data)
        else:
            assert data.endswith(b"\n")
            self.lines += [json.loads(line) for line in data.splitlines()]

    def _gone(self) -> None:
        if self.subscriber is not None:
            asyncio.get_running_loop().call_soon(self.subscriber.disconnected)

    @property
    def frames(self) -> list[Frame]:
        return self.parser.frames

    @property
    def names(self) -> list[str]:
        return [frame.event for frame in self.frames]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for frame in self.frames for event in frame.events]

    @property
    def numbers(self) -> list[int]:
        """The `n` of each event received, in order."""
        return [event["data"]["n"] for event in self.events]

    def frame(self, name: str) -> Frame:
        return next(frame for frame in self.frames if frame.event == name)


class World:
    """A broadcaster over a log in memory, with streams that record. Its time is that of `clock`."""

    def __init__(self, log: MemoryEventLog, broadcaster: Broadcaster, clock: LoopClock) -> None:
        self.clock = clock
        self.log = log
        self.broadcaster = broadcaster
        self._number = 0

    @classmethod
    async def open(
        cls, log: MemoryEventLog | None = None, *, threads_busy: Callable[[], bool] = lambda: False, **options: Any
    ) -> "World":
        log = log or MemoryEventLog()
        settings = replace(BroadcastOptions(max_age_jitter=0.0, poll_interval_s=0.05), **options)
        clock = LoopClock()
        broadcaster = Broadcaster(log, LocalRelay(), settings, clock=clock.time, threads_busy=threads_busy)
        world = cls(log, broadcaster, clock)
        await world.broadcaster.start()
        return world

    def append(self, *drafts: EventDraft) -> list[Event]:
        """Into the log only, as by another process."""
        return self.log.append(WORKSPACE, drafts)

    def commit(self, *drafts: EventDraft) -> list[Event]:
        """Into the log and to the broadcaster, as by this process."""
        events = self.append(*drafts)
        self.broadcaster.committed(WORKSPACE, events)
        return events

    def numbered(self, count: int, **fields: Any) -> list[EventDraft]:
        """Drafts whose data counts on: {"n": 1}, {"n": 2}, …"""
        drafts = [numbered(self._number + offset, **fields) for offset in range(1, count + 1)]
        self._number += count
        return drafts

    async def listen(self, query: str = "", **request: Any) -> MemoryOutlet:
        """A stream with the filter `query` (`status=done&type=…`), begun and past its `ready` unless it stalls."""
        outlet = await self.connect(query, **request)
        await until(lambda: "ready" in outlet.names or "goodbye" in outlet.names)
        return outlet

    async def connect(self, query: str = "", *, stalled: bool = False, **request: Any) -> MemoryOutlet:
        params = [tuple(pair.split("=", 1)) for pair in query.split("&") if pair]
        wanted = parse_filter([(name, value) for name, value in params], Verbatim())
        subscriber = await self.broadcaster.admit(WORKSPACE, StreamRequest(filter=wanted, chunked=False, **request))
        outlet = MemoryOutlet()
        outlet.subscriber = subscriber
        if subscriber.request.format.kind == "ndjson":
            outlet.lines = []
        outlet.stalled = stalled
        subscriber.start(outlet)
        return outlet


class Verbatim:
    """A resolver for which every value is its own id."""

    def resolve(self, field: str, value: str) -> str:
        return value


def numbered(n: int, *, type: str = "build.finished", size: int = 0, **fields: Any) -> EventDraft:
    data = {"n": n, **({"pad": "x" * size} if size else {})}
    return EventDraft(type=type, actor="user:test", origin="rest_api", data=json.dumps(data).encode(), **fields)


def ticket_event(
    key: str, status: str, *, was: str | None = None, n: int = 0, type: str | None = None, **state: Any
) -> EventDraft:
    """An event about a ticket that is now in `status`; with `was`, it moved from there."""
    kind = type or ("ticket.created" if was is None else "ticket.status_changed")
    changes = {} if was is None else {"status": [was, status]}
    ticket = {"key": key, "status": {"id": status, "name": status.title()}, "labels": [], **state}
    data = {"n": n, "ticket": ticket, "changes": changes, "comment": None}
    return EventDraft(
        type=kind, actor="user:test", origin="rest_api", data=json.dumps(data).encode(), subject=key, ticket_version=1
    )


async def until(condition: Callable[[], object], deadline_s: float = 60.0, pause_s: float = 0.001) -> None:
    """Let the loop turn until `condition()` is true; fail after `deadline_s`. `pause_s` 0 looks at every turn."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not condition():
        assert loop.time() < end, f"not within {deadline_s} s: {condition}"
        await asyncio.sleep(pause_s)


async def settle() -> None:
    """Give everything that is ready its turn."""
    for _ in range(20):
        await asyncio.sleep(0)
