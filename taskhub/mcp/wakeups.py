"""Which subscriptions to wake when something happened: the hub's events as the resources that they change.

A wake-up says that a resource is worth reading again, not what happened. So events that come together wake a
subscription once, and there is never more to remember than what was subscribed to.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from broadcaster.event import Event
from taskhub.mcp.uris import BOARD, EVENTS, ticket_uri

WAKE_INTERVAL_S: Final = 0.1
"""A subscription is woken at most so often: each time its client reads the resource anew."""
WAKES_PER_TURN: Final = 50
"""After so many the loop takes a breath: each is a message on a connection of its own."""

Watch = Callable[[str, Callable[[Sequence[Event] | None], None]], Awaitable[Callable[[], None]]]
"""Show a workspace's events to an observer until what is returned is called: `Broadcaster.watch`."""


@dataclass(frozen=True, slots=True, eq=False)
class Want:
    """Somebody wants `wake(uri)` when the resource of `topic` changed; `uri` is its address as they wrote it."""

    topic: str
    uri: str
    wake: Callable[[str], None]


class Wakeups:
    """The feeds of the workspaces in which somebody subscribed to something here."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._feeds: dict[str, Feed] = {}

    @property
    def open(self) -> int:
        """How many wants there are, in all workspaces."""
        return sum(feed.wants for feed in self._feeds.values())

    async def join(self, workspace: str) -> "Feed":
        """The workspace's feed; nothing that happens from now on is missed. After use you must `leave` it.

        Raises LogUnavailable.
        """
        feed = self._feeds.get(workspace)
        if feed is None:
            feed = self._feeds[workspace] = Feed()
        feed.holders += 1
        try:
            async with feed.opening:
                if feed.end is None:
                    feed.end = await self._watch(workspace, feed.observe)
        except BaseException:
            self.leave(workspace)
            raise
        return feed

    def leave(self, workspace: str) -> None:
        """The last to leave ends the feed."""
        feed = self._feeds[workspace]
        feed.holders -= 1
        if not feed.holders:
            del self._feeds[workspace]
            feed.close()


class Feed:
    """One workspace: who wants to be woken for what, and what is due."""

    def __init__(self) -> None:
        self.holders = 0
        self.opening = asyncio.Lock()
        self.end: Callable[[], None] | None = None
        self._wants: dict[str, dict[Want, None]] = {}
        self._due: dict[str, None] = {}
        self._going_out: deque[Want] = deque()
        self._planned: asyncio.Handle | None = None
        self._last = float("-inf")

    @property
    def wants(self) -> int:
        return sum(len(wants) for wants in self._wants.values())

    def add(self, want: Want) -> None:
        self._wants.setdefault(want.topic, {})[want] = None

    def remove(self, want: Want) -> None:
        """Wake it no more. Idempotent."""
        wants = self._wants.get(want.topic)
        if wants is not None:
            wants.pop(want, None)
            if not wants:
                del self._wants[want.topic]

    def observe(self, events: Sequence[Event] | None) -> None:
        """What happened (an observer of the broadcaster); None: anything may have."""
        for topic in list(self._wants) if events is None else _topics(events):
            self.touch(topic)

    def touch(self, topic: str) -> None:
        """The resource changed."""
        if topic in self._wants:
            self._due[topic] = None
            self._plan()

    def close(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
        if self.end is not None:
            self.end()

    def _plan(self) -> None:
        if self._planned is not None:
            return
        loop = asyncio.get_running_loop()
        # In a context of its own: it is for everybody, and not for the request that happens to cause it.
        context = contextvars.Context()
        wait = self._last + WAKE_INTERVAL_S - loop.time()
        if self._going_out or wait <= 0:
            self._planned = loop.call_soon(self._run, context=context)
        else:
            self._planned = loop.call_later(wait, self._run, context=context)

    def _run(self) -> None:
        self._planned = None
        if not self._going_out:
            self._last = asyncio.get_running_loop().time()
            due, self._due = self._due, {}
            self._going_out.extend(want for topic in due for want in self._wants.get(topic, ()))
        for _ in range(min(WAKES_PER_TURN, len(self._going_out))):
            want = self._going_out.popleft()
            if want in self._wants.get(want.topic, ()):
                want.wake(want.uri)
        if self._going_out or self._due:
            self._plan()


def _topics(events: Sequence[Event]) -> Iterator[str]:
    """What the events change, each once."""
    topics = {EVENTS: None}
    for event in events:
        if event.type.startswith("ticket."):
            topics[BOARD] = None
            if event.subject is not None:
                topics[ticket_uri(event.subject)] = None
        elif event.type.startswith("reference."):  # the names that the board shows
            topics[BOARD] = None
    return iter(topics)
