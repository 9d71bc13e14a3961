"""What commands on the database have in common: whom they act as, in which workspace, and how they tell of errors."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

from pydantic import BaseModel, ValidationError

from taskhub.settings.addresses import mask_url
from taskhub.settings.model import Settings

if TYPE_CHECKING:
    from taskhub.auth.principal import Caller, Origin
    from taskhub.opening import Services
    from taskhub.tickets.model import User

M = TypeVar("M", bound=BaseModel)


class CannotRun(Exception):
    """A command cannot do what it was asked to; the message says why, and is told on standard error: 1, then."""

    @classmethod
    def on(cls, settings: Settings, error: Exception) -> "CannotRun":
        """For a reason that lies with the database."""
        return cls(f"{mask_url(settings.database_address)}: {error}")


def run_with_services(settings: Settings, work: "Callable[[Services], Awaitable[int]]") -> int:
    """Run a command on the database, beside running servers. Raises CannotRun."""
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
        raise CannotRun.on(settings, error) from None
    except (AuthError, TicketError) as error:
        raise CannotRun(str(error)) from None


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


async def named_user(
    services: "Services", caller: "Caller", name: str, *, role: str | None = None, kind: str | None = None
) -> "User | None":
    """The user with this id or name. Raises CannotRun when it has not the role or kind that was asked for: whoever is
    made a key or a link for would not be who was meant."""
    from taskhub.storage.names import normalise

    spelled = normalise(name)
    users = await services.tickets.users(caller)
    user = next((user for user in users if spelled in (normalise(user.id), normalise(user.name))), None)
    if user is not None:
        for argument, given, has in (("role", role, user.role), ("kind", kind, user.kind)):
            if given not in (None, has):
                raise CannotRun(
                    f"the {argument} of {user.name} ({user.id}) is {has}: --{argument} is for users that are added"
                    + ("; `taskhub users change` changes it" if argument == "role" else "")
                )
    return user


def checked(model: type[M], values: Mapping[str, object], names: Mapping[str, str] = {}) -> M:
    """Arguments as a model. Raises CannotRun, naming the argument, by another name than the field's where `names` has
    one."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
        fields = (str(each["loc"][0]) for each in found)
        told = (f"{names.get(field, f'--{field}')}: {each['msg']}" for field, each in zip(fields, found, strict=True))
        raise CannotRun("; ".join(told)) from None


def printable(text: str) -> str:
    """A text that changes nothing in a terminal but adds a line: others have chosen what is in it."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
