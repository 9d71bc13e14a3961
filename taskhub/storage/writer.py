"""The one way to change the database: a unit of work in a task of its own, from begin to publish."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

import orjson
from pydantic import TypeAdapter

from broadcaster.event import Event
from taskhub.storage import idempotency
from taskhub.storage.database import Database
from taskhub.storage.epochs import Seen
from taskhub.storage.idempotency import IdempotentRequest
from taskhub.storage.times import Clock, to_text, utc_now
from taskhub.storage.transaction import Transaction
from taskhub.tickets.errors import StorageBusy

T = TypeVar("T")

MAX_PENDING: Final = 1000
"""Units under way at once. More are refused: behind so many they would only time out."""

_SWEEP_EVERY: Final = timedelta(minutes=10)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a unit returned, or (`replayed`) what the same request was answered before."""

    value: T
    replayed: bool = False


class Writer:
    """Runs units of work. `on_commit(workspace, events)` is called after each commit, before the caller is answered.

    A unit belongs to the writer and not to the caller: a caller that is cancelled cancels neither its own commit nor
    anybody else's. You must `close` it before the database.
    """

    def __init__(
        self, database: Database, on_commit: Callable[[str, Sequence[Event]], None], *, clock: Clock = utc_now
    ) -> None:
        self.database = database
        self._on_commit = on_commit
        self._clock = clock
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._next_sweep = clock()

    @property
    def pending(self) -> int:
        """Units under way."""
        return len(self._tasks)

    async def run(
        self,
        workspace: str,
        work: Callable[[Transaction], Awaitable[T]],
        *,
        request: IdempotentRequest | None = None,
        answer_type: TypeAdapter[T] | None = None,
    ) -> Answer[T]:
        """Run `work` in a transaction and commit it with its events; roll back when it raises.

        With `request` and `answer_type`, the answer is stored with the effect, and a repeat gets it back instead.
        Raises what `work` raises, StorageBusy, and IdempotencyMismatch.
        """
        if self._closed:
            raise StorageBusy("the server is shutting down")
        if len(self._tasks) >= MAX_PENDING:
            raise StorageBusy("too many writes are waiting")
        if request is not None and answer_type is not None:
            return await self._owned(self._once(workspace, work, request, answer_type))
        return await self._owned(self._unit(workspace, work))

    async def close(self) -> None:
        """Refuse new units and wait for those under way."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _owned(self, unit: Coroutine[Any, Any, Answer[T]]) -> Answer[T]:
        return await asyncio.shield(self._own(unit, "unit of work"))

    def _own(self, work: Coroutine[Any, Any, T], name: str) -> asyncio.Task[T]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        # Asking for the exception marks it as seen: the caller that would have got it may be gone.
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.debug("a unit of work was rolled back: %r", error)

    async def _unit(self, workspace: str, work: Callable[[Transaction], Awaitable[T]]) -> Answer[T]:
        async with self.database.write() as connection:
            transaction = Transaction(connection, workspace, to_text(self._clock()))
            value = await work(transaction)
            await transaction.append()
        self._committed(transaction)
        return Answer(value)

    async def _once(
        self,
        workspace: str,
        work: Callable[[Transaction], Awaitable[T]],
        request: IdempotentRequest,
        answer_type: TypeAdapter[T],
    ) -> Answer[T]:
        now = self._clock()
        async with self.database.write() as connection:
            transaction = Transaction(connection, workspace, to_text(now))
            stored = await idempotency.claim(connection, workspace, request, now)
            if stored is not None:
                return Answer(answer_type.validate_json(stored), replayed=True)
            value = await work(transaction)
            await transaction.append()
            await idempotency.complete(connection, workspace, request, orjson.dumps(value))
        self._committed(transaction)
        if now >= self._next_sweep:
            self._next_sweep = now + _SWEEP_EVERY
            self._own(self._sweep(now), "sweep of idempotency records")
        return Answer(value)

    def _committed(self, transaction: Transaction) -> None:
        if transaction.events:
            last = transaction.events[-1]
            self.database.seen.committed(transaction.workspace, Seen(last.epoch, last.seq, transaction.nonces[-1]))
            self._on_commit(transaction.workspace, transaction.events)

    async def _sweep(self, now: datetime) -> None:
        """Delete what has expired, in units of their own so that the writes of others come in between."""
        deleted = idempotency.SWEEP_AT_MOST
        try:
            while deleted == idempotency.SWEEP_AT_MOST and not self._closed:
                async with self.database.write() as connection:
                    deleted = await idempotency.sweep(connection, now)
        except StorageBusy as error:
            _log.debug("expired idempotency records stay until the next sweep: %s", error)
        except Exception:
            _log.exception("expired idempotency records could not be deleted")
