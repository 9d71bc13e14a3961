"""Connections to the database: units of reading and of writing, on SQLite and on PostgreSQL."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from sqlalchemy import Connection, ExceptionContext, create_engine, event, select, text, update
from sqlalchemy.exc import InvalidatePoolError

from taskhub import tracing
from taskhub.metrics.meters import Meters, Operation
from taskhub.storage import schema
from taskhub.storage.database_file import DatabaseFiles, Lock, SameFile
from taskhub.storage.epochs import SeenEvents
from taskhub.storage.failures import breaks_connection, busy_told, in_doubt, storage_busy
from taskhub.storage.migrate import applied_revision, newest_revision
from taskhub.storage.occupancy import end_cut_off, share_postgres
from taskhub.storage.threads import Threads, Transacted, Watcher
from taskhub.storage.urls import driver_url, sqlite_path
from taskhub.tickets.errors import StorageBusy

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

_PING_TIMEOUT_S: Final = 3.0
# transaction_timeout is one of PostgreSQL 17 and newer.
_LIFT: Final = text(
    "SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN"
    " ('idle_in_transaction_session_timeout', 'statement_timeout', 'transaction_timeout')"
)

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deployment:
    """What tells this database from every other: `id` names its channels, `secret` signs what clients carry."""

    id: str
    secret: bytes


class Database:
    """A database and its connections. After `open` you must `close`.

    A unit is a function that is run within one transaction. On SQLite it runs on a thread: one writes (BEGIN
    IMMEDIATE), others read. A visit to the thread per statement would cost more than most statements do, and on a busy
    event loop each would wait for its turn. On PostgreSQL it runs on the event loop, which does other things while it
    waits for an answer; one pool of connections serves both.

    A unit that waits longer than `busy_timeout_s` for a connection or a lock, or whose statement takes longer on
    PostgreSQL, or that finds the database away, raises StorageBusy. A caller that is cancelled does not cancel its
    unit: a connection that is cut off while it connects or waits for an answer is lost, and its driver complains.
    """

    def __init__(
        self, url: str, *, pool_size: int = 10, busy_timeout_s: float = 5.0, meters: Meters | None = None
    ) -> None:
        self._url, self._server_settings = driver_url(url)
        self._pool_size = pool_size
        self.busy_timeout_s = busy_timeout_s
        self.meters = Meters() if meters is None else meters
        self.seen = SeenEvents()
        self._writers: AsyncEngine | Threads | None = None
        self._readers: AsyncEngine | Threads | None = None
        self._watcher: Watcher | None = None
        self._lock: Lock | None = None
        self._deployment: Deployment | None = None
        self._units: set[asyncio.Task[Any]] = set()
        self._write_failed = False
        self._ending_cut_off: asyncio.Task[None] | None = None

    @property
    def path(self) -> Path | None:
        """The file of an SQLite database, None on PostgreSQL."""
        return sqlite_path(self._url)

    async def open(self) -> None:
        """Make the pools; connections come with the first units. The schema must be there already (see migrate).

        Raises StorageBusy while a backup is being restored into an SQLite file."""
        if (path := self.path) is not None:
            self._lock = DatabaseFiles(path).share()
            file = SameFile(path)
            self._writers = self._threads(file, 1, "BEGIN IMMEDIATE")
            self._readers = self._threads(file, self._pool_size, "BEGIN", read_only=True)
            self._watcher = Watcher(file)
        else:
            self._writers = self._postgres_engine()
            self._readers = self._writers.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)

    @property
    def threads_busy(self) -> bool:
        """Whether units are under way on threads of this process."""
        return any(isinstance(engine, Threads) and engine.busy for engine in (self._readers, self._writers))

    async def _to_the_end(self, unit: Coroutine[Any, Any, T]) -> T:
        """Run a unit in a task of its own that goes on when the caller is cancelled."""
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
        for connections in (self._readers, self._writers):
            if isinstance(connections, Threads):
                await connections.wait_idle()

    async def close(self) -> None:
        """Close every connection, once the units have ended."""
        if self._ending_cut_off is not None:
            await asyncio.wait((self._ending_cut_off,))
        await self.units_ended()
        readers, writers, watcher = self._readers, self._writers, self._watcher
        self._readers = self._writers = self._watcher = None
        if watcher is not None:
            await watcher.close()
        if isinstance(readers, Threads):
            await readers.dispose()
        if writers is not None:
            await writers.dispose()
        if self._lock is not None:
            self._lock.close()

    async def read(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in one transaction that sees the database as it was at its first read. Raises what it raises, and
        StorageBusy."""
        return await self._run(self._readers, _read, unit)

    async def write(self, unit: Callable[[Connection], T]) -> T:
        """Run `unit` in one transaction: committed when it returns, rolled back when it raises. Raises what it raises,
        and StorageBusy."""
        try:
            value = await self._run(self._writers, _write, unit)
        except StorageBusy:
            self._write_failed = True
            if self.path is None and (self._ending_cut_off is None or self._ending_cut_off.done()):
                # It may have waited for somebody who never goes on.
                self._ending_cut_off = asyncio.create_task(self._end_cut_off())
            raise
        self._write_failed = False
        return value

    async def _end_cut_off(self) -> None:
        try:
            await self._run(self._writers, _write, partial(end_cut_off, patience_s=self.busy_timeout_s))
        except StorageBusy as error:
            _log.debug("sessions that were cut off are looked for after the next failure: %s", error)
        except Exception:
            _log.exception("sessions that were cut off could not be ended")

    async def _run(
        self,
        connections: "AsyncEngine | Threads | None",
        transaction: Transacted[T],
        unit: Callable[[Connection], T],
    ) -> T:
        if connections is None:
            raise StorageBusy("the database is closed")
        operation: Operation = "read" if transaction is _read else "write"
        started, failed = time.perf_counter(), False
        try:
            with tracing.span_of_part(f"database {operation}"), busy_told():
                if isinstance(connections, Threads):
                    return await connections.run(transaction, unit)
                return await self._to_the_end(_run_on_loop(connections, transaction, unit))
        except StorageBusy:
            failed = True
            raise
        finally:
            self.meters.unit(operation, time.perf_counter() - started, failed=failed)

    async def ping(self) -> None:
        """Return when the database can be written. Raises StorageBusy."""
        try:
            async with asyncio.timeout(_PING_TIMEOUT_S):
                if self._write_failed:
                    # That a disk is full shows only in writing, which costs too much to do it for every probe.
                    await self.write(_rewrite)
                else:
                    await self._run(self._writers, _write, _check_writable)
        except TimeoutError as error:
            self.meters.database_errors["write"] += 1
            raise StorageBusy("the database gives no answer") from error

    async def deployment(self) -> Deployment:
        """What was made with the database; read once. Raises StorageBusy."""
        if self._deployment is None:
            self._deployment = await self.read(_read_deployment)
        return self._deployment

    async def schema_trouble(self) -> str | None:
        """What to do about a schema that is not the one of this program's newest migration; None where it is. Raises
        StorageBusy."""
        applied, newest = await self.read(applied_revision) or "", newest_revision() or ""
        if applied > newest:
            return "a newer TaskHub has changed its schema: update this one"
        return "its schema is older than this version's: run `taskhub migrate`" if applied < newest else None

    async def schema_is_current(self) -> bool:
        """Whether the newest migration of this program, and nothing newer, was applied. Raises StorageBusy."""
        return await self.schema_trouble() is None

    async def data_version(self) -> int | None:
        """On SQLite a number that changes when another connection or process has changed the file; None on PostgreSQL.

        It is asked on a connection that does nothing else, for the number only tells of changes by others.
        """
        return None if self._watcher is None else await self._watcher.data_version()

    def _threads(self, file: SameFile, size: int, begin: str, *, read_only: bool = False) -> Threads:
        engine = create_engine(
            self._url,
            hide_parameters=True,  # they are what people wrote, and errors are logged
            pool_size=size,
            max_overflow=0,
            # The driver must not begin transactions by itself: it would begin deferred ones, at the first write.
            connect_args={"isolation_level": None, "timeout": self.busy_timeout_s},
        )
        event.listen(engine, "connect", partial(_set_pragmas, read_only=read_only))
        event.listen(engine, "begin", partial(_begin, statement=begin))
        event.listen(engine, "handle_error", _replace_broken)
        return Threads(engine, file, size, self.busy_timeout_s)

    def _postgres_engine(self) -> "AsyncEngine":
        from sqlalchemy.ext.asyncio import create_async_engine  # a tenth of a second, which SQLite need not spend

        patience = self.busy_timeout_s
        server_settings = {
            "application_name": "taskhub",
            "jit": "off",  # compiling a statement takes longer than any of ours is to run
            "lock_timeout": f"{patience * 1000:.0f}ms",
            "statement_timeout": f"{patience * 1000:.0f}ms",
            # A process that was stopped or cut off in the middle of a write holds the workspace's row, and everybody
            # who writes there waits for it.
            "idle_in_transaction_session_timeout": f"{patience * 1000:.0f}ms",
        }
        engine = create_async_engine(
            self._url,
            hide_parameters=True,
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
        event.listen(engine.sync_engine, "connect", share_postgres)
        event.listen(engine.sync_engine, "checkout", _refuse_closed)
        return engine


async def _run_on_loop(
    engine: "AsyncEngine",
    transaction: Transacted[T],
    unit: Callable[[Connection], T],
) -> T:
    async with engine.connect() as connection:
        return await connection.run_sync(transaction, unit)


def lift_time_limits(connection: Connection) -> None:
    """Let this transaction take as long as it takes, with pauses and long statements: it goes through everything.

    How long it waits for a lock stays limited."""
    if connection.dialect.name == "postgresql":
        connection.execute(_LIFT)


def _read(connection: Connection, unit: Callable[[Connection], T]) -> T:
    connection.begin()
    return unit(connection)


def _write(connection: Connection, unit: Callable[[Connection], T]) -> T:
    connection.begin()
    value = unit(connection)
    try:
        connection.commit()
    except Exception as error:
        if (busy := storage_busy(error)) is None or not in_doubt(error):
            raise
        raise StorageBusy(f"{busy} while committing", uncertain=True) from error
    return value


def _check_writable(connection: Connection) -> None:
    if connection.dialect.name != "postgresql":
        return
    if connection.exec_driver_sql("SELECT pg_is_in_recovery()").scalar_one():
        raise StorageBusy("the database is read-only")


def _rewrite(connection: Connection) -> None:
    _check_writable(connection)
    connection.execute(update(schema.deployment).values(id=schema.deployment.c.id))


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


def _replace_broken(context: ExceptionContext) -> None:
    if breaks_connection(context.original_exception):
        context.is_disconnect = True


def _refuse_closed(connection: object, record: Any, proxy: object) -> None:
    # The driver knows of a closed connection without asking the server, so no round trip is spent on a ping.
    if record.driver_connection.is_closed():
        raise InvalidatePoolError


def _read_deployment(connection: Connection) -> Deployment:
    row = connection.execute(select(schema.deployment.c.id, schema.deployment.c.secret)).one()
    return Deployment(row.id, bytes.fromhex(row.secret))
