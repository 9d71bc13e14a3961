"""The board: every status with how many tickets it has and the newest of them, now or as it was."""

import heapq
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, bindparam, func, select, tuple_

from taskhub.storage.schema import tickets
from taskhub.tickets.keys import no_of
from taskhub.tickets.model import Board, BoardColumn, Phase, Ref, TicketState
from taskhub.tickets.past import Past, chunks
from taskhub.tickets.queries import ResolvedQuery, conditions_of, matches
from taskhub.tickets.reads import Reading
from taskhub.tickets.record import COMPACT_RECORDS, record_of
from taskhub.tickets.views import compact

_T: Final = tickets.c
_NEWEST_FIRST: Final = (_T.updated_at.desc(), _T.no.desc())
_AT_A_TIME: Final = 200


@dataclass(slots=True)
class _Column:
    status: Ref
    phase: Phase
    count: int
    tickets: list[TicketState]


def board(reading: Reading, query: ResolvedQuery, limit: int, past: Past | None) -> Board:
    """Tickets that match, at most `limit` of each status, the last changed first; `past`: as they were then."""
    return _Reader(reading, query, limit).read(past)


class _Reader:
    def __init__(self, reading: Reading, query: ResolvedQuery, limit: int) -> None:
        self._connection = reading.connection
        self._references = reading.references
        self._state = reading.state
        self._query = query
        self._limit = limit
        self._conditions = conditions_of(reading.connection, reading.workspace, query, reading.references).every
        self._column = COMPACT_RECORDS.where(*self._conditions, _T.status_id == bindparam("status")).order_by(
            *_NEWEST_FIRST
        )

    def read(self, past: Past | None) -> Board:
        changed = set() if past is None else past.changed_since()
        # All tickets are not counted again for each board: that would take longer with every ticket that is done.
        counts = self._state.tickets_by_status if self._query.all_of_them else self._counts()
        for some in chunks(changed):
            for status_id, count in self._counts(_T.no.in_(some)).items():
                counts[status_id] -= count
        columns = {
            status.id: _Column(
                Ref(status.id, status.name),
                status.phase,
                counts.get(status.id, 0),
                self._newest(status.id, changed) if counts.get(status.id) else [],
            )
            for status in self._references.statuses
        }
        if past is not None:
            self._add_past(columns, past, changed)
        in_use = {status.id for status in self._references.statuses if status.active}
        shown = [column for status_id, column in columns.items() if column.count or status_id in in_use]
        position = self._state.position if past is None else past.position
        return Board([BoardColumn(c.status, c.phase, c.count, c.tickets) for c in shown], position)

    def _counts(self, *narrower: ColumnElement[bool]) -> Counter[str]:
        status: ColumnElement[str] = _T.status_id
        if self._query.accounts is not None or self._query.categories is not None:
            # By an expression: for the column, SQLite walks all tickets in its order and not the few of the account.
            status = func.coalesce(_T.status_id, "")
        statement = select(status, func.count()).where(*self._conditions, *narrower).group_by(status)
        return Counter({row[0]: row[1] for row in self._connection.execute(statement)})

    def _newest(self, status_id: str, without: Collection[int]) -> list[TicketState]:
        found: list[TicketState] = []
        for ticket_no, state in self._by_age(status_id):
            if ticket_no not in without:
                found.append(state)
                if len(found) == self._limit:
                    break
        return found

    def _by_age(self, status_id: str) -> Iterator[tuple[int, TicketState]]:
        statement, page_size = self._column.limit(self._limit), self._limit
        while True:
            rows = self._connection.execute(statement, {"status": status_id}).all()
            for row in rows:
                yield row.no, compact(record_of(row), self._references, self._state.key_prefix)
            if len(rows) < page_size:
                return
            after, page_size = tuple_(rows[-1].updated_at, rows[-1].no), _AT_A_TIME
            statement = self._column.where(tuple_(_T.updated_at, _T.no) < after).limit(page_size)

    def _add_past(self, columns: dict[str, _Column], past: Past, changed: Collection[int]) -> None:
        for some in chunks(changed):
            for state in past.states(some):
                if not matches(self._query, state):
                    continue
                # A status that was removed since has a column while it has tickets.
                column = columns.setdefault(state.status.id, _Column(state.status, state.phase, 0, []))
                column.count += 1
                column.tickets.append(state)
            for column in columns.values():
                column.tickets = heapq.nlargest(self._limit, column.tickets, key=self._age)

    def _age(self, state: TicketState) -> tuple[str, int]:
        return state.updated_at, no_of(state.key)
