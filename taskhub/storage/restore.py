"""Putting a backup in the place of a database: all of it or, whatever happens meanwhile, nothing.

An SQLite file is made anew beside the old one and takes its name when it is whole. On PostgreSQL everything happens in
one transaction. Nobody else has the database open meanwhile (see occupancy); whoever starts waits or is refused.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import URL, Connection, MetaData, create_engine, func, insert, inspect, select, text, update
from sqlalchemy.exc import DBAPIError

from taskhub.storage import backup_file
from taskhub.storage.backup import PAGE, sync_directory, tables_of
from taskhub.storage.backup_file import BackupReader, BadBackup, Header
from taskhub.storage.failures import storage_busy
from taskhub.storage.migrate import NewerSchema, check_known, lock_postgres, migrating_file, revision_of, upgrade
from taskhub.storage.occupancy import DatabaseInUse, be_sole_user_of_postgres, sole_user_of_file
from taskhub.storage.reindex import rebuild
from taskhub.storage.schema import METADATA, deployment, events, tickets, workspaces
from taskhub.storage.seeds import new_deployment_id, new_epoch
from taskhub.storage.urls import driver_url, sqlite_path

_FOREIGN_KEYS: Final = text(
    "SELECT conrelid::regclass::text AS of_table, quote_ident(conname) AS name, pg_get_constraintdef(oid) AS definition"
    " FROM pg_constraint WHERE contype = 'f' AND conrelid::regclass::text = ANY(:tables) ORDER BY 1, 2"
)


class NotEmpty(Exception):
    """The database holds something that restoring would replace; `what` it is."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the database holds {what}; --replace puts the backup in its place")


class NewerTables(Exception):
    """A newer TaskHub has migrated the database on the server: this one does not know all the tables it made."""

    def __init__(self, revision: str) -> None:
        super().__init__(f"its schema ({revision}) was made by a newer TaskHub; restore into an empty database instead")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: where it came from, its rows by table, and the new epochs by workspace."""

    header: Header
    rows: Mapping[str, int]
    epochs: Mapping[str, str]


async def restore(url: str, path: Path, *, replace: bool = False) -> Restored:
    """Make the database at `url` what the backup at `path` says, with the newest schema and a new epoch for each log.

    Raises BadBackup, NewerSchema, NotEmpty unless `replace`, NewerTables, DatabaseInUse, StorageBusy, and OSError.
    """
    header, trailer = await asyncio.to_thread(backup_file.verify, path)
    check_known(header.revision)
    parsed, server_settings = driver_url(url)
    file = sqlite_path(parsed)
    try:
        if file is not None:
            epochs = await asyncio.to_thread(_restore_file, file.resolve(), path, replace)
        else:
            epochs = await _restore_postgres(parsed, server_settings, path, replace)
    except DBAPIError as error:
        raise storage_busy(error) or error from error
    return Restored(header, trailer.rows, epochs)


# SQLite


def _restore_file(file: Path, path: Path, replace: bool) -> Mapping[str, str]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with sole_user_of_file(file), migrating_file(file):
        versions = _look_at_file(file, replace)
        # Always the same name: what a restore that was killed has left goes away with the next one.
        unfinished = file.with_name(file.name + ".restoring")
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600)
        try:
            epochs = _build_file(unfinished, path, versions)
            descriptor = os.open(unfinished, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            _settle(file)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)
        sync_directory(file.parent)
        return epochs


def _look_at_file(file: Path, replace: bool) -> Mapping[str, int]:
    """The versions of reference data in the file. Raises NotEmpty unless it may be replaced."""
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


def _build_file(file: Path, path: Path, versions: Mapping[str, int]) -> Mapping[str, str]:
    with _opened(file) as connection:
        # Until it has its name it is worth nothing: it needs no journal, and no more than one write to the disk.
        connection.exec_driver_sql("PRAGMA journal_mode=OFF")
        connection.exec_driver_sql("PRAGMA synchronous=OFF")
        connection.exec_driver_sql("BEGIN")
        epochs = _fill(connection, path, versions)
        if found := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise BadBackup(f"{path} is not sound: a row of {found[0]} refers to one of {found[2]} that is not there")
        connection.commit()
        return epochs


def _settle(file: Path) -> None:
    """Let the old file be all there is of the old database: a log of changes that stays beside it would be taken for
    one of the new file's."""
    if not file.exists():
        return
    try:
        with _opened(file) as connection:
            (mode,) = connection.exec_driver_sql("PRAGMA journal_mode=DELETE").one()
    except DBAPIError as error:
        if storage_busy(error) is not None:
            raise DatabaseInUse("a program that is not TaskHub") from None
        # It cannot be read, so the log is lost already.
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
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


# PostgreSQL


async def _restore_postgres(
    url: URL, server_settings: Mapping[str, str], path: Path, replace: bool
) -> Mapping[str, str]:
    from sqlalchemy.ext.asyncio import create_async_engine  # as for migrations

    named = {"application_name": "taskhub restore", "lock_timeout": "10s", **server_settings}
    engine = create_async_engine(
        url,
        connect_args={
            "timeout": 10,
            "server_settings": named,
            "prepared_statement_cache_size": 0,  # tables of the same names are others than before
        },
    )

    def work(connection: Connection) -> Mapping[str, str]:
        be_sole_user_of_postgres(connection)
        lock_postgres(connection)
        versions = _look(connection, replace)
        METADATA.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE IF EXISTS alembic_version")
        return _fill(connection, path, versions)

    try:
        async with engine.begin() as connection:
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
    """The versions of reference data in the database, by workspace. Raises NotEmpty unless it may be replaced."""
    if not inspect(connection).has_table(workspaces.name):
        return {}
    held = {
        table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
        for table in (tickets, events)
    }
    if any(held.values()) and not replace:
        raise NotEmpty(" and ".join(f"{count} {name}" for name, count in held.items()))
    if connection.dialect.name == "postgresql":
        try:
            revision_of(connection)
        except NewerSchema as error:
            raise NewerTables(error.revision) from None
    found = connection.execute(select(workspaces.c.id, workspaces.c.references_version))
    return {row.id: row.references_version for row in found}


def _fill(connection: Connection, path: Path, versions: Mapping[str, int]) -> Mapping[str, str]:
    """Make the schema, put the rows into it, and bring both to the newest form; the new epochs by workspace."""
    with BackupReader(path) as reader:
        upgrade(connection, reader.header.revision)
        tables = tables_of(connection)
        with _references_unchecked(connection, tables):
            _load(connection, reader, tables)
    upgrade(connection)
    rebuild(connection)
    return _renew(connection, versions)


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
    on, or for the one that was here."""
    connection.execute(update(deployment).values(id=new_deployment_id()))
    epochs: dict[str, str] = {}
    for row in connection.execute(select(workspaces.c.id, workspaces.c.references_version)).all():
        epochs[row.id] = new_epoch()
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
