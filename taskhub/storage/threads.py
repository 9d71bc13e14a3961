"""An SQLite file's connections on threads of their own, so that the event loop never waits for a disk."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine

from taskhub.storage.database_file import SameFile
from taskhub.tickets.errors import StorageBusy

T = TypeVar("T")

MAX_WAITING: Final = 2_000
"""Units that wait for a thread. More would not get one before their callers' patience ends."""

Transacted: TypeAlias = Callable[[Connection, Callable[[Connection], T]], T]
"""Runs a unit in a transaction on the connection and returns what it returns."""


class Threads:
    """Connections to an SQLite file, and a thread for each. You must `dispose` of it."""

    def __init__(self, engine: Engine, file: SameFile, size: int, patience_s: float) -> None:
        self._engine = engine
        self._file = file
        self._size = size
        self._patience_s = patience_s
        self._executor = ThreadPoolExecutor(size, thread_name_prefix="taskhub-database")
        self.busy = 0
        """Units that wait for a thread or are under way on one."""
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(self, transaction: Transacted[T], unit: Callable[[Connection], T]) -> T:
        """Run `unit` in `transaction` on a thread. Raises what they raise, and StorageBusy when none is free in time or
        too many wait for one.

        A caller that is cancelled does not end its unit, but one that has not begun by then never does.
        """
        if self.busy >= self._size + MAX_WAITING:
            raise StorageBusy("too many reads and writes wait for the database")
        loop = asyncio.get_running_loop()
        # Of its own and not the one that asyncio would make: on a busy loop, each step between the two is a turn.
        ended: asyncio.Future[Future[T]] = loop.create_future()
        waits = self.busy >= self._size
        self.busy += 1
        self._idle.clear()
        outcome = self._executor.submit(self._connected, transaction, unit)
        outcome.add_done_callback(lambda _: loop.call_soon_threadsafe(self._ended, ended, outcome))
        giving_up = loop.call_later(self._patience_s, outcome.cancel) if waits else None
        try:
            await ended
        except asyncio.CancelledError:
            outcome.cancel()
            raise
        finally:
            if giving_up is not None:
                giving_up.cancel()
        if outcome.cancelled():
            raise StorageBusy("all database connections are in use")
        return outcome.result()

    def _connected(self, transaction: Transacted[T], unit: Callable[[Connection], T]) -> T:
        self._file.check()
        with self._engine.connect() as connection:
            return transaction(connection, unit)

    def _ended(self, ended: "asyncio.Future[Future[T]]", outcome: "Future[T]") -> None:
        self.busy -= 1
        if not self.busy:
            self._idle.set()
        if not ended.done():  # else its caller is gone
            ended.set_result(outcome)

    async def wait_idle(self) -> None:
        """Wait until no unit is under way."""
        await self._idle.wait()

    async def dispose(self) -> None:
        """End the threads and close the connections, once the units have ended."""
        await self.wait_idle()
        await asyncio.to_thread(self._executor.shutdown)
        self._engine.dispose()


class Watcher:
    """A connection that does nothing but watch an SQLite file for others, on a thread of its own."""

    def __init__(self, file: SameFile) -> None:
        self._file = file
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="taskhub-watches")
        self._connection: sqlite3.Connection | None = None

    async def data_version(self) -> int:
        """Raises StorageBusy."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self._ask)
        except sqlite3.OperationalError as error:
            raise StorageBusy("the database file cannot be read") from error

    def _ask(self) -> int:
        self._file.check()
        if self._connection is None:
            self._connection = sqlite3.connect(self._file.path, isolation_level=None)
        return int(self._connection.execute("PRAGMA data_version").fetchone()[0])

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._executor, self._close)
        self._executor.shutdown()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
