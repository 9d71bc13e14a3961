"""Events of clients' own: stored in the log beside those of tickets, in order, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from pydantic import TypeAdapter
from sqlalchemy import Connection, select

from broadcaster.errors import FieldProblem, InvalidEvent
from broadcaster.event import Event, EventDraft
from taskhub.auth.principal import Caller
from taskhub.storage.event_log import event_of
from taskhub.storage.group import Once
from taskhub.storage.idempotency import IdempotentRequest, fingerprint
from taskhub.storage.schema import events
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets.requests import checked_key, require

MAX_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Published:
    """The events as they stand in the log, contiguous and in the order given. `replayed`: they were there already."""

    events: Sequence[Event]
    replayed: bool = False

    @property
    def position(self) -> str:
        """The position of the last of them."""
        return self.events[-1].position


@dataclass(frozen=True, slots=True)
class _Range:
    """What an idempotency record keeps: where the events are, not the events again."""

    epoch: str
    first: int
    last: int


_RANGE: Final = TypeAdapter(_Range)


class EventPublisher:
    """Stores events of clients. Transient ones do not come here: they are not stored."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    async def publish(
        self, caller: Caller, drafts: Sequence[EventDraft], idempotency_key: str | None = None
    ) -> Published:
        """Append all of `drafts` or none. Raises InvalidEvent, InvalidInput (a bad key), IdempotencyMismatch,
        Forbidden without events:publish, and StorageBusy.

        A draft of origin `system` is TaskHub's own and may have a reserved type.
        """
        require(caller, "events:publish")
        _check(drafts)

        def work(transaction: Transaction) -> list[Event]:
            return [transaction.emit(draft) for draft in drafts]

        workspace = caller.principal.workspace
        if idempotency_key is None:
            return Published((await self._writer.run(workspace, work)).value)
        return await self._publish_once(caller, drafts, checked_key(idempotency_key))

    async def _publish_once(self, caller: Caller, drafts: Sequence[EventDraft], key: str) -> Published:
        emitted: list[Event] = []

        def work(transaction: Transaction) -> _Range:
            emitted[:] = [transaction.emit(draft) for draft in drafts]
            return _Range(emitted[0].epoch, emitted[0].seq, emitted[-1].seq)

        workspace = caller.principal.workspace
        request = IdempotentRequest(caller.principal.actor, "publish", key, _fingerprint(drafts))
        answer = await self._writer.run(workspace, work, once=Once(request, _RANGE))
        if not answer.replayed:
            return Published(emitted)
        return Published(await self._stored(workspace, answer.value), replayed=True)

    async def _stored(self, workspace: str, range_: _Range) -> list[Event]:
        statement = (
            select(events)
            .where(events.c.workspace_id == workspace, events.c.seq.between(range_.first, range_.last))
            .order_by(events.c.seq)
        )

        def read(connection: Connection) -> list[Event]:
            return [event_of(row, workspace, range_.epoch) for row in connection.execute(statement)]

        return await self._writer.database.read(read)


def _check(drafts: Sequence[EventDraft]) -> None:
    problems: list[FieldProblem] = []
    if not 0 < len(drafts) <= MAX_BATCH:
        problems.append(FieldProblem("events", f"must be 1 to {MAX_BATCH} events"))
    for index, draft in enumerate(drafts):
        if draft.transient:
            raise ValueError("a transient event is not stored")
        if draft.origin == "system":
            continue
        try:
            draft.check_publishable()
        except InvalidEvent as error:
            where = f"events/{index}/" if len(drafts) > 1 else ""
            problems += [FieldProblem(where + p.parameter, p.reason, p.did_you_mean) for p in error.problems]
    if problems:
        raise InvalidEvent(problems)


def _fingerprint(drafts: Sequence[EventDraft]) -> str:
    return fingerprint(*(part for d in drafts for part in (orjson.dumps([d.type, d.subject]), d.data)))
