"""The tools that change many tickets together, and take that back."""

from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from taskhub.auth.principal import Caller
from taskhub.fitting import MAX_CHARACTERS, clip, fitted
from taskhub.mcp import render
from taskhub.mcp.arguments import body_of
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import BulkItem, BulkUpdate, IdempotencyKey, Input, UndoBatch
from taskhub.tickets.model import BatchResult, ItemResult

_OPTIONAL_TEXT: Final[dict[str, Any]] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_MAX_TEXT: Final = 2_000

BATCH: Final = result_schema({"batch_id": _OPTIONAL_TEXT, "applied": {"type": "boolean"}, "results": {"type": "array"}})
# Not all the fields again: that would cost as much as update_ticket, in every conversation. They are checked anyway.
_ITEMS: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "object", "properties": {"ticket_id": {"type": "string"}}, "required": ["ticket_id"]},
    "description": "up to 50 tickets, each with any arguments of update_ticket",
}


class BulkArguments(Input):
    items: Annotated[list[BulkItem], Field(min_length=1, max_length=50), WithJsonSchema(_ITEMS)]
    atomic: bool = Field(default=True, description="all or nothing; false: those that can be changed")
    dry_run: bool = Field(default=False, description="only answer what would change")
    idempotency_key: IdempotencyKey | None = None


class UndoArguments(UndoBatch):
    batch_id: str
    atomic: bool = Field(default=True, description="false: undo the tickets that nobody changed since")
    idempotency_key: IdempotencyKey | None = None


def batch_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def bulk_update_tickets(caller: Caller, arguments: BulkArguments) -> ToolResult:
        result = await tickets.update_tickets(
            caller, body_of(arguments, BulkUpdate), idempotency_key=arguments.idempotency_key
        )
        return _rendered(result, "would change" if result.dry_run else "changed")

    async def undo_batch(caller: Caller, arguments: UndoArguments) -> ToolResult:
        result = await tickets.undo_batch(
            caller,
            arguments.batch_id,
            body_of(arguments, UndoBatch),
            idempotency_key=arguments.idempotency_key,
        )
        return _rendered(result, "taken back")

    return [
        Tool(
            name="bulk_update_tickets",
            title="Change many tickets",
            description="Change up to 50 tickets in one step. Answers what became of each, and a batch_id for "
            "undo_batch. Try it with dry_run first.",
            arguments=BulkArguments,
            output=BATCH,
            scope="tickets:write",
            toolset="tickets",
            run=bulk_update_tickets,
            read_only=False,
            destructive=True,
            idempotent=False,
        ),
        Tool(
            name="undo_batch",
            title="Undo a bulk change",
            description="Take back what a batch changed, which is a batch of its own. What somebody changed since is "
            "a conflict that says who.",
            arguments=UndoArguments,
            output=BATCH,
            scope="tickets:write",
            toolset="tickets",
            run=undo_batch,
            read_only=False,
            destructive=True,
        ),
    ]


def _rendered(result: BatchResult, what: str) -> ToolResult:
    """The answer within the cap; `what` happened to those tickets that were not so already."""
    changed = [item for item in result.results if item.ok and not item.noop]
    failed = [item for item in result.results if item.error is not None]
    lines = [f"{len(changed)} of {len(result.results)} {what}."]
    if result.batch_id is not None:
        lines[0] += f" Batch {result.batch_id}."
    lines += [f"{item.key}: {item.error.message[:300]}" for item in failed if item.error is not None]
    if result.replayed:
        lines.append("This repeats the answer of the earlier call with the same idempotency key.")
    text = clip("\n".join(lines), _MAX_TEXT)
    data: dict[str, Any] = {
        "batch_id": result.batch_id, "atomic": result.atomic, "dry_run": result.dry_run, "applied": result.applied,
        "results": [_row(item) for item in result.results], "position": result.position,
    }  # fmt: skip
    if result.undoes is not None:
        data["undoes"] = result.undoes
    if result.replayed:
        data["replayed"] = True
    hint = "long texts or some results were left out: read the tickets"
    return ToolResult(fitted(data, MAX_CHARACTERS - len(text), hint, keep="first"), text)


def _row(item: ItemResult) -> dict[str, Any]:
    """An item without what it has not."""
    row = render.plain(item)
    return {name: value for name, value in row.items() if value not in (None, {}, False) or name == "ok"}
