"""The event log in the database: the suite of every log, and what only a database can do."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, delete, event, select, update
from sqlalchemy.engine import Engine

from broadcaster.errors import LogUnavailable
from broadcaster.event import Event, EventDraft
from broadcaster.log import random_epoch
from taskhub.storage import schema
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.seeds import add_workspace
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets.errors import StorageBusy
from tests.broadcaster.event_log_suite import NOON, EventLogSuite, drafts
from tests.taskhub.world import execute


class SqlLogUnderTest:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._time = NOON
        self._writer = Writer(database, lambda workspace, events: None, clock=lambda: self._time)
        self.reader = SqlEventLog(database)

    async def append(self, workspace: str, drafts: Sequence[EventDraft], time: datetime) -> list[Event]:
        def work(transaction: Transaction) -> list[Event]:
            return [transaction.emit(draft) for draft in drafts]

        self._time = time
        return (await self._writer.run(workspace, work)).value

    async def expire(self, workspace: str, oldest: int) -> None:
        events, workspaces = schema.events, schema.workspaces
        await execute(
            self._database,
            delete(events).where(events.c.workspace_id == workspace, events.c.seq < oldest),
            update(workspaces).where(workspaces.c.id == workspace).values(oldest_seq=oldest),
        )

    async def new_epoch(self, workspace: str) -> None:
        workspaces = schema.workspaces
        await execute(
            self._database, update(workspaces).where(workspaces.c.id == workspace).values(epoch=random_epoch())
        )


@pytest.fixture
async def log(database: Database) -> SqlLogUnderTest:
    await database.write(partial(add_workspace, id="one", key_prefix="ONE", name="One"))
    await database.write(partial(add_workspace, id="two", key_prefix="TWO", name="Two"))
    return SqlLogUnderTest(database)


class TestSqlEventLog(EventLogSuite):
    pass


@pytest.fixture
def statements() -> Any:
    """Every statement that goes through an engine from now on."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
async def test_heads_of_an_unchanged_file_cost_no_query(log: SqlLogUnderTest, statements: list[str]) -> None:
    await log.append("one", drafts(1), NOON)
    await log.reader.heads(["one", "two"])
    statements.clear()

    assert (await log.reader.heads(["one", "two"]))["one"].head == 1
    assert (await log.reader.heads(["two"]))["two"].head == 0
    assert statements == []

    await log.append("one", drafts(1, 2), NOON)
    assert (await log.reader.heads(["one"]))["one"].head == 2


async def test_heads_notice_what_another_instance_committed(log: SqlLogUnderTest, url: str) -> None:
    await log.reader.heads(["one"])
    other = Database(url)
    await other.open()
    await SqlLogUnderTest(other).append("one", drafts(2), NOON)
    await other.close()

    assert (await log.reader.heads(["one"]))["one"].head == 2


async def test_heads_leave_out_a_workspace_that_does_not_exist(log: SqlLogUnderTest) -> None:
    assert set(await log.reader.heads(["one", "nowhere"])) == {"one"}
    assert set(await log.reader.heads(["one", "nowhere"])) == {"one"}


async def test_a_log_whose_database_is_away_says_so(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/missing/taskhub.db")
    await database.open()
    log = SqlEventLog(database)

    with pytest.raises(LogUnavailable):
        await log.bounds("default")
    with pytest.raises(LogUnavailable):
        await log.heads(["default"])
    with pytest.raises(LogUnavailable):
        await log.read("default", 0, 10)
    await database.close()


async def lose_the_last(database: Database, workspace: str) -> None:
    """What restoring an older backup does to the log."""
    events, workspaces = schema.events, schema.workspaces
    head = select(workspaces.c.head_seq).where(workspaces.c.id == workspace).scalar_subquery()
    await execute(
        database,
        delete(events).where(events.c.workspace_id == workspace, events.c.seq == head),
        update(workspaces).where(workspaces.c.id == workspace).values(head_seq=workspaces.c.head_seq - 1),
    )


async def test_a_log_that_lost_what_was_published_gets_a_new_epoch(log: SqlLogUnderTest, database: Database) -> None:
    await log.append("one", drafts(3), NOON)
    before = await log.reader.heads(["one", "two"])
    await lose_the_last(database, "one")

    after = await log.reader.heads(["one", "two"])
    assert after["one"].epoch != before["one"].epoch
    assert after["one"].head == 2
    assert after["two"] == before["two"]
    assert await log.reader.heads(["one", "two"]) == after
    [appended] = await log.append("one", drafts(1), NOON)
    assert appended.id == f"{after['one'].epoch}-3"


async def test_a_place_that_was_taken_again_by_another_event_makes_a_new_epoch(
    log: SqlLogUnderTest, database: Database, url: str
) -> None:
    await log.append("one", drafts(3), NOON)
    before = await log.reader.heads(["one"])
    await lose_the_last(database, "one")
    other = Database(url)
    await other.open()
    await SqlLogUnderTest(other).append("one", drafts(2), NOON)
    await other.close()

    after = await log.reader.heads(["one"])
    assert after["one"].epoch != before["one"].epoch
    assert after["one"].head == 4


async def test_what_was_committed_here_counts_as_seen_before_any_poll(log: SqlLogUnderTest, database: Database) -> None:
    [event] = await log.append("one", drafts(1), NOON)
    await lose_the_last(database, "one")

    assert (await log.reader.heads(["one"]))["one"].epoch != event.epoch


async def test_instances_that_notice_the_same_loss_agree_on_one_new_epoch(
    log: SqlLogUnderTest, database: Database, url: str
) -> None:
    await log.append("one", drafts(3), NOON)
    other = Database(url)
    await other.open()
    other_log = SqlEventLog(other)
    before = await other_log.heads(["one"])
    await lose_the_last(database, "one")

    first, second = await asyncio.gather(log.reader.heads(["one"]), other_log.heads(["one"]))
    await other.close()
    assert first["one"].epoch == second["one"].epoch != before["one"].epoch


async def test_a_loss_is_told_although_the_new_epoch_could_not_be_committed_at_first(
    log: SqlLogUnderTest, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = database.write

    async def busy(unit: Callable[[Connection], object]) -> None:
        def fail(connection: Connection) -> None:
            unit(connection)
            raise StorageBusy

        await write(fail)

    await log.append("one", drafts(3), NOON)
    before = await log.reader.heads(["one"])
    await lose_the_last(database, "one")
    with monkeypatch.context() as context:
        context.setattr(database, "write", busy)
        with pytest.raises(LogUnavailable):
            await log.reader.heads(["one"])

    assert (await log.reader.heads(["one"]))["one"].epoch != before["one"].epoch


async def test_events_that_expired_are_not_lost(log: SqlLogUnderTest) -> None:
    await log.append("one", drafts(3), NOON)
    before = await log.reader.heads(["one"])
    await log.expire("one", 4)

    assert (await log.reader.heads(["one"]))["one"].epoch == before["one"].epoch
