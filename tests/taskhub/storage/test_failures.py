"""What a database in trouble is said to have, and whether a write that met it may have been made."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
from sqlalchemy import Connection, func, insert, select
from sqlalchemy.util import await_only

from taskhub.storage import schema
from taskhub.storage.database import Database
from taskhub.storage.occupancy import ADVISORY_LOCK
from taskhub.storage.seeds import DEFAULT_WORKSPACE
from taskhub.storage.transaction import lock_workspace
from taskhub.tickets.errors import StorageBusy
from tests.e2e.harness.waiting import until
from tests.taskhub.world import DEADLINE_S, World


@pytest.fixture
async def sqlite(sqlite_url: str) -> AsyncIterator[Database]:
    database = Database(sqlite_url)
    await database.open()
    yield database
    await database.close()


def fill(connection: Connection) -> None:
    rows = [
        {"workspace_id": DEFAULT_WORKSPACE, "id": f"account-{n}", "name": "x" * 1000, "order_no": n, "active": True,
         "created_at": "", "updated_at": ""}
        for n in range(300)
    ]  # fmt: skip
    connection.execute(insert(schema.accounts), rows)


def count(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).select_from(schema.accounts)).scalar_one())


async def test_a_full_disk_is_called_that_and_nothing_is_kept_of_the_write_that_filled_it(sqlite: Database) -> None:
    def leave_room(connection: Connection, pages: int) -> int:
        used = int(connection.exec_driver_sql("PRAGMA page_count").scalar_one())
        return int(connection.exec_driver_sql(f"PRAGMA max_page_count={used + pages}").scalar_one())

    await sqlite.write(lambda connection: leave_room(connection, 2))
    with pytest.raises(StorageBusy, match="the disk of the database is full") as refused:
        await sqlite.write(fill)

    assert not refused.value.uncertain
    assert await sqlite.read(count) == 0
    await sqlite.write(lambda connection: leave_room(connection, 100_000))
    await sqlite.write(fill)
    assert await sqlite.read(count) == 300


async def test_a_postgres_that_only_reads_is_a_condition_and_no_mistake(postgres_url: str) -> None:
    def write(connection: Connection) -> None:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")  # as everything is on a standby
        fill(connection)

    database = Database(postgres_url)
    await database.open()
    try:
        with pytest.raises(StorageBusy, match="the database is read-only"):
            await database.write(write)
    finally:
        await database.close()


async def test_a_write_that_stands_still_does_not_keep_the_others_out_for_long(postgres_url: str) -> None:
    first, second = (Database(postgres_url, busy_timeout_s=0.5) for _ in range(2))
    await first.open()
    await second.open()
    begun, going_on = asyncio.Event(), asyncio.Event()

    def stand_still(connection: Connection) -> None:
        lock_workspace(connection, DEFAULT_WORKSPACE)
        begun.set()
        await_only(going_on.wait())
        fill(connection)

    async def can_write() -> bool:
        try:
            await second.write(lambda connection: lock_workspace(connection, DEFAULT_WORKSPACE))
        except StorageBusy:
            return False
        return True

    standing = asyncio.create_task(first.write(stand_still))
    try:
        await begun.wait()
        await until(can_write, "write beside one that stands still", 20)
        going_on.set()
        with pytest.raises(StorageBusy):
            await standing

        assert await second.read(count) == 0
    finally:
        going_on.set()
        await asyncio.gather(standing, return_exceptions=True)
        await first.close()
        await second.close()


async def test_a_session_cut_off_before_its_statement_ran_keeps_nobody_waiting_for_long(postgres_url: str) -> None:
    database = Database(postgres_url, busy_timeout_s=0.5)
    await database.open()
    world = World(database)
    # Of the kind that a server leaves behind that is cut off in the middle of a write: to PostgreSQL it is not idle.
    cut_off = await asyncpg.connect(postgres_url)
    try:
        await cut_off.execute(f"SELECT pg_advisory_lock_shared({ADVISORY_LOCK})")
        await cut_off.execute("BEGIN")
        await cut_off.execute("SELECT 1 FROM workspaces FOR UPDATE")
        await cut_off.prepare("UPDATE workspaces SET name = 'x'")

        async def made() -> bool:
            try:
                await world.create()
            except StorageBusy:
                return False
            return True

        async with asyncio.timeout(DEADLINE_S):
            while not await made():
                pass
        assert cut_off.is_closed()
    finally:
        cut_off.terminate()
        await world.writer.close()
        await database.close()


async def test_a_session_of_another_program_is_left_alone(postgres_url: str) -> None:
    database = Database(postgres_url, busy_timeout_s=0.5)
    await database.open()
    world = World(database)
    # Of the same user and name, as migrations are, which may think for long.
    other = await asyncpg.connect(postgres_url, server_settings={"application_name": "taskhub"})
    try:
        async with other.transaction():
            await other.execute("SELECT 1 FROM workspaces FOR UPDATE")
            for _ in range(3):
                with pytest.raises(StorageBusy):
                    await world.create()
        assert not other.is_closed()
        await world.create()
    finally:
        await other.close()
        await world.writer.close()
        await database.close()
