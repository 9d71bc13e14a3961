"""Reading tickets: one with its parts, a page of many, and all that match a filter."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import orjson
from sqlalchemy import BindParameter, Connection, Row, Select, and_, bindparam, or_, select

from broadcaster.filters import Filter
from taskhub.auth.principal import Principal
from taskhub.storage.schema import attachments, comments, events, ticket_relations, tickets
from taskhub.storage.transaction import workspace_state
from taskhub.tickets.cursor import CursorCodec
from taskhub.tickets.errors import InputProblem, InvalidInput, TicketGone, TicketNotFound
from taskhub.tickets.inputs import MAX_COMMENTS, MAX_HISTORY, TicketQuery
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.model import (
    Attachment,
    Comment,
    HistoryEntry,
    Include,
    Relation,
    RelationName,
    Ticket,
    TicketDetail,
    TicketPage,
    TicketSnapshot,
    TicketState,
)
from taskhub.tickets.narrowing import narrowing
from taskhub.tickets.past import Past, seq_of
from taskhub.tickets.queries import conditions_of, cursor_after, list_rows, resolve
from taskhub.tickets.record import COMPACT_RECORDS, RECORDS, TicketRecord, record_of
from taskhub.tickets.reference import ReferenceCache
from taskhub.tickets.views import compact, filterable, full, lease_state

_SNAPSHOT_CHUNK: Final = 250
_ANY_SEQ: Final = 2**63 - 1

# Made once, with parameters: making a statement takes longer than most of these take to run.
_WORKSPACE: Final[BindParameter[Any]] = bindparam("workspace")
_NO: Final[BindParameter[Any]] = bindparam("no")
_RECORD: Final = RECORDS.where(tickets.c.workspace_id == _WORKSPACE, tickets.c.no == _NO)
EVENTS_OF_TICKET: Final = select(events).where(
    events.c.workspace_id == _WORKSPACE, events.c.subject == bindparam("key"), events.c.type.startswith("ticket.")
)
"""The events about a ticket. Published events may carry its key as their subject; they are not its history."""
_HISTORY: Final = (
    EVENTS_OF_TICKET.where(events.c.seq <= bindparam("up_to")).order_by(events.c.seq.desc()).limit(bindparam("most"))
)
_COMMENTS: Final = (
    select(comments)
    .where(comments.c.workspace_id == _WORKSPACE, comments.c.ticket_no == _NO, comments.c.seq <= bindparam("up_to"))
    .order_by(comments.c.seq.desc())
    .limit(bindparam("most"))
)
_R: Final = ticket_relations.c
_RELATIONS: Final = (
    select(_R.from_no, _R.kind, tickets.c.no, tickets.c.summary, tickets.c.status_id)
    .join_from(
        ticket_relations,
        tickets,
        and_(
            tickets.c.workspace_id == _R.workspace_id,
            or_(and_(_R.from_no == _NO, tickets.c.no == _R.to_no), and_(_R.to_no == _NO, tickets.c.no == _R.from_no)),
        ),
    )
    .where(_R.workspace_id == _WORKSPACE, or_(_R.from_no == _NO, _R.to_no == _NO), tickets.c.deleted_at.is_(None))
    .order_by(_R.kind, tickets.c.no)
)
_ATTACHMENTS: Final = (
    select(attachments)
    .where(attachments.c.workspace_id == _WORKSPACE, attachments.c.ticket_no == _NO)
    .order_by(attachments.c.no)
)


class Reading:
    """One read transaction on a workspace: everything it answers was true at the same position."""

    def __init__(self, connection: Connection, workspace: str, cache: ReferenceCache) -> None:
        self.connection = connection
        self.workspace = workspace
        self.state = workspace_state(connection, workspace)
        self.references = cache.get(connection, workspace, self.state)

    def page(self, query: TicketQuery, principal: Principal, cursors: CursorCodec) -> TicketPage:
        """One page of a list. Raises InvalidInput."""
        resolved = resolve(query, self.references, principal, self.state.key_prefix)
        identity = self.workspace.encode() + b"\0" + resolved.identity
        cursor = None if query.cursor is None else cursors.decode(query.cursor, identity)
        rows = list_rows(self.connection, self.workspace, resolved, self.references, cursor, query.limit)
        records = [record_of(row) for row in rows]
        more, records = len(records) > query.limit, records[: query.limit]
        next_cursor = cursors.encode(cursor_after(resolved, records[-1]), identity) if more else None
        return TicketPage([self._compact(record) for record in records], next_cursor, self.state.position)

    def all_after(self, no: int, query: TicketQuery, principal: Principal, limit: int) -> list[Ticket]:
        """The next tickets by number that match, whole. Raises InvalidInput."""
        resolved = resolve(query, self.references, principal, self.state.key_prefix)
        conditions = conditions_of(self.connection, self.workspace, resolved, self.references)
        statement = RECORDS.where(*conditions.every, tickets.c.no > no).order_by(tickets.c.no).limit(limit)
        rows = self.connection.execute(statement)
        return [full(record_of(row), self.references, self.state.key_prefix) for row in rows]

    def past(self, as_of: str, now: datetime) -> Past:
        """How it was at a time or an event. Raises InvalidInput."""
        seq = seq_of(self.connection, self.workspace, self.state, as_of, now)
        return Past(self.connection, self.workspace, self.state, self.references, seq)

    def past_detail(self, key: str, include: Collection[Include], history_limit: int, past: Past) -> TicketDetail:
        """A ticket as it was. Raises TicketNotFound, and InvalidInput for parts whose past is not known."""
        if unknown := sorted(set(include) - {"history", "comments"}):
            reason = f"{', '.join(unknown)} are known as they are now: leave as_of out, or include only the others"
            raise InvalidInput([InputProblem("/include", reason, ("history", "comments"))])
        record = self._record(key)
        ticket = None if record is None else past.ticket(record)
        if record is None or ticket is None:
            raise TicketNotFound(key)
        return TicketDetail(
            ticket,
            history=self._history(record.no, history_limit, past.seq) if "history" in include else None,
            comments=self._comments(record.no, past.seq) if "comments" in include else None,
        )

    def detail(self, key: str, include: Collection[Include], history_limit: int) -> TicketDetail:
        """A ticket with the parts asked for. Raises TicketNotFound and TicketGone."""
        record = existing(self._record(key), key)
        return TicketDetail(
            full(record, self.references, self.state.key_prefix),
            history=self._history(record.no, history_limit) if "history" in include else None,
            comments=self._comments(record.no) if "comments" in include else None,
            relations=self._relations(record.no) if "relations" in include else None,
            attachments=self._attachments(record.no) if "attachments" in include else None,
            lease=lease_state(record) if "lease" in include else None,
        )

    def snapshot(self, matches: Filter) -> TicketSnapshot:
        """All tickets that match, by number."""
        found: list[TicketState] = []
        narrower = narrowing(matches, self.references, self.state.key_prefix)
        last = 0
        while True:
            statement = (
                COMPACT_RECORDS.where(
                    tickets.c.workspace_id == self.workspace,
                    tickets.c.deleted_at.is_(None),
                    tickets.c.no > last,
                    *narrower,
                )
                .order_by(tickets.c.no)
                .limit(_SNAPSHOT_CHUNK)
            )
            rows = self.connection.execute(statement).all()
            states = [self._compact(record_of(row)) for row in rows]
            found += [state for state in states if matches.matches_ticket(state.key, filterable(state))]
            if len(rows) < _SNAPSHOT_CHUNK:
                return TicketSnapshot(self.state.epoch, self.state.head_seq, found)
            last = rows[-1].no

    def _record(self, key: str) -> TicketRecord | None:
        no = number_of(self.state.key_prefix, key)
        return None if no is None else read_record(self.connection, self.workspace, no)

    def _compact(self, record: TicketRecord) -> TicketState:
        return compact(record, self.references, self.state.key_prefix)

    def _rows(self, statement: Select[*tuple[Any, ...]], **parameters: Any) -> Sequence[Any]:
        return self.connection.execute(statement, {"workspace": self.workspace, **parameters}).all()

    def _history(self, no: int, limit: int, up_to: int = _ANY_SEQ) -> list[HistoryEntry]:
        key, most = key_of(self.state.key_prefix, no), max(1, min(limit, MAX_HISTORY))
        entries = []
        for row in self._rows(_HISTORY, key=key, up_to=up_to, most=most):
            data = orjson.loads(row.data)
            entries.append(
                HistoryEntry(
                    row.id, row.time, row.type, row.actor, row.origin, row.ticket_version,
                    data.get("changes") or {}, data.get("comment"),
                )
            )  # fmt: skip
        return entries

    def comments(self, key: str, limit: int, before: int | None) -> list[Comment]:
        """The newest comments, of those before the comment `before`, oldest first. Raises TicketNotFound and
        TicketGone."""
        record = existing(self._record(key), key)
        return self._comments(record.no, _ANY_SEQ if before is None else before - 1, limit)

    def _comments(self, no: int, up_to: int = _ANY_SEQ, limit: int = MAX_COMMENTS) -> list[Comment]:
        rows = self._rows(_COMMENTS, no=no, up_to=up_to, most=limit)
        return [comment_of_row(row) for row in reversed(rows)]

    def _relations(self, no: int) -> list[Relation]:
        return [
            Relation(
                seen_from(row.kind, outgoing=row.from_no == no),
                key_of(self.state.key_prefix, row.no),
                row.summary,
                self.references.phase(row.status_id),
            )
            for row in self._rows(_RELATIONS, no=no)
        ]

    def _attachments(self, no: int) -> list[Attachment]:
        return [Attachment(str(r.no), r.file_name, r.url, r.created_at) for r in self._rows(_ATTACHMENTS, no=no)]


def read_record(connection: Connection, workspace: str, no: int) -> TicketRecord | None:
    row = connection.execute(_RECORD, {"workspace": workspace, "no": no}).first()
    return None if row is None else record_of(row)


def comment_of_row(row: Row[Any]) -> Comment:
    return Comment(str(row.seq), row.author, row.kind, row.body, row.created_at)


def existing(record: TicketRecord | None, key: str) -> TicketRecord:
    """`record`, unless there is none (TicketNotFound) or it was deleted (TicketGone)."""
    if record is None:
        raise TicketNotFound(key)
    if record.deleted_at is not None:
        raise TicketGone(key, record.summary)
    return record


def seen_from(kind: Literal["blocks", "related", "duplicates"], *, outgoing: bool) -> RelationName:
    """A stored relation as the ticket names it that it goes out from, or that it leads to."""
    if outgoing or kind == "related":
        return kind
    return "blocked_by" if kind == "blocks" else "duplicated_by"
