"""A server that dies while it deletes what has expired."""

import asyncio
import signal
from datetime import UTC, datetime

from sqlalchemy import select

from broadcaster.event import EventDraft
from taskhub.publishing import EventPublisher
from taskhub.storage.database import Database
from taskhub.storage.migrate import migrate
from taskhub.storage.schema import workspaces
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket
from taskhub.tickets.service import TicketService
from tests.e2e.harness.clients import api
from tests.e2e.harness.databases import check_sound, database_of, database_url
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until
from tests.taskhub.world import ALICE, rows

KILLED = -signal.SIGKILL


async def test_retention_that_dies_between_moving_and_deleting_is_done_by_the_next_start(
    idle_hub: TaskHubProcess,
) -> None:
    hub = idle_hub
    await asyncio.to_thread(migrate, database_url(hub))
    async with database_of(hub) as database:
        ids = await long_ago(database)
    hub.configure(retention_min_events="20", failpoints="retention.chunk=kill@2")
    hub.launch()
    assert await hub.wait_exit() == KILLED
    await check_sound(hub)
    assert await beginning(hub) == 501, "the first chunk is done, and nothing of the second"

    (hub.data_dir / "server.json").unlink()  # with the port of the first start
    hub.configure(failpoints="")
    await hub.start()
    await until(lambda: begins_at(hub, 582), "the rest of retention")
    async with api(hub.url) as client:
        kept = await client.log()
        gone = await client.request("GET", "/api/v1/events", params={"after": ids[0]})
        ticket = await client.get("/api/v1/tickets/TH-1?include=history")
    async with record(hub.url, headers={"Last-Event-ID": ids[-11]}) as stream:
        await stream.wait_ready()
        assert (stream.frames[0].data["resume"], stream.ids) == ("complete", ids[-10:])
    async with record(hub.url, headers={"Last-Event-ID": ids[0]}) as stream:
        reset = await stream.wait_frame("reset")
        assert (reset.data["reason"], reset.data["position"]) == ("expired", ids[-1])
    assert [event["id"] for event in kept] == ids[-20:]
    assert (gone.status, gone.json["reason"]) == (410, "expired")
    assert [entry["event_id"] for entry in ticket["history"]] == [ids[0]]
    await check_sound(hub)


async def long_ago(database: Database) -> list[str]:
    """A ticket and 600 events without one, written years ago; their ids."""
    written: list[str] = []
    writer = Writer(
        database,
        lambda workspace, events: written.extend(event.id for event in events),
        clock=lambda: datetime(2020, 1, 1, tzinfo=UTC),
    )
    await TicketService(database, writer).create_ticket(ALICE, NewTicket(summary="Printer"))
    draft = EventDraft("build.finished", "user:ci", "rest_api", b"{}")
    for _ in range(2):
        await EventPublisher(writer).publish(ALICE, [draft] * 300)
    await writer.close()
    return written


async def beginning(hub: TaskHubProcess) -> int:
    async with database_of(hub) as database:
        (row,) = await rows(database, select(workspaces.c.oldest_seq))
        return int(row.oldest_seq)


async def begins_at(hub: TaskHubProcess, oldest: int) -> bool:
    return await beginning(hub) == oldest
