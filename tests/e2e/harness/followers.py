"""Subscribers that never give up: each comes back with its last id, to any instance, and remembers all it was given."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

import aiohttp

from tests.e2e.harness.exactness import Got, Logged, Query, check_exact, due, matched
from tests.e2e.harness.frames import Frame, FrameParser, WireViolation
from tests.e2e.harness.waiting import DEADLINE_S, until

_MAX_RETRY_S: Final = 0.3
"""What a server asks for is obeyed up to this, or a test would mostly wait."""

Lose = Callable[[Got], bool]


def seq_of(position: str) -> int:
    """The place in the log that a position names."""
    return int(position.rpartition("-")[2])


class Follower:
    """A subscriber with a filter. It follows streams of any of the instances until it is cancelled.

    `got` is what it was given since `began_after`, the first place it was told, or the place of the last `reset`. With
    `snapshot` it keeps the tickets that its filter shows, as a board does; the filter then asks of tickets and states
    alone. `lose` makes it forget events on purpose.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        query: Query,
        chance: random.Random,
        *,
        snapshot: bool = False,
        silent_s: float = 20.0,
        lose: Lose = lambda event: False,
    ) -> None:
        self.name = name
        self.query = dict(query)
        self.snapshot = snapshot
        self.began_after: int | None = None
        self.got: list[Got] = []
        self.tickets: dict[str, dict[str, Any]] = {}
        self.resets: list[dict[str, Any]] = []
        self.notices: list[str] = []
        self.goodbyes: list[str] = []
        self.statuses: list[int] = []
        """Statuses of answers that were no stream."""
        self.connections = 0
        self.violation: WireViolation | None = None
        self._urls = list(urls)
        self._chance = chance
        self._lose = lose
        self._silent_s = silent_s
        self._last_id: str | None = None
        self._retry_s = _MAX_RETRY_S
        self._response: aiohttp.ClientResponse | None = None

    def cut(self) -> None:
        """Drop the connection, if there is one, without a word."""
        if self._response is not None and self._response.connection is not None:
            transport = self._response.connection.transport
            if transport is not None:
                transport.abort()

    async def connected(self) -> None:
        """Wait until it has been told a place to begin at."""
        await until(lambda: self.began_after is not None, f"place for {self.name}")

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Follow until cancelled. Raises WireViolation."""
        while True:
            # A stream that says nothing for long is dead: the server beats at least every second.
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, ConnectionError):
                await self._follow(session, self._chance.choice(self._urls))
            self._response = None
            await asyncio.sleep(min(self._retry_s, _MAX_RETRY_S) * self._chance.uniform(0.5, 1.0))

    async def _follow(self, session: aiohttp.ClientSession, url: str) -> None:
        query = {**self.query, "heartbeat": "5", **({"snapshot": "1"} if self.snapshot else {})}
        headers = {"Last-Event-ID": self._last_id} if self._last_id is not None else {}
        if self._last_id is None:
            # It had no place to come back to, so it begins anew.
            self.got.clear()
            self.tickets.clear()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._silent_s)
        async with session.get(f"{url}/events/stream", params=query, headers=headers, timeout=timeout) as response:
            if response.status != 200:
                self.statuses.append(response.status)
                return
            self._response = response
            self.connections += 1
            parser = FrameParser()
            try:
                async for data in response.content.iter_any():
                    for frame in parser.feed(data):
                        self._take(frame)
            except WireViolation as violation:
                self.violation = violation
                raise

    def _take(self, frame: Frame) -> None:
        if frame.retry is not None:
            self._retry_s = frame.retry / 1000
        if frame.event == "snapshot":
            self.tickets |= {ticket["key"]: ticket for ticket in frame.data["tickets"]}
        elif frame.event == "notice":
            self.notices.append(frame.data["code"])
        elif frame.event == "goodbye":
            self.goodbyes.append(frame.data["reason"])
        elif frame.event == "reset":
            self.resets.append(frame.data)
            self.began_after = None
            self.got.clear()
            self.tickets.clear()
        for event in frame.events:
            got = Got(event["id"], event["type"], event.get("match"))
            if not self._lose(got):
                self.got.append(got)
                self._keep(event)
        if frame.id is not None:
            if self._last_id is not None and not self.resets and seq_of(frame.id) < seq_of(self._last_id):
                raise WireViolation(f"{self.name}: position {frame.id} after {self._last_id}")
            self._last_id = frame.id
            if self.began_after is None:
                self.began_after = seq_of(frame.id) - (1 if frame.events else 0)

    def _keep(self, event: dict[str, Any]) -> None:
        if self.snapshot and (ticket := event["data"].get("ticket")) is not None:
            if event.get("match") == "leave" or event["type"] == "ticket.deleted":
                self.tickets.pop(ticket["key"], None)
            else:
                self.tickets[ticket["key"]] = ticket

    def check(self, log: Sequence[Logged]) -> None:
        """Raise NotExact unless it has got what the log holds for it. Transient events are not counted."""
        if self.violation is not None:
            raise self.violation
        assert self.began_after is not None, f"{self.name} has never been told a place"
        expected = due(log, self.query, self.began_after)
        check_exact(self.name, self.query, self.got, expected)
        if self.snapshot:
            assert self.tickets == _table(log, self.query), f"{self.name}: its board is not what the tickets are"

    def has_all(self, log: Sequence[Logged]) -> bool:
        """Whether the last event that is due has come; cheaper than `check`."""
        if self.began_after is None:
            return False
        for event in reversed(log):
            if event.seq <= self.began_after:
                break
            if matched(event, self.query) is not None:
                return bool(self.got) and self.got[-1].id == event.id
        return True


def _table(log: Sequence[Logged], query: Query) -> dict[str, dict[str, Any]]:
    """The tickets that a board with this filter shows at the end of the log."""
    # A state filter that all tickets pass tells, of events that no state is asked of, which is which.
    state = {"priority": "!nothing", **query}
    shown: dict[str, dict[str, Any]] = {}
    for event in log:
        if event.type.startswith("ticket.") and matched(event, state) in ("enter", "update"):
            shown[event.data["ticket"]["key"]] = event.data["ticket"]
        elif event.type.startswith("ticket."):
            shown.pop(event.data["ticket"]["key"], None)
    return shown


@contextlib.asynccontextmanager
async def following(followers: Sequence[Follower]) -> AsyncIterator[None]:
    """Let them follow until the block is left. Each has a connection of its own. Raises then what ended one of them."""
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        tasks = [asyncio.create_task(follower.run(session)) for follower in followers]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def all_have(followers: Sequence[Follower], log: Sequence[Logged], deadline_s: float = DEADLINE_S) -> None:
    """Wait until every follower has got the last event that is due, then check each. Raises NotExact."""
    waiting = list(followers)

    def arrived() -> bool:
        waiting[:] = [follower for follower in waiting if not follower.has_all(log)]
        return not waiting

    with contextlib.suppress(AssertionError):
        await until(arrived, "last event of every follower", deadline_s)
    for follower in followers:
        follower.check(log)
