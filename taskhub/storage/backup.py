"""Making a backup: every row of one moment, while others go on writing."""

import asyncio
import os
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Column, Connection, MetaData, select

from taskhub import __version__
from taskhub.storage import backup_file, whole_files
from taskhub.storage.backup_file import BackupWriter, BadBackup, Header, Log, Trailer
from taskhub.storage.database import Database, lift_time_limits
from taskhub.storage.migrate import revision_of
from taskhub.storage.schema import METADATA, SIGNED_IN, search_documents
from taskhub.storage.times import to_text, utc_now

PAGE: Final = 500
"""Rows that are in memory at once."""

_DERIVED: Final = frozenset({search_documents.name})
"""What restoring makes again from the other tables, on each database in its own form."""
_NOT_KEPT: Final = frozenset(table.name for table in SIGNED_IN)


class EmptyDatabase(Exception):
    """There is no schema in the database."""

    def __init__(self) -> None:
        super().__init__("there is nothing in the database")


async def backup(database: Database, path: Path, *, replace: bool = False) -> Trailer:
    """Write a backup to `path`, where it appears only when it is whole and was read again to see that it is.

    Raises FileExistsError unless `replace`, other OSErrors, CannotWrite, BadBackup, StorageBusy, NewerSchema and
    EmptyDatabase.
    """
    with whole_files.unfinished(path, replace=replace) as (unfinished, file):
        written = await database.read(partial(dump, file=file))
        file.flush()
        os.fsync(file.fileno())
        _, found = await asyncio.to_thread(backup_file.verify, unfinished)
        if found != written:
            raise BadBackup(f"{unfinished} does not hold what was written to it")
        whole_files.give_name(unfinished, path, replace=replace)
    return written


def dump(connection: Connection, file: IO[bytes]) -> Trailer:
    """Write all rows as `connection` sees them in its transaction.

    Raises CannotWrite, NewerSchema and EmptyDatabase."""
    lift_time_limits(connection)  # whoever reads standard output may be slow
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
    tables.reflect(connection, only=lambda name, _: name in METADATA.tables and name not in _DERIVED | _NOT_KEPT)
    return tables


def _header(connection: Connection, revision: str, tables: MetaData) -> Header:
    w = tables.tables["workspaces"].c
    columns: list[Column[Any]] = [w.id, w.epoch, w.oldest_seq, w.head_seq]
    found = connection.execute(select(*columns).order_by(w.id))
    logs = {row.id: Log(row.epoch, row.oldest_seq, row.head_seq) for row in found}
    return Header(taskhub=__version__, revision=revision, created_at=to_text(utc_now()), logs=logs)
