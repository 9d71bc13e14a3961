"""The ticket service: what every face calls. It checks the scope, begins a unit, and lets the unit do the work."""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import BinaryIO, Final, TypeVar, Unpack

from pydantic import TypeAdapter
from sqlalchemy import Connection

from broadcaster.filters import Filter, Resolver
from broadcaster.polling import WaitBeyond
from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller, Scope
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.group import Once
from taskhub.storage.idempotency import IdempotentRequest, fingerprint
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets import batches, claims, links, references, removal, writes
from taskhub.tickets.api import Conditions, Held, Repeatable
from taskhub.tickets.board import board
from taskhub.tickets.cursor import CursorCodec
from taskhub.tickets.errors import Draining, InputProblem, InvalidInput, StorageBusy
from taskhub.tickets.export import Format
from taskhub.tickets.import_rows import read_rows
from taskhub.tickets.imports import Imported, ImportInterrupted, import_rows
from taskhub.tickets.inputs import (
    BoardQuery,
    BulkUpdate,
    ClaimNext,
    EventQuery,
    ExportQuery,
    Input,
    NewAttachment,
    NewClaim,
    NewComment,
    NewTicket,
    ProgressReport,
    Release,
    Renewal,
    TicketChange,
    TicketQuery,
    UndoBatch,
)
from taskhub.tickets.keys import no_of
from taskhub.tickets.model import (
    Batch,
    BatchResult,
    Board,
    CategoryDetail,
    Claimed,
    Comment,
    EventPage,
    Include,
    Reference,
    ReferenceKind,
    ReferenceWritten,
    RelationName,
    Reported,
    Status,
    Ticket,
    TicketDetail,
    TicketPage,
    TicketSnapshot,
    User,
    Written,
)
from taskhub.tickets.polling import EventPolling, filter_of
from taskhub.tickets.queries import resolve
from taskhub.tickets.reads import Reading
from taskhub.tickets.reference import ROLES, CallerResolver, ReferenceCache, References, UnknownReference
from taskhub.tickets.reference_inputs import ReferenceChange, ReferenceInput
from taskhub.tickets.requests import checked_key, require
from taskhub.tickets.unit import TicketUnit

T = TypeVar("T")
W = TypeVar("W", bound=Written | BatchResult | ReferenceWritten)

LEASE_DEFAULT_S: Final = 1800

EXPORT_AT_A_TIME: Final = 500
_WRITTEN: Final = TypeAdapter(Written)
_BATCH_RESULT: Final = TypeAdapter(BatchResult)
_CLAIMED: Final = TypeAdapter(Claimed)
_REFERENCE: Final = TypeAdapter(ReferenceWritten)
_REPORTED: Final = TypeAdapter(Reported)


class TicketService:
    """Implements taskhub.tickets.api.Tickets on the database of this process."""

    def __init__(
        self,
        database: Database,
        writer: Writer,
        *,
        lease_default_s: int = LEASE_DEFAULT_S,
        wait_beyond: WaitBeyond | None = None,
        ending: Callable[[], bool] = lambda: False,
    ) -> None:
        """`wait_beyond`: the broadcaster's, where there is one. `ending`: whether the process is about to end."""
        self._events = EventPolling(SqlEventLog(database), wait_beyond, ending)
        self._database = database
        self._writer = writer
        self._lease_default_s = lease_default_s
        self._ending = ending
        self._cache = ReferenceCache()

    async def list_tickets(self, caller: Caller, query: TicketQuery) -> TicketPage:
        """One page. Raises InvalidInput (for a foreign cursor too), Forbidden and StorageBusy."""
        cursors = CursorCodec((await self._database.deployment()).secret)
        return await self._read(caller, lambda reading: reading.page(query, caller.principal, cursors))

    async def get_ticket(
        self,
        caller: Caller,
        key: str,
        *,
        include: Collection[Include] = (),
        history_limit: int = 20,
        as_of: str | None = None,
    ) -> TicketDetail:
        """A ticket with the parts asked for, now or as it was. Raises TicketNotFound, TicketGone, Forbidden and
        StorageBusy, and InvalidInput for what is wrong with `as_of`."""
        if as_of is None:
            return await self._read(caller, lambda reading: reading.detail(key, include, history_limit))
        now = self._writer.now()
        return await self._read(
            caller, lambda reading: reading.past_detail(key, include, history_limit, reading.past(as_of, now))
        )

    async def comments(self, caller: Caller, key: str, *, limit: int, before: int | None = None) -> list[Comment]:
        """The newest comments, of those before the comment `before`, oldest first. Raises TicketNotFound, TicketGone,
        Forbidden and StorageBusy."""
        return await self._read(caller, lambda reading: reading.comments(key, limit, before))

    async def get_board(self, caller: Caller, query: BoardQuery) -> Board:
        """The tickets by status, now or as they were. Raises InvalidInput, Forbidden and StorageBusy."""
        now = self._writer.now()
        filters = query.model_dump(exclude={"as_of", "limit"}, exclude_unset=True)
        rows = TicketQuery(**filters, show_completed=True)

        def read(reading: Reading) -> Board:
            resolved = resolve(rows, reading.references, caller.principal, reading.state.key_prefix)
            past = None if query.as_of is None else reading.past(query.as_of, now)
            return board(reading, resolved, query.limit, past)

        return await self._read(caller, read)

    async def create_ticket(self, caller: Caller, new: NewTicket, **conditions: Unpack[Repeatable]) -> Written:
        """Add a ticket. Raises InvalidInput, IdempotencyMismatch, Forbidden and StorageBusy."""
        return await self._write(
            caller, "create_ticket", conditions, (new,), lambda unit: writes.create(unit, new), _WRITTEN
        )

    async def update_ticket(
        self, caller: Caller, key: str, change: TicketChange, **conditions: Unpack[Conditions]
    ) -> Written:
        """Change a ticket. Raises what create_ticket raises, TicketNotFound, TicketGone, LeaseHeld, LeaseLost and
        VersionConflict."""
        expected, token = conditions.get("expected_version"), conditions.get("lease_token")
        return await self._write(
            caller, "update_ticket", conditions, (_key(key), token, change),
            lambda unit: writes.update(unit, key, change, expected, token), _WRITTEN,
        )  # fmt: skip

    async def add_comment(self, caller: Caller, key: str, new: NewComment, **conditions: Unpack[Held]) -> Written:
        """Add a comment. Raises what create_ticket raises, TicketNotFound, TicketGone and LeaseLost."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "add_comment", conditions, (_key(key), token, new),
            lambda unit: writes.comment(unit, key, new, token), _WRITTEN,
        )  # fmt: skip

    async def claim_ticket(self, caller: Caller, key: str, new: NewClaim, **conditions: Unpack[Repeatable]) -> Claimed:
        """Take a ticket. Raises what add_comment raises, LeaseHeld, TakeOverRefused, NotClaimable, Blocked and
        Draining."""

        def claim(unit: TicketUnit) -> Claimed:
            self._check_not_ending()
            return claims.claim(unit, key, new, self._lease_default_s)

        return await self._write(caller, "claim_ticket", conditions, (_key(key), new), claim, _CLAIMED)

    async def claim_next(self, caller: Caller, asked: ClaimNext, **conditions: Unpack[Repeatable]) -> Claimed:
        """Take the ticket that is ready and comes first. Raises what create_ticket raises, NothingReady and
        Draining."""

        def claim(unit: TicketUnit) -> Claimed:
            self._check_not_ending()
            return claims.claim_next(unit, asked, self._lease_default_s)

        return await self._write(caller, "claim_next", conditions, (asked,), claim, _CLAIMED)

    def _check_not_ending(self) -> None:
        """For new claims, not for one that is repeated: that is answered without a unit. Raises Draining."""
        if self._ending():
            raise Draining

    async def release_ticket(self, caller: Caller, key: str, asked: Release, **conditions: Unpack[Held]) -> Written:
        """Give a ticket back. Raises what add_comment raises, and LeaseHeld."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "release_ticket", conditions, (_key(key), token, asked),
            lambda unit: claims.release(unit, key, asked, token), _WRITTEN,
        )  # fmt: skip

    async def renew_lease(self, caller: Caller, key: str, asked: Renewal, **conditions: Unpack[Held]) -> Claimed:
        """Let a lease run its full time from now on. Raises what release_ticket raises."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "renew_lease", conditions, (_key(key), token, asked),
            lambda unit: claims.renew(unit, key, asked, token), _CLAIMED,
        )  # fmt: skip

    async def report_progress(
        self, caller: Caller, key: str, asked: ProgressReport, **conditions: Unpack[Held]
    ) -> Reported:
        """Say how far the work is, and hear what others have said. Raises what release_ticket raises."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "report_progress", conditions, (_key(key), token, asked),
            lambda unit: claims.report(unit, key, asked, token), _REPORTED,
        )  # fmt: skip

    async def expire_leases(self) -> int:
        """Give back every ticket whose lease has run out, in all workspaces; how many. Raises StorageBusy."""
        expired = 0
        for workspace in await self._database.read(
            lambda connection: claims.overdue_workspaces(connection, self._writer.time(connection))
        ):
            caller = claims.system(workspace)
            found = claims.EXPIRE_AT_MOST
            while found == claims.EXPIRE_AT_MOST:

                def work(transaction: Transaction, caller: Caller = caller) -> int:
                    return claims.expire_overdue(TicketUnit(transaction, caller, self._cache))

                found = (await self._writer.run(workspace, work)).value
                expired += found
        return expired

    async def link_tickets(
        self, caller: Caller, key: str, relation: RelationName, other: str, **conditions: Unpack[Held]
    ) -> Written:
        """Relate two tickets. Raises what add_comment raises, and TicketCycle."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "link_tickets", conditions, (_key(key), relation, _key(other), token),
            lambda unit: links.link(unit, key, relation, other, token), _WRITTEN,
        )  # fmt: skip

    async def unlink_tickets(
        self, caller: Caller, key: str, relation: RelationName, other: str, **conditions: Unpack[Held]
    ) -> Written:
        """End a relation. Raises what add_comment raises."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "unlink_tickets", conditions, (_key(key), relation, _key(other), token),
            lambda unit: links.unlink(unit, key, relation, other, token), _WRITTEN,
        )  # fmt: skip

    async def add_attachment(self, caller: Caller, key: str, new: NewAttachment, **conditions: Unpack[Held]) -> Written:
        """Attach a file. Raises what add_comment raises."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "add_attachment", conditions, (_key(key), token, new),
            lambda unit: links.attach(unit, key, new, token), _WRITTEN,
        )  # fmt: skip

    async def remove_attachment(self, caller: Caller, key: str, number: int, **conditions: Unpack[Held]) -> Written:
        """Remove an attachment by its number. Raises what add_comment raises."""
        token = conditions.get("lease_token")
        return await self._write(
            caller, "remove_attachment", conditions, (_key(key), number, token),
            lambda unit: links.detach(unit, key, number, token), _WRITTEN,
        )  # fmt: skip

    async def delete_ticket(self, caller: Caller, key: str, **conditions: Unpack[Conditions]) -> Written:
        """Delete a ticket, which can be restored. Raises what update_ticket raises."""
        expected, token = conditions.get("expected_version"), conditions.get("lease_token")
        return await self._write(
            caller, "delete_ticket", conditions, (_key(key), token),
            lambda unit: removal.delete(unit, key, expected, token), _WRITTEN,
        )  # fmt: skip

    async def restore_ticket(
        self, caller: Caller, key: str, *, expected_version: int | None = None, **conditions: Unpack[Repeatable]
    ) -> Written:
        """Have a deleted ticket back. Raises what create_ticket raises, TicketNotFound and VersionConflict."""
        return await self._write(
            caller, "restore_ticket", conditions, (_key(key),),
            lambda unit: removal.restore(unit, key, expected_version), _WRITTEN,
        )  # fmt: skip

    async def update_tickets(self, caller: Caller, asked: BulkUpdate, **conditions: Unpack[Repeatable]) -> BatchResult:
        """Change many tickets together. Raises InvalidInput, BatchFailed, IdempotencyMismatch, Forbidden and
        StorageBusy. A dry run leaves no trace, so it does not use up the idempotency key either."""
        batch_id = batches.new_batch_id()
        try:
            return await self._write(
                caller, "update_tickets", {} if asked.dry_run else conditions, (_unconditional(asked),),
                lambda unit: batches.bulk(unit, asked, batch_id), _BATCH_RESULT, batch_id=batch_id,
            )  # fmt: skip
        except batches.DryRun as dry_run:
            return dry_run.result

    async def undo_batch(
        self, caller: Caller, batch_id: str, asked: UndoBatch, **conditions: Unpack[Repeatable]
    ) -> BatchResult:
        """Take back what a batch changed. Raises BatchNotFound, AlreadyUndone, UndoConflict, InvalidInput,
        IdempotencyMismatch, Forbidden and StorageBusy."""
        new_id = batches.new_batch_id()
        return await self._write(
            caller, "undo_batch", conditions, (batch_id, asked),
            lambda unit: batches.undo(unit, batch_id, new_id, asked), _BATCH_RESULT, batch_id=new_id,
        )  # fmt: skip

    async def batch(self, caller: Caller, batch_id: str) -> Batch:
        """What a batch changed. Raises BatchNotFound, Forbidden and StorageBusy."""
        return await self._read(caller, lambda reading: batches.read_batch(reading, batch_id))

    async def get_events(self, caller: Caller, query: EventQuery) -> EventPage:
        """What happened after a position; when nothing has, wait for it. Raises InvalidInput, PositionGone, Forbidden
        and StorageBusy."""
        selected = filter_of(query.filter, await self.resolver(caller))
        return await self._events.poll(caller.principal.workspace, query, selected)

    async def users(self, caller: Caller, *, role: str | None = None) -> list[User]:
        """Users by name. Raises InvalidInput for an unknown role."""
        if role is not None and role not in ROLES:
            raise InvalidInput([InputProblem("/role", f"there is no role {role[:80]!r}", ROLES)])
        users = (await self._references(caller)).users
        return [user for user in users if role in (None, user.role)]

    async def user_of(self, caller: Caller) -> User | None:
        """The caller's own row among the users; None without one. Everybody may ask for that."""

        def read(connection: Connection) -> User | None:
            references = Reading(connection, caller.principal.workspace, self._cache).references
            user_id = references.me(caller.principal)
            return next((user for user in references.users if user.id == user_id), None)

        return await self._database.read(read)

    async def accounts(self, caller: Caller) -> list[Reference]:
        return list((await self._references(caller)).accounts)

    async def categories(self, caller: Caller) -> list[Reference]:
        return list((await self._references(caller)).categories)

    async def category_details(self, caller: Caller, *, category: str | None = None) -> list[CategoryDetail]:
        """The details of a category (id or name), or of all. Raises InvalidInput for an unknown one."""
        references = await self._references(caller)
        if category is None:
            return list(references.category_details)
        try:
            category_id = references.entries["categories"].known(category)
        except UnknownReference as error:
            raise InvalidInput([error.problem("/category")]) from None
        return [detail for detail in references.category_details if detail.category.id == category_id]

    async def statuses(self, caller: Caller) -> list[Status]:
        return list((await self._references(caller)).statuses)

    async def request_channels(self, caller: Caller) -> list[Reference]:
        return list((await self._references(caller)).request_channels)

    async def response_categories(self, caller: Caller) -> list[Reference]:
        return list((await self._references(caller)).response_categories)

    async def create_reference(
        self, caller: Caller, kind: ReferenceKind, new: ReferenceInput, **conditions: Unpack[Repeatable]
    ) -> ReferenceWritten:
        """Add a row of reference data. Raises InvalidInput, IdempotencyMismatch, Forbidden and StorageBusy."""
        return await self._write(
            caller, "create_reference", conditions, (kind, new),
            lambda unit: references.create(unit, kind, new), _REFERENCE, scope="reference:write",
        )  # fmt: skip

    async def change_reference(
        self,
        caller: Caller,
        kind: ReferenceKind,
        id: str,
        asked: ReferenceChange,
        **conditions: Unpack[Repeatable],
    ) -> ReferenceWritten:
        """Change a row. Raises what create_reference raises, ReferenceNotFound, InUse and StatusNeeded."""
        return await self._write(
            caller, "change_reference", conditions, (kind, id, asked),
            lambda unit: references.change(unit, kind, id, asked), _REFERENCE, scope="reference:write",
        )  # fmt: skip

    async def remove_reference(
        self, caller: Caller, kind: ReferenceKind, id: str, **conditions: Unpack[Repeatable]
    ) -> ReferenceWritten:
        """Remove a row. Raises what change_reference raises."""
        return await self._write(
            caller, "remove_reference", conditions, (kind, id),
            lambda unit: references.remove(unit, kind, id), _REFERENCE, scope="reference:write",
        )  # fmt: skip

    async def export(self, caller: Caller, query: ExportQuery) -> AsyncIterator[list[Ticket]]:
        """All tickets that match, by number and some at a time, each part as it is when it is read.

        Raises InvalidInput, Forbidden and StorageBusy.
        """
        rows = TicketQuery(**query.model_dump(exclude_unset=True) | {"show_completed": query.show_completed})
        last = 0
        while True:
            read = partial(Reading.all_after, no=last, query=rows, principal=caller.principal, limit=EXPORT_AT_A_TIME)
            page = await self._read(caller, read)
            if last == 0:  # before anything is given away
                asked = query.model_dump(mode="json", exclude_unset=True)
                await self._record(Entry.by(caller, "tickets.exported", query=asked))
            if page:
                yield page
            if len(page) < EXPORT_AT_A_TIME:
                return
            last = no_of(page[-1].key)

    async def import_file(self, caller: Caller, file: BinaryIO, form: Format, *, strict: bool = False) -> Imported:
        """Take the rows of a file in, each by itself; with `strict` all of them or none.

        Raises InvalidInput for what is no such file, ImportRefused, Forbidden and StorageBusy.
        """
        require(caller, "tickets:write")
        run = partial(self._unit, replace(caller, origin="import"))
        try:
            done = await import_rows(run, read_rows(file, form), strict=strict)
        except ImportInterrupted as interrupted:
            with suppress(StorageBusy):  # the database has just been away; the events are there
                told = {"interrupted": True, **interrupted.details()}
                await self._record(Entry.by(caller, "tickets.imported", outcome="failure", format=form, **told))
            raise
        entry = Entry.by(
            caller, "tickets.imported", format=form, strict=strict, created=done.created, updated=done.updated,
            unchanged=done.unchanged, failed=done.failed,
        )  # fmt: skip
        await self._record(entry)
        return done

    async def _record(self, entry: Entry) -> None:
        await self._database.write(partial(record, entry=entry))

    async def _unit(self, caller: Caller, change: Callable[[TicketUnit], T]) -> T:
        def work(transaction: Transaction) -> T:
            return change(TicketUnit(transaction, caller, self._cache))

        return (await self._writer.run(caller.principal.workspace, work)).value

    async def resolver(self, caller: Caller) -> Resolver:
        """What turns the values of a filter into ids, for this caller."""
        return CallerResolver(await self._references(caller, "events:read"), caller.principal)

    async def snapshot(self, workspace: str, matches: Filter) -> TicketSnapshot:
        """Every ticket that matches, and the position at which that was true. Raises StorageBusy."""

        def read(connection: Connection) -> TicketSnapshot:
            return Reading(connection, workspace, self._cache).snapshot(matches)

        return await self._database.read(read)

    async def _references(self, caller: Caller, scope: Scope = "tickets:read") -> References:
        return await self._read(caller, lambda reading: reading.references, scope)

    async def _read(self, caller: Caller, what: Callable[[Reading], T], scope: Scope = "tickets:read") -> T:
        require(caller, scope)
        workspace = caller.principal.workspace
        return await self._database.read(lambda connection: what(Reading(connection, workspace, self._cache)))

    async def _write(
        self,
        caller: Caller,
        operation: str,
        conditions: Repeatable,
        parts: tuple[object, ...],
        change: Callable[[TicketUnit], W],
        answer_type: TypeAdapter[W],
        *,
        batch_id: str | None = None,
        scope: Scope = "tickets:write",
    ) -> W:
        # Asked on replays as well: what was allowed then may not be now.
        require(caller, scope)
        workspace = caller.principal.workspace

        def work(transaction: Transaction) -> W:
            return change(TicketUnit(transaction, caller, self._cache, batch_id=batch_id))

        if (key := conditions.get("idempotency_key")) is None:
            return (await self._writer.run(workspace, work)).value
        request = IdempotentRequest(
            caller.principal.actor, operation, checked_key(key), fingerprint(*map(_bytes, parts))
        )
        answer = await self._writer.run(workspace, work, once=Once(request, answer_type))
        return replace(answer.value, replayed=True) if answer.replayed else answer.value


# Of what a request is, as its fingerprint sees it. Which version it expects is no part: that says when to make the
# change, not which one.


def _key(key: str) -> str:
    return key.strip().upper()


def _unconditional(asked: BulkUpdate) -> str:
    return asked.model_dump_json(exclude_unset=True, exclude={"items": {"__all__": {"expected_version"}}})


def _bytes(part: object) -> bytes:
    """Of a body, a field that was sent as null is not one that was left out."""
    return (part.model_dump_json(exclude_unset=True) if isinstance(part, Input) else str(part)).encode()
