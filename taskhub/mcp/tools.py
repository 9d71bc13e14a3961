"""The tools that read and change tickets: parse, call the ticket service, render."""

from typing import Any, Final

from taskhub.auth.principal import Caller
from taskhub.fitting import MAX_CHARACTERS, size_of
from taskhub.mcp import render
from taskhub.mcp.arguments import (
    CreateArguments,
    DetailArguments,
    HistoryArguments,
    ListArguments,
    StatusArguments,
    UpdateArguments,
    body_of,
    conditions,
    held,
)
from taskhub.mcp.batch_tools import batch_tools
from taskhub.mcp.board_tools import board_tools
from taskhub.mcp.event_tools import event_tools
from taskhub.mcp.lease_tools import lease_tools
from taskhub.mcp.link_tools import link_tools
from taskhub.mcp.reference_tools import reference_tools
from taskhub.mcp.registry import Tool, ToolRegistry, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import NewComment, NewTicket, TicketChange, TicketQuery

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_OPTIONAL_TEXT: Final[dict[str, Any]] = {"anyOf": [{"type": "string"}, {"type": "null"}]}

# Only what callers go on with: what else a result has explains itself when it is there.
WRITTEN: Final = result_schema({"key": _TEXT, "version": {"type": "integer"}})
LISTED: Final = result_schema(
    {
        "tickets": {"type": "array", "items": {"type": "object"}},
        "next_cursor": _OPTIONAL_TEXT,
        "position": _TEXT,
    }
)
DETAIL: Final = result_schema({"ticket": {"type": "object"}})


def tool_registry(tickets: Tickets) -> ToolRegistry:
    """Every tool of TaskHub over this ticket service, in the order in which clients see them."""
    return ToolRegistry(
        [
            *ticket_tools(tickets),
            *reference_tools(tickets),
            *lease_tools(tickets),
            *link_tools(tickets),
            *batch_tools(tickets),
            *board_tools(tickets),
            *event_tools(tickets),
        ]
    )


def ticket_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def get_ticket_list(caller: Caller, arguments: ListArguments) -> ToolResult:
        query = body_of(arguments, TicketQuery)
        page = await tickets.list_tickets(caller, query)
        result = render.page(page, arguments.fields, arguments.format)
        asked = len(page.tickets)
        while (size := _size(result)) > MAX_CHARACTERS and len(page.tickets) > 1:
            # Asked again for fewer, since only the service can make the cursor that goes on after the last one shown.
            fewer = max(1, min(len(page.tickets) - 1, len(page.tickets) * (MAX_CHARACTERS - 500) // size))
            page = await tickets.list_tickets(caller, query.model_copy(update={"limit": fewer}))
            result = render.page(page, arguments.fields, arguments.format)
        if len(page.tickets) == asked:
            return result
        hint = f"{len(page.tickets)} of {asked} fit: go on with cursor=next_cursor, or choose fewer fields"
        return ToolResult({**result.data, "truncated": True, "hint": hint}, f"{result.text}\n({hint})")

    async def get_ticket_detail(caller: Caller, arguments: DetailArguments) -> ToolResult:
        found = await tickets.get_ticket(
            caller, arguments.ticket_id, include=arguments.include, history_limit=arguments.history_limit
        )
        return render.detail(found)

    async def create_ticket(caller: Caller, arguments: CreateArguments) -> ToolResult:
        answer = await tickets.create_ticket(
            caller, body_of(arguments, NewTicket), idempotency_key=arguments.idempotency_key
        )
        return render.written(answer, "was created")

    async def update_ticket(caller: Caller, arguments: UpdateArguments) -> ToolResult:
        answer = await tickets.update_ticket(
            caller, arguments.ticket_id, body_of(arguments, TicketChange), **conditions(arguments)
        )
        return render.written(answer, "was updated")

    async def update_task_status(caller: Caller, arguments: StatusArguments) -> ToolResult:
        answer = await tickets.update_ticket(
            caller, arguments.task_id, body_of(arguments, TicketChange), **conditions(arguments)
        )
        return render.written(answer, "has its new status")

    async def add_ticket_history(caller: Caller, arguments: HistoryArguments) -> ToolResult:
        answer = await tickets.add_comment(
            caller, arguments.ticket_id, body_of(arguments, NewComment), **held(arguments)
        )
        return render.written(answer, f"has a new {arguments.kind}")

    return [
        Tool(
            name="get_ticket_list",
            title="List tickets",
            description="Find tickets. Filters narrow each other; several values of one filter are alternatives. "
            "Answers short rows, next_cursor when there are more, and the position from which to follow the events. "
            "Open tickets only, unless show_completed, status or phase says otherwise. "
            'E.g. {"person_in_charge": "me", "query": "printer"}',
            arguments=ListArguments,
            output=LISTED,
            scope="tickets:read",
            toolset="tickets",
            run=get_ticket_list,
        ),
        Tool(
            name="get_ticket_detail",
            title="Read a ticket",
            description="Everything about one ticket; include adds history, comments, relations, attachments or lease. "
            'Use the version it answers as expected_version of a write. E.g. {"ticket_id": "TH-12", "include": '
            '["comments"]}',
            arguments=DetailArguments,
            output=DETAIL,
            scope="tickets:read",
            toolset="tickets",
            run=get_ticket_detail,
        ),
        Tool(
            name="create_ticket",
            title="Create a ticket",
            description="Create a ticket; only summary is needed. References take an id or a name. Answers the key and "
            "version. With an idempotency_key, repeating the call creates no second one. "
            'E.g. {"summary": "Printer is on fire", "priority": "urgent"}',
            arguments=CreateArguments,
            output=WRITTEN,
            scope="tickets:write",
            toolset="tickets",
            run=create_ticket,
            read_only=False,
            idempotent=False,
        ),
        Tool(
            name="update_ticket",
            title="Change a ticket",
            description="Change any fields of a ticket (as of create_ticket) in one step, with an optional comment. "
            "What is left out stays as it is, null clears it. Answers the new version, or noop. "
            'E.g. {"ticket_id": "TH-12", "labels": ["network"], "scheduled_completion_date": null}',
            arguments=UpdateArguments,
            output=WRITTEN,
            scope="tickets:write",
            toolset="tickets",
            run=update_ticket,
            read_only=False,
            destructive=True,
            idempotent=False,
            nullable=True,
        ),
        Tool(
            name="update_task_status",
            title="Set a ticket's status",
            description="Move a ticket to another status, such as in_progress or completed (get_statuses lists them). "
            "Answers the new version, or noop when it had that status already. "
            'E.g. {"task_id": "TH-12", "status": "completed", "comment": "Replaced the fuse"}',
            arguments=StatusArguments,
            output=WRITTEN,
            scope="tickets:write",
            toolset="tickets",
            run=update_task_status,
            read_only=False,
            idempotent=False,
        ),
        Tool(
            name="add_ticket_history",
            title="Comment on a ticket",
            description="Add a note, question, answer or decision to a ticket's history. No field changes, but "
            "an answer sends a ticket that waits back to do. "
            'E.g. {"ticket_id": "TH-12", "kind": "question", "comment": "Which floor?"}',
            arguments=HistoryArguments,
            output=WRITTEN,
            scope="tickets:write",
            toolset="tickets",
            run=add_ticket_history,
            read_only=False,
            idempotent=False,
        ),
    ]


def _size(result: ToolResult) -> int:
    return size_of(result.data) + len(result.text)
