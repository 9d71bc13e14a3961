"""What every face calls: the ticket service of this process, or the same over HTTP (`--api-base-url`)."""

from collections.abc import Collection
from typing import Protocol

from taskhub.auth.principal import Caller
from taskhub.tickets.inputs import (
    BoardQuery,
    BulkUpdate,
    ClaimNext,
    EventQuery,
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
from taskhub.tickets.model import (
    Batch,
    BatchResult,
    Board,
    CategoryDetail,
    Claimed,
    EventPage,
    Include,
    Reference,
    RelationName,
    Reported,
    Status,
    TicketDetail,
    TicketPage,
    User,
    Written,
)


class Tickets(Protocol):
    """Every method may raise TicketError (taskhub.tickets.errors) or AuthError.

    `key` is a ticket key such as TH-12, in any case. Writes accept an `idempotency_key`: a repeat with the same key and
    the same arguments answers what the first answered, with `replayed` set, and has no further effect.
    A write with a `lease_token` renews the lease it belongs to, and is refused when that is not the live one.
    """

    async def list_tickets(self, caller: Caller, query: TicketQuery) -> TicketPage: ...

    async def get_ticket(
        self,
        caller: Caller,
        key: str,
        *,
        include: Collection[Include] = (),
        history_limit: int = 20,
        as_of: str | None = None,
    ) -> TicketDetail: ...

    async def get_board(self, caller: Caller, query: BoardQuery) -> Board: ...

    async def get_events(self, caller: Caller, query: EventQuery) -> EventPage: ...

    async def create_ticket(self, caller: Caller, new: NewTicket, *, idempotency_key: str | None = None) -> Written: ...

    async def update_ticket(
        self,
        caller: Caller,
        key: str,
        change: TicketChange,
        *,
        expected_version: int | None = None,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def add_comment(
        self,
        caller: Caller,
        key: str,
        new: NewComment,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def claim_ticket(
        self, caller: Caller, key: str, new: NewClaim, *, idempotency_key: str | None = None
    ) -> Claimed: ...

    async def claim_next(self, caller: Caller, asked: ClaimNext, *, idempotency_key: str | None = None) -> Claimed: ...

    async def release_ticket(
        self,
        caller: Caller,
        key: str,
        asked: Release,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def renew_lease(
        self,
        caller: Caller,
        key: str,
        asked: Renewal,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Claimed: ...

    async def report_progress(
        self,
        caller: Caller,
        key: str,
        asked: ProgressReport,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Reported: ...

    async def link_tickets(
        self,
        caller: Caller,
        key: str,
        relation: RelationName,
        other: str,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def unlink_tickets(
        self,
        caller: Caller,
        key: str,
        relation: RelationName,
        other: str,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def add_attachment(
        self,
        caller: Caller,
        key: str,
        new: NewAttachment,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def remove_attachment(
        self,
        caller: Caller,
        key: str,
        number: int,
        *,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def delete_ticket(
        self,
        caller: Caller,
        key: str,
        *,
        expected_version: int | None = None,
        lease_token: int | None = None,
        idempotency_key: str | None = None,
    ) -> Written: ...

    async def restore_ticket(
        self, caller: Caller, key: str, *, expected_version: int | None = None, idempotency_key: str | None = None
    ) -> Written: ...

    async def update_tickets(
        self, caller: Caller, asked: BulkUpdate, *, idempotency_key: str | None = None
    ) -> BatchResult: ...

    async def undo_batch(
        self, caller: Caller, batch_id: str, asked: UndoBatch, *, idempotency_key: str | None = None
    ) -> BatchResult: ...

    async def batch(self, caller: Caller, batch_id: str) -> Batch: ...

    async def users(self, caller: Caller, *, role: str | None = None) -> list[User]: ...

    async def accounts(self, caller: Caller) -> list[Reference]: ...

    async def categories(self, caller: Caller) -> list[Reference]: ...

    async def category_details(self, caller: Caller, *, category: str | None = None) -> list[CategoryDetail]: ...

    async def statuses(self, caller: Caller) -> list[Status]: ...

    async def request_channels(self, caller: Caller) -> list[Reference]: ...

    async def response_categories(self, caller: Caller) -> list[Reference]: ...
