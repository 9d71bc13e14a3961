"""Days in minutes: all services of a process on a clock that runs fast, and whether anything grows or is lost.

`python -m tests.taskhub.soak [--hours 72] [--seconds 120] [--database URL]` runs the long one; without a database it
takes an SQLite file of its own.
"""

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from statistics import median

import psutil
from sqlalchemy import func, select

from broadcaster.engine import Broadcaster
from broadcaster.event import EventDraft, Position
from broadcaster.filters import parse_filter
from broadcaster.options import BroadcastOptions
from broadcaster.relay import LocalRelay
from broadcaster.stream import Start, StreamRequest
from taskhub.publishing import EventPublisher
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.idempotency import LIFETIME
from taskhub.storage.migrate import migrate
from taskhub.storage.retention import Retention, RetentionKeeper
from taskhub.storage.schema import idempotency_keys, leases, workspaces
from taskhub.storage.times import to_text
from taskhub.storage.writer import Writer
from taskhub.tickets.errors import TicketError
from taskhub.tickets.inputs import NewClaim, NewComment, NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from taskhub.tickets.sweeper import LeaseSweeper
from tests.broadcaster.streams import MemoryOutlet, Verbatim
from tests.taskhub.world import ALICE, ills, rows

TICKETS = 40
"""So many are worked on; more would make the database grow, and what grows with it."""
WRITERS = 3
STREAMS = 8
FILTERS: tuple[list[tuple[str, str]], ...] = ([], [("type", "ticket.lease_expired")], [("status", "completed")])
SAMPLES = 30
RETENTION = Retention(days=1, min_events=50)


class FastClock:
    """A clock that began at noon and runs `rate` times as fast as others do."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._began = time.monotonic()
        self._stopped_at: float | None = None

    def stop(self) -> None:
        """It is this late for ever."""
        self._stopped_at = self.seconds()

    def seconds(self) -> float:
        if self._stopped_at is not None:
            return self._stopped_at
        return (time.monotonic() - self._began) * self._rate

    def now(self) -> datetime:
        return datetime(2026, 11, 20, 12, 0, tzinfo=UTC) + timedelta(seconds=self.seconds())


@dataclass
class Report:
    """What went on, and of the memory a sample now and then."""

    writes: int = 0
    refused: int = 0
    heard: int = 0
    connections: int = 0
    resets: int = 0
    leases_expired: int = 0
    keys_stored: int = 0
    objects: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def growth(self, samples: list[int]) -> float:
        """The last third beside the one before it; the first one is when caches fill."""
        third = len(samples) // 3
        return median(samples[-third:]) / median(samples[third : 2 * third])


class Soak:
    """All services of a process with writers and streams, for so many hours of the clock within so many seconds."""

    def __init__(self, database: Database, *, hours: float, seconds: float) -> None:
        self.report = Report()
        self.database = database
        self._seconds = seconds
        self.clock = clock = FastClock(hours * 3600 / seconds)
        self._dice = random.Random(72)
        self.log = SqlEventLog(database)
        options = BroadcastOptions(poll_interval_s=0.05, ring_events=50)
        self._broadcaster = Broadcaster(self.log, LocalRelay(), options, now=clock.now, clock=clock.seconds)
        self._writer = Writer(database, self._broadcaster.committed, clock=clock.now)
        self._tickets = TicketService(database, self._writer)
        self._publisher = EventPublisher(self._writer)
        self._ended = asyncio.Event()

    async def run(self) -> Report:
        """Raises AssertionError when a stream has a hole or a repeat, or is left behind."""
        for n in range(TICKETS):
            await self._tickets.create_ticket(ALICE, NewTicket(summary=f"Ticket {n}"))
        await self._broadcaster.start()
        sweeper = LeaseSweeper(self._expire_leases, every_s=0.05)
        keeper = RetentionKeeper(
            self.database, RETENTION, clock=self.clock.now, first_s=0.05, every_s=0.1, pause_s=0.001, chunk=50
        )
        async with sweeper, keeper, asyncio.TaskGroup() as tasks:
            for n in range(WRITERS):
                tasks.create_task(self._write(n))
            for n in range(STREAMS):
                tasks.create_task(self._listen(n))
            tasks.create_task(self._tick())
            tasks.create_task(self._measure())
            await asyncio.sleep(self._seconds)
            self._ended.set()
        # What expired while the last sweep went on would be taken for something that it has left.
        self.clock.stop()
        await self._expire_leases()
        await keeper.keep()
        await self._writer.close()
        assert self._broadcaster.statistics().connected_clients == 0
        await self._broadcaster.stop()
        return self.report

    async def _expire_leases(self) -> int:
        expired = await self._tickets.expire_leases()
        self.report.leases_expired += expired
        return expired

    async def _tick(self) -> None:
        """Heartbeats and ages: the broadcaster's own timer goes once in a real second."""
        while not self._ended.is_set():
            self._broadcaster.tick(self.clock.seconds())
            await asyncio.sleep(0.02)

    async def _measure(self) -> None:
        process = psutil.Process()
        gc.freeze()  # what was there before is not looked at, and does not hide what grows
        try:
            for _ in range(SAMPLES):
                await asyncio.sleep(self._seconds / (SAMPLES + 2))
                gc.collect()
                self.report.objects.append(len(gc.get_objects()))
                self.report.resident.append(process.memory_info().rss)
        finally:
            gc.unfreeze()

    # Writers

    async def _write(self, number: int) -> None:
        dice = random.Random(f"writer {number}")
        kinds: list[Callable[[str, str], Awaitable[object]]] = [self._change, self._comment, self._claim, self._publish]
        count = 0
        while not self._ended.is_set():
            count += 1
            try:
                await dice.choice(kinds)(f"TH-{dice.randint(1, TICKETS)}", f"{number}/{count}")
                self.report.writes += 1
            except TicketError:  # somebody else has the ticket, or it is done
                self.report.refused += 1
            await asyncio.sleep(dice.random() * 0.01)

    async def _change(self, ticket: str, key: str) -> None:
        self.report.keys_stored += 1
        status = self._dice.choice(("received", "completed", "verifying"))
        await self._tickets.update_ticket(ALICE, ticket, TicketChange(status=status, remarks=key), idempotency_key=key)

    async def _comment(self, ticket: str, key: str) -> None:
        await self._tickets.add_comment(ALICE, ticket, NewComment(comment=key))

    async def _claim(self, ticket: str, key: str) -> None:
        """Nobody gives a ticket back, so it is the sweep that does."""
        await self._tickets.claim_ticket(ALICE, ticket, NewClaim())

    async def _publish(self, ticket: str, key: str) -> None:
        draft = EventDraft("build.finished", "user:ci", "rest_api", b'{"key":"%s"}' % key.encode())
        await self._publisher.publish(ALICE, [draft] * 3, key)

    # Streams

    async def _listen(self, number: int) -> None:
        """A client that comes back with its last id, whenever its stream ends or its connection is lost."""
        dice = random.Random(f"stream {number}")
        query = FILTERS[number % len(FILTERS)]
        last_id, last_seq = "", 0
        while not self._ended.is_set():
            start: Start = Position.parse(last_id) if last_id else "now"
            request = StreamRequest(filter=parse_filter(query, Verbatim()), chunked=False, start=start)
            outlet = MemoryOutlet()
            outlet.subscriber = await self._broadcaster.admit("default", request)
            outlet.subscriber.start(outlet)
            self.report.connections += 1
            patience = self.clock.seconds() + dice.uniform(60, 3600)
            while not outlet.closed and self.clock.seconds() < patience and not self._ended.is_set():
                await asyncio.sleep(0.005)
            outlet.abort()
            while not outlet.subscriber.gone:
                await asyncio.sleep(0)
            last_seq = self._check(outlet, last_seq, whole=not query)
            last_id = outlet.parser.last_event_id or last_id
            # Some are away for so long that what they missed has expired.
            away = 200_000 if dice.random() < 0.02 else dice.uniform(0, 600)
            back = self.clock.seconds() + away
            while self.clock.seconds() < back and not self._ended.is_set():
                await asyncio.sleep(0.005)

    def _check(self, outlet: MemoryOutlet, last_seq: int, *, whole: bool) -> int:
        """What a connection has brought follows what came before it; the seq up to which the client has all."""
        for frame in outlet.frames:
            if frame.event == "reset":
                assert frame.data["reason"] == "expired", frame.data
                self.report.resets += 1
                last_seq = 0
            for event in frame.events:
                seq = Position.parse(event["id"]).seq
                assert seq == last_seq + 1 or (not whole and seq > last_seq) or last_seq == 0, (last_seq, event["id"])
                last_seq = seq
                self.report.heard += 1
            if frame.id is not None:
                seen = Position.parse(frame.id).seq
                assert seen >= last_seq
                last_seq = seen
        return last_seq


async def check(soak: Soak) -> None:
    """What must be so when it is over."""
    assert await ills(soak.database) == []
    found, now = soak.report, soak.clock.now()
    (workspace,) = await rows(soak.database, select(workspaces))
    assert workspace.oldest_seq > 1
    kept = workspace.head_seq - workspace.oldest_seq + 1
    assert kept >= RETENTION.min_events
    first = (await soak.log.read("default", workspace.oldest_seq - 1, 1))[0]
    if kept > RETENTION.min_events:
        assert first.time > to_text(now - timedelta(days=RETENTION.days, hours=1))
    overdue = select(func.count()).where(
        leases.c.holder.is_not(None), leases.c.expires_at < to_text(now - timedelta(hours=1))
    )
    assert (await rows(soak.database, overdue))[0][0] == 0
    ancient = select(func.count()).where(idempotency_keys.c.created_at < to_text(now - 2 * LIFETIME))
    assert (await rows(soak.database, ancient))[0][0] == 0
    for count in (found.writes, found.heard, found.connections, found.leases_expired, found.keys_stored):
        assert count, found


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def run(url: str, *, hours: float, seconds: float) -> Report:
    """A soak on a database of its own, checked."""
    async with opened(url) as database:
        soak = Soak(database, hours=hours, seconds=seconds)
        report = await soak.run()
        await check(soak)
    return report


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.taskhub.soak")
    parser.add_argument("--hours", type=float, default=72, help="of the services' clock")
    parser.add_argument("--seconds", type=float, default=120, help="that these take")
    parser.add_argument("--database", help="postgresql://… of an empty database; else an SQLite file")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        url = asked.database or f"sqlite:///{directory}/taskhub.db"
        migrate(url)
        found = asyncio.run(run(url, hours=asked.hours, seconds=asked.seconds))
    objects, resident = found.growth(found.objects), found.growth(found.resident)
    sys.stdout.write(
        f"{asked.hours:g} hours in {asked.seconds:g} s: {found.writes} writes, {found.refused} refused, "
        f"{found.heard} events heard in {found.connections} connections, {found.resets} resets, "
        f"{found.leases_expired} leases expired\n"
        f"objects {objects - 1:+.1%}, resident memory {resident - 1:+.1%} from the middle third to the last\n"
    )
    sys.exit(0 if objects < 1.05 and resident < 1.1 else 1)


if __name__ == "__main__":
    main()
