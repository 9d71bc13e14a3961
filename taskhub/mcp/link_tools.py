"""The tools that relate tickets to each other, delete them and have them back."""

from typing import Annotated, Any, Final

from pydantic import Field

from taskhub.auth.principal import Caller
from taskhub.mcp import render
from taskhub.mcp.arguments import Expected
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.errors import TicketError, TicketGone
from taskhub.tickets.inputs import IdempotencyKey, Input, Key
from taskhub.tickets.model import RelationName

STORED: Final = result_schema({"key": {"type": "string"}, "version": {"type": "integer"}, "noop": {"type": "boolean"}})
Confirmed = Annotated[bool, Field(strict=True, description="true once a person has said yes")]


class LinkArguments(Input):
    ticket_id: Key
    relation: RelationName
    other: Key
    lease_token: int | None = None
    idempotency_key: IdempotencyKey | None = None


class DeleteArguments(Input):
    ticket_id: Key
    confirm: Confirmed = False
    expected_version: Expected = None
    lease_token: int | None = None
    idempotency_key: IdempotencyKey | None = None


class RestoreArguments(Input):
    ticket_id: Key
    confirm: Confirmed = False
    expected_version: Annotated[int | None, Field(ge=1)] = None
    idempotency_key: IdempotencyKey | None = None


class ConfirmationRequired(TicketError):
    """`str()` is the question to ask a person."""

    code = "confirmation_required"

    def __init__(self, question: str) -> None:
        super().__init__(question)
        self.hint = "ask a person this; after a yes call again with confirm: true"


def link_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def link_tickets(caller: Caller, arguments: LinkArguments) -> ToolResult:
        answer = await tickets.link_tickets(
            caller,
            arguments.ticket_id,
            arguments.relation,
            arguments.other,
            lease_token=arguments.lease_token,
            idempotency_key=arguments.idempotency_key,
        )
        return render.written(answer, "was linked")

    async def unlink_tickets(caller: Caller, arguments: LinkArguments) -> ToolResult:
        answer = await tickets.unlink_tickets(
            caller,
            arguments.ticket_id,
            arguments.relation,
            arguments.other,
            lease_token=arguments.lease_token,
            idempotency_key=arguments.idempotency_key,
        )
        return render.written(answer, "was unlinked")

    async def delete_ticket(caller: Caller, arguments: DeleteArguments) -> ToolResult:
        if not arguments.confirm:
            ticket = (await tickets.get_ticket(caller, arguments.ticket_id)).ticket
            raise ConfirmationRequired(
                f"Delete {ticket.key} “{ticket.summary}”? It leaves every list, and what it blocks need not wait for "
                "it any longer; restore_ticket brings it back."
            )
        answer = await tickets.delete_ticket(
            caller,
            arguments.ticket_id,
            expected_version=arguments.expected_version,
            lease_token=arguments.lease_token,
            idempotency_key=arguments.idempotency_key,
        )
        return render.written(answer, "was deleted")

    async def restore_ticket(caller: Caller, arguments: RestoreArguments) -> ToolResult:
        if not arguments.confirm:
            try:
                await tickets.get_ticket(caller, arguments.ticket_id)
            except TicketGone as gone:
                raise ConfirmationRequired(
                    f"Restore {gone.key.upper()} “{gone.summary}”? It is in the lists again as it was, and what "
                    "it blocks waits for it again."
                ) from None
            # It is there, so there is nothing to ask about: the answer says so.
        answer = await tickets.restore_ticket(
            caller,
            arguments.ticket_id,
            expected_version=arguments.expected_version,
            idempotency_key=arguments.idempotency_key,
        )
        return render.written(answer, "was restored")

    return [
        Tool(
            name="link_tickets",
            title="Link tickets",
            description="Relate a ticket to another: ticket_id blocks other, and so on. What is blocked is not ready "
            "until its blockers are done; a circle is refused.",
            arguments=LinkArguments,
            output=STORED,
            scope="tickets:write",
            toolset="tickets",
            run=link_tickets,
            read_only=False,
        ),
        Tool(
            name="unlink_tickets",
            title="Unlink tickets",
            description="End a relation between two tickets.",
            arguments=LinkArguments,
            output=STORED,
            scope="tickets:write",
            toolset="tickets",
            run=unlink_tickets,
            read_only=False,
            destructive=True,
        ),
        Tool(
            name="delete_ticket",
            title="Delete a ticket",
            description="Delete a ticket. Without confirm it answers the question to ask a person first.",
            arguments=DeleteArguments,
            output=STORED,
            scope="tickets:write",
            toolset="tickets",
            run=delete_ticket,
            read_only=False,
            destructive=True,
        ),
        Tool(
            name="restore_ticket",
            title="Restore a ticket",
            description="Have a deleted ticket back. Without confirm it answers the question to ask a person first.",
            arguments=RestoreArguments,
            output=STORED,
            scope="tickets:write",
            toolset="tickets",
            run=restore_ticket,
            read_only=False,
        ),
    ]
