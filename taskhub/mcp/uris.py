"""The addresses of resources: `taskhub://tickets/TH-12`, `taskhub://board`, `taskhub://events?after=…`."""

from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from taskhub.auth.principal import Scope
from taskhub.tickets.keys import canonical_key

TICKET_TEMPLATE: Final = "taskhub://tickets/{key}"
EVENTS_TEMPLATE: Final = "taskhub://events{?after}"
BOARD: Final = "taskhub://board"
EVENTS: Final = "taskhub://events"
FORMS: Final = (TICKET_TEMPLATE, BOARD, EVENTS_TEMPLATE)

_TICKETS: Final = "taskhub://tickets/"
_MAX_LENGTH: Final = 500


@dataclass(frozen=True, slots=True)
class Address:
    """What a URI names. `topic` is the one spelling under which changes of it are told; `key` is that of a ticket,
    `after` where its events begin."""

    kind: Literal["ticket", "board", "events"]
    topic: str
    key: str = ""
    after: str | None = None

    @property
    def scope(self) -> Scope:
        """What a caller needs to read it."""
        return "events:read" if self.kind == "events" else "tickets:read"


def ticket_uri(key: str) -> str:
    """The address of a ticket, and its topic."""
    return _TICKETS + key


def address_of(uri: str) -> Address | None:
    """What the URI names, whatever the case of the key in it; None when it is the address of no resource."""
    if len(uri) > _MAX_LENGTH:
        return None
    try:
        parts = urlsplit(uri)
        query = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query), max_num_fields=2)
    except ValueError:
        return None
    if parts.scheme != "taskhub" or parts.fragment or (query and parts.netloc != "events"):
        return None
    match parts.netloc, parts.path:
        case "tickets", path if path.count("/") == 1:
            key = unquote(path[1:])
            return Address("ticket", ticket_uri(canonical_key(key) or key), key) if key else None
        case "board", "" | "/":
            return Address("board", BOARD)
        case "events", "" | "/":
            match query:
                case []:
                    return Address("events", EVENTS)
                case [("after", after)] if after:
                    return Address("events", EVENTS, after=after)
    return None
