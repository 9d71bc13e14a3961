"""Changing tickets: what each write reads, locks, decides and stores, within one transaction."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson
from sqlalchemy import insert, select
from sqlalchemy.dialects import postgresql, sqlite

from broadcaster.event import Event, EventDraft
from taskhub.auth.principal import Caller
from taskhub.storage.names import slug
from taskhub.storage.schema import attachments, comments, events, ticket_relations, tickets, users
from taskhub.storage.transaction import Place, Transaction, WorkspaceState
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


@dataclass(frozen=True, slots=True)
class _NewUser:
    id: str
    name: str


class TicketWrite:
    """One write of one caller. Each public method is a unit of work for the writer."""

    def __init__(self, transaction: Transaction, caller: Caller, cache: ReferenceCache) -> None:
        self._tx = transaction
        self._caller = caller
        self._cache = cache
        self._state: WorkspaceState
        self._references: References
        self._new_user: _NewUser | None = None
        self._passes_cache = False

    async def create(self, new: NewTicket) -> Written:
        """Add a ticket. Raises InvalidInput."""
        await self._begin(new)
        prefix = self._state.key_prefix
        related = _Related(prefix)
        parent_no = related.number("/parent", new.parent)
        blockers = [related.number(f"/blocked_by/{i}", key) for i, key in enumerate(new.blocked_by or [])]
        related.check(await self._locked(related.numbers))
        _check_texts((f"/attachments/{i}/file_name", a.file_name) for i, a in enumerate(new.attachments or []))
        _check_texts((f"/attachments/{i}/url", a.url) for i, a in enumerate(new.attachments or []))
        record = decide_new(new, self._situation(parent_no))

        place = await self._take(events=1, numbers=1)
        record = replace(record, no=place.first_no, created_at=place.time, updated_at=place.time)
        await insert_record(self._tx.connection, self._tx.workspace, prefix, record)
        await self._relate(record.no, [no for no in blockers if no is not None], place)
        await self._attach(record.no, new, place)
        event = self._emit("ticket.created", record, {}, None)
        return Written(key_of(prefix, record.no), record.version, event.id, event.position)

    async def update(self, key: str, change: TicketChange, expected_version: int | None) -> Written:
        """Change a ticket. Raises InvalidInput, TicketNotFound, TicketGone and VersionConflict."""
        await self._begin(change)
        prefix = self._state.key_prefix
        no = _number(prefix, key)
        if change.parent is not None:
            await self._tx.lock_for_hierarchy()
        related = _Related(prefix)
        parent_no = related.number("/parent", change.parent)
        rows = await self._locked({no, *related.numbers})
        before = existing(rows.get(no), key)
        if expected_version is not None and before.version != expected_version:
            raise await self._conflict(before, expected_version)
        related.check(rows)
        if parent_no is not None:
            await self._check_parent(no, parent_no)
        comment = comment_of(change)
        _check_texts([("/comment", comment)])

        decision = decide_change(before, change, self._situation(parent_no))
        if decision is None:
            return await self._unchanged(before, comment)
        await update_record(self._tx.connection, self._tx.workspace, prefix, before, decision.after)
        place = await self._take(events=1)
        comment_id = await self._comment(no, comment, "note", place)
        event = self._emit(decision.event_type, decision.after, decision.changes, comment, comment_id)
        return Written(key_of(prefix, no), decision.after.version, event.id, event.position, comment_id=comment_id)

    async def comment(self, key: str, new: NewComment) -> Written:
        """Add a comment, which raises no version. Raises InvalidInput, TicketNotFound and TicketGone."""
        await self._begin(None)
        no = _number(self._state.key_prefix, key)
        _check_texts([("/comment", new.comment)])
        record = existing((await self._locked({no})).get(no), key)
        return await self._commented(record, new.comment, new.kind)

    async def _begin(self, fields: TicketFields | None) -> None:
        self._state = await self._tx.state()
        self._references = await self._current_references()
        if fields is not None and names_me(fields) and self._references.me(self._caller.principal) is None:
            await self._add_caller()

    async def _add_caller(self) -> None:
        """Make the caller a user: who takes a ticket is somebody that a ticket can be given to."""
        actor_kind, _, name = self._caller.principal.actor.partition(":")
        user = _NewUser(slug(name, {user.id for user in self._references.users}), name)
        row = {
            "workspace_id": self._tx.workspace, "id": user.id, "name": user.name, "email": None,
            "kind": _KINDS_OF_ACTOR.get(actor_kind, "service"), "role": "agent", "active": True,
            "created_at": self._tx.now, "updated_at": self._tx.now,
        }  # fmt: skip
        dialect = postgresql if self._tx.connection.dialect.name == "postgresql" else sqlite
        added = await self._tx.connection.execute(dialect.insert(users).on_conflict_do_nothing(), row)
        if added.rowcount == 1:
            self._new_user = user
        self._passes_cache = True
        self._references = await self._current_references()

    async def _current_references(self) -> References:
        connection, workspace = self._tx.connection, self._tx.workspace
        if self._passes_cache:
            # The cache holds what is committed, for all: it neither knows the new user nor may it learn of it here.
            return await load(connection, workspace, self._state.references_version)
        return await self._cache.get(connection, workspace, self._state)

    async def _take(self, *, events: int, numbers: int = 0) -> Place:
        """Take places for a ticket's events, and before them for the news of a user that this write added."""
        if self._new_user is None:
            return await self._tx.take(events=events, numbers=numbers)
        place = await self._tx.take(events=events + 1, numbers=numbers, reference_changes=1)
        data = {"kind": "users", "action": "created", "id": self._new_user.id, "name": self._new_user.name}
        self._tx.emit(self._draft("reference.changed", f"users/{self._new_user.id}", orjson.dumps(data), None))
        return replace(place, first_seq=place.first_seq + 1)

    def _situation(self, parent_no: int | None) -> Situation:
        return Situation(
            self._references, self._caller.principal, self._state.key_prefix, self._tx.now, parent_no=parent_no
        )

    async def _locked(self, numbers: Iterable[int]) -> dict[int, TicketRecord]:
        """Lock tickets in the order of their numbers and read them."""
        wanted = sorted(numbers)
        if not wanted:
            return {}
        connection = self._tx.connection
        these = (tickets.c.workspace_id == self._tx.workspace, tickets.c.no.in_(wanted))
        if connection.dialect.name == "postgresql":
            # First the locks, then the rows: a statement that waited for a lock sees the locked row as it is now, but
            # the labels as they were when it began.
            lock = select(tickets.c.no).where(*these).order_by(tickets.c.no).with_for_update(key_share=True)
            await connection.execute(lock)
        rows = await connection.execute(select_records().where(*these))
        records = {record.no: record for record in map(record_of, rows)}
        if not all(self._references.cover(record) for record in records.values()):
            # While this waited for a lock, a ticket came to refer to a row that is newer than the state read before.
            self._state = await self._tx.state()
            self._references = await self._current_references()
        return records

    async def _check_parent(self, no: int, parent_no: int) -> None:
        """Raise InvalidInput when the ticket would be among its own ancestors."""
        parent = select(tickets.c.no, tickets.c.parent_no).where(
            tickets.c.workspace_id == self._tx.workspace, tickets.c.no == parent_no
        )
        line = parent.cte("line", recursive=True)
        above = select(tickets.c.no, tickets.c.parent_no).where(
            tickets.c.workspace_id == self._tx.workspace, tickets.c.no == line.c.parent_no
        )
        line = line.union(above)
        found = await self._tx.connection.execute(select(line.c.no).where(line.c.no == no))
        if found.first() is not None:
            key = key_of(self._state.key_prefix, no)
            reason = "a ticket is not its own parent" if no == parent_no else f"{key} is an ancestor of that ticket"
            raise InvalidInput([InputProblem("/parent", reason)])

    async def _conflict(self, before: TicketRecord, expected: int) -> VersionConflict:
        """What changed since `expected`, and who changed it, from the log."""
        key = key_of(self._state.key_prefix, before.no)
        if expected > before.version:
            return VersionConflict(key, expected, before.version, {}, [])
        statement = (
            events_of_ticket(self._tx.workspace, key)
            .where(events.c.ticket_version > expected, events.c.type != "ticket.commented")
            .order_by(events.c.seq)
        )
        changed: dict[str, list[Any]] = {}
        actors: dict[str, None] = {}
        for row in await self._tx.connection.execute(statement):
            actors[row.actor] = None
            for name, (old, new) in (orjson.loads(row.data).get("changes") or {}).items():
                changed[name] = [changed[name][0] if name in changed else old, new]
        changed = {name: pair for name, pair in changed.items() if pair[0] != pair[1]}
        return VersionConflict(key, expected, before.version, changed, list(actors))

    async def _unchanged(self, record: TicketRecord, comment: str | None) -> Written:
        if comment is not None:
            return await self._commented(record, comment, "note")
        key = key_of(self._state.key_prefix, record.no)
        return Written(key, record.version, None, self._state.position, noop=True)

    async def _commented(self, record: TicketRecord, body: str, kind: CommentKind) -> Written:
        place = await self._take(events=1)
        comment_id = await self._comment(record.no, body, kind, place)
        event = self._emit("ticket.commented", record, {}, body, comment_id, kind)
        key = key_of(self._state.key_prefix, record.no)
        return Written(key, record.version, event.id, event.position, comment_id=comment_id)

    async def _comment(self, no: int, body: str | None, kind: CommentKind, place: Place) -> str | None:
        if body is None:
            return None
        row = {
            "workspace_id": self._tx.workspace, "seq": place.first_seq, "ticket_no": no,
            "author": self._caller.principal.actor, "kind": kind, "body": body, "search_text": searchable(body),
            "created_at": place.time,
        }  # fmt: skip
        await self._tx.connection.execute(insert(comments), row)
        return str(place.first_seq)

    async def _relate(self, no: int, blockers: Sequence[int], place: Place) -> None:
        if blockers:
            common = {"workspace_id": self._tx.workspace, "kind": "blocks", "to_no": no, "created_at": place.time}
            rows = [{**common, "from_no": blocker} for blocker in sorted(set(blockers))]
            await self._tx.connection.execute(insert(ticket_relations), rows)

    async def _attach(self, no: int, new: NewTicket, place: Place) -> None:
        if new.attachments:
            common = {"workspace_id": self._tx.workspace, "ticket_no": no, "created_at": place.time}
            rows = [
                {**common, "no": i, "file_name": attachment.file_name, "url": attachment.url}
                for i, attachment in enumerate(new.attachments, start=1)
            ]
            await self._tx.connection.execute(insert(attachments), rows)

    def _emit(
        self, type: str, record: TicketRecord, changes: dict[str, list[Any]], comment: str | None,
        comment_id: str | None = None, kind: CommentKind = "note",
    ) -> Event:  # fmt: skip
        state = compact(record, self._references, self._state.key_prefix)
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
