"""Example tickets, and the hand that changes them."""

import asyncio

import pytest

from taskhub.demo import WORKER, Demo, demo_caller, fill
from taskhub.tickets.inputs import TicketQuery
from tests.taskhub.world import ALICE, DEADLINE_S, World, until


async def test_an_empty_database_is_filled_once(world: World) -> None:
    assert await fill(world.database, world.tickets)
    head = (await world.log.bounds("default")).head
    assert not await fill(world.database, world.tickets)

    assert (await world.log.bounds("default")).head == head
    page = await world.tickets.list_tickets(ALICE, TicketQuery(show_completed=True, limit=100))
    assert len(page.tickets) == 12
    assert {user.id for user in await world.tickets.users(ALICE)} == {"alice", "bob", "triage_bot"}
    assert len(await world.tickets.accounts(ALICE)) == 2
    assert len(await world.tickets.response_categories(ALICE)) == 4
    assert {ticket.phase for ticket in page.tickets} >= {"todo", "active", "waiting", "review", "done"}
    assert any("請求書" in ticket.summary for ticket in page.tickets)


async def test_a_database_with_tickets_is_left_alone(world: World) -> None:
    await world.create()

    assert not await fill(world.database, world.tickets)
    assert await world.tickets.users(ALICE) == []
    assert await world.keys() == ["TH-1"]


async def test_the_demo_changes_tickets_while_somebody_watches(world: World) -> None:
    watched = False
    demo = Demo(world.database, world.tickets, lambda: watched, every_s=0.001, seed=1)
    await demo.start()
    filled = (await world.log.bounds("default")).head
    watched = True
    await until(lambda: {event.type for event in world.heard if event.actor == "agent:demo"} >= CHANGES)
    await demo.stop()
    # A change under way is the writer's, and a read that was cut off the database's to end. Then nobody is left.
    await world.database.units_ended()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    assert filled > 12


CHANGES = {"ticket.status_changed", "ticket.commented", "ticket.assigned"}
WORK = {"ticket.claimed", "ticket.progress", "ticket.released"}


async def test_nothing_changes_while_nobody_watches(world: World) -> None:
    asked = asyncio.Event()

    def watched() -> bool:
        asked.set()
        return False

    demo = Demo(world.database, world.tickets, watched, every_s=0.001)
    await demo.start()
    head = (await world.log.bounds("default")).head
    async with asyncio.timeout(DEADLINE_S):
        await asked.wait()
    await demo.stop()

    assert (await world.log.bounds("default")).head == head


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_every_change_the_demo_makes_is_allowed(world: World) -> None:
    demo = Demo(world.database, world.tickets, lambda: True, seed=7)
    await demo.change_one()
    await fill(world.database, world.tickets)
    filled = len(world.heard)
    for _ in range(80):
        await demo.change_one()

    made = world.heard[filled:]
    assert {event.actor for event in made} == {demo_caller().principal.actor, WORKER}
    assert {event.type for event in made if event.actor == WORKER} >= WORK
