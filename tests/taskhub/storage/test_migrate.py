"""Migrations, what a new database starts with, and the addresses that people write."""

import asyncio
import fcntl
import signal
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, func, inspect, select, text

from taskhub.failpoints import Failpoints
from taskhub.storage import migrate as migrations
from taskhub.storage.database import Database
from taskhub.storage.migrate import NewerSchema, migrate
from taskhub.storage.names import normalise, slug
from taskhub.storage.schema import METADATA, attachments, deployment, statuses, workspaces
from taskhub.storage.urls import driver_url, sqlite_path
from taskhub.tickets.errors import StorageBusy
from taskhub.tickets.inputs import NewAttachment, NewComment
from tests.forked import forks
from tests.servers import PostgresServer, free_port
from tests.taskhub.world import ALICE, World, execute, rows


@pytest.fixture(params=["sqlite", "postgresql"])
def new_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/not yet/100%/taskhub.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


async def test_files_that_an_update_puts_beneath_a_running_program_are_not_its_own(
    new_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions" / "9999_of_the_next_version.py").touch()
    migrations.newest_revision.cache_clear()
    await asyncio.to_thread(migrate, new_url)
    monkeypatch.setattr(migrations, "_MIGRATIONS", tmp_path)
    database = Database(new_url)
    await database.open()

    assert await database.schema_is_current()

    await database.close()


async def test_the_migrations_make_the_schema_that_the_program_has(database: Database) -> None:
    def of_the_schema(item: object, name: str | None, kind: str, reflected: bool, compared: object) -> bool:
        # On SQLite the words are indexed by an FTS5 table, which keeps tables of its own, and not by a GIN index.
        fts = kind == "table" and str(name).startswith("search_words")
        return not fts and not (name == "ix_search_documents_words" and database.path is not None)

    def differences(connection: Connection) -> list[object]:
        context = MigrationContext.configure(connection, opts={"include_object": of_the_schema})
        return list(compare_metadata(context, METADATA))

    assert await database.read(differences) == []


async def test_several_processes_may_migrate_at_once(new_url: str) -> None:
    processes = [forks().Process(target=migrate, args=(new_url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        await asyncio.to_thread(process.join)
    await asyncio.to_thread(migrate, new_url)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    database = Database(new_url)
    await database.open()
    assert await database.schema_is_current()
    for table, count in ((deployment, 1), (workspaces, 1), (statuses, 6)):
        assert await rows(database, select(func.count()).select_from(table)) == [(count,)]
    await database.close()


async def test_a_migration_that_fails_leaves_nothing(new_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(connection: object) -> None:
        raise KeyError("no seeds")

    monkeypatch.setattr("taskhub.storage.migrate.plant", fail)
    with pytest.raises(KeyError):
        await asyncio.to_thread(migrate, new_url)
    monkeypatch.undo()
    await asyncio.to_thread(migrate, new_url)

    database = Database(new_url)
    await database.open()
    await database.ping()
    assert await rows(database, text("SELECT count(*) FROM workspaces")) == [(1,)]
    await database.close()


async def test_a_migration_whose_process_dies_leaves_nothing_and_is_made_by_the_next(new_url: str) -> None:
    process = forks().Process(target=migrate_and_die, args=(new_url,))
    process.start()
    await asyncio.to_thread(process.join)
    assert process.exitcode == -signal.SIGKILL
    database = Database(new_url)
    await database.open()
    assert await database.read(lambda connection: inspect(connection).get_table_names()) == []

    await asyncio.to_thread(migrate, new_url)
    assert await database.schema_is_current()
    assert await rows(database, text("SELECT count(*) FROM workspaces")) == [(1,)]
    await database.close()


def migrate_and_die(url: str) -> None:
    """In the middle: the second of several migrations was applied."""
    migrate(url, Failpoints.parse(["migration.step=kill@2"]))


async def test_tickets_of_an_older_schema_are_found_after_its_migration(url: str, database: Database) -> None:
    world = World(database)
    for n in range(1, 4):
        await world.create(f"printer {n}", description="全文検索機能", labels=["ux", f"label {n}"])
    await world.tickets.add_comment(ALICE, "TH-2", NewComment(comment="a special remark"))
    await world.writer.close()

    await database.write(lambda connection: to_revision("0002", connection))
    assert not await database.schema_is_current()
    await asyncio.to_thread(migrate, url)

    assert await database.schema_is_current()
    for typed, found in (("TH-1", [1]), ("検索", [1, 2, 3]), ('"label 3" ux', [3]), ("special printer", [2])):
        assert await world.keys(query=typed, sort_by="key", sort_order="asc") == [f"TH-{n}" for n in found], typed
    world = World(database)
    await world.update("TH-1", description="changed since")
    await world.writer.close()
    assert await world.keys(query="検索", sort_by="key", sort_order="asc") == ["TH-2", "TH-3"]


async def test_the_numbers_of_attachments_go_on_after_the_migration(url: str, database: Database) -> None:
    world = World(database)
    files = [NewAttachment(file_name=f"{n}", url="https://example.org/") for n in range(3)]
    await world.create("with files", attachments=files)
    await world.create("without")
    await world.writer.close()

    await database.write(lambda connection: to_revision("0004", connection))
    await asyncio.to_thread(migrate, url)

    world = World(database)
    for key in ("TH-1", "TH-2"):
        await world.tickets.add_attachment(ALICE, key, files[0])
    await world.writer.close()
    numbers = await rows(database, select(attachments.c.ticket_no, attachments.c.no).order_by(*attachments.primary_key))
    assert [tuple(row) for row in numbers] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1)]


def to_revision(revision: str, connection: Connection) -> None:
    """Take the schema back to a revision."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__ or "").with_name("migrations")))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.downgrade(config, revision)


def test_a_file_lock_is_held_while_migrating(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[bool] = []

    def try_to_lock(connection: object) -> None:
        with (tmp_path / "taskhub.db.migrate").open("a") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        refused.append(True)

    monkeypatch.setattr("taskhub.storage.migrate.plant", try_to_lock)
    migrate(f"sqlite:///{tmp_path}/taskhub.db")

    assert refused == [True]


def test_the_file_with_the_secret_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "data" / "taskhub.db"
    migrate(f"sqlite:///{path}")

    assert path.stat().st_mode & 0o077 == 0


async def test_a_schema_of_a_newer_version_is_refused_by_name(new_url: str) -> None:
    await asyncio.to_thread(migrate, new_url)
    database = Database(new_url)
    await database.open()
    await execute(database, text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()

    with pytest.raises(NewerSchema, match="9999"):
        await asyncio.to_thread(migrate, new_url)


def test_a_wrong_name_or_database_on_the_server_is_named(postgres: PostgresServer) -> None:
    url = urlsplit(postgres.url)
    with pytest.raises(StorageBusy, match="no database of that name"):
        migrate(url._replace(path="/nowhere").geturl())
    with pytest.raises(StorageBusy, match="refuses this user name"):
        migrate(url._replace(netloc=f"nobody_known@{url.netloc.rpartition('@')[2]}").geturl())


def test_a_server_that_is_not_there_is_away() -> None:
    with pytest.raises(StorageBusy):
        migrate(f"postgresql://nobody@127.0.0.1:{free_port()}/none")


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageBusy, match=f"{tmp_path}/file: "):
        migrate(f"sqlite:///{tmp_path}/file/taskhub.db")


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "mysql://u@h/d", "redis://localhost"])
def test_other_databases_and_databases_in_memory_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="sqlite"):
        driver_url(url)


def test_a_parameter_that_would_have_no_effect_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no parameter sslmod; there are host, .*sslmode"):
        driver_url("postgresql://u@h/d?sslmod=require")


def test_addresses_are_read_as_people_write_them() -> None:
    url, settings = driver_url("postgres://u:p%40ss@db.example:6000/tickets?sslmode=require&application_name=shop")
    assert (url.drivername, url.password, url.host, url.port) == ("postgresql+asyncpg", "p@ss", "db.example", 6000)
    assert (dict(url.query), settings) == (
        {"dsn": "postgresql://?sslmode=require"},
        {"application_name": "shop"},
    )
    assert sqlite_path(url) is None
    assert sqlite_path(driver_url("sqlite:////var/lib/x.db")[0]) == Path("/var/lib/x.db")
    assert sqlite_path(driver_url("sqlite:///x.db")[0]) == Path("x.db")


def test_ids_are_slugs_and_lookups_ignore_case_and_separators() -> None:
    assert slug("In Progress") == "in_progress"
    assert slug("Chat/LLM") == "chat_llm"
    assert slug("ＡＢＣ 商事（株）") == "abc_商事_株"
    assert slug("In-Progress", {"in_progress", "in_progress_2"}) == "in_progress_3"
    assert slug("!!!") == "unnamed"
    assert {normalise(text) for text in ("In Progress", "in_progress", "IN-PROGRESS", "Ｉｎ　progress")} == {
        "inprogress"
    }


def test_the_newest_revision_is_known_without_alembic() -> None:
    """Reading Alembic takes longer than looking at the names of the files, which therefore must say the same."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")

    assert migrations.newest_revision() == ScriptDirectory.from_config(config).get_current_head()
