"""The tool that shows the board: parse, call the ticket service, render."""

from typing import Any, Final

from taskhub.auth.principal import Caller
from taskhub.fitting import MAX_CHARACTERS, size_of
from taskhub.mcp import render
from taskhub.mcp.arguments import BoardArguments, Column, body_of
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import BoardQuery
from taskhub.tickets.model import Board

_COLUMNS: Final[tuple[Column, ...]] = ("key", "summary", "assignee", "priority", "due", "updated")

BOARD: Final = result_schema(
    {
        "columns": {"type": "array", "items": {"type": "object"}},
        "position": {"type": "string"},
    }
)


async def read_board(tickets: Tickets, caller: Caller, arguments: BoardArguments) -> ToolResult:
    """The board within the cap, for the tool and the resource."""
    query = body_of(arguments, BoardQuery).model_copy(update={"limit": arguments.limit})
    board = await tickets.get_board(caller, query)
    result = _shown(board, arguments.limit)
    most = max((len(column.tickets) for column in board.columns), default=0)
    shown = most
    while size_of(result.data) + len(result.text) > MAX_CHARACTERS - 300 and shown:
        shown = shown * 3 // 4
        result = _shown(board, shown)
    if shown == most:
        return result
    hint = f"only {shown} tickets of each status fit: narrow the board, or list one status with get_ticket_list"
    return ToolResult({**result.data, "truncated": True, "hint": hint}, f"{result.text}\n({hint})")


def board_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def get_board(caller: Caller, arguments: BoardArguments) -> ToolResult:
        return await read_board(tickets, caller, arguments)

    return [
        Tool(
            name="get_board",
            title="Board",
            description="An overview: for each status its phase, how many tickets it has, and those changed last. "
            'With as_of the board as it was then. E.g. {"person_in_charge": ["me"]}',
            arguments=BoardArguments,
            output=BOARD,
            scope="tickets:read",
            toolset="tickets",
            run=get_board,
        )
    ]


def _shown(board: Board, rows: int) -> ToolResult:
    columns = [
        {
            "status": column.status.name,
            "phase": column.phase,
            "count": column.count,
            "tickets": [render.row(ticket, _COLUMNS, full=False) for ticket in column.tickets[:rows]],
        }
        for column in board.columns
    ]
    text = ", ".join(f"{column.status.name} {column.count}" for column in board.columns)
    return ToolResult({"columns": columns, "position": board.position}, f"{text} (at {board.position}).")
