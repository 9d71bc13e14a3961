"""Taking rows of a file in: each is a ticket to be created, or the one it stands for to be brought up to it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Final, Literal, Protocol, TypeVar

from sqlalchemy import bindparam, select

from taskhub.storage.group import MAX_COMMANDS
from taskhub.storage.schema import tickets
from taskhub.tickets import writes
from taskhub.tickets.errors import InputProblem, InvalidInput, StorageBusy, TicketError, VersionConflict
from taskhub.tickets.import_rows import BadLine, ImportRow
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.keys import key_of
from taskhub.tickets.unit import TicketUnit

T = TypeVar("T")

Outcome = Literal["created", "updated", "unchanged"]

MAX_NAMED: Final = 100
"""Bad lines that an answer names."""
MAX_STRICT: Final = 500
"""Rows of one unit of work: nobody else writes meanwhile."""
_PAGE: Final = 4 * MAX_COMMANDS

_T: Final = tickets.c
_KNOWN_AS: Final = (
    select(_T.no)
    .where(
        _T.workspace_id == bindparam("workspace"),
        _T.external_ticket_id == bindparam("external"),
        _T.deleted_at.is_(None),
    )
    .limit(2)
)


@dataclass(frozen=True, slots=True)
class Imported:
    """How many rows had which effect, and the lines that were not taken, the first of them by name."""

    created: int
    updated: int
    unchanged: int
    failed: int
    errors: list[BadLine]


class ImportRefused(TicketError):
    """A strict import found lines that it cannot take, so it took none."""

    code = "import_refused"
    data = ("failed", "lines")

    def __init__(self, failed: int, lines: list[BadLine]) -> None:
        super().__init__(f"{failed} line{'' if failed == 1 else 's'} cannot be taken, so nothing was")
        self.failed = failed
        self.lines = lines


class ImportInterrupted(TicketError):
    """The database was busy or away in the middle of a file. What was taken before stays."""

    code = "import_interrupted"
    data = ("created", "updated", "unchanged", "failed")
    retryable = True
    hint = "send the same file again: rows that were taken change nothing the second time"

    def __init__(self, created: int, updated: int, unchanged: int, failed: int) -> None:
        super().__init__(f"{created} tickets were created and {updated} updated when the database did not answer")
        self.created = created
        self.updated = updated
        self.unchanged = unchanged
        self.failed = failed


def take(unit: TicketUnit, row: ImportRow) -> Outcome:
    """Bring one row in. Raises what creating and updating a ticket raise."""
    key = _key(unit, row)
    given = row.model_dump(exclude_unset=True, exclude={"key", "version"})
    if key is None:
        if row.summary is None:
            raise InvalidInput([InputProblem("/summary", "is required for a ticket that is not there yet")])
        writes.create(unit, NewTicket(**given))
        return "created"
    change = TicketChange(**given)
    # In a file from elsewhere the version is another ticket's, as its key is.
    expected = row.version if row.key is not None and row.key.upper() == key else None
    try:
        return "unchanged" if writes.update(unit, key, change, expected).noop else "updated"
    except VersionConflict:
        if writes.update(unit, key, change, None).noop:  # imported before
            return "unchanged"
        raise


def _key(unit: TicketUnit, row: ImportRow) -> str | None:
    """The key of the ticket that a row stands for; None when it is not there yet. The other system's id goes first:
    a key in a file from elsewhere is another ticket's here."""
    if row.external_ticket_id is None:
        return row.key
    known_as = {"workspace": unit.transaction.workspace, "external": row.external_ticket_id}
    found = [key_of(unit.prefix, no) for no in unit.transaction.connection.execute(_KNOWN_AS, known_as).scalars()]
    if len(found) > 1:
        raise InvalidInput([InputProblem("/external_ticket_id", f"several tickets have it: {', '.join(found)} …")])
    return found[0] if found else None


def take_all(unit: TicketUnit, rows: Sequence[tuple[int, ImportRow]]) -> Counter[Outcome]:
    """Bring all rows in, or none. Raises ImportRefused."""
    outcomes: Counter[Outcome] = Counter()
    bad: list[BadLine] = []
    for line, row in rows:
        try:
            with unit.part():
                outcomes[take(unit, row)] += 1
        except TicketError as error:
            bad.append(BadLine(line, str(error)))
    if bad:
        raise ImportRefused(len(bad), bad[:MAX_NAMED])
    return outcomes


class RunUnit(Protocol):
    """Runs a change in a unit of its own."""

    def __call__(self, change: Callable[[TicketUnit], T]) -> Awaitable[T]: ...


async def import_rows(run: RunUnit, rows: Iterable[tuple[int, ImportRow | BadLine]], *, strict: bool) -> Imported:
    """Take rows in, each by itself; with `strict` all of them or none.

    Raises InvalidInput, ImportRefused, ImportInterrupted and StorageBusy.
    """
    importing = _Importing(run)
    rows = iter(rows)
    while page := await _on_a_thread(partial(_next_page, rows)):
        for number, row in page:
            if isinstance(row, BadLine):
                importing.refuse(row)
                continue
            importing.group.append((number, row))
            if strict and len(importing.group) > MAX_STRICT:
                raise InvalidInput([InputProblem("", f"a strict import takes at most {MAX_STRICT} rows at once")])
            if not strict and len(importing.group) == MAX_COMMANDS:
                await importing.take_group()
    if not strict:
        await importing.take_group()
    elif importing.failed:
        raise ImportRefused(importing.failed, importing.named)
    else:
        importing.outcomes = await run(partial(take_all, rows=importing.group))
    outcomes = importing.outcomes
    return Imported(outcomes["created"], outcomes["updated"], outcomes["unchanged"], importing.failed, importing.named)


def _next_page(rows: Iterator[tuple[int, ImportRow | BadLine]]) -> list[tuple[int, ImportRow | BadLine]]:
    return list(islice(rows, _PAGE))


async def _on_a_thread(work: Callable[[], T]) -> T:
    """Reading and checking rows takes longer than others may wait. Cancelled only when the thread is done with the
    file."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    finally:
        if not task.done():
            await asyncio.wait([task])


class _Importing:
    """How far an import is: rows that wait to share a transaction, and what became of those before."""

    def __init__(self, run: RunUnit) -> None:
        self._run = run
        self.group: list[tuple[int, ImportRow]] = []
        self.outcomes: Counter[Outcome] = Counter()
        self._bad: list[BadLine] = []
        self.failed = 0

    def refuse(self, bad: BadLine) -> None:
        self.failed += 1
        # A line that could not be read is known before rows above it: there may be others to come before this one.
        self._bad.append(bad)
        if len(self._bad) == 2 * MAX_NAMED:
            self._bad = self.named

    @property
    def named(self) -> list[BadLine]:
        """The first of the bad lines."""
        return sorted(self._bad, key=lambda found: found.line)[:MAX_NAMED]

    async def take_group(self) -> None:
        """Take the rows that wait, together but each by itself. Raises StorageBusy and ImportInterrupted."""
        changes = [partial(take, row=row) for _, row in self.group]
        answers = await asyncio.gather(*(self._run(change) for change in changes), return_exceptions=True)
        failures: list[BaseException] = []
        for (number, _), answer in zip(self.group, answers, strict=True):
            if isinstance(answer, TicketError) and not answer.retryable:
                self.refuse(BadLine(number, str(answer)))
            elif isinstance(answer, BaseException):
                failures.append(answer)
            else:
                self.outcomes[answer] += 1
        for failure in failures:
            done = self.outcomes
            if isinstance(failure, StorageBusy) and (done["created"] or done["updated"]):
                raise ImportInterrupted(done["created"], done["updated"], done["unchanged"], self.failed) from failure
            raise failure
        self.group.clear()
