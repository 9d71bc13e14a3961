"""Changes of many tickets that are made together, and taken back together."""

import secrets
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

import orjson
from sqlalchemy import Row, bindparam, insert, select, update

from taskhub.storage.schema import batches, events
from taskhub.tickets import undoing, writes
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    InputProblem,
    InvalidInput,
    TicketError,
    UndoConflict,
)
from taskhub.tickets.inputs import BulkItem, BulkUpdate, UndoBatch
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.model import Batch, BatchChange, BatchResult, ItemError, ItemResult, Written
from taskhub.tickets.reads import Reading
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.unit import TicketUnit

_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"

_B: Final = batches.c
_IS_IT: Final = (_B.workspace_id == bindparam("of_workspace"), _B.id == bindparam("of_id"))
_FIND: Final = select(batches).where(*_IS_IT)
_MARK: Final = update(batches).where(*_IS_IT)
_INSERT: Final = insert(batches)
_EVENTS: Final = (
    select(events)
    .where(
        events.c.workspace_id == bindparam("workspace"),
        events.c.seq.between(bindparam("first"), bindparam("last")),
        events.c.batch_id == bindparam("batch"),
        events.c.type.startswith("ticket."),
    )
    .order_by(events.c.seq)
)


class DryRun(Exception):
    """Raised out of the unit so that nothing of it is stored: `result` is the answer."""

    def __init__(self, result: BatchResult) -> None:
        super().__init__("nothing of a dry run is stored")
        self.result = result


def new_batch_id() -> str:
    """`b-` and 12 random base-32 characters."""
    return "b-" + "".join(secrets.choice(_LETTERS) for _ in range(12))


def bulk(unit: TicketUnit, asked: BulkUpdate, batch_id: str) -> BatchResult:
    """Change the tickets one after the other. Raises InvalidInput, and BatchFailed when none could be changed or, in an
    atomic batch, not all; DryRun when nothing was to be stored."""
    keys = _each_once(unit, asked.items)
    run = _Run(unit, batch_id, keys, atomic=asked.atomic, dry_run=asked.dry_run)
    for key, item in zip(keys, asked.items, strict=True):
        run.part(key, partial(_change, unit, item, run.before.get(key)))
    return run.finish()


def undo(unit: TicketUnit, undone: str, batch_id: str, asked: UndoBatch) -> BatchResult:
    """Take back what a batch changed, the last change first, as a batch of its own.

    Raises BatchNotFound, AlreadyUndone, InvalidInput for the token of a ticket that the batch did not change, and
    UndoConflict when none could be undone or, if `atomic`, not all.
    """
    row = _found(unit.transaction.connection.execute(_FIND, _is_it(unit, undone)).first(), undone)
    if row.undone_by is not None:
        raise AlreadyUndone(undone, row.undone_by)
    pasts = undoing.pasts(unit, _events(unit, row), row.last_seq)
    tokens = _tokens(unit, asked.lease_tokens, {past.no for past in pasts})
    run = _Run(unit, batch_id, [past.key for past in pasts], atomic=asked.atomic, undoes=undone)
    for past in pasts:
        run.part(past.key, partial(undoing.undo, unit, undone, past, tokens.get(past.no)))
    if run.conflicts and (asked.atomic or len(run.conflicts) == len(pasts)):
        raise UndoConflict(undone, [each for conflict in run.conflicts for each in conflict.conflicts])
    result = run.finish()
    if result.batch_id is not None:
        unit.transaction.execute(_MARK.values(undone_by=batch_id), _is_it(unit, undone))
    return result


def read_batch(reading: Reading, batch_id: str) -> Batch:
    """A batch with its events. Raises BatchNotFound."""
    parameters = {"of_workspace": reading.workspace, "of_id": batch_id}
    row = _found(reading.connection.execute(_FIND, parameters).first(), batch_id)
    found = reading.connection.execute(_EVENTS, _of_batch(reading.workspace, row))
    changes = [
        BatchChange(event.subject, event.ticket_version, event.id, event.type, orjson.loads(event.data)["changes"])
        for event in found
    ]
    return Batch(row.id, row.actor, row.created_at, row.undoes, row.undone_by, changes)


class _Run:
    """A batch under way: its tickets are parts of the unit, each of which may fail alone."""

    def __init__(
        self, unit: TicketUnit, batch_id: str, keys: Sequence[str], *, atomic: bool, dry_run: bool = False,
        undoes: str | None = None,
    ) -> None:  # fmt: skip
        self.before = _records(unit, keys)
        """The tickets as they were."""
        self.conflicts: list[UndoConflict] = []
        self._unit = unit
        self._batch_id = batch_id
        self._atomic = atomic
        self._dry_run = dry_run
        self._undoes = undoes
        self._first_seq = unit.transaction.next_seq
        self._results: list[ItemResult] = []

    def part(self, key: str, change: Callable[[], Written]) -> None:
        """Do one ticket's part."""
        made = self._unit.transaction.events
        kept = len(made)
        try:
            with self._unit.part():
                written = change()
        except UndoConflict as conflict:
            self.conflicts.append(conflict)
            self._fail(key, conflict.code, "; ".join(each.reason for each in conflict.conflicts))
        except TicketError as error:
            self._fail(key, error.code, str(error))
        else:
            event = next((event for event in made[kept:] if event.id == written.event_id), None)
            changes = {} if event is None else {name: list(pair) for name, pair in event.changes.items()}
            self._results.append(
                ItemResult(key, ok=True, event_id=written.event_id, noop=written.noop, changes=changes)
            )

    def _fail(self, key: str, code: str, message: str) -> None:
        self._results.append(ItemResult(key, ok=False, error=ItemError(code, message)))

    def finish(self) -> BatchResult:
        """Close the batch with its event. Raises BatchFailed and DryRun."""
        failed = sum(not result.ok for result in self._results)
        if self._dry_run:
            raise DryRun(self._taken_back())
        if failed and (self._atomic or failed == len(self._results)):
            raise BatchFailed(self._taken_back())
        transaction, caller = self._unit.transaction, self._unit.caller
        # Read again: a ticket may have been unblocked by a change that came after its own.
        results = _with_versions(self._results, _records(self._unit, [result.key for result in self._results]))
        unchanged = sum(result.noop for result in results)
        updated = len(results) - failed - unchanged
        if not updated:
            return BatchResult(None, self._atomic, False, True, results, transaction.state.position, self._undoes)
        told = {"batch_id": self._batch_id, "updated": updated, "failed": failed, "unchanged": unchanged}
        data = orjson.dumps({**told, "undoes": self._undoes})
        event = self._unit.emit_as("batch.finished", self._batch_id, data, None)
        row = {
            "workspace_id": transaction.workspace, "id": self._batch_id, "actor": caller.principal.actor,
            "undoes": self._undoes, "undone_by": None, "first_seq": self._first_seq, "last_seq": event.seq,
            "created_at": transaction.time,
        }  # fmt: skip
        transaction.execute(_INSERT, row)
        return BatchResult(self._batch_id, self._atomic, False, True, results, event.position, self._undoes)

    def _taken_back(self) -> BatchResult:
        """The answer when nothing is stored: the tickets keep their versions, and there are no events."""
        results = [replace(result, event_id=None) for result in _with_versions(self._results, self.before)]
        position = self._unit.transaction.state.position
        return BatchResult(None, self._atomic, self._dry_run, False, results, position, self._undoes)


def _change(unit: TicketUnit, item: BulkItem, before: TicketRecord | None) -> Written:
    # Asked of the ticket as it was before the batch, of which an earlier item may have unblocked it.
    if before is not None and before.deleted_at is None:
        writes.check_version(unit, before, item.expected_version)
    return writes.update(unit, item.ticket_id, item, None, item.lease_token)


def _records(unit: TicketUnit, keys: Iterable[str]) -> dict[str, TicketRecord]:
    numbers = {number_of(unit.prefix, key) for key in keys}
    found = unit.records([no for no in numbers if no is not None])
    return {key_of(unit.prefix, no): record for no, record in found.items()}


def _with_versions(results: Iterable[ItemResult], records: Mapping[str, TicketRecord]) -> list[ItemResult]:
    return [
        replace(result, version=records[result.key].version) if result.key in records else result for result in results
    ]


def _each_once(unit: TicketUnit, items: Sequence[BulkItem]) -> list[str]:
    """The tickets' keys as they are written here. Raises InvalidInput when a ticket is named twice."""
    keys = []
    places: dict[str, int] = {}
    problems = []
    for place, item in enumerate(items):
        no = number_of(unit.prefix, item.ticket_id)
        key = item.ticket_id if no is None else key_of(unit.prefix, no)
        if (first := places.setdefault(key, place)) != place:
            reason = f"{key[:40]} is in items/{first} already: one item changes all its fields"
            problems.append(InputProblem(f"/items/{place}/ticket_id", reason))
        keys.append(key)
    if problems:
        raise InvalidInput(problems)
    return keys


def _tokens(unit: TicketUnit, given: Mapping[str, int], changed: Collection[int]) -> dict[int, int]:
    """Lease tokens by the numbers of their tickets. Raises InvalidInput for a ticket that is not among `changed`."""
    found = {key: number_of(unit.prefix, key) for key in given}
    problems = [
        InputProblem("/lease_tokens", f"the batch changed no ticket {key}")
        for key, no in found.items()
        if no not in changed
    ]
    if problems:
        raise InvalidInput(problems)
    return {no: given[key] for key, no in found.items() if no is not None}


def _events(unit: TicketUnit, row: Row[Any]) -> Sequence[Row[Any]]:
    return unit.transaction.connection.execute(_EVENTS, _of_batch(unit.transaction.workspace, row)).all()


def _of_batch(workspace: str, row: Row[Any]) -> Mapping[str, Any]:
    return {"workspace": workspace, "first": row.first_seq, "last": row.last_seq, "batch": row.id}


def _is_it(unit: TicketUnit, batch_id: str) -> Mapping[str, Any]:
    return {"of_workspace": unit.transaction.workspace, "of_id": batch_id}


def _found(row: Row[Any] | None, batch_id: str) -> Row[Any]:
    if row is None:
        raise BatchNotFound(batch_id)
    return row
