"""Group commit: commands on one workspace that arrived together share a database transaction."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from broadcaster.event import Event, EventDraft
from taskhub.failpoints import OFF, Failpoints
from taskhub.storage import idempotency
from taskhub.storage.idempotency import IdempotentRequest
from taskhub.storage.times import Clock, to_text
from taskhub.storage.transaction import Transaction, advance, append, lock_workspace

T = TypeVar("T")

MAX_COMMANDS: Final = 64
MAX_BYTES: Final = 1024 * 1024
"""Event data, after which a group takes no further command."""
MAX_S: Final = 0.05
"""Seconds after which a group takes no further command: on other machines the workspace waits for its commit."""

_EVENT_BYTES: Final = 512
"""What an event weighs beside its data."""


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a unit returned, or (`replayed`) what the same request was answered before."""

    value: T
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Once(Generic[T]):
    """That a command has its effect once: the request it is, and the type of the answer that is stored with it."""

    request: IdempotentRequest
    answer_type: TypeAdapter[T]


@dataclass(eq=False, slots=True)
class Command(Generic[T]):
    """A unit of work that waits for its commit. `answered` is cancelled when its caller is; the command is not."""

    work: Callable[[Transaction], T]
    once: Once[T] | None
    answered: asyncio.Future[Answer[T]]
    since: float = field(default_factory=time.monotonic)

    def answer(self, outcome: Answer[T] | Exception) -> None:
        if self.answered.done():
            return
        if isinstance(outcome, StopIteration):
            self.answered.set_exception(RuntimeError("a unit of work raised StopIteration"))
        elif isinstance(outcome, Exception):
            self.answered.set_exception(outcome)
        else:
            self.answered.set_result(outcome)


class Group:
    """Commands that are run one after the other in one database transaction, each seeing what those before it did.

    A command that raises is undone alone. A failure of the database is another matter, for it may have ended the
    transaction that all share: it is raised out of `run`, and nothing is kept of the group.
    """

    def __init__(
        self, workspace: str, commands: Sequence[Command[Any]], clock: Clock | None, failpoints: Failpoints = OFF
    ) -> None:
        self.workspace = workspace
        self.commands = commands
        self.begun = False
        """The workspace's row was got: what fails after that is not for want of a database."""
        self.outcomes: list[Answer[Any] | Exception] = []
        """Of the commands in their order; commands beyond the limits have none and belong to the next group."""
        self.emitted: list[tuple[Event, EventDraft]] = []
        self.transient: list[EventDraft] = []
        self.last_nonce = 0
        self._clock = clock
        self._failpoints = failpoints

    @property
    def alone(self) -> bool:
        """There is one command, so its failure is the group's."""
        return len(self.commands) == 1

    def run(self, connection: Connection) -> None:
        """The unit for Database.write."""
        first, now = lock_workspace(connection, self.workspace)
        state = first
        self.begun = True
        if self._clock is not None:
            now = self._clock()
        deadline, room = time.monotonic() + MAX_S, MAX_BYTES
        for command in self.commands:
            transaction = Transaction(
                connection,
                self.workspace,
                state,
                to_text(now),
                shared=not self.alone,
                references=first.references_version,
            )
            self.outcomes.append(self._outcome(command, transaction, now))
            self._failpoints.reach("write.after_ticket")
            state = transaction.after
            room -= sum(_EVENT_BYTES + len(event.data) for event in transaction.events)
            self.emitted += zip(transaction.events, transaction.drafts, strict=True)
            self.transient += transaction.transient
            if room <= 0 or time.monotonic() > deadline:
                break
        if self.emitted:
            self.last_nonce = append(connection, self.emitted)
            self._failpoints.reach("write.after_insert")
        if state != first:
            advance(connection, self.workspace, state)
            self._failpoints.reach("write.after_counter")

    def _outcome(self, command: Command[T], transaction: Transaction, now: datetime) -> Answer[T] | Exception:
        try:
            return _answer(command, transaction, now)
        except (DBAPIError, OSError):  # OSError, which TimeoutError is one of: the connection is gone
            raise
        except Exception as error:
            if self.alone:
                raise
            transaction.undo()
            return error


def _answer(command: Command[T], transaction: Transaction, now: datetime) -> Answer[T]:
    once = command.once
    if once is None:
        return Answer(command.work(transaction))
    stored = idempotency.find(transaction, once.request, now)
    if stored is not None:
        return Answer(once.answer_type.validate_json(stored), replayed=True)
    value = command.work(transaction)
    idempotency.store(transaction, once.request, orjson.dumps(value), now)
    return Answer(value)
