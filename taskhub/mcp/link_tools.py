"""The tools that relate tickets to each other, delete them and have them back."""

from typing import Annotated, Any, Final

from pydantic import Field

from taskhub.auth.principal import Caller
from taskhub.mcp import render
from taskhub.mcp.arguments import Confirmed, Expected, conditions, held
from taskhub.mcp.confirmation import NO_VERSION, Confirmation, Question
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.numbers import WHOLE
from taskhub.tickets.api import Tickets
from taskhub.tickets.errors import TicketGone, VersionConflict
from taskhub.tickets.inputs import IdempotencyKey, Input, Key
from taskhub.tickets.model import RelationName

STORED: Final = result_schema({"key": {"type": "string"}, "version": {"type": "integer"}})


class LinkArguments(Input):
    ticket_id: Key
    relation: RelationName
    other: Key
    lease_token: Annotated[int, WHOLE] | None = None
    idempotency_key: IdempotencyKey | None = None


class DeleteArguments(Input):
    ticket_id: Key
    confirm: Confirmed = Field(default=False, description="true once a person said yes to you")
    expected_version: Expected = None
    lease_token: Annotated[int, WHOLE] | None = None
    idempotency_key: IdempotencyKey | None = None


class RestoreArguments(Input):
    ticket_id: Key
    confirm: Confirmed = False
    expected_version: Annotated[int | None, Field(ge=1), WHOLE] = None
    idempotency_key: IdempotencyKey | None = None


def link_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def link_tickets(caller: Caller, arguments: LinkArguments) -> ToolResult:
        answer = await tickets.link_tickets(
            caller, arguments.ticket_id, arguments.relation, arguments.other, **held(arguments)
        )
        return render.written(answer, "was linked")

    async def unlink_tickets(caller: Caller, arguments: LinkArguments) -> ToolResult:
        answer = await tickets.unlink_tickets(
            caller, arguments.ticket_id, arguments.relation, arguments.other, **held(arguments)
        )
        return render.written(answer, "was unlinked")

    async def delete_ticket(caller: Caller, arguments: DeleteArguments) -> ToolResult:
        answer = await tickets.delete_ticket(caller, arguments.ticket_id, **conditions(arguments))
        return render.written(answer, "was deleted")

    async def whether_to_delete(caller: Caller, arguments: DeleteArguments) -> Question | ToolResult:
        try:
            # Nobody is asked about what was done before, under the same idempotency key, or would be refused anyway.
            return await delete_ticket(caller, arguments.model_copy(update={"expected_version": NO_VERSION}))
        except VersionConflict:
            ticket = (await tickets.get_ticket(caller, arguments.ticket_id)).ticket
        if arguments.expected_version is not None and arguments.expected_version < ticket.version:
            return await delete_ticket(caller, arguments)  # which says what has changed since
        who = f"{ticket.person_in_charge.name} is in charge of it" if ticket.person_in_charge else "nobody has it"
        return Question(
            f"Delete {ticket.key} “{ticket.summary}”? It is {ticket.status.name}, and {who}. It leaves "
            "every list, and what it blocks need not wait for it any longer; restore_ticket brings it back.",
            about={ticket.key: ticket.version},
            pinned={"expected_version": arguments.expected_version or ticket.version},
        )

    async def restore_ticket(caller: Caller, arguments: RestoreArguments) -> ToolResult:
        answer = await tickets.restore_ticket(
            caller,
            arguments.ticket_id,
            expected_version=arguments.expected_version,
            idempotency_key=arguments.idempotency_key,
        )
        return render.written(answer, "was restored")

    async def whether_to_restore(caller: Caller, arguments: RestoreArguments) -> Question | ToolResult:
        try:
            return await restore_ticket(caller, arguments.model_copy(update={"expected_version": NO_VERSION}))
        except VersionConflict as conflict:
            version = conflict.current
        if arguments.expected_version is not None and arguments.expected_version < version:
            return await restore_ticket(caller, arguments)
        try:
            ticket = (await tickets.get_ticket(caller, arguments.ticket_id)).ticket
        except TicketGone as gone:
            return Question(
                f"Restore {gone.key.upper()} “{gone.summary}”? It is in the lists again as it was, and what "
                "it blocks waits for it again.",
                about={gone.key.upper(): version},
                pinned={"expected_version": arguments.expected_version or version},
            )
        # It is there, so there is nothing to ask about: the answer says so.
        return await restore_ticket(caller, arguments.model_copy(update={"expected_version": ticket.version}))

    return [
        Tool(
            name="link_tickets",
            title="Link tickets",
            description="Relate a ticket to another: ticket_id blocks other, and so on. What is blocked is not ready "
            "until its blockers are done; a circle is refused. "
            'E.g. {"ticket_id": "TH-12", "relation": "blocks", "other": "TH-15"}',
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
            description="End a relation between two tickets; the arguments are those that made it.",
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
            description="Delete a ticket that should not be there (one that is not needed any more is cancelled). A "
            "person is asked first; where your client cannot do that, the answer has the question for you to ask. "
            'E.g. {"ticket_id": "TH-12"}',
            arguments=DeleteArguments,
            output=STORED,
            scope="tickets:write",
            toolset="tickets",
            run=delete_ticket,
            read_only=False,
            destructive=True,
            confirmation=Confirmation(whether_to_delete),
        ),
        Tool(
            name="restore_ticket",
            title="Restore a ticket",
            description="Have a deleted ticket back as it was. A person is asked first, as by delete_ticket.",
            arguments=RestoreArguments,
            output=STORED,
            scope="tickets:write",
            toolset="tickets",
            run=restore_ticket,
            read_only=False,
            confirmation=Confirmation(whether_to_restore),
        ),
    ]
