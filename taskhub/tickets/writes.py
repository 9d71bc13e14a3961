"""Changing tickets: what each write reads, decides and stores, within one transaction."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
from sqlalchemy import bindparam, insert, select

from broadcaster.event import Event, EventDraft
from taskhub.auth.principal import Caller
from taskhub.storage.names import slug
from taskhub.storage.schema import attachments, comments, events, ticket_relations, tickets, users
from taskhub.storage.transaction import Transaction
from taskhub.tickets.changes import Situation, comment_of, decide_change, decide_new, names_me
from taskhub.tickets.errors import InputProblem, InvalidInput, TicketNotFound, VersionConflict
from taskhub.tickets.inputs import NewComment, NewTicket, TicketChange, TicketFields
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.model import CommentKind, Written
from taskhub.tickets.reads import events_of_ticket, existing
from taskhub.tickets.record import TicketRecord, insert_record, record_of, select_records, update_record
from taskhub.tickets.reference import ReferenceCache, References, load
from taskhub.tickets.text import searchable, unstorable
from taskhub.tickets.views import compact, event_data

_KINDS_OF_ACTOR = {"user": "human", "agent": "agent", "service": "service"}


_INSERT_COMMENT: Final = insert(comments)
_RECORDS: Final = select_records().where(
    tickets.c.workspace_id == bindparam("workspace"), tickets.c.no.in_(bindparam("numbers", expanding=True))
)


class TicketWrite:
    """One write of one caller. Each public method is a unit of work for the writer."""

    def __init__(self, transaction: Transaction, caller: Caller, cache: ReferenceCache) -> None:
        self._tx = transaction
        self._caller = caller
        self._cache = cache
        self._prefix = transaction.state.key_prefix
        self._references = self._current_references()

    def create(self, new: NewTicket) -> Written:
        """Add a ticket. Raises InvalidInput."""
        self._begin(new)
        related = _Related(self._prefix)
        parent_no = related.number("/parent", new.parent)
        blockers = [related.number(f"/blocked_by/{i}", key) for i, key in enumerate(new.blocked_by or [])]
        related.check(self._records(related.numbers))
        _check_texts((f"/attachments/{i}/file_name", a.file_name) for i, a in enumerate(new.attachments or []))
        _check_texts((f"/attachments/{i}/url", a.url) for i, a in enumerate(new.attachments or []))
        record = decide_new(new, self._situation(parent_no))

        time = self._tx.time
        record = replace(record, no=self._tx.take_number(), created_at=time, updated_at=time)
        insert_record(self._tx, record)
        self._relate(record.no, [no for no in blockers if no is not None])
        self._attach(record.no, new)
        return self._written(record, self._emit("ticket.created", record, {}, None))

    def update(self, key: str, change: TicketChange, expected_version: int | None) -> Written:
        """Change a ticket. Raises InvalidInput, TicketNotFound, TicketGone and VersionConflict."""
        self._begin(change)
        no = _number(self._prefix, key)
        related = _Related(self._prefix)
        parent_no = related.number("/parent", change.parent)
        rows = self._records({no, *related.numbers})
        before = existing(rows.get(no), key)
        if expected_version is not None and before.version != expected_version:
            raise self._conflict(before, expected_version)
        related.check(rows)
        if parent_no is not None:
            self._check_parent(no, parent_no)
        comment = comment_of(change)
        _check_texts([("/comment", comment)])

        decision = decide_change(before, change, self._situation(parent_no))
        if decision is None:
            return self._unchanged(before, comment)
        update_record(self._tx, before, decision.after)
        comment_id = self._comment(no, comment, "note")
        event = self._emit(decision.event_type, decision.after, decision.changes, comment, comment_id)
        return self._written(decision.after, event, comment_id)

    def comment(self, key: str, new: NewComment) -> Written:
        """Add a comment, which raises no version. Raises InvalidInput, TicketNotFound and TicketGone."""
        self._begin(None)
        no = _number(self._prefix, key)
        _check_texts([("/comment", new.comment)])
        record = existing(self._records({no}).get(no), key)
        return self._commented(record, new.comment, new.kind)

    def _begin(self, fields: TicketFields | None) -> None:
        if fields is not None and names_me(fields) and self._references.me(self._caller.principal) is None:
            self._add_caller()

    def _add_caller(self) -> None:
        """Make the caller a user: who takes a ticket is somebody that a ticket can be given to."""
        actor_kind, _, name = self._caller.principal.actor.partition(":")
        user_id = slug(name, {user.id for user in self._references.users})
        row = {
            "workspace_id": self._tx.workspace, "id": user_id, "name": name, "email": None,
            "kind": _KINDS_OF_ACTOR.get(actor_kind, "service"), "role": "agent", "active": True,
            "created_at": self._tx.now, "updated_at": self._tx.now,
        }  # fmt: skip
        self._tx.execute(insert(users), row)
        self._tx.change_references()
        data = {"kind": "users", "action": "created", "id": user_id, "name": name}
        self._tx.emit(self._draft("reference.changed", f"users/{user_id}", orjson.dumps(data), None))
        self._references = self._current_references()

    def _current_references(self) -> References:
        connection, workspace, state = self._tx.connection, self._tx.workspace, self._tx.after
        if self._tx.references_changed:
            # The cache holds what is committed, for all: it neither knows of the change nor may it learn of it here.
            return load(connection, workspace, state.references_version)
        return self._cache.get(connection, workspace, state)

    def _situation(self, parent_no: int | None) -> Situation:
        return Situation(self._references, self._caller.principal, self._prefix, self._tx.now, parent_no=parent_no)

    def _records(self, numbers: Collection[int]) -> dict[int, TicketRecord]:
        """Tickets by their numbers. Nobody changes them meanwhile."""
        if not numbers:
            return {}
        rows = self._tx.connection.execute(_RECORDS, {"workspace": self._tx.workspace, "numbers": list(numbers)})
        return {record.no: record for record in map(record_of, rows)}

    def _check_parent(self, no: int, parent_no: int) -> None:
        """Raise InvalidInput when the ticket would be among its own ancestors."""
        parent = select(tickets.c.no, tickets.c.parent_no).where(
            tickets.c.workspace_id == self._tx.workspace, tickets.c.no == parent_no
        )
        line = parent.cte("line", recursive=True)
        above = select(tickets.c.no, tickets.c.parent_no).where(
            tickets.c.workspace_id == self._tx.workspace, tickets.c.no == line.c.parent_no
        )
        line = line.union(above)
        found = self._tx.connection.execute(select(line.c.no).where(line.c.no == no))
        if found.first() is not None:
            key = key_of(self._prefix, no)
            reason = "a ticket is not its own parent" if no == parent_no else f"{key} is an ancestor of that ticket"
            raise InvalidInput([InputProblem("/parent", reason)])

    def _conflict(self, before: TicketRecord, expected: int) -> VersionConflict:
        """What changed since `expected`, and who changed it, from the log."""
        key = key_of(self._prefix, before.no)
        if expected > before.version:
            return VersionConflict(key, expected, before.version, {}, [])
        statement = (
            events_of_ticket(self._tx.workspace, key)
            .where(events.c.ticket_version > expected, events.c.type != "ticket.commented")
            .order_by(events.c.seq)
        )
        changed: dict[str, list[Any]] = {}
        actors: dict[str, None] = {}
        for row in self._tx.connection.execute(statement):
            actors[row.actor] = None
            for name, (old, new) in (orjson.loads(row.data).get("changes") or {}).items():
                changed[name] = [changed[name][0] if name in changed else old, new]
        changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
        return VersionConflict(key, expected, before.version, changed, list(actors))

    def _unchanged(self, record: TicketRecord, comment: str | None) -> Written:
        if comment is not None:
            return self._commented(record, comment, "note")
        key = key_of(self._prefix, record.no)
        return Written(key, record.version, None, self._tx.state.position, noop=True)

    def _commented(self, record: TicketRecord, body: str, kind: CommentKind) -> Written:
        comment_id = self._comment(record.no, body, kind)
        event = self._emit("ticket.commented", record, {}, body, comment_id, kind)
        return self._written(record, event, comment_id)

    def _written(self, record: TicketRecord, event: Event, comment_id: str | None = None) -> Written:
        key = key_of(self._prefix, record.no)
        return Written(key, record.version, event.id, event.position, comment_id=comment_id)

    def _comment(self, no: int, body: str | None, kind: CommentKind) -> str | None:
        """Store a comment; its id is the seq of the event that carries it, which must be the next."""
        if body is None:
            return None
        row = {
            "workspace_id": self._tx.workspace, "seq": self._tx.next_seq, "ticket_no": no,
            "author": self._caller.principal.actor, "kind": kind, "body": body, "search_text": searchable(body),
            "created_at": self._tx.time,
        }  # fmt: skip
        self._tx.execute(_INSERT_COMMENT, row)
        return str(self._tx.next_seq)

    def _relate(self, no: int, blockers: Sequence[int]) -> None:
        if blockers:
            common = {"workspace_id": self._tx.workspace, "kind": "blocks", "to_no": no, "created_at": self._tx.time}
            rows = [{**common, "from_no": blocker} for blocker in sorted(set(blockers))]
            self._tx.execute(insert(ticket_relations), rows)

    def _attach(self, no: int, new: NewTicket) -> None:
        if new.attachments:
            common = {"workspace_id": self._tx.workspace, "ticket_no": no, "created_at": self._tx.time}
            rows = [
                {**common, "no": i, "file_name": attachment.file_name, "url": attachment.url}
                for i, attachment in enumerate(new.attachments, start=1)
            ]
            self._tx.execute(insert(attachments), rows)

    def _emit(
        self, type: str, record: TicketRecord, changes: dict[str, list[Any]], comment: str | None,
        comment_id: str | None = None, kind: CommentKind = "note",
    ) -> Event:  # fmt: skip
        state = compact(record, self._references, self._prefix)
        more = {} if comment_id is None else {"comment_id": comment_id, "kind": kind}
        return self._tx.emit(self._draft(type, state.key, event_data(state, changes, comment, **more), record.version))

    def _draft(self, type: str, subject: str, data: bytes, version: int | None) -> EventDraft:
        caller = self._caller
        return EventDraft(
            type, caller.principal.actor, caller.origin, data, subject, version, request_id=caller.request_id
        )


class _Related:
    """The other tickets that a request names: read from it, then checked against those that exist."""

    def __init__(self, key_prefix: str) -> None:
        self._key_prefix = key_prefix
        self._asked: list[tuple[str, str, int | None]] = []

    @property
    def numbers(self) -> set[int]:
        return {no for _, _, no in self._asked if no is not None}

    def number(self, pointer: str, key: str | None) -> int | None:
        """The number in `key`, None where there is none."""
        if key is None:
            return None
        no = number_of(self._key_prefix, key)
        self._asked.append((pointer, key, no))
        return no

    def check(self, rows: dict[int, TicketRecord]) -> None:
        """Raise InvalidInput for each ticket that does not exist or was deleted."""
        problems = [
            InputProblem(pointer, f"there is no ticket {key}")
            for pointer, key, no in self._asked
            if no is None or no not in rows or rows[no].deleted_at is not None
        ]
        if problems:
            raise InvalidInput(problems)


def _number(key_prefix: str, key: str) -> int:
    no = number_of(key_prefix, key)
    if no is None:
        raise TicketNotFound(key)
    return no


def _check_texts(texts: Iterable[tuple[str, str | None]]) -> None:
    problems = [
        InputProblem(pointer, "must not contain NUL or half of a surrogate pair")
        for pointer, text in texts
        if text is not None and unstorable(text)
    ]
    if problems:
        raise InvalidInput(problems)
