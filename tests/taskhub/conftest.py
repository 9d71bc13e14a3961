"""Databases for the tests of the product: each test that asks for `url` runs on SQLite and on PostgreSQL."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from taskhub.storage.database import Database
from tests.migrated import migrated_file
from tests.servers import PostgresServer
from tests.taskhub.databases import CleanDatabases
from tests.taskhub.storage.history import live
from tests.taskhub.world import World


@pytest.fixture(scope="session")
def sqlite_template() -> Path:
    return migrated_file()


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> str:
    return postgres.template()


@pytest.fixture
def sqlite_url(sqlite_template: Path, tmp_path: Path) -> str:
    """A migrated SQLite database of this test's own."""
    return f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'taskhub.db')}"


@pytest.fixture(scope="session")
def postgres_databases(postgres: PostgresServer, postgres_template: str) -> Iterator[CleanDatabases]:
    databases = CleanDatabases(postgres, postgres_template)
    yield databases
    databases.close()


@pytest.fixture
def postgres_url(postgres_databases: CleanDatabases) -> Iterator[str]:
    """A migrated PostgreSQL database with nothing in it, for this test alone."""
    url = postgres_databases.take()
    yield url
    postgres_databases.give_back(url)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A migrated database, of each kind in turn."""
    found: str = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    return found


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, busy_timeout_s=60)  # a test that is about something else must not fail on a busy machine
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    """A ticket service with what it stands on."""
    world = World(database)
    yield world
    await world.writer.close()
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("unit of work")]


async def _live(url: str) -> None:
    database = Database(url)
    await database.open()
    world = World(database)
    await live(world)
    await world.writer.close()
    await database.close()


@pytest.fixture(scope="session")
def lived_sqlite_url(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    url = f"sqlite:///{shutil.copy(sqlite_template, tmp_path_factory.mktemp('lived') / 'taskhub.db')}"
    asyncio.run(_live(url))
    return url


@pytest.fixture(scope="session")
def lived_postgres_url(postgres: PostgresServer) -> str:
    url = postgres.create_migrated()
    asyncio.run(_live(url))
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def lived_url(request: pytest.FixtureRequest) -> str:
    """A database, of each kind in turn, in which a bit of everything has happened: for tests that leave it as it is."""
    found: str = request.getfixturevalue("lived_sqlite_url" if request.param == "sqlite" else "lived_postgres_url")
    return found
