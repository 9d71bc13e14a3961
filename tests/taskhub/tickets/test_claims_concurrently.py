"""Many claimers in several processes: nobody gets what another has, and what a dead process had comes back."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select

from taskhub.storage.schema import events, leases
from taskhub.tickets.errors import LeaseHeld, LeaseLost
from taskhub.tickets.inputs import NewClaim, TicketChange, TicketQuery
from taskhub.tickets.sweeper import LeaseSweeper
from tests.forked import PipedPython, piped
from tests.taskhub.world import ALICE, World, caller, rows, until

PROCESSES, CLAIMERS = 4, 16
MANY, SOME = 400, 50

Start = Callable[[str, int], Awaitable[PipedPython]]


@pytest.fixture
async def start(world: World, url: str) -> AsyncIterator[Start]:
    """Start a process that waits for its sign to claim; none outlives the test."""
    async with AsyncExitStack() as stack:

        async def start(seed: str, tickets: int) -> PipedPython:
            command = ("-m", "tests.taskhub.tickets.claimers", url, seed, str(CLAIMERS), str(tickets))
            process = await stack.enter_async_context(piped(*command))
            assert await process.stdout.readline() == b"ready\n"
            return process

        yield start


async def claimed_by(process: PipedPython) -> list[tuple[str, int]]:
    """What a process got, once it found nothing more."""
    process.stdin.write(b"\n")
    return [(key, token) for key, token in json.loads(await process.stdout.readline())]


async def create_many(world: World, count: int) -> None:
    await asyncio.gather(*(world.create(f"{n}", priority=["low", "high"][n % 2]) for n in range(count)))


async def test_no_ticket_is_claimed_twice_and_none_is_left(world: World, start: Start) -> None:
    await create_many(world, MANY)
    processes = await asyncio.gather(*(start(f"{n}", MANY) for n in range(PROCESSES)))
    got = [claim for some in await asyncio.gather(*map(claimed_by, processes)) for claim in some]
    page = await world.tickets.list_tickets(ALICE, TicketQuery(ready=True))
    of_type = (
        select(events.c.type, func.count().label("events"))
        .where(events.c.type.like("ticket.%"))
        .group_by(events.c.type)
    )
    stored = await rows(world.database, select(leases.c.token, leases.c.holder))

    assert sorted(got) == sorted((f"TH-{n}", 1) for n in range(1, MANY + 1))
    assert page.tickets == []
    assert {(row.type, row.events) for row in await rows(world.database, of_type)} == {
        ("ticket.created", MANY), ("ticket.claimed", MANY),
    }  # fmt: skip
    assert [(row.token, row.holder is None) for row in stored] == [(1, False)] * MANY


async def test_what_a_killed_process_had_comes_back_and_its_tokens_count_no_more(world: World, start: Start) -> None:
    world.now = datetime.now(UTC)  # the processes go by that clock
    await create_many(world, SOME)
    process = await start("0", SOME)
    got = await claimed_by(process)
    process.kill()
    await process.wait()
    with pytest.raises(LeaseHeld):
        await world.tickets.claim_ticket(ALICE, "TH-1", NewClaim())
    world.now += timedelta(days=2)

    async def is_ready() -> bool:
        page = await world.tickets.list_tickets(ALICE, TicketQuery(ready=True, limit=1))
        return bool(page.tickets) and sum(event.type == "ticket.lease_expired" for event in world.heard) == SOME

    async with LeaseSweeper(world.tickets.expire_leases, every_s=0.01):
        await until(is_ready)

    assert len(got) == SOME
    for key, token in got[:10]:
        zombie: dict[str, Any] = {"lease_token": token}
        with pytest.raises(LeaseLost):
            await world.tickets.update_ticket(caller("agent:0"), key, TicketChange(status="completed"), **zombie)
    again = await world.tickets.claim_ticket(ALICE, "TH-1", NewClaim())
    assert again.lease_token == 2
