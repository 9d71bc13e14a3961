"""What every change of tickets is made of: the tickets read and locked, the next version stored, its event emitted."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final

import orjson
from sqlalchemy import and_, bindparam, exists, insert, select

from broadcaster.event import Event, EventDraft
from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller
from taskhub.storage.names import slug
from taskhub.storage.schema import comments, statuses, ticket_relations, tickets, users
from taskhub.storage.search import add_texts
from taskhub.storage.transaction import Transaction
from taskhub.tickets.changes import Situation
from taskhub.tickets.errors import InputProblem, InvalidInput, TicketNotFound
from taskhub.tickets.keys import key_of, number_of
from taskhub.tickets.model import CommentKind, Written
from taskhub.tickets.reads import existing
from taskhub.tickets.record import RECORDS, LeaseRecord, TicketRecord, record_of, store_lease, update_record
from taskhub.tickets.reference import CLOSED_PHASES, ReferenceCache, References, load
from taskhub.tickets.text import UNSTORABLE, unstorable
from taskhub.tickets.views import compact, event_data

_KINDS_OF_ACTOR: Final = {"user": "human", "agent": "agent", "service": "service"}
_INSERT_COMMENT: Final = insert(comments)
_RECORDS: Final = RECORDS.where(
    tickets.c.workspace_id == bindparam("workspace"), tickets.c.no.in_(bindparam("numbers", expanding=True))
)

_R: Final = ticket_relations.c
_BLOCKER: Final = tickets.alias("blocker")
IS_BLOCKED: Final = exists(
    select(_BLOCKER.c.no)
    .join_from(
        ticket_relations, _BLOCKER, and_(_BLOCKER.c.workspace_id == _R.workspace_id, _BLOCKER.c.no == _R.from_no)
    )
    .join(statuses, and_(statuses.c.workspace_id == _BLOCKER.c.workspace_id, statuses.c.id == _BLOCKER.c.status_id))
    .where(
        _R.workspace_id == tickets.c.workspace_id,
        _R.to_no == tickets.c.no,
        _R.kind == "blocks",
        _BLOCKER.c.deleted_at.is_(None),
        statuses.c.phase.not_in(CLOSED_PHASES),
    )
).correlate(tickets)
"""Of a row of tickets: an open ticket blocks it."""
_BLOCKED: Final = select(tickets.c.no, IS_BLOCKED.label("blocked")).where(
    tickets.c.workspace_id == bindparam("workspace"), tickets.c.no.in_(bindparam("numbers", expanding=True))
)
_BLOCKED_BY: Final = select(_R.to_no).where(
    _R.workspace_id == bindparam("workspace"), _R.from_no == bindparam("no"), _R.kind == "blocks"
)


class TicketUnit:
    """One caller's changes within a transaction. Nobody else changes the workspace meanwhile."""

    def __init__(
        self, transaction: Transaction, caller: Caller, cache: ReferenceCache, *, batch_id: str | None = None
    ) -> None:
        self.transaction = transaction
        self.caller = caller
        self.prefix = transaction.state.key_prefix
        self._cache = cache
        self.batch_id = batch_id
        self._renewed: set[int] = set()
        """Tickets whose leases were renewed, and of which no event has told it yet."""
        self._tokens: dict[int, int] = {}
        """The tokens of the live leases with which the caller came, by the tickets' numbers."""
        self.references = self._current_references()

    def by(self, caller: Caller) -> "TicketUnit":
        """Changes of somebody else's within the same transaction."""
        return TicketUnit(self.transaction, caller, self._cache, batch_id=self.batch_id)

    # What is there

    def situation(self, parent_no: int | None = None) -> Situation:
        """What decisions are made in."""
        return Situation(self.references, self.caller.principal, self.prefix, self.transaction.now, parent_no=parent_no)

    def records(self, numbers: Collection[int]) -> dict[int, TicketRecord]:
        """Tickets by their numbers, deleted ones too."""
        if not numbers:
            return {}
        parameters = {"workspace": self.transaction.workspace, "numbers": list(numbers)}
        return {
            record.no: record for record in map(record_of, self.transaction.connection.execute(_RECORDS, parameters))
        }

    def number(self, key: str) -> int:
        """The number in a key. Raises TicketNotFound for what is no key of this workspace."""
        no = number_of(self.prefix, key)
        if no is None:
            raise TicketNotFound(key)
        return no

    def ticket(self, key: str) -> TicketRecord:
        """Raises TicketNotFound and TicketGone."""
        no = self.number(key)
        return existing(self.records({no}).get(no), key)

    def is_open(self, record: TicketRecord) -> bool:
        """Whether what it blocks has to wait for it."""
        return record.deleted_at is None and self.references.phase(record.status_id) not in CLOSED_PHASES

    def add_caller(self) -> str:
        """The caller's id among the users, who becomes one: who takes a ticket is somebody it can be given to."""
        if (known := self.references.me(self.caller.principal)) is not None:
            return known
        transaction = self.transaction
        actor_kind, _, name = self.caller.principal.actor.partition(":")
        user_id = slug(name, {user.id for user in self.references.users})
        row = {
            "workspace_id": transaction.workspace, "id": user_id, "name": name, "email": None,
            "kind": _KINDS_OF_ACTOR.get(actor_kind, "service"), "role": "agent", "active": True,
            "created_at": transaction.now, "updated_at": transaction.now,
        }  # fmt: skip
        transaction.execute(insert(users), row)
        self.references_changed("users", "created", user_id, name)
        record(transaction, Entry.by(self.caller, "user.added", user_id, name=name, kind=row["kind"], role=row["role"]))
        return user_id

    def references_changed(self, kind: str, action: str, id: str, name: str) -> Event:
        """To be called after each change of reference data."""
        self.transaction.change_references()
        data = {"kind": kind, "action": action, "id": id, "name": name}
        event = self.emit_as("reference.changed", f"{kind}/{id}", orjson.dumps(data), None)
        self.references = self._current_references()
        return event

    # What becomes of it

    @contextmanager
    def part(self) -> Iterator[None]:
        """A part of the unit: when it raises, it is undone alone, and the unit may go on."""
        kept = self.references, self._renewed.copy(), self._tokens.copy()
        try:
            with self.transaction.part():
                yield
        except Exception:
            self.references, self._renewed, self._tokens = kept
            raise

    def save(
        self, before: TicketRecord, after: TicketRecord, event_type: str, changes: Mapping[str, list[Any]], *,
        comment: str | None = None, kind: CommentKind = "note", **more: Any,
    ) -> Written:  # fmt: skip
        """Store `after`, the next version of `before`, with its comment and its event, and what follows from it for
        the tickets that it blocks. `more` goes into the event's data.

        A lease ends with the work: when the ticket leaves the active phase, or is deleted.
        """
        ends = after.deleted_at is not None or self.references.phase(after.status_id) != "active"
        if ends and after.lease is not None and after.lease.holder is not None:
            after = replace(after, lease=after.lease.ended())
        if after.lease is not None:
            store_lease(self.transaction, after.no, before.lease, after.lease)
        if before.holder != after.holder:
            changes = {**changes, "lease": [before.holder, after.holder]}
        update_record(self.transaction, before, after)
        comment_id = self.store_comment(after.no, comment, kind)
        event = self.emit(event_type, after, changes, comment=comment, comment_id=comment_id, kind=kind, **more)
        if self.is_open(before) != self.is_open(after):
            found = self.transaction.connection.execute(
                _BLOCKED_BY, {"workspace": self.transaction.workspace, "no": after.no}
            )
            self.update_blocked([row.to_no for row in found])
        return self.written(after, event, comment_id)

    def renew_lease(self, no: int, before: LeaseRecord, seconds: int | None = None) -> LeaseRecord:
        """Let the ticket's lease, whose token the caller has shown, run its full time, or another one, from now on.

        That is no new version; the next event about the ticket tells it, or else one that is not stored.
        """
        after = before if seconds is None else replace(before, seconds=seconds)
        after = after.renewed(self.transaction.now)
        store_lease(self.transaction, no, before, after)
        self._renewed.add(no)
        self._tokens[no] = before.token
        return after

    def update_blocked(self, numbers: Collection[int]) -> None:
        """Find out anew whether these tickets are blocked, and tell of each for which that has changed.

        Deleted ones are passed over: of them nobody is told, and restoring one finds it out.
        """
        if not numbers:
            return
        blocked = self.blocked(numbers)
        for no, before in sorted(self.records(blocked).items()):
            if before.deleted_at is not None or before.blocked == blocked[no]:
                continue
            after = self.next_version(before, blocked=blocked[no])
            update_record(self.transaction, before, after)
            event_type = "ticket.updated" if blocked[no] else "ticket.unblocked"
            self.emit(event_type, after, {"blocked": [before.blocked, after.blocked]})

    def blocked(self, numbers: Collection[int]) -> dict[int, bool]:
        """Which of these tickets an open ticket blocks, from the relations as they are now."""
        parameters = {"workspace": self.transaction.workspace, "numbers": sorted(set(numbers))}
        found = self.transaction.connection.execute(_BLOCKED, parameters)
        return {row.no: bool(row.blocked) for row in found}

    def next_version(self, before: TicketRecord, **values: Any) -> TicketRecord:
        """`before` with other values, one version on."""
        time = max(self.transaction.now, before.updated_at)
        return replace(before, version=before.version + 1, updated_at=time, **values)

    def store_comment(self, no: int, body: str | None, kind: CommentKind) -> str | None:
        """Store a comment; its id is the seq of the event that carries it, which must be the next."""
        if body is None:
            return None
        transaction = self.transaction
        row = {
            "workspace_id": transaction.workspace, "seq": transaction.next_seq, "ticket_no": no,
            "author": self.caller.principal.actor, "kind": kind, "body": body,
            "created_at": transaction.time, "lease_token": self._tokens.get(no),
        }  # fmt: skip
        transaction.execute(_INSERT_COMMENT, row)
        add_texts(transaction, no, [body], transaction.next_seq)
        return str(transaction.next_seq)

    def emit(
        self, event_type: str, record: TicketRecord, changes: Mapping[str, list[Any]], *, comment: str | None = None,
        comment_id: str | None = None, kind: CommentKind = "note", **more: Any,
    ) -> Event:  # fmt: skip
        """The event that carries this version of a ticket."""
        self._renewed.discard(record.no)
        state = compact(record, self.references, self.prefix)
        if comment_id is not None:
            more |= {"comment_id": comment_id, "kind": kind}
        return self.emit_as(event_type, state.key, event_data(state, dict(changes), comment, **more), record.version)

    def emit_as(self, event_type: str, subject: str | None, data: bytes, version: int | None) -> Event:
        """Any event of this caller's."""
        return self.transaction.emit(self.draft(event_type, subject, data, version))

    def draft(self, event_type: str, subject: str | None, data: bytes, version: int | None) -> EventDraft:
        caller = self.caller
        return EventDraft(
            event_type, caller.principal.actor, caller.origin, data, subject, version,
            request_id=caller.request_id, batch_id=self.batch_id, trace=caller.trace,
        )  # fmt: skip

    def written(self, record: TicketRecord, event: Event, comment_id: str | None = None) -> Written:
        return Written(key_of(self.prefix, record.no), record.version, event.id, event.position, comment_id=comment_id)

    def unchanged(self, record: TicketRecord) -> Written:
        """The answer to a write that found everything so already. Who watches a lease run out is told of its renewal
        all the same."""
        key = key_of(self.prefix, record.no)
        if record.no in self._renewed:
            self._renewed.discard(record.no)
            data = event_data(compact(record, self.references, self.prefix), {}, None)
            self.transaction.tell(self.draft("ticket.lease_renewed", key, data, record.version))
        return Written(key, record.version, None, self.transaction.state.position, noop=True)

    def _current_references(self) -> References:
        transaction = self.transaction
        if transaction.references_changed:
            # The cache holds what is committed, for all: it neither knows of the change nor may it learn of it here.
            return load(transaction.connection, transaction.workspace, transaction.after.references_version)
        return self._cache.get(transaction.connection, transaction.workspace, transaction.after)


class Related:
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

    def check(self, rows: Mapping[int, TicketRecord]) -> None:
        """Raise InvalidInput for each ticket that does not exist or was deleted."""
        problems = [
            InputProblem(pointer, f"there is no ticket {key}")
            for pointer, key, no in self._asked
            if no is None or no not in rows or rows[no].deleted_at is not None
        ]
        if problems:
            raise InvalidInput(problems)


def check_texts(texts: Iterable[tuple[str, str | None]]) -> None:
    """Raise InvalidInput for each text (pointer, text) that cannot be stored."""
    problems = [InputProblem(pointer, UNSTORABLE) for pointer, text in texts if text is not None and unstorable(text)]
    if problems:
        raise InvalidInput(problems)
