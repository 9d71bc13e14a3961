"""Many writers in two processes: the log is dense, in commit order, and agrees with the tickets."""

import asyncio
import itertools
from collections.abc import AsyncIterator

import asyncpg
import orjson
import pytest
from sqlalchemy import select

from broadcaster.event import Event, EventDraft
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.schema import events, tickets
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from tests.forked import piped
from tests.taskhub.storage.writers import write_at_random
from tests.taskhub.world import ALICE, Gate, World, rows, until

WRITES_EACH = 6


@pytest.fixture
async def elsewhere(url: str) -> AsyncIterator[Writer]:
    """The writer of another instance on the same database."""
    database = Database(url, busy_timeout_s=60.0)
    await database.open()
    writer = Writer(database, lambda workspace, events: None)
    yield writer
    await writer.close()
    await database.close()


async def follow(log: SqlEventLog, done: asyncio.Event) -> list[Event]:
    """What a reader sees that only ever asks for what comes after the last it saw."""
    seen: list[Event] = []
    while True:
        finished = done.is_set()
        page = await log.read("default", seen[-1].seq if seen else 0, 50)
        seen += page
        if finished and not page:
            return seen


async def test_writers_in_two_processes_make_one_dense_log(world: World, url: str) -> None:
    for _ in range(3):
        await world.create()
    done = asyncio.Event()
    readers = [asyncio.create_task(follow(SqlEventLog(world.database), done)) for _ in range(3)]
    writers = ("-m", "tests.taskhub.storage.writers", url, "2", str(WRITES_EACH))
    async with piped(*writers) as other:
        here = await write_at_random(url, 1, WRITES_EACH)
        output, _ = await other.communicate()
    done.set()
    sequences = [await reader for reader in readers]

    assert other.returncode == 0
    assert here.committed > WRITES_EACH
    assert here.groups < here.committed, "no group had more than one write"
    assert set(here.failed) == {"ChangedMind", "TicketNotFound", "VersionConflict"}
    assert int(output) > WRITES_EACH
    head = (await world.log.bounds("default")).head
    for sequence in sequences:
        assert [event.seq for event in sequence] == list(range(1, head + 1))
        assert [event.encoded for event in sequence] == [event.encoded for event in sequences[0]]
    times = [event.time for event in sequences[0]]
    assert times == sorted(times)
    await assert_tickets_agree_with_the_log(world.database, sequences[0])


async def assert_tickets_agree_with_the_log(database: Database, log: list[Event]) -> None:
    stored = await rows(database, select(tickets.c.no, tickets.c.version).order_by(tickets.c.no))
    nonces = await rows(database, select(events.c.nonce))
    assert [row.no for row in stored] == list(range(1, len(stored) + 1))
    assert len(set(nonces)) == len(log)
    for row in stored:
        versions = [event.ticket_version for event in log if event.subject == f"TH-{row.no}"]
        assert versions == list(range(1, row.version + 1))
    states = [orjson.loads(event.data)["ticket"] for event in log if event.type.startswith("ticket.")]
    assert all(state["key"].startswith("TH-") for state in states)
    created = [event.subject for event in log if event.type == "ticket.created"]
    assert created == [f"TH-{n}" for n in range(1, len(stored) + 1)]


async def test_a_later_place_is_never_visible_before_an_earlier_one(world: World, elsewhere: Writer) -> None:
    """With numbers from a sequence the second writer could commit first, and a reader would pass the first."""
    gate = Gate()
    order: list[str] = []

    def slow(transaction: Transaction) -> None:
        transaction.emit(EventDraft("build.finished", "user:slow", "system", b"{}"))
        gate.pass_through()

    def quick(transaction: Transaction) -> None:
        order.append("the quick one has its place")
        transaction.emit(EventDraft("build.finished", "user:quick", "system", b"{}"))

    slow_one = asyncio.create_task(world.writer.run("default", slow))
    await gate.reached()
    quick_one = asyncio.create_task(elsewhere.run("default", quick))
    await until(lambda: elsewhere.pending == 1)
    assert list(await world.log.read("default", 0, 10)) == []
    assert order == []
    gate.open()
    await asyncio.gather(slow_one, quick_one)

    assert [event.actor for event in await world.log.read("default", 0, 10)] == ["user:slow", "user:quick"]


async def test_the_numbers_of_a_sequence_would_lose_what_commits_late(postgres_url: str) -> None:
    """Why the log counts in the workspace's row: the same readers lose events of the same writers without it."""
    connections = [await asyncpg.connect(postgres_url) for _ in range(3)]
    slow, quick, reader = connections
    await slow.execute("CREATE TABLE naive (seq bigint GENERATED ALWAYS AS IDENTITY, actor text)")
    seen: list[str] = []
    last = 0

    async def follow() -> None:
        nonlocal last
        for row in await reader.fetch("SELECT seq, actor FROM naive WHERE seq > $1 ORDER BY seq", last):
            seen.append(row["actor"])
            last = row["seq"]

    open_transaction = slow.transaction()
    await open_transaction.start()
    await slow.execute("INSERT INTO naive (actor) VALUES ('slow')")
    await quick.execute("INSERT INTO naive (actor) VALUES ('quick')")
    await follow()
    await open_transaction.commit()
    await follow()
    stored = await reader.fetch("SELECT actor FROM naive ORDER BY seq")
    for connection in connections:
        await connection.close()

    assert [row["actor"] for row in stored] == ["slow", "quick"]
    assert seen == ["quick"]


async def test_twenty_creates_with_one_key_make_one_ticket(world: World) -> None:
    answers = await asyncio.gather(
        *(world.tickets.create_ticket(ALICE, NewTicket(summary="once"), idempotency_key="only-one") for _ in range(20))
    )

    assert {answer.key for answer in answers} == {"TH-1"}
    assert [answer.replayed for answer in answers].count(False) == 1
    assert await world.keys() == ["TH-1"]
    assert len(world.heard) == 1


async def test_parents_set_at_once_on_different_tickets_make_no_circle(world: World) -> None:
    for first in range(1, 21, 4):
        a, b, c, d = (f"TH-{first + n}" for n in range(4))
        for _ in range(4):
            await world.create()
        await world.update(b, parent=c)
        await world.update(d, parent=a)

        # Either alone is fine; together they close the circle a, b, c, d, and they have no ticket in common.
        outcomes = await asyncio.gather(world.update(a, parent=b), world.update(c, parent=d), return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["InvalidInput", "Written"]


async def test_writers_that_lock_the_same_tickets_do_not_lock_each_other_out(world: World) -> None:
    for n in range(6):
        await world.create(f"ticket {n}")

    results = await asyncio.gather(
        *(world.update(f"TH-{a}", parent=f"TH-{b}") for a, b in itertools.permutations(range(1, 7), 2)),
        return_exceptions=True,
    )

    parents = {f"TH-{n}": (await world.ticket(f"TH-{n}")).parent for n in range(1, 7)}
    for key in parents:
        line, current = [], parents[key]
        while current is not None:
            assert current not in line, f"a circle of parents: {parents}"
            line.append(current)
            current = parents[current]
    assert {type(result).__name__ for result in results} <= {"Written", "InvalidInput"}
    assert any(parents.values())


async def test_instances_that_change_the_same_tickets_in_opposite_orders_do_not_lock_each_other_out(
    world: World, elsewhere: Writer
) -> None:
    """A group holds what its commands have locked until it is committed: an order within each command is not enough."""
    for n in range(8):
        await world.create(f"ticket {n}")
    keys = [f"TH-{n}" for n in range(1, 9)]
    there = TicketService(elsewhere.database, elsewhere)

    async def change(service: TicketService, keys: list[str], n: int) -> None:
        new = TicketChange(remarks=f"{n} {id(service)}")
        await asyncio.gather(*(service.update_ticket(ALICE, key, new) for key in keys))

    await asyncio.gather(
        *(change(world.tickets, keys, n) for n in range(5)), *(change(there, keys[::-1], n) for n in range(5))
    )

    assert [(await world.ticket(key)).version for key in keys] == [11] * 8
    log = await world.log.read("default", 0, 1000)
    assert [event.seq for event in log] == list(range(1, 8 * 11 + 1))
