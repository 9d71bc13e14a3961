"""Retention: the log begins later and loses what is about no ticket; tickets lose nothing, and readers are told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import select

from broadcaster.engine import Broadcaster
from broadcaster.errors import CannotContinue, PositionExpired
from broadcaster.event import Event, EventDraft, Position
from broadcaster.filters import EVERYTHING, parse_filter
from broadcaster.options import BroadcastOptions
from broadcaster.pages import LogPages
from broadcaster.polling import Poller
from broadcaster.relay import LocalRelay
from broadcaster.stream import Start, StreamRequest
from broadcaster.turns import Turns
from taskhub import app as composition
from taskhub.publishing import EventPublisher
from taskhub.settings.model import Settings
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.retention import Retention, RetentionKeeper
from taskhub.storage.schema import events, workspaces
from taskhub.storage.seeds import add_workspace
from taskhub.tickets.errors import InvalidInput, StorageBusy
from taskhub.tickets.inputs import BoardQuery, BulkUpdate, NewClaim, NewComment, UndoBatch
from taskhub.tickets.model import Include
from tests.broadcaster.streams import MemoryOutlet, Verbatim
from tests.taskhub.world import ALICE, World, ills, rows, until


def keeper(
    world: World, *, days: int = 90, min_events: int = 0, chunk: int = 3, pause_s: float = 0.0, **options: Any
) -> RetentionKeeper:
    retention = Retention(days, min_events)
    return RetentionKeeper(world.database, retention, clock=lambda: world.now, chunk=chunk, pause_s=pause_s, **options)


async def publish(world: World, count: int) -> list[Event]:
    drafts = [EventDraft("build.finished", "user:ci", "rest_api", b"{}", subject=f"repo/{n}") for n in range(count)]
    return list((await EventPublisher(world.writer).publish(ALICE, drafts)).events)


async def stored(database: Database) -> list[tuple[int, str]]:
    statement = select(events.c.seq, events.c.type).where(events.c.workspace_id == "default").order_by(events.c.seq)
    return [(row.seq, row.type) for row in await rows(database, statement)]


async def bounds(world: World) -> tuple[int, int]:
    found = await world.log.bounds("default")
    return found.oldest, found.head


async def test_what_has_expired_can_no_longer_be_read_and_is_deleted_unless_a_ticket_has_it(world: World) -> None:
    await world.create()
    await publish(world, 2)
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="hot"))
    await publish(world, 2)
    world.tick(days=90, seconds=-1)
    await publish(world, 2)
    world.tick(seconds=1)

    assert await keeper(world).keep() == 6
    assert await bounds(world) == (7, 8)
    assert await stored(world.database) == [
        (1, "ticket.created"), (4, "ticket.commented"), (7, "build.finished"), (8, "build.finished"),
    ]  # fmt: skip
    with pytest.raises(PositionExpired):
        await world.log.read("default", 5, 10)
    assert [event.seq for event in await world.log.read("default", 6, 10)] == [7, 8]
    assert await keeper(world).keep() == 0


@pytest.mark.parametrize(
    ("days", "min_events", "oldest"), [(90, 0, 10), (90, 1, 10), (90, 4, 7), (90, 10, 1), (90, 100, 1), (0, 0, 1)]
)
async def test_the_newest_stay_however_old_they_are(world: World, days: int, min_events: int, oldest: int) -> None:
    await publish(world, 10)
    world.tick(days=1000)
    async with keeper(world, days=days, min_events=min_events, first_s=0.001, every_s=0.001):
        await until(lambda: begins_at(world, oldest))

    await keeper(world, days=days, min_events=min_events).keep()
    assert await bounds(world) == (oldest, 10)
    assert [seq for seq, _ in await stored(world.database)] == list(range(oldest, 11))


async def begins_at(world: World, oldest: int) -> bool:
    return (await bounds(world))[0] == oldest


async def test_each_workspace_has_its_own_beginning(world: World) -> None:
    await world.database.write(partial(add_workspace, id="other", key_prefix="OT", name="Other"))
    await publish(world, 4)
    world.tick(days=100)

    await keeper(world, min_events=2).keep()
    found = {row.id: row.oldest_seq for row in await rows(world.database, select(workspaces))}
    assert found == {"default": 3, "other": 1}


async def test_between_any_two_chunks_others_write_and_find_the_log_whole(world: World) -> None:
    await publish(world, 60)
    world.tick(days=100)
    begins: set[int] = set()
    cutting = asyncio.create_task(keeper(world, min_events=5, chunk=2, pause_s=0.01).keep())
    while not cutting.done():
        await publish(world, 1)
        assert await ills(world.database) == []
        begins.add((await bounds(world))[0])
    await cutting

    assert len(begins) > 3, "nobody got in between"


async def test_several_processes_cut_off_one_log_together(world: World, url: str) -> None:
    await publish(world, 60)
    world.tick(days=100)
    other = Database(url)
    await other.open()
    there = RetentionKeeper(other, Retention(90, 7), clock=lambda: world.now, chunk=3, pause_s=0.001)
    cut = await asyncio.gather(keeper(world, min_events=7).keep(), there.keep())
    await other.close()

    assert sum(cut) == 53
    assert [seq for seq, _ in await stored(world.database)] == list(range(54, 61))


@pytest.fixture
async def old(world: World) -> World:
    """Tickets with a past, all of which lies before the beginning of the log."""
    await world.add("users", "Bob")
    for summary in ("Printer", "Phone", "Pager"):
        await world.create(summary)
    await publish(world, 2)
    return world


async def forget(world: World) -> None:
    """Let everything expire, but for one event that is the newest."""
    world.tick(days=100)
    await publish(world, 1)
    await keeper(world).keep()
    begin, head = await bounds(world)
    assert begin == head
    assert all(kind.startswith("ticket.") for _, kind in (await stored(world.database))[:-1])


async def test_tickets_keep_their_history_and_their_past(old: World) -> None:
    """Whatever can be asked of a ticket is answered as if nothing had been deleted."""
    world = old
    moments: list[str] = []

    async def pass_time(*ids: str | None) -> None:
        moments.extend([world.now.isoformat(), *(found for found in ids if found)])
        world.tick(minutes=1)
        await publish(world, 3)
        moments.append((await publish(world, 1))[0].id)
        world.tick(minutes=1)

    await pass_time()
    await pass_time((await world.update("TH-1", summary="Printer is on fire", labels=["hot"])).event_id)
    await world.tickets.claim_ticket(ALICE, "TH-2", NewClaim())
    await pass_time()
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="I smell it"))
    await pass_time((await world.update("TH-1", status="completed")).event_id)
    await pass_time((await world.tickets.delete_ticket(ALICE, "TH-3")).event_id)

    async def told(moment: str | None) -> Any:
        include: tuple[Include, ...] = ("history", "comments")
        one = await world.tickets.get_ticket(ALICE, "TH-1", include=include, as_of=moment)
        board = await world.tickets.get_board(ALICE, BoardQuery(as_of=moment))
        # The position of a time is that of the last event before it that is there.
        return one, replace(board, position=""), sum(len(column.tickets) for column in board.columns)

    before = [await told(moment) for moment in moments]
    now = await world.tickets.get_ticket(ALICE, "TH-1", include=("history", "comments"))
    await forget(world)
    after = [await told(moment) for moment in moments]
    then = await world.tickets.get_ticket(ALICE, "TH-1", include=("history", "comments"))

    assert after == before
    assert then == now
    assert {count for _, _, count in before} == {2, 3}
    with pytest.raises(InvalidInput, match="there is no event"):
        await told("k7q2m4xa-4")


async def test_a_batch_of_long_ago_can_be_looked_at_and_undone(old: World) -> None:
    world = old
    changes = [{"ticket_id": "TH-1", "priority": "high"}, {"ticket_id": "TH-2", "status": "completed"}]
    made = await world.tickets.update_tickets(ALICE, BulkUpdate.model_validate({"items": changes}))
    assert made.batch_id is not None
    batch = await world.tickets.batch(ALICE, made.batch_id)
    await forget(world)

    assert await world.tickets.batch(ALICE, made.batch_id) == batch
    await world.tickets.undo_batch(ALICE, made.batch_id, UndoBatch())
    assert ((await world.ticket("TH-1")).priority, (await world.ticket("TH-2")).phase) == ("none", "todo")


async def test_comments_and_leases_count_on_from_where_they_were(old: World) -> None:
    world = old
    first = await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="before"))
    await forget(world)
    second = await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="after"))

    detail = await world.tickets.get_ticket(ALICE, "TH-1", include=["comments"])
    assert detail.comments is not None
    assert [comment.id for comment in detail.comments] == [first.comment_id, second.comment_id]
    assert (await world.log.bounds("default")).head == int(second.comment_id or "")


async def test_a_time_before_the_beginning_is_the_beginning(old: World) -> None:
    world = old
    long_ago = world.now
    await forget(world)
    begin, head = await bounds(world)

    assert await world.log.seq_at("default", long_ago) == begin - 1
    assert await world.log.seq_at("default", world.now) == head
    poller = Poller(world.log, never, lambda: False)
    for start in (long_ago, "earliest"):
        polled = await poller.poll("default", start, EVERYTHING, limit=10, wait_s=0)
        assert [b"build.finished" in event for event in polled.events] == [True]


async def never(workspace: str, seq: int, wait_s: float) -> bool:
    return False


class OvertakenLog(SqlEventLog):
    """Retention moves the beginning between a look at the log's bounds and the first reading."""

    def __init__(self, world: World) -> None:
        super().__init__(world.database)
        self._world = world
        self.overtaken = False

    async def read(self, workspace: str, after: int, limit: int) -> Any:
        if not self.overtaken:
            self.overtaken = True
            await keeper(self._world, min_events=2).keep()
        return await super().read(workspace, after, limit)


async def test_a_poll_from_the_earliest_is_not_refused_when_retention_moves_that(world: World) -> None:
    sent = await publish(world, 6)
    world.tick(days=100)
    polled = await Poller(OvertakenLog(world), never, lambda: False).poll(
        "default", "earliest", EVERYTHING, limit=10, wait_s=0
    )
    assert len(polled.events) == 2

    world.tick(days=100)
    await publish(world, 2)
    poller = Poller(OvertakenLog(world), never, lambda: False)
    with pytest.raises(CannotContinue) as refused:
        await poller.poll("default", Position.parse(sent[4].id), EVERYTHING, limit=10, wait_s=0)
    assert refused.value.reason == "expired"


async def test_a_page_whose_beginning_expires_while_it_is_read_has_its_rest(world: World) -> None:
    sent = await publish(world, 8)
    world.tick(days=100)
    turns = Turns(asyncio.get_running_loop().call_soon)
    pages = LogPages("default", OvertakenLog(world), sent[0].epoch, turns)

    assert [event.seq for event in await pages.after(6)] == [7, 8]
    with pytest.raises(PositionExpired):
        await pages.after(5)
    await pages.stop()


async def test_reading_a_log_that_is_being_cut_off_gives_a_whole_end_or_says_that_it_expired(world: World) -> None:
    """Never a hole: whatever chunk comes between, a page begins right after the position that was asked for."""
    await publish(world, 200)
    for _ in range(3):
        await world.create()
    world.tick(days=100)
    task = asyncio.create_task(keeper(world, min_events=10, chunk=4).keep())
    read = 0
    while not task.done():
        begin, head = await bounds(world)
        for after in (begin - 1, begin + 3, begin + 7):
            try:
                page = await world.log.read("default", after, 500)
            except PositionExpired:
                begin, _ = await bounds(world)
                assert begin > after + 1  # whether it is raised is up to the moment
            else:
                assert [event.seq for event in page] == list(range(after + 1, head + 1))
                read += 1
    await task

    assert read


class Listening:
    """Streams of a broadcaster on the world's log. Its time is set ahead by the test."""

    def __init__(self, world: World, *, poll_interval_s: float = 0.01) -> None:
        self.now_s = 0.0
        options = BroadcastOptions(max_age_s=1e6, poll_interval_s=poll_interval_s)
        self.broadcaster = Broadcaster(world.log, LocalRelay(), options, clock=lambda: self.now_s)

    async def connect(self, query: Sequence[tuple[str, str]] = (), start: Start = "now") -> MemoryOutlet:
        request = StreamRequest(filter=parse_filter(query, Verbatim()), chunked=False, start=start)
        outlet = MemoryOutlet()
        outlet.subscriber = await self.broadcaster.admit("default", request)
        outlet.subscriber.start(outlet)
        await until(lambda: "ready" in outlet.names)
        return outlet


@pytest.fixture
async def listening(world: World) -> AsyncIterator[Listening]:
    found = Listening(world)
    await found.broadcaster.start()
    yield found
    await world.writer.close()
    await found.broadcaster.stop()


async def test_a_stream_that_lets_little_through_stays_within_retention(world: World, listening: Listening) -> None:
    """Its heartbeats move its position along, so that it resumes long after the last event that it got is gone."""
    await publish(world, 1)
    quiet = await listening.connect([("type", "deploy.finished")])
    silent = quiet.frame("hello").id
    for _ in range(3):
        await publish(world, 400)
    head = (await world.log.bounds("default")).head
    await until(lambda: listening.broadcaster.statistics().channels[0].head.endswith(f"-{head}"))
    listening.now_s += 16.0
    listening.broadcaster.tick(listening.now_s)
    await until(lambda: "heartbeat" in quiet.names)
    told = quiet.parser.last_event_id
    world.tick(days=100)
    await publish(world, 5)
    await keeper(world, min_events=10, chunk=500).keep()
    begin, _ = await bounds(world)
    await until(lambda: listening.broadcaster.statistics().channels[0].oldest.endswith(f"-{begin}"))

    assert quiet.events == []
    resumed = await listening.connect([("type", "deploy.finished")], Position.parse(told or ""))
    assert resumed.frame("hello").data["resume"] == "complete"
    assert "reset" not in resumed.names
    too_old = await listening.connect([("type", "deploy.finished")], Position.parse(silent or ""))
    assert too_old.frame("reset").data["reason"] == "expired"
    assert too_old.frame("reset").data["oldest"] == f"{told.partition('-')[0] if told else ''}-{begin - 1}"


async def test_a_stream_from_the_earliest_is_not_refused_when_retention_moves_that(world: World) -> None:
    listening = Listening(world, poll_interval_s=60.0)
    await listening.broadcaster.start()
    sent = await publish(world, 6)
    await listening.connect()  # from here on, the beginning is where the last poll has seen it
    world.tick(days=100)
    await keeper(world, min_events=2).keep()
    earliest = await listening.connect(start="earliest")
    first = await listening.connect(start=Position.parse(sent[0].id))
    await listening.broadcaster.stop()

    assert "reset" not in earliest.names
    assert [event["id"] for event in earliest.events] == [event.id for event in sent[-2:]]
    assert first.frame("reset").data["reason"] == "expired"


async def test_a_crash_between_moving_and_deleting_is_taken_back(world: World) -> None:
    class Crash(Exception):
        pass

    class Failing:
        def reach(self, point: str) -> None:
            raise Crash

    await publish(world, 6)
    world.tick(days=100)
    with pytest.raises(Crash):
        await keeper(world, failpoints=Failing()).keep()

    assert await bounds(world) == (1, 6)
    assert len(await stored(world.database)) == 6


async def test_commits_that_are_lost_are_noticed_after_everything_expired(world: World) -> None:
    """The newest event is never deleted: it tells whether the log is still the one that was."""
    await publish(world, 3)
    before = (await world.log.heads(["default"]))["default"]
    world.tick(days=1000)
    await keeper(world).keep()
    after = (await world.log.heads(["default"]))["default"]

    assert (after.epoch, after.oldest, after.head) == (before.epoch, 3, 3)


async def test_a_repeated_publish_finds_its_events_as_long_as_its_key_counts(world: World) -> None:
    publisher = EventPublisher(world.writer)
    draft = EventDraft("build.finished", "user:ci", "rest_api", b"{}")
    first = await publisher.publish(ALICE, [draft], "k")
    await publish(world, 1)
    world.tick(hours=24, milliseconds=-1)
    await keeper(world, days=1).keep()
    again = await publisher.publish(ALICE, [draft], "k")
    world.tick()
    await keeper(world, days=1).keep()
    anew = await publisher.publish(ALICE, [draft], "k")

    assert (again.replayed, [event.id for event in again.events]) == (True, [event.id for event in first.events])
    assert not anew.replayed


async def test_it_goes_on_whatever_happens_to_it(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await publish(world, 5)
    world.tick(days=100)
    failures: list[Exception] = [StorageBusy(), ValueError("a surprise")]

    class Failing(RetentionKeeper):
        async def keep(self) -> int:
            if failures:
                raise failures.pop()
            return await super().keep()

    async with Failing(
        world.database, Retention(90, 0), clock=lambda: world.now, first_s=0.001, every_s=0.001, pause_s=0
    ):
        await until(lambda: begins_at(world, 5))

    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "the cut of old events has failed"
    ]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "cut of old events"]


@asynccontextmanager
async def server(settings: Settings) -> AsyncIterator[None]:
    runner = web.AppRunner(composition.create_app(settings), shutdown_timeout=1)
    await runner.setup()
    yield
    await runner.cleanup()


@pytest.mark.parametrize("process", [server, composition.open_tickets])
async def test_every_process_that_writes_for_long_cuts_off_what_has_expired(
    process: Callable[[Settings], AbstractAsyncContextManager[object]],
    world: World,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(composition, "RetentionKeeper", partial(RetentionKeeper, first_s=0.01))
    world.now -= timedelta(days=1000)
    await publish(world, 5)
    settings = Settings(data_dir=tmp_path, database_url=SecretStr(url), retention_days=900, retention_min_events=2)
    async with process(settings):
        await until(lambda: begins_at(world, 4))

    assert await ills(world.database) == []
