"""Putting a backup in the place of a database: all of it or, whatever happens meanwhile, nothing.

An SQLite file is made anew beside the old one and takes its name when it is whole. On PostgreSQL everything happens in
one transaction. Nobody else has the database open meanwhile (see occupancy); whoever starts waits or is refused.
"""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import URL, Connection, MetaData, create_engine, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from broadcaster.log import random_epoch
from taskhub.storage import backup_file
from taskhub.storage.backup import PAGE, tables_of
from taskhub.storage.backup_file import BackupReader, BadBackup, Header, Log
from taskhub.storage.database import lift_time_limits
from taskhub.storage.database_file import DatabaseFiles
from taskhub.storage.failures import busy_told, is_locked, storage_busy
from taskhub.storage.migrate import NewerSchema, check_known, lock_postgres, revision_of, upgrade
from taskhub.storage.occupancy import DatabaseInUse, be_sole_user_of_postgres, take_tables
from taskhub.storage.reindex import rebuild
from taskhub.storage.schema import METADATA, deployment, events, tickets, workspaces
from taskhub.storage.seeds import new_deployment_id, new_secret
from taskhub.storage.urls import driver_url, sqlite_path

_FOREIGN_KEYS: Final = text(
    "SELECT conrelid::regclass::text AS of_table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition"
    " FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text = ANY(:tables) ORDER BY 1, 2"
)
_REVISIONS: Final = "alembic_version"
# Every schema of TaskHub has had these.
_SIGNS: Final = frozenset({deployment.name, workspaces.name, tickets.name, events.name, _REVISIONS})
# FTS5 keeps its index in tables whose names begin so.
_INDEX: Final = "search_words"

Finish = Callable[[Connection, Header], None]


class NotEmpty(Exception):
    """The database holds something that restoring would replace; `what` it is."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the database holds {what}; --replace puts the backup in its place")


class NotOurs(Exception):
    """The database is another program's, or its tables would be in the way: `tables` are theirs."""

    def __init__(self, tables: list[str]) -> None:
        more = f" and {len(tables) - 5} more" if len(tables) > 5 else ""
        super().__init__(
            f"it is the database of another program, which has the table {', '.join(tables[:5])}{more};"
            " it is not replaced: restore into a database of TaskHub or an empty one"
        )


class NewerTables(Exception):
    """A newer TaskHub has migrated the database on the server: this one does not know all the tables it made."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"its schema ({revision}) was made by a newer TaskHub; restore into an empty database instead")


@dataclass(frozen=True, slots=True)
class RestoredWorkspace:
    """What a workspace has now. `was`: where its log was when the backup was made; it goes on there in `epoch`."""

    tickets: int
    events: int
    was: Log | None
    epoch: str


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: where it came from, its rows by table, and the workspaces."""

    header: Header
    rows: Mapping[str, int]
    workspaces: Mapping[str, RestoredWorkspace]


async def restore(
    url: str, path: Path, *, replace: bool = False, finish: Finish = lambda connection, header: None
) -> Restored:
    """Make the database at `url` what the backup at `path` says, with the newest schema and a new epoch for each log.
    `finish` may add to it in the same transaction.

    A caller that is cancelled has changed nothing. Raises BadBackup, NewerSchema, NotEmpty unless `replace`, NotOurs,
    NewerTables, DatabaseInUse, CannotKeepOwner, StorageBusy, and OSError.
    """
    header, trailer = await asyncio.to_thread(backup_file.verify, path)
    check_known(header.revision)
    parsed, server_settings = driver_url(url)
    file = sqlite_path(parsed)
    if file is not None:
        found = await _restore_file_to_the_end(file, path, replace, finish)
    else:
        found = await _restore_postgres(parsed, server_settings, path, replace, finish)
    return Restored(header, trailer.rows, found)


# SQLite


class _GivenUp(Exception):
    """Nobody waits for the restore any more."""


async def _restore_file_to_the_end(
    file: Path, path: Path, replace: bool, finish: Finish
) -> Mapping[str, RestoredWorkspace]:
    given_up = threading.Event()
    work = asyncio.ensure_future(asyncio.to_thread(_restore_file, DatabaseFiles(file), path, replace, finish, given_up))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        given_up.set()
        try:
            return await work  # it may have been too late
        except _GivenUp:
            raise asyncio.CancelledError from None


def _restore_file(
    files: DatabaseFiles, path: Path, replace: bool, finish: Finish, given_up: threading.Event
) -> Mapping[str, RestoredWorkspace]:
    files.path.parent.mkdir(parents=True, exist_ok=True)
    with busy_told(DBAPIError), files.alone(), files.migrating():
        versions = _look_at_file(files.path, replace)
        with files.successor() as successor:
            restored = _build_file(successor, path, versions, finish, given_up)
            _settle(files)
            files.take_place(successor)
        return restored


def _look_at_file(file: Path, replace: bool) -> Mapping[str, int]:
    """The versions of reference data in the file. Raises NotOurs, and NotEmpty unless it may be replaced."""
    if not file.exists():
        return {}
    try:
        with _opened(file) as connection:
            return _look(connection, replace)
    except DBAPIError as error:
        if not isinstance(error.orig, sqlite3.DatabaseError) or storage_busy(error) is not None:
            raise
        if not replace:
            raise NotEmpty(f"something that cannot be read ({error.orig})") from None
        return {}


def _build_file(
    file: Path, path: Path, versions: Mapping[str, int], finish: Finish, given_up: threading.Event
) -> Mapping[str, RestoredWorkspace]:
    with _opened(file) as connection:
        # Until it has its name it is worth nothing: it needs no journal, and no more than one write to the disk.
        connection.exec_driver_sql("PRAGMA journal_mode=OFF")
        connection.exec_driver_sql("PRAGMA synchronous=OFF")
        _driver_of(connection).set_progress_handler(given_up.is_set, 10_000)
        connection.exec_driver_sql("BEGIN")
        try:
            restored = _fill(connection, path, versions, finish)
            found = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        except DBAPIError as error:
            if given_up.is_set():
                raise _GivenUp from error
            raise
        if found:
            raise BadBackup(f"{path} is not sound: a row of {found[0]} refers to one of {found[2]} that is not there")
        connection.commit()
        if given_up.is_set():
            raise _GivenUp
        return restored


def _settle(files: DatabaseFiles) -> None:
    """Let the old file be all there is of the old database: a log of changes that stays beside it would be taken for
    one of the new file's."""
    if not files.path.exists():
        return
    try:
        with _opened(files.path) as connection:
            (mode,) = connection.exec_driver_sql("PRAGMA journal_mode=DELETE").one()
    except DBAPIError as error:
        if is_locked(error):
            raise DatabaseInUse("a program that is not TaskHub") from None
        if storage_busy(error) is not None:
            raise
        files.drop_logs()
        return
    if mode != "delete":
        raise DatabaseInUse("a program that is not TaskHub")


@contextmanager
def _opened(file: Path) -> Iterator[Connection]:
    engine = create_engine(
        URL.create("sqlite", database=str(file)), connect_args={"isolation_level": None, "timeout": 5}
    )
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def _driver_of(connection: Connection) -> sqlite3.Connection:
    driver = connection.connection.driver_connection
    assert isinstance(driver, sqlite3.Connection)  # noqa: S101  # for the type
    return driver


# PostgreSQL


async def _restore_postgres(
    url: URL, server_settings: Mapping[str, str], path: Path, replace: bool, finish: Finish
) -> Mapping[str, RestoredWorkspace]:
    from sqlalchemy.ext.asyncio import create_async_engine  # as for migrations

    named = {"application_name": "taskhub restore", **server_settings}
    if "lock_timeout" not in server_settings.get("options", ""):  # for which PostgreSQL has less regard
        named["lock_timeout"] = "10s"
    engine = create_async_engine(
        url,
        connect_args={
            "timeout": 10,
            "server_settings": named,
            "prepared_statement_cache_size": 0,  # tables of the same names are others than before
        },
    )

    def work(connection: Connection) -> Mapping[str, RestoredWorkspace]:
        lift_time_limits(connection)
        be_sole_user_of_postgres(connection)
        lock_postgres(connection)
        versions = _look(connection, replace)
        ours = METADATA.tables.keys() | {_REVISIONS}
        take_tables(connection, sorted(ours & set(inspect(connection).get_table_names())))
        METADATA.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE IF EXISTS {_REVISIONS}")
        restored = _fill(connection, path, versions, finish)
        # Its planner knows nothing of tables that are new; it would learn by and by, from slow statements.
        connection.exec_driver_sql(f"ANALYZE {', '.join(METADATA.tables)}")
        return restored

    try:
        async with contextlib.AsyncExitStack() as stack:
            with busy_told():
                connection = await stack.enter_async_context(engine.connect())
            with busy_told(DBAPIError):
                async with connection.begin():
                    return await connection.run_sync(work)
    finally:
        await engine.dispose()


@contextmanager
def _references_unchecked(connection: Connection, tables: MetaData) -> Iterator[None]:
    """Let rows refer to others that come later, and check all of them in the end. SQLite does not check here."""
    if connection.dialect.name != "postgresql":
        yield
        return
    keys = connection.execute(_FOREIGN_KEYS, {"tables": list(tables.tables)}).all()
    for key in keys:
        connection.exec_driver_sql(f"ALTER TABLE {key.of_table} DROP CONSTRAINT {key.name}")
    yield
    for key in keys:
        connection.exec_driver_sql(f"ALTER TABLE {key.of_table} ADD CONSTRAINT {key.name} {key.definition}")


# Both


def _look(connection: Connection, replace: bool) -> Mapping[str, int]:
    """The versions of reference data in the database, by workspace. Raises NotOurs, and NotEmpty unless it may be
    replaced."""
    postgres = connection.dialect.name == "postgresql"
    seen = inspect(connection)
    present = {*seen.get_table_names(), *seen.get_view_names()}
    known = {name for name in present if name in METADATA.tables or name == _REVISIONS or name.startswith(_INDEX)}
    # On a server, tables of other names stay beside ours. A file is replaced with all that is in it.
    in_the_way = known if postgres else present
    if not present >= _SIGNS:
        if in_the_way:
            raise NotOurs(sorted(in_the_way))
        return {}
    held = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in (tickets, events)
    }
    strangers = sorted(in_the_way - known)
    try:
        revision_of(connection)
    except NewerSchema as error:
        if postgres:
            raise NewerTables(error.revision) from None
        strangers = []  # they may be tables of the newer TaskHub
    if (any(held.values()) or strangers) and not replace:
        what = [f"{count} {name}" for name, count in held.items()]
        what += [f"the table {name}, which is not TaskHub's" for name in strangers]
        raise NotEmpty(" and ".join(what))
    found = connection.execute(select(workspaces.c.id, workspaces.c.references_version))
    return {row.id: row.references_version for row in found}


def _fill(
    connection: Connection, path: Path, versions: Mapping[str, int], finish: Finish
) -> Mapping[str, RestoredWorkspace]:
    """Make the schema, put the rows into it, and bring both to the newest form; the workspaces that are there then."""
    with BackupReader(path) as reader:
        upgrade(connection, reader.header.revision)
        tables = tables_of(connection)
        with _references_unchecked(connection, tables):
            _load(connection, reader, tables)
    upgrade(connection)
    rebuild(connection)
    epochs = _renew(connection, versions)
    finish(connection, reader.header)
    held = {table.name: _count_by_workspace(connection, table) for table in (tickets, events)}
    return {
        name: RestoredWorkspace(
            held[tickets.name].get(name, 0), held[events.name].get(name, 0), reader.header.logs.get(name), epoch
        )
        for name, epoch in epochs.items()
    }


def _count_by_workspace(connection: Connection, table: sa.Table) -> Mapping[str, int]:
    of = table.c.workspace_id
    return {row[0]: row[1] for row in connection.execute(select(of, func.count()).group_by(of))}


def _load(connection: Connection, reader: BackupReader, tables: MetaData) -> None:
    missing = set(tables.tables)
    table: sa.Table | None = None
    columns: tuple[str, ...] = ()
    page: list[dict[str, Any]] = []

    def insert_page() -> None:
        if table is not None and page:
            connection.execute(insert(table), page)
            page.clear()

    for item in reader.contents():
        if isinstance(item, backup_file.Table):
            insert_page()
            table, columns = tables.tables.get(item.table), item.columns
            if table is None or set(columns) != set(table.columns.keys()):
                raise BadBackup(f"the backup's table {item.table} is not that of its schema, {reader.header.revision}")
            missing.remove(item.table)
        else:
            page.append(dict(zip(columns, item, strict=True)))
            if len(page) == PAGE:
                insert_page()
    insert_page()
    if missing:
        raise BadBackup(f"the backup lacks the table {', '.join(sorted(missing))}")


def _renew(connection: Connection, versions: Mapping[str, int]) -> Mapping[str, str]:
    """Let nobody take this database for another one with the same past: for the one that was backed up, which may live
    on, or for the one that was here; nor what one of them has signed for the other's."""
    connection.execute(update(deployment).values(id=new_deployment_id(), secret=new_secret()))
    epochs: dict[str, str] = {}
    for row in connection.execute(select(workspaces.c.id, workspaces.c.references_version)).all():
        epochs[row.id] = random_epoch()
        connection.execute(
            update(workspaces)
            .where(workspaces.c.id == row.id)
            .values(
                epoch=epochs[row.id],
                # Copies of reference data are good as long as its version stays.
                references_version=max(row.references_version, versions.get(row.id, 0)) + 1,
            )
        )
    return epochs
