"""Values to choose from while a person types an argument of a prompt or of a resource template."""

from collections.abc import Mapping
from typing import Final, Literal

from mcp_types import Completion, PromptReference, ResourceTemplateReference

from taskhub.auth.principal import Caller
from taskhub.mcp.protocol_errors import require, unknown
from taskhub.mcp.uris import EVENTS_TEMPLATE, TICKET_TEMPLATE
from taskhub.tickets.api import Tickets
from taskhub.tickets.errors import TicketGone, TicketNotFound
from taskhub.tickets.inputs import TicketQuery

Source = Literal["ticket", "person", "account", "since", "after"]
"""Where the values of an argument come from."""

SINCE: Final = ("24h", "8h", "3d", "7d")
_AFTER: Final = ("15m", "1h", "24h", "now", "earliest")
_MAX_VALUES: Final = 50
_NEWEST: Final = 100
_TEMPLATES: Final[Mapping[str, Mapping[str, Source]]] = {
    TICKET_TEMPLATE: {"key": "ticket"},
    EVENTS_TEMPLATE: {"after": "after"},
}


class Completions:
    """Completions over a ticket service. `prompts`: the arguments of each prompt with the sources of their values."""

    def __init__(self, tickets: Tickets, prompts: Mapping[str, Mapping[str, Source]]) -> None:
        self._tickets = tickets
        self._prompts = prompts

    async def complete(
        self, caller: Caller, reference: ResourceTemplateReference | PromptReference, argument: str, value: str
    ) -> Completion:
        """Values that go on from what was typed, the likeliest first. Raises MCPError, TicketError and AuthError."""
        if isinstance(reference, PromptReference):
            arguments = self._prompts.get(reference.name)
            if arguments is None:
                raise unknown("prompt", reference.name, list(self._prompts))
        else:
            arguments = _TEMPLATES.get(reference.uri)
            if arguments is None:
                raise unknown("resource template", reference.uri, list(_TEMPLATES))
        source = arguments.get(argument)
        if source is None:
            raise unknown("argument", argument, list(arguments))
        found = await self._values(caller, source, value.strip())
        return Completion(values=found[:_MAX_VALUES], total=None, has_more=len(found) > _MAX_VALUES)

    async def _values(self, caller: Caller, source: Source, typed: str) -> list[str]:
        match source:
            case "since":
                return [value for value in SINCE if value.startswith(typed)]
            case "after":
                return [value for value in _AFTER if value.startswith(typed)]
            case "ticket":
                require(caller, "tickets:read")
                return await self._keys(caller, typed)
            case "person":
                require(caller, "tickets:read")
                people = [
                    ("me", "me"),
                    *((user.id, user.name) for user in await self._tickets.users(caller) if user.active),
                ]
                return [user_id for user_id, name in people if _matches(typed, user_id, name)]
            case "account":
                require(caller, "tickets:read")
                return [row.name for row in await self._tickets.accounts(caller) if _matches(typed, row.id, row.name)]

    async def _keys(self, caller: Caller, typed: str) -> list[str]:
        """Keys that begin like this, with or without their prefix, of the tickets changed last; and the key itself."""
        page = await self._tickets.list_tickets(caller, TicketQuery(show_completed=True, limit=_NEWEST))
        keys = [ticket.key for ticket in page.tickets]
        found = [key for key in keys if _matches(typed, key, key.rpartition("-")[2])]
        if page.next_cursor is not None and any(character.isdigit() for character in typed):
            # It may be that of an older ticket, which is then the first to choose.
            prefix = keys[0].rpartition("-")[0]
            whole = f"{prefix}-{typed}" if typed.isdigit() else typed
            try:
                key = (await self._tickets.get_ticket(caller, whole[:40])).ticket.key
            except (TicketNotFound, TicketGone):
                return found
            found = [key, *(other for other in found if other != key)]
        return found


def _matches(typed: str, *names: str) -> bool:
    return any(name.casefold().startswith(typed.casefold()) for name in names)
