"""Callers that go away in the middle of a read."""

import asyncio
import gc
from typing import Any

from broadcaster.filters import EVERYTHING
from taskhub.storage.event_log import SqlEventLog
from taskhub.tickets.inputs import TicketQuery
from tests.taskhub.world import ALICE, World


async def test_reads_whose_callers_are_gone_leave_connections_whole_and_nothing_unfinished(world: World) -> None:
    for n in range(20):
        await world.create(f"ticket {n}")
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    log = SqlEventLog(world.database)
    reads = (
        lambda: world.tickets.list_tickets(ALICE, TicketQuery()),
        lambda: world.tickets.get_ticket(ALICE, "TH-1", include=["history"]),
        lambda: world.tickets.snapshot("default", EVERYTHING),
        lambda: world.tickets.statuses(ALICE),
        lambda: log.read("default", 0, 100),
    )

    for step in range(25):
        tasks = [asyncio.ensure_future(read()) for read in reads for _ in range(8)]
        await asyncio.sleep(step * 0.0015)  # cut off ever later: while connecting, in a statement, while closing
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await world.database.units_ended()
    gc.collect()

    assert complaints == []
    assert len((await world.tickets.list_tickets(ALICE, TicketQuery())).tickets) == 20
