"""Making a backup: every row of one moment, while others go on writing."""

import asyncio
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Column, Connection, MetaData, select

from taskhub import __version__
from taskhub.storage import backup_file
from taskhub.storage.backup_file import BackupWriter, BadBackup, Header, Log, Trailer
from taskhub.storage.database import Database
from taskhub.storage.migrate import revision_of
from taskhub.storage.schema import METADATA, search_documents
from taskhub.storage.times import to_text, utc_now

PAGE: Final = 500
"""Rows that are in memory at once."""

_DERIVED: Final = frozenset({search_documents.name})
"""What restoring makes again from the other tables, on each database in its own form."""


class EmptyDatabase(Exception):
    """There is no schema in the database."""

    def __init__(self) -> None:
        super().__init__("there is nothing in the database")


async def backup(database: Database, path: Path, *, replace: bool = False) -> Trailer:
    """Write a backup to `path`, where it appears only when it is whole and was read again to see that it is.

    Raises FileExistsError unless `replace`, other OSErrors, CannotWrite, BadBackup, StorageBusy, NewerSchema and
    EmptyDatabase.
    """
    with _beside(path, replace=replace) as unfinished:
        with _new_file(unfinished) as file:
            written = await database.read(partial(dump, file=file))
            file.flush()
            os.fsync(file.fileno())
        _, found = await asyncio.to_thread(backup_file.verify, unfinished)
        if found != written:
            raise BadBackup(f"{unfinished} does not hold what was written to it")
        _name(unfinished, path, replace=replace)
    return written


def dump(connection: Connection, file: IO[bytes]) -> Trailer:
    """Write all rows as `connection` sees them in its transaction.

    Raises CannotWrite, NewerSchema and EmptyDatabase."""
    if connection.dialect.name == "postgresql":
        # Whoever reads standard output may be slow, and the pages of a big table are many.
        connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = 0")
    revision = revision_of(connection)
    if revision is None:
        raise EmptyDatabase
    tables = tables_of(connection)
    writer = BackupWriter(file, _header(connection, revision, tables))
    for table in tables.sorted_tables:
        writer.begin(backup_file.Table(str(table.name), tuple(str(column.name) for column in table.columns)))
        found = connection.execute(
            select(table).order_by(*table.primary_key.columns), execution_options={"yield_per": PAGE}
        )
        for row in found:
            writer.row(tuple(row))
    return writer.finish()


def tables_of(connection: Connection) -> MetaData:
    """The tables that a backup holds, as they are in the database: the program may have them in a newer form."""
    tables = MetaData()
    tables.reflect(connection, only=lambda name, _: name in METADATA.tables and name not in _DERIVED)
    return tables


def _header(connection: Connection, revision: str, tables: MetaData) -> Header:
    w = tables.tables["workspaces"].c
    columns: list[Column[Any]] = [w.id, w.epoch, w.oldest_seq, w.head_seq]
    found = connection.execute(select(*columns).order_by(w.id))
    logs = {row.id: Log(row.epoch, row.oldest_seq, row.head_seq) for row in found}
    return Header(taskhub=__version__, revision=revision, created_at=to_text(utc_now()), logs=logs)


@contextmanager
def _beside(path: Path, *, replace: bool) -> Iterator[Path]:
    """A name in the same directory, for a file that is gone from there in the end. Raises FileExistsError."""
    if path.exists() and not replace:
        raise FileExistsError(path)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.unfinished")
    try:
        yield unfinished
    finally:
        unfinished.unlink(missing_ok=True)


def _new_file(path: Path) -> IO[bytes]:
    """For its owner alone: it holds the secret that signs sessions."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _name(unfinished: Path, path: Path, *, replace: bool) -> None:
    if replace:
        unfinished.replace(path)
    else:
        os.link(unfinished, path)  # unlike a rename, it fails when there is such a file by now
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Let a name in it outlive a power failure."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
