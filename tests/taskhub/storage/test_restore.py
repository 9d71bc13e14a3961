"""Restoring: a backup of either database into either, all of it or nothing, and nobody is misled afterwards."""

import asyncio
import contextlib
import errno
import fcntl
import gzip
import os
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace as replace_in
from functools import cache
from pathlib import Path
from typing import Protocol

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from taskhub.cli.parser import run
from taskhub.publishing import EventPublisher
from taskhub.storage import restore as restoring
from taskhub.storage.backup import backup
from taskhub.storage.backup_file import BackupReader, BackupWriter, BadBackup, Header, Table
from taskhub.storage.database import Database
from taskhub.storage.database_file import CannotKeepOwner, DatabaseFiles
from taskhub.storage.migrate import NewerSchema, migrate
from taskhub.storage.occupancy import DatabaseInUse
from taskhub.storage.reindex import rebuild
from taskhub.storage.restore import NewerTables, NotEmpty, NotOurs, restore
from taskhub.storage.schema import METADATA, search_documents
from taskhub.tickets.errors import LeaseLost, StorageBusy
from taskhub.tickets.inputs import NewClaim, NewComment, NewTicket
from tests.forked import run_forked
from tests.servers import PostgresServer
from tests.taskhub.storage.history import BOB, DRAFT, contents, without_names
from tests.taskhub.storage.killed import killed_restore
from tests.taskhub.storage.test_migrate import to_revision
from tests.taskhub.world import ALICE, World, execute, ills


class MakeUrl(Protocol):
    def __call__(self, kind: str, *, migrated: bool = False) -> str: ...


@pytest.fixture
def make_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeUrl]:
    """Addresses of databases of each kind that do not exist yet or are empty, or that are new but `migrated`."""
    made: list[tuple[PostgresServer, str]] = []

    def make(kind: str, *, migrated: bool = False) -> str:
        if kind == "sqlite":
            directory = tmp_path / f"not yet {len(os.listdir(tmp_path))}"
            if migrated:
                template: Path = request.getfixturevalue("sqlite_template")
                shutil.copytree(template.parent, directory)
            return f"sqlite:///{directory}/taskhub.db"
        server: PostgresServer = request.getfixturevalue("postgres")
        url = server.create_database(request.getfixturevalue("postgres_template") if migrated else None)
        made.append((server, url))
        return url

    yield make
    for server, url in made:
        server.drop_database(url)


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[World]:
    database = Database(url)
    await database.open()
    world = World(database)
    yield world
    await world.writer.close()
    await database.close()


@pytest.fixture
async def lived(lived_url: str) -> AsyncIterator[World]:
    """Where the backup `saved` comes from; to be left as it is."""
    async with opened(lived_url) as world:
        world.tick()
        yield world


@pytest.fixture(scope="module")
def backups(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The backup of a database in which nothing happens any more."""

    async def make(url: str, path: Path) -> None:
        async with opened(url) as world:
            await backup(world.database, path)

    @cache
    def made(url: str) -> Path:
        path = tmp_path_factory.mktemp("backup") / "taskhub.backup"
        asyncio.run(make(url, path))
        return path

    return made


@pytest.fixture
def saved(request: pytest.FixtureRequest, backups: Callable[[str], Path], tmp_path: Path) -> Path:
    """A backup of `lived`, or for a test that has nothing to do with that, of one like it."""
    kind = "lived_url" if "lived_url" in request.fixturenames else "lived_sqlite_url"
    return Path(shutil.copy(backups(request.getfixturevalue(kind)), tmp_path))


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_backup_of_either_database_goes_into_either(
    lived: World, saved: Path, kind: str, make_url: MakeUrl
) -> None:
    url = make_url(kind)
    before = await contents(lived.database)

    done = await restore(url, saved)

    async with opened(url) as restored:
        restored.now = lived.now
        after = await contents(restored.database)
        assert await ills(restored.database) == []
        assert without_names(after) == without_names(before)
        assert (await restored.log.bounds("default")).epoch == done.workspaces["default"].epoch
        assert done.workspaces["default"].epoch != (await lived.log.bounds("default")).epoch
        assert after["deployment"][0][0] != before["deployment"][0][0]  # its channels on a shared Redis are its own
        for typed, found in (("検索", ["TH-1"]), ("special", ["TH-1"]), ("second", ["TH-2"]), ("質問", ["TH-1"])):
            assert await restored.keys(query=typed) == found

        # Repeats are known, the lease goes on, and numbers, comments and the search index continue.
        new = {"description": "全文検索機能", "labels": ["ux", "急ぎ"], "actual_effort_hours": 0.1}
        again = NewTicket(summary="Printer is on fire", **new)
        repeated = await restored.tickets.create_ticket(ALICE, again, idempotency_key="k-1")
        assert (repeated.key, repeated.replayed) == ("TH-1", True)
        published = await EventPublisher(restored.writer).publish(ALICE, [DRAFT, DRAFT], idempotency_key="p-1")
        assert (published.replayed, [event.data for event in published.events]) == (True, [DRAFT.data] * 2)
        claimed = await restored.tickets.claim_ticket(BOB, "TH-1", NewClaim(), idempotency_key="claim")
        assert claimed.replayed
        comment = NewComment(comment="the holder speaks")
        await restored.tickets.add_comment(BOB, "TH-1", comment, lease_token=claimed.lease_token)
        with pytest.raises(LeaseLost):
            await restored.tickets.add_comment(BOB, "TH-1", comment, lease_token=claimed.lease_token + 1)
        created = await restored.create("fresh")
        assert created.key == "TH-5"
        assert created.position.startswith(done.workspaces["default"].epoch)
        assert await restored.keys(query="holder speaks") == ["TH-1"]


async def test_the_restored_database_has_the_schema_of_a_new_one(saved: Path, make_url: MakeUrl, lived: World) -> None:
    """Foreign keys that were put aside are there again."""
    kind = "postgresql" if lived.database.path is None else "sqlite"
    target = make_url(kind)
    await restore(target, saved)

    async with opened(target) as restored:
        wrong = text("INSERT INTO ticket_labels (workspace_id, ticket_no, label) VALUES ('default', 99, 'x')")
        with pytest.raises(Exception, match=r"(?i)foreign key"):
            await execute(restored.database, wrong)


def test_no_table_of_a_backup_counts_its_rows_by_itself() -> None:
    """A restore sets no counters of the database: the index, which has one, is made anew."""
    counting = [
        table.name
        for table in METADATA.tables.values()
        if table.autoincrement_column is not None and table is not search_documents
    ]

    assert counting == []


async def test_what_is_there_is_replaced_only_when_that_is_asked_for(
    saved: Path, lived: World, make_url: MakeUrl
) -> None:
    url = make_url("postgresql" if lived.database.path is None else "sqlite", migrated=True)
    async with opened(url) as other:
        for n in range(7):
            await other.create(f"of the other database {n}", labels=["other"])
        for _ in range(20):
            await other.change_reference("statuses", "received", name="Angekommen")
        before = await contents(other.database)

    with pytest.raises(NotEmpty, match="7 tickets and 7 events"):
        await restore(url, saved)

    async with opened(url) as other:
        assert await contents(other.database) == before
    await restore(url, saved, replace=True)
    async with opened(url) as other:
        restored = await contents(other.database)
        assert without_names(restored) == without_names(await contents(lived.database))
        assert await other.keys(query="other") == []
        # Whoever has a copy of the reference data that was there must not take it for this one.
        assert restored["workspaces"][0][8] > before["workspaces"][0][8]


async def test_a_database_that_is_open_is_not_replaced(saved: Path, world: World, url: str) -> None:
    await world.create("open")  # a connection is made when there is something to do
    before = await contents(world.database)

    with pytest.raises(DatabaseInUse):
        await restore(url, saved, replace=True)

    assert await contents(world.database) == before


async def test_who_comes_while_a_backup_is_being_restored_waits_or_is_refused(
    saved: Path, lived: World, make_url: MakeUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url("postgresql" if lived.database.path is None else "sqlite")
    migrating: list[asyncio.Task[None]] = []
    refused: list[str] = []
    loop = asyncio.get_running_loop()

    async def use() -> None:
        other = Database(url)
        with contextlib.suppress(StorageBusy):
            await other.open()
            await other.ping()
            refused.append("not at all")
        await other.close()
        with pytest.raises(DatabaseInUse):
            await restore(url, saved)
        refused.append("all")
        migrating.append(asyncio.create_task(asyncio.to_thread(migrate, url)))

    def come(connection: Connection) -> None:
        if connection.dialect.name == "postgresql":
            from sqlalchemy.util.concurrency import await_

            await_(use())
        else:
            asyncio.run_coroutine_threadsafe(use(), loop).result(60)
        rebuild(connection)

    monkeypatch.setattr("taskhub.storage.restore.rebuild", come)
    await restore(url, saved)
    await migrating[0]

    assert refused == ["all"]
    async with opened(url) as restored:
        assert without_names(await contents(restored.database)) == without_names(await contents(lived.database))


@pytest.mark.parametrize("where", ["_load", "rebuild", "_renew", "_settle", "sync_directory", "named"])
async def test_a_restore_that_is_killed_leaves_the_old_database_or_the_new_one(
    saved: Path, lived: World, make_url: MakeUrl, where: str
) -> None:
    sqlite = lived.database.path is not None
    if not sqlite and where in ("_settle", "sync_directory", "named"):
        pytest.skip("that is for files")
    target = make_url("sqlite" if sqlite else "postgresql", migrated=True)
    async with opened(target) as other:
        await other.create("of the other database")
        old = without_names(await contents(other.database))
    new = without_names(await contents(lived.database))

    assert await asyncio.to_thread(killed_restore, target, saved, where) == -signal.SIGKILL

    async with opened(target) as other:
        assert await ills(other.database) == []
        assert without_names(await contents(other.database)) == (new if where == "named" else old)
        await other.create("goes on")
    await restore(target, saved, replace=True)
    async with opened(target) as other:
        assert without_names(await contents(other.database)) == new
    if sqlite:
        directory = os.path.dirname(target.removeprefix("sqlite:///"))
        assert sorted(os.listdir(directory)) == ["taskhub.db", "taskhub.db.lock", "taskhub.db.migrate"]


LEFT = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=WAL")
connection.execute("PRAGMA wal_autocheckpoint=0")
for n in range(300):
    connection.execute("UPDATE workspaces SET name = ?", (f"left behind {n}",))
os._exit(0)
"""


async def test_a_log_of_changes_that_was_left_beside_the_old_file_does_not_reach_the_new_one(
    saved: Path, lived: World, make_url: MakeUrl
) -> None:
    url = make_url("sqlite", migrated=True)
    file = Path(url.removeprefix("sqlite:///"))
    (await asyncio.to_thread(run_forked, "-c", LEFT, str(file))).check_returncode()
    log = file.with_name("taskhub.db-wal")
    assert log.stat().st_size > 0

    await restore(url, saved)

    async with opened(url) as restored:
        assert without_names(await contents(restored.database)) == without_names(await contents(lived.database))


@pytest.mark.parametrize("log", [True, False])
async def test_a_file_that_is_damaged_is_replaced_when_that_is_asked_for(
    saved: Path, lived: World, make_url: MakeUrl, log: bool
) -> None:
    url = make_url("sqlite", migrated=True)
    file = Path(url.removeprefix("sqlite:///"))
    if log:
        (await asyncio.to_thread(run_forked, "-c", LEFT, str(file))).check_returncode()
    await asyncio.to_thread(file.write_bytes, b"nothing that SQLite knows" * 1000)

    with pytest.raises(NotEmpty, match="cannot be read"):
        await restore(url, saved)
    await restore(url, saved, replace=True)

    async with opened(url) as restored:
        assert without_names(await contents(restored.database)) == without_names(await contents(lived.database))


async def test_a_file_that_another_program_has_open_is_not_replaced(saved: Path, make_url: MakeUrl) -> None:
    url = make_url("sqlite", migrated=True)
    async with opened(url) as first:
        await first.database.ping()  # now it is in WAL mode
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
        other.execute("SELECT * FROM workspaces").fetchall()

        with pytest.raises(DatabaseInUse, match="not TaskHub"):
            await restore(url, saved)

    await restore(url, saved)


@pytest.mark.parametrize("revision", ["0001", "0002"])
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
async def test_a_backup_of_an_older_schema_is_brought_to_the_newest(
    world: World, tmp_path: Path, revision: str, kind: str, make_url: MakeUrl
) -> None:
    await world.create("Printer is on fire", description="全文検索機能", labels=["ux"])
    await world.create("second", blocked_by=["TH-1"])
    before = await contents(world.database)
    await world.database.write(lambda connection: to_revision(revision, connection))
    old = tmp_path / "old.backup"
    await backup(world.database, old)
    url = make_url(kind)

    await restore(url, old)

    async with opened(url) as restored:
        assert without_names(await contents(restored.database)) == without_names(before)
        assert await restored.database.schema_is_current()
        assert await restored.keys(query="検索") == ["TH-1"]
        assert (await restored.ticket("TH-2")).blocked


async def test_a_backup_of_a_newer_schema_is_refused_by_name(url: str, tmp_path: Path) -> None:
    path = tmp_path / "newer.backup"
    with path.open("wb") as file:
        BackupWriter(file, Header(taskhub="9.0.0", revision="9999", created_at="", logs={})).finish()

    with pytest.raises(NewerSchema, match="9999"):
        await restore(url, path)


async def test_a_database_of_a_newer_schema_gives_way_where_all_of_it_goes(
    saved: Path, lived: World, make_url: MakeUrl
) -> None:
    sqlite = lived.database.path is not None
    url = make_url("sqlite" if sqlite else "postgresql", migrated=True)
    async with opened(url) as other:
        await execute(other.database, text("UPDATE alembic_version SET version_num = '9999'"))

    if sqlite:
        await restore(url, saved)
        async with opened(url) as restored:
            assert await restored.database.schema_is_current()
    else:
        with pytest.raises(NewerTables, match="9999"):
            await restore(url, saved)


async def test_a_damaged_backup_changes_nothing(saved: Path, make_url: MakeUrl, lived: World) -> None:
    url = make_url("postgresql" if lived.database.path is None else "sqlite", migrated=True)
    async with opened(url) as other:
        before = await contents(other.database)
    await asyncio.to_thread(lambda: os.truncate(saved, saved.stat().st_size - 30))

    with pytest.raises(BadBackup, match="cut off"):
        await restore(url, saved, replace=True)

    async with opened(url) as other:
        assert await contents(other.database) == before


@pytest.mark.parametrize("what", ["a row", "a table", "a column"])
async def test_a_backup_whose_parts_do_not_go_together_changes_nothing(
    saved: Path, make_url: MakeUrl, lived: World, what: str
) -> None:
    """What no TaskHub has written, for its sums are right."""
    url = make_url("postgresql" if lived.database.path is None else "sqlite", migrated=True)
    async with opened(url) as other:
        before = await contents(other.database)
    _write_again(saved, what)

    with pytest.raises(Exception, match=r"(?i)ticket"):
        await restore(url, saved)

    async with opened(url) as other:
        assert await contents(other.database) == before


def _write_again(path: Path, leave_out: str) -> None:
    with BackupReader(path) as reader:
        items = list(reader.contents())
        header = reader.header
    with path.open("wb") as file:
        writer = BackupWriter(file, header)
        table = ""
        for item in items:
            if isinstance(item, Table):
                table = item.table
                if leave_out == "a table" and table == "ticket_labels":
                    continue
                renamed = tuple(
                    "colour" if name == "label" and leave_out == "a column" else name for name in item.columns
                )
                writer.begin(Table(table, renamed))
                continue
            gone = leave_out == "a row" and table == "tickets" and item[1] == 1
            if not gone and not (leave_out == "a table" and table == "ticket_labels"):
                writer.row(item)
        writer.finish()


async def test_the_command_says_what_it_did_and_who_is_in_its_way(
    saved: Path, lived: World, lived_url: str, make_url: MakeUrl, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("TASKHUB_DATA_DIR", str(tmp_path))
    target = make_url("postgresql" if lived.database.path is None else "sqlite")
    head = (await lived.log.bounds("default")).head

    async def command(url: str, *arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("TASKHUB_DATABASE_URL", url)
        status = await asyncio.to_thread(run, ["restore", *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    assert (await command(lived_url, str(saved), "--replace"))[0] == 1
    assert "uses the database" in (await command(lived_url, str(saved), "--replace"))[1]
    status, said = await command(target, str(saved))
    assert (status, said[: said.index(" of ")]) == (0, f"4 tickets and {head} events")
    assert "--replace" in (await command(target, str(saved)))[1]
    assert "No such file" in (await command(target, str(tmp_path / "none.backup")))[1]
    (tmp_path / "other.gz").write_bytes(gzip.compress(b"hello"))
    assert "is not a backup" in (await command(target, str(tmp_path / "other.gz")))[1]


async def test_the_database_of_another_program_is_never_replaced(saved: Path, make_url: MakeUrl, lived: World) -> None:
    sqlite = lived.database.path is not None
    url = make_url("sqlite" if sqlite else "postgresql")
    if sqlite:
        file = Path(url.removeprefix("sqlite:///"))
        await asyncio.to_thread(file.parent.mkdir)
        with contextlib.closing(sqlite3.connect(file)) as other, other:
            other.execute("CREATE TABLE songs (title TEXT)")
    else:
        # Beside tables of other names ours would have their place; this one would be taken for ours.
        await _on_postgres(url, "CREATE TABLE events (title TEXT)")

    for replace in (False, True):
        with pytest.raises(NotOurs, match="songs" if sqlite else "events"):
            await restore(url, saved, replace=replace)

    if sqlite:
        with contextlib.closing(sqlite3.connect(file)) as other:
            assert other.execute("SELECT count(*) FROM songs").fetchone() == (0,)
    else:
        await _on_postgres(url, "SELECT title FROM events")


async def _on_postgres(url: str, statement: str) -> None:
    import asyncpg

    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_table_beside_those_of_taskhub_is_named_before_it_goes(saved: Path, make_url: MakeUrl) -> None:
    url = make_url("sqlite", migrated=True)
    with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other, other:
        other.execute("CREATE TABLE notes (text TEXT)")

    with pytest.raises(NotEmpty, match="the table notes, which is not TaskHub's"):
        await restore(url, saved)

    await restore(url, saved, replace=True)


async def test_who_has_a_table_for_longer_than_the_restore_waits_is_named(
    saved: Path, make_url: MakeUrl, postgres: PostgresServer
) -> None:
    import asyncpg

    url = make_url("postgresql", migrated=True)
    impatient = url + ("&" if "?" in url else "?") + "options=-c%20lock_timeout%3D200ms"
    other = await asyncpg.connect(url.replace("+asyncpg", ""), server_settings={"application_name": "a report"})
    try:
        await other.execute("BEGIN; SELECT * FROM tickets")

        with pytest.raises(DatabaseInUse, match=r"a report( at [0-9.:a-f]+(/\d+)?)?, backend \d+"):
            await restore(impatient, saved)
    finally:
        await other.close()

    await restore(url, saved)


async def test_locks_lie_beside_the_file_and_not_beside_a_link_to_it(saved: Path, make_url: MakeUrl) -> None:
    url = make_url("sqlite")
    file = Path(url.removeprefix("sqlite:///"))
    link = file.parent.with_name("link.db")
    await asyncio.to_thread(migrate, url)
    await asyncio.to_thread(link.symlink_to, file)

    await asyncio.to_thread(migrate, f"sqlite:///{link}")
    async with opened(f"sqlite:///{link}"):
        with pytest.raises(DatabaseInUse):
            await restore(url, saved)
    await restore(f"sqlite:///{link}", saved)

    assert link.is_symlink()
    assert [name for name in os.listdir(link.parent) if name.startswith("link.db")] == ["link.db"]


OTHER_UID, OTHER_GID = 12345, 12346
root_alone = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


def _access(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_uid, found.st_gid, found.st_mode & 0o777


@root_alone
async def test_what_root_does_leaves_the_files_to_whom_the_database_belongs(saved: Path, make_url: MakeUrl) -> None:
    url = make_url("sqlite", migrated=True)
    file = Path(url.removeprefix("sqlite:///"))
    await asyncio.to_thread(file.with_name("taskhub.db.migrate").unlink)
    await asyncio.to_thread(os.chown, file, OTHER_UID, OTHER_GID)
    await asyncio.to_thread(file.chmod, 0o640)

    async with opened(url) as database:
        await database.create("of root")
        inside = {path.name: _access(path) for path in file.parent.iterdir()}
    await restore(url, saved, replace=True)

    assert inside.keys() >= {"taskhub.db", "taskhub.db.lock", "taskhub.db-wal"}
    assert set(inside.values()) == {(OTHER_UID, OTHER_GID, 0o640)}
    assert {_access(path) for path in file.parent.iterdir()} == {(OTHER_UID, OTHER_GID, 0o640)}


@root_alone
async def test_a_new_database_that_root_restores_belongs_to_the_owner_of_the_directory(
    saved: Path, make_url: MakeUrl
) -> None:
    url = make_url("sqlite")
    file = Path(url.removeprefix("sqlite:///"))
    await asyncio.to_thread(file.parent.mkdir)
    await asyncio.to_thread(os.chown, file.parent, OTHER_UID, OTHER_GID)

    await restore(url, saved)

    assert {_access(path) for path in file.parent.iterdir()} == {(OTHER_UID, OTHER_GID, 0o600)}


def test_a_file_that_cannot_be_given_to_the_old_ones_owner_is_not_put_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = DatabaseFiles(tmp_path / "taskhub.db")
    files.make()

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    found = files.access()
    monkeypatch.setattr(files, "access", lambda: replace_in(found, uid=found.uid + 1))
    with pytest.raises(CannotKeepOwner, match="as its owner or as root"), files.successor():
        pass

    assert os.listdir(tmp_path) == ["taskhub.db"]


def test_a_lock_that_cannot_be_written_is_taken_all_the_same(tmp_path: Path) -> None:
    """That of another user, who let it be read."""
    files = DatabaseFiles(tmp_path / "taskhub.db")
    files.make()
    (tmp_path / "taskhub.db.lock").touch(mode=0o444)

    with files.alone(), pytest.raises(StorageBusy, match="being restored"):
        files.share()


def test_a_lock_that_cannot_be_had_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = DatabaseFiles(tmp_path / "taskhub.db")
    files.make()

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(StorageBusy, match=r"cannot lock .*taskhub\.db\.lock: No locks available"):
        files.share()
    (tmp_path / "taskhub.db.lock").unlink()
    (tmp_path / "taskhub.db.lock").mkdir()
    with pytest.raises(StorageBusy, match=r"taskhub\.db\.lock cannot be opened|cannot lock .*taskhub\.db\.lock"):
        files.share()


async def test_a_disk_that_fails_is_not_taken_for_another_program(
    saved: Path, make_url: MakeUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url("sqlite", migrated=True)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR

    def fail(*_: object) -> None:
        raise DBAPIError("PRAGMA journal_mode=DELETE", None, error)

    monkeypatch.setattr(restoring, "_build_file", lambda *_: monkeypatch.setattr(restoring, "_opened", fail))
    with pytest.raises(StorageBusy, match="disk"):
        await restore(url, saved)


async def test_who_gives_up_a_restore_finds_the_database_as_it_was(
    saved: Path, make_url: MakeUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_url("sqlite", migrated=True)
    file = Path(url.removeprefix("sqlite:///"))
    before = await asyncio.to_thread(file.read_bytes)
    loop = asyncio.get_running_loop()

    def give_up(connection: Connection) -> None:
        loop.call_soon_threadsafe(giving_up.cancel)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(60)
        rebuild(connection)

    monkeypatch.setattr("taskhub.storage.restore.rebuild", give_up)
    giving_up = asyncio.create_task(restore(url, saved))
    with pytest.raises(asyncio.CancelledError):
        await giving_up

    assert await asyncio.to_thread(file.read_bytes) == before
    assert not [name for name in os.listdir(file.parent) if name.endswith(".restoring")]


@pytest.mark.parametrize("whole", [True, False])
async def test_standard_input_is_read_to_its_end_before_anything_changes(
    saved: Path, lived: World, make_url: MakeUrl, whole: bool
) -> None:
    url = make_url("postgresql" if lived.database.path is None else "sqlite")
    given = await asyncio.to_thread(saved.read_bytes)

    done = await asyncio.to_thread(
        run_forked,
        *("-m", "taskhub", "restore", "-"),
        environment={**os.environ, "TASKHUB_DATABASE_URL": url},
        given=given if whole else given[:-20],
    )

    if whole:
        assert (done.returncode, done.stderr) == (0, b"")
        log = await lived.log.bounds("default")
        said = f"default: 4 tickets, {log.head} events; its log goes on after event {log.head} of epoch {log.epoch} in"
        assert said in done.stdout.decode()
        async with opened(url) as restored:
            after = without_names(await contents(restored.database))
            [recorded] = set(after["audit"]) - set((before := without_names(await contents(lived.database)))["audit"])
            assert "database.restored" in recorded
            assert after == {**before, "audit": sorted([*before["audit"], recorded], key=repr)}
    else:
        assert (done.returncode, done.stderr) == (1, b"taskhub: standard input is cut off: its end is missing\n")
    if lived.database.path is not None:
        left = os.listdir(os.path.dirname(url.removeprefix("sqlite:///")))
        assert not [name for name in left if "unfinished" in name]
