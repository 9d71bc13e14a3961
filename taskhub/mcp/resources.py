"""Resources: a ticket, the board and the events as documents that a client can attach, read and watch."""

from collections.abc import Mapping
from typing import Any, Final

import orjson
from mcp_types import (
    Annotations,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)
from pydantic import ValidationError

from taskhub.auth.principal import Caller, Scope
from taskhub.mcp import errors, render
from taskhub.mcp.arguments import BoardArguments
from taskhub.mcp.board_tools import read_board
from taskhub.mcp.event_tools import read_events
from taskhub.mcp.protocol_errors import require, told, unknown_resource
from taskhub.mcp.uris import BOARD, EVENTS, EVENTS_TEMPLATE, TICKET_TEMPLATE, Address, address_of
from taskhub.tickets.api import Tickets
from taskhub.tickets.inputs import EventQuery
from taskhub.tickets.model import Include

JSON: Final = "application/json"
RECENT: Final = "1h"
"""Which events the resource shows to who does not say after which."""
_PAGE: Final = 100
_HISTORY: Final = 10

_RESOURCES: Final[tuple[tuple[Scope, Resource], ...]] = (
    (
        "tickets:read",
        Resource(
            uri=BOARD,
            name="board",
            title="Board",
            description="Each status with how many tickets it has, and those changed last; as of get_board.",
            mime_type=JSON,
            annotations=Annotations(audience=["user", "assistant"]),
        ),
    ),
    (
        "events:read",
        Resource(
            uri=EVENTS,
            name="events",
            title="Events",
            description="What happened in the last hour, oldest first; as of get_events.",
            mime_type=JSON,
            annotations=Annotations(audience=["assistant"]),
        ),
    ),
)
_TEMPLATES: Final[tuple[tuple[Scope, ResourceTemplate], ...]] = (
    (
        "tickets:read",
        ResourceTemplate(
            uri_template=TICKET_TEMPLATE,
            name="ticket",
            title="Ticket",
            description="Everything about one ticket, with its comments, relations, attachments and recent history.",
            mime_type=JSON,
            annotations=Annotations(audience=["user", "assistant"]),
        ),
    ),
    (
        "events:read",
        ResourceTemplate(
            uri_template=EVENTS_TEMPLATE,
            name="events_after",
            title="Events after a position",
            description="What happened after a position, an RFC 3339 time, or a while ago such as 15m; oldest first. "
            "Its position is the next one to read after.",
            mime_type=JSON,
            annotations=Annotations(audience=["assistant"]),
        ),
    ),
)


class Resources:
    """The resources over a ticket service. Every ticket has one, but only the board and the events are listed."""

    def __init__(self, tickets: Tickets) -> None:
        self._tickets = tickets

    def list(self, scopes: frozenset[Scope]) -> ListResourcesResult:
        """Those that a caller with these scopes can read."""
        return ListResourcesResult(resources=[resource for scope, resource in _RESOURCES if scope in scopes])

    def templates(self, scopes: frozenset[Scope]) -> ListResourceTemplatesResult:
        """Those that a caller with these scopes can use."""
        return ListResourceTemplatesResult(
            resource_templates=[template for scope, template in _TEMPLATES if scope in scopes]
        )

    async def check(self, caller: Caller, uri: str, *, version: str) -> Address:
        """What the URI names. Raises MCPError when the caller cannot read it, and for a ticket that does not exist."""
        address = self._readable(caller, uri, version)
        if address.kind == "ticket":
            with told(caller, f"reading {uri}", version=version, uri=uri):
                await self._tickets.get_ticket(caller, address.key)
        return address

    async def read(self, caller: Caller, uri: str, *, version: str) -> ReadResourceResult:
        """What the resource has now, as JSON within the cap. Raises MCPError: it does not exist (in the code of the
        protocol version), may not be read, or cannot be read now."""
        address = self._readable(caller, uri, version)
        with told(caller, f"reading {uri}", version=version, uri=uri):
            data = await self._data(caller, address)
        text = orjson.dumps(data).decode()
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=JSON, text=text)])

    def _readable(self, caller: Caller, uri: str, version: str) -> Address:
        address = address_of(uri)
        if address is None:
            raise unknown_resource(uri, version)
        with told(caller, f"reading {uri}", version=version, uri=uri):
            require(caller, address.scope)
        return address

    async def _data(self, caller: Caller, address: Address) -> Mapping[str, Any]:
        match address.kind:
            case "ticket":
                parts: tuple[Include, ...] = ("history", "comments", "relations", "attachments", "lease")
                found = await self._tickets.get_ticket(caller, address.key, include=parts, history_limit=_HISTORY)
                return render.detail(found).data
            case "board":
                return (await read_board(self._tickets, caller, BoardArguments())).data
            case "events":
                try:
                    query = EventQuery(after=address.after or RECENT, limit=_PAGE)
                except ValidationError as wrong:
                    raise errors.invalid_arguments(wrong, EventQuery) from None
                return (await read_events(self._tickets, caller, query)).data
