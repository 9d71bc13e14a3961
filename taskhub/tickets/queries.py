"""The statement behind a list of tickets: which, in which order, from where."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Connection, Row, and_, case, exists, func, not_, or_, select, tuple_

from taskhub.auth.principal import Principal
from taskhub.storage.names import normalise, slug
from taskhub.storage.schema import leases, ticket_labels, tickets
from taskhub.storage.search import tickets_that_contain
from taskhub.storage.times import to_text
from taskhub.tickets.cursor import Cursor
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.fields import PRIORITIES
from taskhub.tickets.inputs import TicketQuery
from taskhub.tickets.model import ReferenceKind, TicketState
from taskhub.tickets.record import COMPACT_RECORDS, TicketRecord
from taskhub.tickets.reference import CLOSED_PHASES, References, UnknownReference
from taskhub.tickets.search import Search, parse_search
from taskhub.tickets.text import UNSTORABLE, unstorable

_T: Final = tickets.c
_SORT_COLUMNS: Final = {  # numbers are given in the order of creation
    "updated": _T.updated_at, "created": _T.no, "due": _T.due, "priority": _T.priority, "key": _T.no,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ResolvedQuery:
    """A query with its references as ids (None among them stands for `none`). Equal ones list the same rows."""

    assignees: tuple[str | None, ...] | None
    accounts: tuple[str | None, ...] | None
    statuses: tuple[str | None, ...] | None
    categories: tuple[str | None, ...] | None
    phases: tuple[str, ...] | None
    labels: tuple[str, ...] | None
    priorities: tuple[str, ...] | None
    due_from: date | None
    due_to: date | None
    show_completed: bool
    ready: bool | None
    unassigned: bool | None
    search: Search | None
    updated_since: str | None
    sort_by: str
    descending: bool
    first: tuple[int, ...] = ()
    """Numbers of tickets that come before all others."""

    @property
    def all_of_them(self) -> bool:
        """Whether nothing narrows it: every ticket is listed."""
        narrowing = (
            self.assignees, self.accounts, self.statuses, self.categories, self.phases, self.labels, self.priorities,
            self.due_from, self.due_to, self.ready, self.unassigned, self.search, self.updated_since,
        )  # fmt: skip
        return self.show_completed and all(wanted is None for wanted in narrowing)

    @property
    def identity(self) -> bytes:
        """What a cursor is bound to."""
        return orjson.dumps(self)


def resolve(query: TicketQuery, references: References, principal: Principal, key_prefix: str) -> ResolvedQuery:
    """Turn names into ids. An empty list filters nothing, like an absent one. Raises InvalidInput."""
    problems: list[InputProblem] = []

    def ids(name: str, kind: ReferenceKind) -> tuple[str | None, ...] | None:
        values: Sequence[str] | None = getattr(query, name)
        if not values:
            return None
        found: set[str | None] = set()
        for value in values:
            if kind == "users" and value == "me":
                found.add(references.me(principal) or slug(principal.user_id))
                continue
            try:
                found.add(references.entries[kind].known(value))
            except UnknownReference as error:
                if normalise(value) == "none" and kind != "statuses":
                    found.add(None)
                else:
                    problems.append(error.problem(f"/{name}"))
        return tuple(sorted(found, key=lambda found_id: found_id or ""))

    updated_since = None
    if query.updated_since is not None:
        try:
            updated_since = to_text(query.updated_since)
        except OverflowError:
            problems.append(InputProblem("/updated_since", "is out of range"))
    for name, texts in (("query", [query.query or ""]), ("label", query.label or [])):
        if any(unstorable(text) for text in texts):
            problems.append(InputProblem(f"/{name}", UNSTORABLE))
    search = None if query.query is None or problems else parse_search(query.query, key_prefix)
    default_order = not query.model_fields_set & {"sort_by", "sort_order"}
    resolved = ResolvedQuery(
        assignees=ids("person_in_charge", "users"),
        accounts=ids("account", "accounts"),
        statuses=ids("status", "statuses"),
        categories=ids("category", "categories"),
        phases=None if not query.phase else tuple(sorted(set(query.phase))),
        labels=None if not query.label else tuple(sorted(set(query.label))),
        priorities=None if not query.priority else tuple(sorted(set(query.priority))),
        due_from=query.scheduled_completion_date_from,
        due_to=query.scheduled_completion_date_to,
        show_completed=query.show_completed,
        ready=query.ready,
        unassigned=query.unassigned,
        search=search,
        updated_since=updated_since,
        sort_by=query.sort_by,
        descending=query.sort_order == "desc",
        first=search.numbers if search is not None and default_order else (),
    )
    if problems:
        raise InvalidInput(problems)
    return resolved


def list_rows(
    connection: Connection,
    workspace: str,
    query: ResolvedQuery,
    references: References,
    cursor: Cursor | None,
    limit: int,
) -> list[Row[*tuple[Any, ...]]]:
    """The rows after `cursor`, one more than `limit` so that the caller sees whether there is a next page."""
    conditions = conditions_of(connection, workspace, query, references)
    column: ColumnElement[Any] = _SORT_COLUMNS[query.sort_by]
    if conditions.numbered:
        # By an expression: for the column, SQLite walks all tickets in its order and not the few that are named.
        column = func.coalesce(column, column)
    order: list[ColumnElement[Any]]
    order = [column.desc(), _T.no.desc()] if query.descending else [column.asc(), _T.no.asc()]
    if query.first:
        order.insert(0, _is_first(query).desc())
    found: list[Row[*tuple[Any, ...]]] = []
    for part in _parts(query, column, cursor):
        missing = limit + 1 - len(found)
        found += connection.execute(COMPACT_RECORDS.where(*conditions.every, *part).order_by(*order).limit(missing))
        if len(found) > limit:
            break
    return found


def _parts(query: ResolvedQuery, column: ColumnElement[Any], cursor: Cursor | None) -> list[list[ColumnElement[bool]]]:
    """The conditions of what is left after `cursor`, of one part after the other.

    Tickets without a date come last in either direction. No index has them in that order, but it has each part.
    """
    after = [] if cursor is None else [_after(query, column, cursor)]
    if query.sort_by != "due":
        return [after]
    undated: list[ColumnElement[bool]] = [_T.due.is_(None)]
    if cursor is not None and cursor.value is None:
        return [undated + after]
    return [[_T.due.is_not(None), *after], undated]


def next_ready(connection: Connection, workspace: str, query: ResolvedQuery, references: References) -> int | None:
    """The number of the ticket that should be worked on first: the most urgent, of these the one that is due first.

    Everybody else in the workspace waits meanwhile, so nothing is sorted: an index has the tickets of a status by
    priority, and those of a priority by date, but for those without one, which come last.
    """
    conditions = conditions_of(connection, workspace, query, references)
    found: list[tuple[int, bool, str, int]] = []
    for status_id in references.statuses_in(["todo"]):
        of_status = [*conditions.every, _T.status_id == status_id]
        most_urgent = select(_T.priority).where(*of_status).order_by(_T.priority.desc()).limit(1)
        priority = connection.execute(most_urgent).scalar()
        if priority is None:
            continue
        for dated in (_T.due.is_not(None), _T.due.is_(None)):
            first = select(_T.due, _T.no).where(*of_status, _T.priority == priority, dated).order_by(_T.due, _T.no)
            if (row := connection.execute(first.limit(1)).first()) is not None:
                found.append((-priority, row.due is None, row.due or "", row.no))
                break
    return min(found)[-1] if found else None


def cursor_after(query: ResolvedQuery, last: TicketRecord) -> Cursor:
    """The cursor of a page that ended with `last`."""
    values: dict[str, str | int | None] = {
        "updated": last.updated_at, "created": last.no, "due": last.due,
        "priority": PRIORITIES.index(last.priority), "key": last.no,
    }  # fmt: skip
    return Cursor(values[query.sort_by], last.no)


def _after(query: ResolvedQuery, column: ColumnElement[Any], cursor: Cursor) -> ColumnElement[bool]:
    if cursor.value is None:
        return _T.no < cursor.no if query.descending else _T.no > cursor.no
    if query.first:  # the order is the default one, which descends
        return tuple_(_is_first(query), column, _T.no) < tuple_(int(cursor.no in query.first), cursor.value, cursor.no)
    place, last = tuple_(column, _T.no), tuple_(cursor.value, cursor.no)
    return place < last if query.descending else place > last


def _is_first(query: ResolvedQuery) -> ColumnElement[int]:
    return case((_T.no.in_(query.first), 1), else_=0)


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a ticket that is listed must be. `numbered`: one of them names the tickets that it may be, a few."""

    every: Sequence[ColumnElement[bool]]
    numbered: bool


def conditions_of(connection: Connection, workspace: str, query: ResolvedQuery, references: References) -> Conditions:
    """What the tickets must be that the query lists."""
    found: list[ColumnElement[bool]] = [_T.workspace_id == workspace, _T.deleted_at.is_(None)]
    for column, ids in (
        (_T.assignee_id, query.assignees),
        (_T.account_id, query.accounts),
        (_T.status_id, query.statuses),
        (_T.category_id, query.categories),
    ):
        if ids is not None:
            some = column.in_([wanted for wanted in ids if wanted is not None])
            found.append(or_(some, column.is_(None)) if None in ids else some)
    if query.phases is not None:
        found.append(_T.status_id.in_(references.statuses_in(query.phases)))
    elif query.statuses is None and not query.show_completed:
        found.append(_T.status_id.not_in(references.statuses_in(CLOSED_PHASES)))
    if query.labels is not None:
        found.append(_has_label(workspace, query.labels))
    if query.priorities is not None:
        found.append(_T.priority.in_([PRIORITIES.index(name) for name in PRIORITIES if name in query.priorities]))
    if query.due_from is not None:
        found.append(_T.due >= query.due_from.isoformat())
    if query.due_to is not None:
        found.append(_T.due <= query.due_to.isoformat())
    if query.ready is not None:
        ready = and_(_T.status_id.in_(references.statuses_in(["todo"])), _T.blocked.is_(False), not_(_is_held()))
        found.append(ready if query.ready else not_(ready))
    if query.unassigned is not None:
        found.append(_T.assignee_id.is_(None) if query.unassigned else _T.assignee_id.is_not(None))
    if query.updated_since is not None:
        found.append(_T.updated_at >= query.updated_since)
    numbered = False
    if query.search is not None:
        numbers, more = tickets_that_contain(connection, workspace, query.search.phrases)
        found += more
        numbered = numbers is not None or not more
        if numbered:
            found.append(_T.no.in_(numbers or ()))
    return Conditions(found, numbered)


def matches(query: ResolvedQuery, state: TicketState) -> bool:
    """Whether a ticket in this state is what `query` asks of people, accounts, categories, labels, priority and date,
    as `conditions_of` has it for the rows."""
    for ref, ids in (
        (state.assignee, query.assignees),
        (state.account, query.accounts),
        (state.category, query.categories),
    ):
        if ids is not None and (None if ref is None else ref.id) not in ids:
            return False
    if query.labels is not None and not set(query.labels) & set(state.labels):
        return False
    if query.priorities is not None and state.priority not in query.priorities:
        return False
    if query.due_from is not None and (state.due is None or state.due < query.due_from.isoformat()):
        return False
    return query.due_to is None or (state.due is not None and state.due <= query.due_to.isoformat())


def _has_label(workspace: str, labels: Sequence[str]) -> ColumnElement[bool]:
    label = ticket_labels.c
    return _T.no.in_(select(label.ticket_no).where(label.workspace_id == workspace, label.label.in_(labels)))


def _is_held() -> ColumnElement[bool]:
    lease = leases.c
    held = select(lease.token).where(
        lease.workspace_id == _T.workspace_id, lease.ticket_no == _T.no, lease.holder.is_not(None)
    )
    # The rows of a list are joined with their leases, which are not these.
    return exists(held.correlate(tickets))
