"""What MCP calls: the ticket service of this process, or the same over HTTP (`--api-base-url`)."""

from collections.abc import Collection
from typing import Protocol, TypedDict, Unpack

from taskhub.auth.principal import Caller
from taskhub.tickets.inputs import (
    BoardQuery,
    BulkUpdate,
    ClaimNext,
    EventQuery,
    NewClaim,
    NewComment,
    NewTicket,
    ProgressReport,
    Release,
    TicketChange,
    TicketQuery,
    UndoBatch,
)
from taskhub.tickets.model import (
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


class Repeatable(TypedDict, total=False):
    """What a write may come with."""

    idempotency_key: str | None
    """A repeat with the same key and the same arguments answers what the first answered, with `replayed` set, and has
    no further effect."""


class Held(Repeatable, total=False):
    """What a write to a ticket may come with that somebody may hold."""

    lease_token: int | None
    """Renews the lease it belongs to; the write is refused when that is not the live one."""


class Conditions(Held, total=False):
    expected_version: int | None
    """The write is refused when the ticket has another one."""


class Tickets(Protocol):
    """Every method may raise TicketError (taskhub.tickets.errors) or AuthError.

    `key` is a ticket key such as TH-12, in any case.
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

    async def create_ticket(self, caller: Caller, new: NewTicket, **conditions: Unpack[Repeatable]) -> Written: ...

    async def update_ticket(
        self, caller: Caller, key: str, change: TicketChange, **conditions: Unpack[Conditions]
    ) -> Written: ...

    async def add_comment(self, caller: Caller, key: str, new: NewComment, **conditions: Unpack[Held]) -> Written: ...

    async def claim_ticket(
        self, caller: Caller, key: str, new: NewClaim, **conditions: Unpack[Repeatable]
    ) -> Claimed: ...

    async def claim_next(self, caller: Caller, asked: ClaimNext, **conditions: Unpack[Repeatable]) -> Claimed: ...

    async def release_ticket(self, caller: Caller, key: str, asked: Release, **conditions: Unpack[Held]) -> Written: ...

    async def report_progress(
        self, caller: Caller, key: str, asked: ProgressReport, **conditions: Unpack[Held]
    ) -> Reported: ...

    async def link_tickets(
        self, caller: Caller, key: str, relation: RelationName, other: str, **conditions: Unpack[Held]
    ) -> Written: ...

    async def unlink_tickets(
        self, caller: Caller, key: str, relation: RelationName, other: str, **conditions: Unpack[Held]
    ) -> Written: ...

    async def delete_ticket(self, caller: Caller, key: str, **conditions: Unpack[Conditions]) -> Written: ...

    async def restore_ticket(
        self, caller: Caller, key: str, *, expected_version: int | None = None, **conditions: Unpack[Repeatable]
    ) -> Written: ...

    async def update_tickets(
        self, caller: Caller, asked: BulkUpdate, **conditions: Unpack[Repeatable]
    ) -> BatchResult: ...

    async def undo_batch(
        self, caller: Caller, batch_id: str, asked: UndoBatch, **conditions: Unpack[Repeatable]
    ) -> BatchResult: ...

    async def users(self, caller: Caller, *, role: str | None = None) -> list[User]: ...

    async def accounts(self, caller: Caller) -> list[Reference]: ...

    async def categories(self, caller: Caller) -> list[Reference]: ...

    async def category_details(self, caller: Caller, *, category: str | None = None) -> list[CategoryDetail]: ...

    async def statuses(self, caller: Caller) -> list[Status]: ...

    async def request_channels(self, caller: Caller) -> list[Reference]: ...

    async def response_categories(self, caller: Caller) -> list[Reference]: ...
