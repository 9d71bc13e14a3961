"""Connections to the database: units of reading and of writing, on SQLite and on PostgreSQL."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar

import aiosqlite
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from taskhub.storage import schema
from taskhub.storage.epochs import SeenEvents
from taskhub.storage.failures import storage_busy
from taskhub.storage.migrate import newest_revision
from taskhub.storage.urls import driver_url, sqlite_path
from taskhub.tickets.errors import StorageBusy

_PING_TIMEOUT_S: Final = 3.0

_log = logging.getLogger(__name__)

T = TypeVar("T")
P = ParamSpec("P")
S = TypeVar("S", bound="ReadsDatabase")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What tells this database from every other: `id` names its channels, `secret` signs what clients carry."""

    id: str
    secret: bytes


class Database:
    """A database and its connections. After `open` you must `close`.

    SQLite: one connection writes (BEGIN IMMEDIATE) on a thread of its own, others read, one idle connection watches for
    other processes. PostgreSQL: one pool for both. A unit that waits longer than `busy_timeout_s` for a connection or a
    lock, or whose statement takes longer on PostgreSQL, or that finds the database away, raises StorageBusy.
    """

    def __init__(self, url: str, *, pool_size: int = 10, busy_timeout_s: float = 5.0) -> None:
        self._url, self._server_settings = driver_url(url)
        self._pool_size = pool_size
        self.busy_timeout_s = busy_timeout_s
        self.seen = SeenEvents()
        self._writing_thread: _WritingThread | None = None
        self._writers: AsyncEngine | None = None
        self._readers: AsyncEngine | None = None
        self._watcher: aiosqlite.Connection | None = None
        self._watching = asyncio.Lock()
        self._deployment: Deployment | None = None
        self._units: set[asyncio.Task[Any]] = set()

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database, None on PostgreSQL."""
        return sqlite_path(self._url)

    async def open(self) -> None:
        """Make the pools; connections come with the first units. The schema must be there already (see migrate)."""
        if self.path is not None:
            writer = create_engine(self._url.set(drivername="sqlite"), **self._sqlite_options(size=1))
            _prepare_sqlite(writer, "BEGIN IMMEDIATE")
            self._writing_thread = _WritingThread(writer)
            self._readers = create_async_engine(self._url, **self._sqlite_options(size=self._pool_size))
            _prepare_sqlite(self._readers.sync_engine, "BEGIN", read_only=True)
        else:
            self._writers = self._postgres_engine()
            self._readers = self._writers.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    async def to_the_end(self, unit: Coroutine[Any, Any, T]) -> T:
        """Run a unit in a task of its own that goes on when the caller is cancelled.

        A connection that is cut off while it connects or waits for an answer is lost, and its driver complains.
        """
        task = asyncio.create_task(unit)
        self._units.add(task)
        task.add_done_callback(self._unit_ended)
        return await asyncio.shield(task)

    def _unit_ended(self, task: asyncio.Task[Any]) -> None:
        self._units.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as seen: the caller that would have got it may be gone

    async def units_ended(self) -> None:
        """Wait for the units whose callers are gone."""
        while self._units:
            await asyncio.wait(self._units)

    async def close(self) -> None:
        """Close every connection, once the units have ended."""
        await self.units_ended()
        async with self._watching:
            if self._watcher is not None:
                await self._watcher.close()
                self._watcher = None
        if self._readers is not None and self._readers is not self._writers:
            await self._readers.dispose()
        if self._writers is not None:
            await self._writers.dispose()
        if self._writing_thread is not None:
            await self._writing_thread.close()
        self._writers = self._readers = self._writing_thread = None

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that sees the database as it was at its first read. Raises StorageBusy."""
        with _failures_told():
            async with _opened(self._readers).connect() as connection:
                await connection.begin()
                yield connection

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in one transaction: committed when it returns, rolled back when it raises. Raises what it raises,
        and StorageBusy.

        On SQLite the whole unit is one visit to the thread that writes. A visit per statement would cost more than most
        statements do, and on a busy event loop each would wait for its turn. On PostgreSQL the unit runs on the event
        loop, and others run while it waits for an answer. A caller that is cancelled does not cancel it.
        """
        return await self.to_the_end(self._write(unit))

    async def _write(self, unit: Callable[[Connection], T]) -> T:
        with _failures_told():
            if self._writing_thread is not None:
                return await self._writing_thread.write(unit)
            async with _opened(self._writers).connect() as connection:
                return await connection.run_sync(_write, unit)

    async def ping(self) -> None:
        """Return when the database can be written. Raises StorageBusy."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT_S):
                await self._write(_check_writable)
        except TimeoutError as error:
            raise StorageBusy("the database gives no answer") from error

    async def deployment(self) -> Deployment:
        """What was made with the database; read once. Raises StorageBusy."""
        if self._deployment is None:
            async with self.read() as connection:
                row = (await connection.execute(select(schema.deployment.c.id, schema.deployment.c.secret))).one()
            self._deployment = Deployment(row.id, bytes.fromhex(row.secret))
        return self._deployment

    async def schema_is_current(self) -> bool:
        """Whether the newest migration of this program, and nothing newer, was applied. Raises StorageBusy."""
        async with self.read() as connection:
            revision = await connection.run_sync(_revision)
        return revision == await asyncio.to_thread(newest_revision)

    async def data_version(self) -> int | None:
        """On SQLite a number that changes when another connection or process has changed the file; None on PostgreSQL.

        It is asked on a connection that does nothing else, for the number only tells of changes by others.
        """
        path = self.path
        if path is None:
            return None
        async with self._watching:
            try:
                if self._watcher is None:
                    self._watcher = await aiosqlite.connect(path, isolation_level=None)
                rows = await self._watcher.execute_fetchall("PRAGMA data_version")
            except aiosqlite.OperationalError as error:
                raise StorageBusy("the database file cannot be read") from error
        return int(next(iter(rows))[0])

    def _sqlite_options(self, *, size: int) -> dict[str, Any]:
        return {
            "pool_size": size,
            "max_overflow": 0,
            "pool_timeout": self.busy_timeout_s,
            # The driver must not begin transactions by itself: it would begin deferred ones, at the first write.
            "connect_args": {"isolation_level": None, "timeout": self.busy_timeout_s},
        }

    def _postgres_engine(self) -> AsyncEngine:
        patience = self.busy_timeout_s
        server_settings = {
            "application_name": "taskhub",
            "lock_timeout": f"{patience * 1000:.0f}ms",
            "statement_timeout": f"{patience * 1000:.0f}ms",
            # A process that was stopped in the middle of a write must not hold the workspace's row for ever.
            "idle_in_transaction_session_timeout": "30s",
        }
        engine = create_async_engine(
            self._url,
            pool_size=self._pool_size,
            max_overflow=0,
            pool_timeout=patience,
            pool_use_lifo=True,
            connect_args={
                "timeout": patience,
                # For a server that gives no answer at all: it would have ended the statement before.
                "command_timeout": patience + 1,
                "server_settings": {**server_settings, **self._server_settings},
            },
        )
        event.listen(engine.sync_engine, "checkout", _refuse_closed)
        return engine


class ReadsDatabase(Protocol):
    """What has methods marked `to_the_end`."""

    _database: Database


def to_the_end(
    read: Callable[Concatenate[S, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[S, P], Coroutine[Any, Any, T]]:
    """Mark a method that reads: it is run by `Database.to_the_end`."""

    @wraps(read)
    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._database.to_the_end(read(self, *args, **kwargs))

    return run


class _WritingThread:
    """The connection that writes to an SQLite file, and the thread that waits for it. You must `close` it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="taskhub-writes")

    async def write(self, unit: Callable[[Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._connect_and_write, unit)

    def _connect_and_write(self, unit: Callable[[Connection], T]) -> T:
        with self._engine.connect() as connection:
            return _write(connection, unit)

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._engine.dispose)
        self._executor.shutdown()


def _opened(engine: AsyncEngine | None) -> AsyncEngine:
    if engine is None:
        raise StorageBusy("the database is closed")
    return engine


@contextmanager
def _failures_told() -> Iterator[None]:
    """Raise StorageBusy for failures that mean it."""
    try:
        yield
    except Exception as error:
        busy = storage_busy(error)
        if busy is None:
            raise
        _log.debug("a unit failed: %s", error)
        raise busy from error


def _write(connection: Connection, unit: Callable[[Connection], T]) -> T:
    connection.begin()
    value = unit(connection)
    try:
        connection.commit()
    except Exception as error:
        if storage_busy(error) is None:
            raise
        raise StorageBusy("the database went away while committing", uncertain=True) from error
    return value


def _check_writable(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
        raise StorageBusy("the database is read-only")


def _prepare_sqlite(engine: Engine, begin: str, *, read_only: bool = False) -> None:
    event.listen(engine, "connect", partial(_set_pragmas, read_only=read_only))
    event.listen(engine, "begin", partial(_begin, statement=begin))


def _set_pragmas(connection: Any, record: object, *, read_only: bool) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    if read_only:
        cursor.execute("PRAGMA query_only=ON")
    cursor.close()


def _begin(connection: Connection, *, statement: str) -> None:
    connection.exec_driver_sql(statement)


def _refuse_closed(connection: object, record: Any, proxy: object) -> None:
    # The driver knows of a closed connection without asking the server, so no round trip is spent on a ping.
    if record.driver_connection.is_closed():
        raise InvalidatePoolError


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()
