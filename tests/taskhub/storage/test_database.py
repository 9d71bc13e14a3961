"""Connections: what a unit sees, and what it says when the database is busy or away."""

import asyncio
import os
import sqlite3
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.schema import audit, workspaces
from taskhub.storage.urls import driver_url
from taskhub.tickets.errors import StorageBusy
from tests.servers import PostgresServer
from tests.taskhub.world import DEADLINE_S, Gate, execute, rows

RENAME = update(workspaces).values(name="Renamed")
NAME = select(workspaces.c.name)

HASTY_S = 1.5
"""Waited for in full; on PostgreSQL a connection must be made, and each statement answered, within it."""


async def name_of(database: Database) -> str:
    return str(await database.read(lambda connection: connection.execute(NAME).scalar_one()))


async def test_a_read_sees_the_database_as_it_was_at_its_first_statement(database: Database) -> None:
    gate = Gate()

    def read_twice(connection: Connection) -> tuple[str, str]:
        before = connection.execute(NAME).scalar_one()
        gate.pass_through()
        return before, connection.execute(NAME).scalar_one()

    reading = asyncio.create_task(database.read(read_twice))
    await gate.reached()
    await execute(database, RENAME)
    gate.open()

    assert await reading == ("Default", "Default")
    assert await name_of(database) == "Renamed"


async def test_a_write_that_raises_is_rolled_back(database: Database) -> None:
    def change_and_fail(connection: Connection) -> None:
        connection.execute(RENAME)
        raise KeyError

    with pytest.raises(KeyError):
        await database.write(change_and_fail)

    assert await name_of(database) == "Default"


async def test_a_read_cannot_write(database: Database) -> None:
    with pytest.raises(Exception, match=r"read-?only|cannot be written"):
        await database.read(lambda connection: connection.execute(RENAME))


async def test_a_caller_cancelled_in_a_unit_does_not_cancel_the_unit(database: Database) -> None:
    gate = Gate()

    def write_and_wait(connection: Connection) -> None:
        connection.execute(RENAME)
        gate.pass_through()

    task = asyncio.create_task(database.write(write_and_wait))
    await gate.reached()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await name_of(database) == "Default"
    gate.open()
    await database.units_ended()

    assert await name_of(database) == "Renamed"


async def test_a_ready_database_answers_a_ping_and_knows_its_deployment(database: Database) -> None:
    await database.ping()

    deployment = await database.deployment()
    assert len(deployment.id) == 16
    assert len(deployment.secret) == 32
    assert await database.schema_is_current()


async def test_a_schema_of_another_version_is_not_current(database: Database) -> None:
    await execute(database, text("UPDATE alembic_version SET version_num = 'ffff'"))

    assert not await database.schema_is_current()


async def test_waiting_too_long_for_the_writer_is_busy(url: str) -> None:
    patient, hasty = Database(url), Database(url, busy_timeout_s=HASTY_S)
    await patient.open()
    await hasty.open()

    gate = Gate()

    def write_and_wait(connection: Connection) -> None:
        connection.execute(RENAME)
        gate.pass_through()

    writing = asyncio.create_task(patient.write(write_and_wait))
    await gate.reached()
    with pytest.raises(StorageBusy):
        await execute(hasty, RENAME)
    assert await name_of(hasty) == "Default"
    gate.open()
    await writing
    await execute(hasty, RENAME)
    await patient.close()
    await hasty.close()


async def test_waiting_too_long_for_a_connection_is_busy(url: str) -> None:
    database = Database(url, pool_size=1, busy_timeout_s=HASTY_S)
    await database.open()

    gate = Gate()

    reading = asyncio.create_task(database.read(gate.pass_through))
    await gate.reached()
    with pytest.raises(StorageBusy, match="in use"):
        await name_of(database)
    gate.open()
    await reading
    await database.close()


async def test_a_closed_database_is_busy(url: str) -> None:
    database = Database(url)
    with pytest.raises(StorageBusy, match="closed"):
        await database.ping()


async def test_sqlite_commits_durably_in_wal_mode_with_foreign_keys(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.open()
    names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")

    def settings(connection: Connection) -> list[object]:
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in names]

    values = await database.write(settings)
    await database.close()

    assert values == ["wal", 2, 1, 5000]


async def test_data_version_changes_with_other_connections_only(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.open()
    await name_of(database)
    first = await database.data_version()
    await name_of(database)
    assert await database.data_version() == first

    connection = sqlite3.connect(driver_url(sqlite_url)[0].database or "")
    connection.execute("UPDATE workspaces SET name = 'Elsewhere'")
    connection.commit()
    connection.close()

    assert await database.data_version() != first
    await database.close()


async def test_a_missing_sqlite_file_is_away_and_not_created(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/nowhere/taskhub.db")
    await database.open()

    with pytest.raises(StorageBusy):
        await database.ping()
    with pytest.raises(StorageBusy):
        await database.data_version()
    await database.close()
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def stoppable_server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """Not the one that all tests share; skipped like that one."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture
def own_server(stoppable_server: PostgresServer) -> Iterator[PostgresServer]:
    """A running server that a test may kill or pause."""
    stoppable_server.start()
    yield stoppable_server
    stoppable_server.kill()


@pytest.fixture
async def on_own_server(own_server: PostgresServer) -> AsyncIterator[Database]:
    database = Database(own_server.url, pool_size=3, busy_timeout_s=HASTY_S)
    await database.open()
    yield database
    await database.close()


async def one(database: Database) -> int:
    return int(await database.read(lambda connection: connection.execute(text("SELECT 1")).scalar_one()))


async def test_a_killed_server_is_away_at_once_and_found_again_when_it_is_back(
    own_server: PostgresServer, on_own_server: Database
) -> None:
    database = on_own_server
    assert await asyncio.gather(*(one(database) for _ in range(3))) == [1, 1, 1]
    own_server.kill()

    async with asyncio.timeout(DEADLINE_S):
        for _ in range(3):
            with pytest.raises(StorageBusy):
                await one(database)
        with pytest.raises(StorageBusy):
            await database.ping()
    own_server.start()

    assert await asyncio.gather(*(one(database) for _ in range(3))) == [1, 1, 1]
    await database.ping()


async def test_a_server_killed_in_a_write_leaves_nothing_of_it(
    own_server: PostgresServer, on_own_server: Database
) -> None:
    database = on_own_server
    await execute(database, text("CREATE TABLE kept (n int)"))

    def write_and_lose_the_server(connection: Connection) -> None:
        connection.execute(text("INSERT INTO kept VALUES (1)"))
        own_server.kill()
        connection.execute(text("INSERT INTO kept VALUES (2)"))

    with pytest.raises(StorageBusy):
        await database.write(write_and_lose_the_server)
    own_server.start()

    assert await rows(database, text("SELECT count(*) FROM kept")) == [(0,)]


async def test_losing_the_server_at_the_commit_is_said_to_be_uncertain(
    own_server: PostgresServer, on_own_server: Database
) -> None:
    def write_and_lose_the_server(connection: Connection) -> None:
        connection.execute(text("CREATE TABLE maybe (n int)"))
        own_server.kill()

    with pytest.raises(StorageBusy) as lost:
        await on_own_server.write(write_and_lose_the_server)

    assert lost.value.uncertain
    assert "may have been made" in str(lost.value)
    own_server.start()


async def test_a_server_that_gives_no_answer_is_away_within_seconds(
    own_server: PostgresServer, on_own_server: Database
) -> None:
    database = on_own_server
    assert await one(database) == 1
    own_server.pause()

    async with asyncio.timeout(DEADLINE_S):
        for _ in range(2):
            with pytest.raises(StorageBusy):
                await one(database)
        with pytest.raises(StorageBusy):
            await database.ping()
        with pytest.raises(Exception, match=r"reached|answer"):
            await SqlEventLog(database).heads(["default"])
    own_server.resume()

    assert await one(database) == 1


async def test_a_caller_cancelled_while_the_server_gives_no_answer_is_let_go(
    own_server: PostgresServer, on_own_server: Database
) -> None:
    database = on_own_server
    assert await one(database) == 1
    own_server.pause()
    task = asyncio.create_task(one(database))
    await asyncio.sleep(0)
    task.cancel()

    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(asyncio.CancelledError):
            await task
    own_server.resume()
    assert await one(database) == 1


async def test_an_error_of_a_statement_does_not_tell_what_was_to_be_stored(database: Database) -> None:
    twice = [{"workspace_id": "default", "id": "x", "time": "", "action": "", "outcome": "", "details": "hunter2"}] * 2

    with pytest.raises(IntegrityError) as failed:
        await database.write(lambda connection: connection.execute(insert(audit), twice))

    assert "hunter2" not in "".join(traceback.format_exception(failed.value))
