"""Tests that use a database one after another see nothing of each other."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from taskhub.storage.database import Database
from tests.servers import PostgresServer
from tests.taskhub.databases import CleanDatabases
from tests.taskhub.storage.history import Contents, contents, live
from tests.taskhub.world import World


@pytest.fixture
def databases(postgres: PostgresServer, postgres_template: str) -> Iterator[CleanDatabases]:
    databases = CleanDatabases(postgres, postgres_template)
    yield databases
    databases.close()


async def held(url: str, *, after_life: bool = False) -> Contents:
    """What a database holds, perhaps after a bit of everything has happened in it."""
    database = Database(url)
    await database.open()
    if after_life:
        world = World(database)
        await live(world)
        await world.writer.close()
    found = await contents(database)
    await database.close()
    return found


async def test_a_database_that_was_used_is_handed_out_as_it_was_made(
    databases: CleanDatabases, postgres_url: str
) -> None:
    url = databases.take()
    fresh = await held(url)
    assert await held(url, after_life=True) != fresh
    databases.give_back(url)

    assert databases.take() == url
    assert await held(url) == fresh == await held(postgres_url)
    connection = await asyncpg.connect(url)
    assert await connection.fetchval("SELECT nextval('search_documents_id_seq')") == 1
    await connection.close()
    databases.give_back(url)


async def test_who_is_still_connected_loses_the_database(databases: CleanDatabases) -> None:
    url = databases.take()
    left = await asyncpg.connect(url)
    await left.execute("BEGIN; DELETE FROM statuses")
    await asyncio.to_thread(databases.give_back, url)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
        await left.execute("COMMIT")
    assert databases.take() == url
    assert len((await held(url))["statuses"]) == 6
    databases.give_back(url)


CHANGES = (
    "CREATE TABLE notes (text TEXT)", "ALTER TABLE tickets ADD COLUMN colour TEXT", "DROP INDEX ix_tickets_account",
    "ALTER TABLE tickets ALTER COLUMN blocked SET DEFAULT true", "CREATE SCHEMA other",
    "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET lock_timeout = 1', current_database()); END $$",
)  # fmt: skip


async def test_a_database_whose_schema_or_settings_were_changed_is_not_used_again(databases: CleanDatabases) -> None:
    for change in CHANGES:
        url = databases.take()
        connection = await asyncpg.connect(url)
        await connection.execute(change)
        await connection.close()
        databases.give_back(url)

        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await asyncpg.connect(url)
    assert databases.take() != url
