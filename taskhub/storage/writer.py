"""The one way to change a workspace: units of work that are committed in groups, each once and in their order."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, TypeVar

from sqlalchemy import Connection

from broadcaster.event import Event, EventDraft
from taskhub.failpoints import OFF, Failpoints
from taskhub.storage import idempotency
from taskhub.storage.database import Database
from taskhub.storage.epochs import Seen
from taskhub.storage.group import MAX_COMMANDS, Answer, Command, Group, Once
from taskhub.storage.times import Clock, to_text, utc_now
from taskhub.storage.transaction import Transaction, database_time
from taskhub.tickets.errors import StorageBusy, VersionConflict

T = TypeVar("T")

MAX_PENDING: Final = 1000
"""Units waiting or under way at once. More are refused: behind so many they would only time out."""

_SWEEP_EVERY: Final = timedelta(minutes=10)

_log = logging.getLogger(__name__)


class Writer:
    """Runs units of work. After each commit, before the callers are answered, `on_commit(workspace, events)` is called,
    and `on_transient(workspace, drafts)` with what has no place in the log. The time of a unit is the database's, or
    that of `clock`.

    Of each workspace one group of units is under way; those that arrive meanwhile are the next one. So a unit that
    comes alone is committed at once and alone, and under load the cost of a commit is shared by many.

    A unit belongs to the writer and not to the caller: a caller that is cancelled cancels neither its own commit nor
    anybody else's. You must `close` it before the database.
    """

    def __init__(
        self,
        database: Database,
        on_commit: Callable[[str, Sequence[Event]], None],
        *,
        on_transient: Callable[[str, Sequence[EventDraft]], object] = lambda workspace, drafts: None,
        clock: Clock | None = None,
        failpoints: Failpoints = OFF,
    ) -> None:
        self.database = database
        self._on_commit = on_commit
        self._on_transient = on_transient
        self._clock = clock
        self._failpoints = failpoints
        self._waiting: dict[str, deque[Command[Any]]] = {}
        """By workspace; there is an entry, and a task that works it off, while anything waits or is under way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._closed = False
        self._next_sweep = self.now()

    def time(self, connection: Connection) -> str:
        """What time a unit would have now."""
        return to_text(database_time(connection) if self._clock is None else self._clock())

    def now(self) -> datetime:
        """What time it is here: on PostgreSQL about what a unit would have, and there is no need to ask."""
        return utc_now() if self._clock is None else self._clock()

    @property
    def pending(self) -> int:
        """Units waiting or under way."""
        return self._pending

    async def run(self, workspace: str, work: Callable[[Transaction], T], *, once: Once[T] | None = None) -> Answer[T]:
        """Run `work` and commit what it did with its events; undo it when it raises.

        With `once` the answer is stored with the effect, and a repeat gets it back instead. `work` may run on another
        thread, and a second time when the transaction that it shared with others has failed; it must not block except
        for the database. Raises what `work` raises, StorageBusy, and IdempotencyMismatch.
        """
        if self._closed:
            raise StorageBusy("the server is shutting down")
        if self._pending >= MAX_PENDING:
            raise StorageBusy("too many writes are waiting")
        command = Command(work, once, asyncio.get_running_loop().create_future())
        self._pending += 1
        waiting = self._waiting.get(workspace)
        if waiting is None:
            waiting = self._waiting[workspace] = deque()
            self._own(self._work_off(workspace, waiting), f"unit of work on {workspace}")
        waiting.append(command)
        answer = await command.answered
        self._failpoints.reach("write.after_publish")
        return answer

    async def close(self) -> None:
        """Refuse new units and wait for those under way."""
        self._closed = True
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _own(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work_off(self, workspace: str, waiting: deque[Command[Any]]) -> None:
        try:
            while waiting:
                commands = [waiting.popleft() for _ in range(min(len(waiting), MAX_COMMANDS))]
                # Those that come late in a long queue need not find out in their turn that the database is away.
                if group := [command for command in commands if not self._too_late(command)]:
                    rest = await self._commit(Group(workspace, group, self._clock, self._failpoints))
                    waiting.extendleft(reversed(rest))
        finally:
            # Whatever happened, the next command finds the workspace free, and nobody waits for ever.
            del self._waiting[workspace]
            self._fail(waiting, StorageBusy())

    def _too_late(self, command: Command[Any]) -> bool:
        """Whether it has waited for so long that its caller has given up; it is answered, then."""
        if command.since >= time.monotonic() - self.database.busy_timeout_s:
            return False
        self._answer(command, StorageBusy("too many writes are waiting"))
        return True

    async def _commit(self, group: Group) -> Sequence[Command[Any]]:
        """Commit a group and answer its commands; those that it did not come to.

        Where nothing was committed although the workspace's row had been got, each command gets a try alone: one of
        them may be to blame. That ends when the database turns out to be away, or with the patience of their callers.
        """
        try:
            await self.database.write(group.run)
        except Exception as error:
            _log.debug("%s units of work were rolled back: %r", len(group.commands), error)
            in_doubt = isinstance(error, StorageBusy) and error.uncertain
            if group.alone or in_doubt or not group.begun:
                self._fail(group.commands, error)
            else:
                await self._commit_one_by_one(group)
            return ()
        self._tell(group)
        for command, outcome in zip(group.commands, group.outcomes, strict=False):
            self._answer(command, outcome)
        return group.commands[len(group.outcomes) :]

    async def _commit_one_by_one(self, group: Group) -> None:
        for place, command in enumerate(group.commands):
            if self._too_late(command):
                continue
            alone = Group(group.workspace, [command], self._clock, self._failpoints)
            await self._commit(alone)
            if not alone.begun:  # the database is away, and the others need not find out one after the other
                self._fail(group.commands[place + 1 :], StorageBusy())
                return

    def _fail(self, commands: Iterable[Command[Any]], error: Exception) -> None:
        for command in commands:
            self._answer(command, error)

    def _answer(self, command: Command[T], outcome: Answer[T] | Exception) -> None:
        self._pending -= 1
        if isinstance(outcome, VersionConflict):
            self.database.meters.version_conflicts += 1
        elif isinstance(outcome, Answer) and outcome.replayed:
            self.database.meters.replays += 1
        command.answer(outcome)

    def _tell(self, group: Group) -> None:
        if group.emitted:
            last, _ = group.emitted[-1]
            self.database.seen.committed(group.workspace, Seen(last.epoch, last.seq, group.last_nonce))
            self.database.meters.committed([event for event, _ in group.emitted])
            try:
                self._failpoints.reach("write.after_commit")
                self._on_commit(group.workspace, [event for event, _ in group.emitted])
            except Exception:  # what is committed stays so, and who listens finds it in the log
                _log.exception("committed events could not be told")
        if group.transient:
            try:
                self._on_transient(group.workspace, group.transient)
            except Exception:
                _log.exception("transient events could not be told")
        now = self.now()
        if now >= self._next_sweep and any(command.once is not None for command in group.commands):
            self._next_sweep = now + _SWEEP_EVERY
            self._own(self._sweep(now), "sweep of idempotency records")

    async def _sweep(self, now: datetime) -> None:
        """Delete what has expired, in units of their own so that the writes of others come in between."""
        deleted = idempotency.SWEEP_AT_MOST
        try:
            while deleted == idempotency.SWEEP_AT_MOST and not self._closed:
                deleted = await self.database.write(partial(idempotency.sweep, now=now))
        except StorageBusy as error:
            _log.debug("expired idempotency records stay until the next sweep: %s", error)
        except Exception:
            _log.exception("expired idempotency records could not be deleted")
