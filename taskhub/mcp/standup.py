"""What happened to tickets since a time, one line for each: what a stand-up report begins with."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ValidationError

from taskhub.auth.principal import Caller
from taskhub.mcp.errors import invalid_arguments
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import EventQuery

MAX_EVENTS: Final = 500
_PAGE: Final = 100


@dataclass(slots=True)
class _Story:
    """One ticket: as the last event shows it, and what the events were."""

    summary: str = ""
    status: str = ""
    came_from: str | None = None
    assignee: str | None = None
    fields: dict[str, None] = field(default_factory=dict)
    comments: int = 0
    deeds: dict[str, None] = field(default_factory=dict)
    actors: dict[str, None] = field(default_factory=dict)

    def add(self, event: dict[str, Any]) -> None:
        data = event["data"]
        ticket = data["ticket"]
        self.summary, self.status = ticket["summary"], ticket["status"]["name"]
        self.assignee = ticket["assignee"]["id"] if ticket.get("assignee") else None
        self.actors[event["actor"]] = None
        changes = data.get("changes") or {}
        if "status" in changes and self.came_from is None and (before := changes["status"][0]) is not None:
            self.came_from = before
        for name in changes:
            if name not in ("status", "phase", "lease"):
                self.fields[name] = None
        if data.get("comment_id") is not None:
            self.comments += 1
        verb = event["type"].removeprefix("ticket.")
        if verb in ("created", "claimed", "released", "lease_expired", "deleted", "restored"):
            self.deeds[verb.replace("_", " ")] = None

    def line(self, key: str) -> str:
        parts = list(self.deeds)
        if self.came_from is not None:
            parts.append(f"status from {self.came_from}")
        if self.fields and "created" not in self.deeds:
            parts.append(f"{', '.join(self.fields)} changed")
        if self.comments:
            parts.append(f"{self.comments} comment{'' if self.comments == 1 else 's'}")
        state = f"{self.status}, {self.assignee or 'unassigned'}"
        return f"{key} [{state}] {self.summary}: {'; '.join(parts) or 'changed'} (by {', '.join(self.actors)})"


@dataclass(frozen=True, slots=True)
class Activity:
    """What happened to each ticket. `more`: there are later events than those read, after `position`."""

    stories: dict[str, _Story]
    position: str
    more: bool

    @property
    def tickets(self) -> int:
        return len(self.stories)

    def lines(self) -> Iterator[str]:
        """One for each ticket, in the order in which they changed first."""
        return (story.line(key) for key, story in self.stories.items())


async def activity(tickets: Tickets, caller: Caller, since: str, assignee: str | None) -> Activity:
    """What happened since then, to the tickets of one person (user id, or me) or to all.

    Raises what `get_events` does; InvalidInput for a time that is none.
    """
    stories: dict[str, _Story] = {}
    selected = {"type": "ticket.*"} | ({} if assignee is None else {"assignee": assignee})
    after, more = since, True
    for _ in range(MAX_EVENTS // _PAGE):
        try:
            query = EventQuery(after=after, filter=selected, limit=_PAGE)
        except ValidationError as wrong:
            raise invalid_arguments(wrong, EventQuery) from None
        page = await tickets.get_events(caller, query)
        for event in page.events:
            stories.setdefault(event["subject"], _Story()).add(event)
        after, more = page.position, page.more
        if not more:
            break
    return Activity(stories, after, more)
