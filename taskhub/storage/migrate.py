"""Bringing a database to the newest schema, and a new one to life."""

import asyncio
from functools import cache
from pathlib import Path
from typing import Final

from sqlalchemy import URL, Connection, create_engine

from taskhub.failpoints import OFF, Failpoints
from taskhub.storage.database_file import DatabaseFiles
from taskhub.storage.failures import busy_told
from taskhub.storage.seeds import plant
from taskhub.storage.urls import driver_url, sqlite_path
from taskhub.tickets.errors import StorageBusy

_MIGRATIONS: Final = Path(__file__).with_name("migrations")

# Any constant: it only must not be another program's in the same database.
_ADVISORY_LOCK: Final = 0x7461736B687562


class NewerSchema(RuntimeError):
    """A newer TaskHub has migrated the database: this one does not know its schema, `revision`."""

    def __init__(self, revision: str) -> None:
        super().__init__(
            f"its schema ({revision}) was made by a newer TaskHub; update this one, or restore a backup made before"
        )
        self.revision = revision


def migrate(url: str, failpoints: Failpoints = OFF) -> None:
    """Apply what is missing, in one transaction; make the default workspace when there is none.

    Several processes may call it at once: one works, the others wait and find nothing to do. Not to be called on an
    event loop (use asyncio.to_thread there). Raises StorageBusy, NewerSchema, and ValueError for what is no address.
    """
    parsed, server_settings = driver_url(url)
    path = sqlite_path(parsed)
    if path is None:
        asyncio.run(_migrate_postgres(parsed, server_settings, failpoints))
        return
    try:
        files = DatabaseFiles(path)
        files.make()
        with files.migrating(), busy_told():
            _migrate_sqlite(parsed, failpoints)
    except OSError as error:
        raise StorageBusy(f"{error.filename or path}: {error.strerror}") from error


@cache
def newest_revision() -> str | None:
    """The newest migration that this program has. Read once: an update of the files beneath a running program brings
    migrations that are not its own, and that it may not even be able to import."""
    return max(_known_revisions(), default=None)


def _known_revisions() -> set[str]:
    """The revisions of the migrations, whose files begin with them: counting up, one after the other."""
    return {path.name.partition("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py")}


def _migrate_sqlite(url: URL, failpoints: Failpoints) -> None:
    engine = create_engine(url, connect_args={"isolation_level": None, "timeout": 60})
    try:
        with engine.connect() as connection, connection.begin():
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            upgrade(connection, failpoints=failpoints)
            plant(connection)
    finally:
        engine.dispose()


async def _migrate_postgres(url: URL, server_settings: dict[str, str], failpoints: Failpoints) -> None:
    from sqlalchemy.ext.asyncio import create_async_engine  # a tenth of a second, which SQLite need not spend

    engine = create_async_engine(url, connect_args={"timeout": 10, "server_settings": server_settings})
    try:
        with busy_told():
            async with engine.begin() as connection:
                await connection.run_sync(lock_postgres)
                await connection.run_sync(upgrade, failpoints=failpoints)
                await connection.run_sync(plant)
    finally:
        await engine.dispose()


def upgrade(connection: Connection, revision: str = "head", *, failpoints: Failpoints = OFF) -> None:
    """Apply what is missing up to a revision, in the transaction of `connection`. Raises NewerSchema."""
    present = revision_of(connection)
    if present == (newest_revision() if revision == "head" else revision):
        return
    # Most starts have nothing to apply, and need not wait for Alembic to be read.
    from alembic import command
    from alembic.config import Config

    config = Config()
    # "%" is an interpolation mark in Alembic's configuration, and may occur in a path.
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    config.attributes["applied"] = lambda **_: failpoints.reach("migration.step")
    command.upgrade(config, revision)


def revision_of(connection: Connection) -> str | None:
    """The newest migration that was applied to the database; None to an empty one. Raises NewerSchema."""
    present = applied_revision(connection)
    if present is not None:
        check_known(present)
    return present


def applied_revision(connection: Connection) -> str | None:
    """As `revision_of`, also when this program does not know it."""
    if not connection.dialect.has_table(connection, "alembic_version"):
        return None
    revision: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return revision


def check_known(revision: str) -> None:
    """Raise NewerSchema for a revision that this program does not have."""
    if revision not in _known_revisions():
        raise NewerSchema(revision)


def lock_postgres(connection: Connection) -> None:
    """Wait until nobody else migrates, and keep others from it until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_LOCK})")
