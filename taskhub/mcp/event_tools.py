"""The tool that tells what happened, for clients without notifications: parse, call the ticket service, render."""

from collections.abc import Mapping
from typing import Any, Final

from taskhub.auth.principal import Caller
from taskhub.fitting import MAX_CHARACTERS, fitted, size_of
from taskhub.mcp.progress import Extent
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import EventQuery

EVENTS: Final = result_schema(
    {
        "events": {"type": "array", "items": {"type": "object"}},
        "position": {"type": "string"},
        "more": {"type": "boolean"},
    }
)
_MAX_DATA: Final = MAX_CHARACTERS - 2_000


async def read_events(tickets: Tickets, caller: Caller, arguments: EventQuery) -> ToolResult:
    """A page of events within the cap, for the tool and the resource."""
    page = await tickets.get_events(caller, arguments)
    rows: list[dict[str, Any]] = []
    size, position, more, truncated = 0, page.position, page.more, False
    for event in page.events:
        row = _row(event)
        if size_of(row) > _MAX_DATA:
            row, truncated = fitted(row, _MAX_DATA, "the event is longer: GET /api/v1/events has all"), True
        size += size_of(row) + 1
        if rows and size > _MAX_DATA:
            # The rest is not lost, but the next page: its position is that of the last event shown.
            position, more = _position_at(page.position, rows[-1]["id"]), True
            break
        rows.append(row)
    data: dict[str, Any] = {"events": rows, "position": position, "more": more}
    if truncated:
        data["truncated"] = True
    count = f"{len(rows)} event{'' if len(rows) == 1 else 's'}" if rows else "Nothing happened"
    rest = "; there are more" if more else ""
    return ToolResult(data, f"{count}{rest}. Go on with after={position}.")


def event_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def get_events(caller: Caller, arguments: EventQuery) -> ToolResult:
        return await read_events(tickets, caller, arguments)

    return [
        Tool(
            name="get_events",
            title="Read events",
            description="What happened after a position, oldest first; with wait_seconds it answers as soon as "
            "something happens. Answers the position to pass as after next time. "
            'E.g. {"after": "1h", "filter": {"ticket": "TH-12"}}',
            arguments=EventQuery,
            output=EVENTS,
            scope="events:read",
            toolset="events",
            run=get_events,
            extent=lambda asked: Extent(asked.wait_seconds, "seconds") if asked.wait_seconds else None,
        )
    ]


def _row(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without what every event of a stream repeats; a ticket as far as a list shows it."""
    row = {name: event[name] for name in ("id", "time", "type", "actor", "match") if event.get(name) is not None}
    data = event.get("data")
    ticket = data.get("ticket") if event["type"].startswith("ticket.") and isinstance(data, dict) else None
    if not isinstance(data, dict) or ticket is None:
        return {**row, "subject": event.get("subject"), "data": data}
    assignee = ticket.get("assignee")
    shown = {
        "ticket": ticket["key"],
        "version": ticket["version"],
        "summary": ticket["summary"],
        "status": ticket["status"]["name"],
        "assignee": None if assignee is None else assignee["id"],
    }
    rest = {name: value for name, value in data.items() if name != "ticket" and value not in (None, {})}
    return {**row, **shown, **rest}


def _position_at(position: str, event_id: str) -> str:
    """The position after an event; its id may be of an older epoch than the log has now."""
    return f"{position.rpartition('-')[0]}-{event_id.rpartition('-')[2]}"
