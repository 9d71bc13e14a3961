"""The tools that change many tickets together, and take that back."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Annotated, Any, Final

from pydantic import Field, WithJsonSchema

from taskhub.auth.principal import Caller
from taskhub.fitting import MAX_CHARACTERS, clip, fitted
from taskhub.mcp import render
from taskhub.mcp.arguments import Confirmed, body_of
from taskhub.mcp.confirmation import NO_VERSION, Confirmation, Question, one_line
from taskhub.mcp.progress import Extent
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.errors import BatchFailed
from taskhub.tickets.inputs import BulkItem, BulkUpdate, IdempotencyKey, Input, Key, UndoBatch
from taskhub.tickets.model import BatchResult, ItemResult

_OPTIONAL_TEXT: Final[dict[str, Any]] = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_MAX_TEXT: Final = 2_000
CONFIRMED_ABOVE: Final = 10
"""Tickets of a bulk change that no person has to confirm."""
_MAX_CHANGES: Final = 20
_MAX_CHANGE: Final = 400
_MAX_VALUE: Final = 60

BATCH: Final = result_schema({"batch_id": _OPTIONAL_TEXT, "applied": {"type": "boolean"}, "results": {"type": "array"}})
# Not all the fields again: that would cost as much as update_ticket, in every conversation. They are checked anyway.
_ITEMS: Final[dict[str, Any]] = {
    "type": "array",
    "items": {"type": "object", "properties": {"ticket_id": {"type": "string"}}, "required": ["ticket_id"]},
    "description": "each with any arguments of update_ticket",
}


class BulkArguments(Input):
    items: Annotated[list[BulkItem], Field(min_length=1, max_length=50), WithJsonSchema(_ITEMS)]
    atomic: bool = Field(default=True, description="all or nothing; false: those that can be changed")
    dry_run: bool = Field(default=False, description="only answer what would change")
    confirm: Confirmed = False
    idempotency_key: IdempotencyKey | None = None


class UndoArguments(UndoBatch):
    batch_id: Key
    atomic: bool = Field(default=True, description="false: undo the tickets that nobody changed since")
    idempotency_key: IdempotencyKey | None = None


def batch_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def bulk_update_tickets(caller: Caller, arguments: BulkArguments) -> ToolResult:
        result = await tickets.update_tickets(
            caller, body_of(arguments, BulkUpdate), idempotency_key=arguments.idempotency_key
        )
        return _rendered(result, "would change" if result.dry_run else "changed")

    async def whether_to_change(caller: Caller, arguments: BulkArguments) -> Question | ToolResult:
        if arguments.idempotency_key is not None:
            try:
                # Changes nothing, but answers what an earlier call with the same key was answered.
                return await bulk_update_tickets(caller, _with_versions(arguments, repeat(NO_VERSION)))
            except BatchFailed:
                pass
        asked = body_of(arguments, BulkUpdate).model_copy(update={"dry_run": True})
        trial = await tickets.update_tickets(caller, asked)
        failed = sum(not item.ok for item in trial.results)
        if failed and (arguments.atomic or failed == len(trial.results)):
            raise BatchFailed(trial)
        if all(item.noop for item in trial.results if item.ok):
            return _rendered(replace(trial, dry_run=False, applied=True), "changed")
        seen = [own.expected_version or item.version for own, item in zip(arguments.items, trial.results, strict=True)]
        return Question(
            _question(trial, arguments.items),
            about={item.key: item.version for item in trial.results if item.version is not None},
            pinned={"items": _with_versions(arguments, seen).items},
        )

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
            f"undo_batch; try it with dry_run. Over {CONFIRMED_ABOVE} a person is asked first, as by delete_ticket. "
            'E.g. {"items": [{"ticket_id": "TH-12", "status": "completed"}]}',
            arguments=BulkArguments,
            output=BATCH,
            scope="tickets:write",
            toolset="tickets",
            run=bulk_update_tickets,
            read_only=False,
            destructive=True,
            idempotent=False,
            extent=lambda asked: Extent(len(asked.items), "tickets"),
            confirmation=Confirmation(
                whether_to_change, needed=lambda asked: len(asked.items) > CONFIRMED_ABOVE and not asked.dry_run
            ),
        ),
        Tool(
            name="undo_batch",
            title="Undo a bulk change",
            description="Take back what bulk_update_tickets changed, which is a batch of its own. What somebody "
            'changed since is a conflict that says who. E.g. {"batch_id": "b-4kx2m7aq5rtw"}',
            arguments=UndoArguments,
            output=BATCH,
            scope="tickets:write",
            toolset="tickets",
            run=undo_batch,
            read_only=False,
            destructive=True,
        ),
    ]


def _with_versions(arguments: BulkArguments, versions: Iterable[int | None]) -> BulkArguments:
    """The same, each ticket expected at that version."""
    items = [
        item if version is None else item.model_copy(update={"expected_version": version})
        for item, version in zip(arguments.items, versions, strict=False)
    ]
    return arguments.model_copy(update={"items": items})


def _question(trial: BatchResult, items: Sequence[BulkItem]) -> str:
    """What would become of the tickets, those with the same change together."""
    changes: dict[str, list[str]] = {}
    for item, result in zip(items, trial.results, strict=True):
        changes.setdefault(_becomes(item, result), []).append(result.key)
    lines = [f"{what}: {', '.join(keys)}" for what, keys in changes.items()]
    if len(lines) > _MAX_CHANGES:
        lines[_MAX_CHANGES:] = [f"and {len(lines) - _MAX_CHANGES} other changes"]
    return "\n".join([f"Change {len(trial.results)} tickets in one step?", *lines, "undo_batch takes it back."])


def _becomes(item: BulkItem, result: ItemResult) -> str:
    if result.error is not None:
        return f"cannot be changed ({one_line(result.error.message, _MAX_VALUE)})"
    changes = [
        f"{name} {_shown(before)} → {_shown(after)}"
        for name, (before, after) in result.changes.items()
        if name != "phase"  # that of the status
    ]
    if item.comment is not None:
        changes.append(f"with the comment “{one_line(item.comment, _MAX_VALUE)}”")
    return clip(", ".join(changes), _MAX_CHANGE) or "stays as it is"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("name") or value.get("percent")
    if isinstance(value, list | tuple):
        return one_line(", ".join(map(str, value)), _MAX_VALUE) or "none"
    return "none" if value is None else one_line(str(value), _MAX_VALUE)


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
