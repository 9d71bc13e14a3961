"""A server that dies at the worst moment: every write has one effect, and every subscriber gets every event once."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import psutil
import pytest
from sqlalchemy import select

from broadcaster.event import EventDraft
from taskhub.publishing import EventPublisher
from taskhub.storage.database import Database
from taskhub.storage.migrate import migrate
from taskhub.storage.schema import workspaces
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket
from taskhub.tickets.service import TicketService
from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import Answer, Api, api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer
from tests.taskhub.whole import assert_whole
from tests.taskhub.world import ALICE, rows

KILLED = -signal.SIGKILL


@pytest.fixture(params=["sqlite", "postgresql"])
def hub(request: pytest.FixtureRequest, make_hub: MakeHub) -> TaskHubProcess:
    """A server with an empty database of its own, of each kind in turn; not started yet."""
    if request.param == "sqlite":
        return make_hub()
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return make_hub(environment={"TASKHUB_DATABASE_URL": postgres.create_database()})


@contextlib.asynccontextmanager
async def database_of(hub: TaskHubProcess, *, new: bool = False) -> AsyncIterator[Database]:
    """The server's database, behind its back; `new`: there is none yet."""
    url = hub.environment.get("TASKHUB_DATABASE_URL", f"sqlite:///{hub.data_dir / 'taskhub.db'}")
    if new:
        await asyncio.to_thread(migrate, url)
    database = Database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def check(hub: TaskHubProcess) -> None:
    async with database_of(hub) as database:
        await assert_whole(database)


async def start_with(hub: TaskHubProcess, **settings: str) -> None:
    """Start the server, which has died or was never started, with these settings beside its own."""
    hub.configure(**settings)
    await hub.start()


async def write(client: Api, key: str) -> Answer:
    """One write that changes what two tables hold, under an idempotency key."""
    return await client.request(
        "POST", "/api/v1/tickets", json={"summary": f"Ticket {key}"}, headers={"Idempotency-Key": key}
    )


async def no_answer(client: Api, key: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await write(client, key)


WRITING = ["after_ticket", "after_insert", "after_counter", "after_commit", "after_publish"]


async def test_a_write_during_which_the_server_dies_has_one_effect_and_is_heard_once(hub: TaskHubProcess) -> None:
    """Each start has the failpoint of the next death: the write that is repeated passes it, the next one dies there."""
    heard: list[dict[str, Any]] = []
    last_id, unanswered = "", "first"
    for point in [*WRITING, ""]:
        await start_with(hub, failpoints=f"write.{point}=kill@2" if point else "")
        resuming = {"Last-Event-ID": last_id} if last_id else {}
        async with api(hub.url) as client, record(hub.url, {"since": "earliest"}, headers=resuming) as stream:
            answer = await write(client, unanswered)
            assert answer.status == 201, answer
            assert answer.json["replayed"] is (unanswered in ("after_commit", "after_publish"))
            if answer.json["event_id"] not in {event["id"] for event in heard}:
                await stream.wait_id(answer.json["event_id"])
            if point:
                await no_answer(client, point)
                await stream.wait_end()
            assert stream.frames[0].data["resume"] == "complete"
            heard += stream.events
            last_id = stream.last_event_id or ""
        if point:
            assert await hub.wait_exit() == KILLED
        await check(hub)
        unanswered = point

    async with api(hub.url) as client:
        log, tickets = await client.log(), await client.all_tickets()
    assert [event["id"] for event in heard] == [event["id"] for event in log]
    assert [event["subject"] for event in log] == [f"TH-{n}" for n in range(1, 7)]
    summaries = [tickets[event["subject"]]["summary"] for event in log]
    assert summaries == [f"Ticket {key}" for key in ["first", *WRITING]]


async def test_an_answer_that_is_cut_off_after_the_commit_is_the_same_when_asked_again(hub: TaskHubProcess) -> None:
    """The server is stopped with the answer in its hand, and its client leaves."""
    await start_with(hub, failpoints="write.after_publish=pause@1")
    async with record(hub.url) as stream:
        await stream.wait_ready()
        async with api(hub.url) as client:
            cut_off = asyncio.create_task(write(client, "k"))
            await until(lambda: psutil.Process(hub.pid).status() == psutil.STATUS_STOPPED, "the failpoint")
            cut_off.cancel()
            await asyncio.wait([cut_off])
        hub.signal(signal.SIGCONT)
        async with api(hub.url) as client:
            again, once_more = await write(client, "k"), await write(client, "k")
            other = await client.create("another")
        await stream.wait_id(other["event_id"])

        assert stream.ids == [again.json["event_id"], other["event_id"]]
    assert cut_off.cancelled()
    assert (again.status, again.json["key"], again.json["version"], again.json["replayed"]) == (201, "TH-1", 1, True)
    assert once_more.json == again.json
    await hub.stop()
    await check(hub)


async def test_retention_that_dies_between_moving_and_deleting_is_done_by_the_next_start(hub: TaskHubProcess) -> None:
    async with database_of(hub, new=True) as database:
        ids = await long_ago(database)
    hub.configure(retention_min_events="20", failpoints="retention.chunk=kill@2")
    hub.launch()
    assert await hub.wait_exit() == KILLED
    await check(hub)
    assert await beginning(hub) == 501, "the first chunk is done, and nothing of the second"

    (hub.data_dir / "server.json").unlink()  # with the port of the first start
    await start_with(hub, failpoints="")
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
    await hub.stop()
    await check(hub)


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
