"""Calling tools in a test: what they answer, or a failure that says why."""

from typing import Any

from taskhub.auth.principal import Caller
from taskhub.mcp.tools import tool_registry
from taskhub.tickets.api import Tickets
from tests.taskhub.mcp.world import ALICE, data_of, text_of


class Tools:
    """The tools over a ticket service, as one caller."""

    def __init__(self, tickets: Tickets, caller: Caller = ALICE) -> None:
        self.tickets = tickets
        self.registry = tool_registry(tickets)
        self.caller = caller

    async def __call__(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """The structured content of a call that works."""
        result = await self.registry.call(self.caller, name, arguments)
        assert not result.is_error, text_of(result)
        return data_of(result)

    async def text(self, name: str, /, **arguments: Any) -> str:
        """The text of a call that works."""
        result = await self.registry.call(self.caller, name, arguments)
        assert not result.is_error, text_of(result)
        return text_of(result)

    async def error(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """The structured content of a call that fails."""
        result = await self.registry.call(self.caller, name, arguments)
        assert result.is_error, text_of(result)
        return data_of(result)

    async def create(self, summary: str = "a ticket", **fields: Any) -> str:
        """The key of a new ticket."""
        key: str = (await self("create_ticket", summary=summary, **fields))["key"]
        return key

    async def ticket(self, key: str) -> dict[str, Any]:
        """All fields of a ticket."""
        found: dict[str, Any] = (await self("get_ticket_detail", ticket_id=key))["ticket"]
        return found

    async def keys(self, **query: Any) -> list[str]:
        """The keys of a list."""
        return [row["key"] for row in (await self("get_ticket_list", **query))["tickets"]]
