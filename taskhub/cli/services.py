"""What commands on the database have in common: whom they act as, in which workspace, and how they tell of errors."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from taskhub.settings import Settings, mask_url

if TYPE_CHECKING:
    from taskhub.auth.principal import Caller, Origin
    from taskhub.opening import Services


class CannotRun(Exception):
    """A command cannot do what it was asked to; the message says why."""


def run_with_services(settings: Settings, work: "Callable[[Services], Awaitable[int]]") -> int:
    """Run a command on the database, beside running servers. What it cannot do is told on standard error: 1, then."""
    from taskhub.auth.errors import AuthError
    from taskhub.opening import open_services
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import StorageBusy, TicketError

    async def run() -> int:
        async with open_services(settings) as services:
            return await work(services)

    try:
        return asyncio.run(run())
    except (NewerSchema, StorageBusy) as error:
        print(f"taskhub: {mask_url(settings.database_address)}: {error}", file=sys.stderr)
    except (AuthError, TicketError, CannotRun) as error:
        print(f"taskhub: {error}", file=sys.stderr)
    return 1


def local_caller(workspace: str, origin: "Origin" = "system") -> "Caller":
    """Whoever can write the database needs no permission of it."""
    from taskhub.auth.principal import ALL_SCOPES, Caller, Principal

    return Caller(Principal("user:local", workspace, ALL_SCOPES, authenticated=False), origin)


async def caller_in(services: "Services", workspace: str, origin: "Origin" = "system") -> "Caller":
    """The local caller in a workspace that is there. Raises CannotRun and StorageBusy."""
    known = [each.id for each in await services.workspaces.list()]
    if workspace not in known:
        raise CannotRun(f"there is no workspace {workspace[:80]!r}, but {', '.join(known)}")
    return local_caller(workspace, origin)


def printable(text: str) -> str:
    """A text that changes nothing in a terminal but adds a line: others have chosen what is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
