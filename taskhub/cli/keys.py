"""`taskhub keys create`, `change`, `list`, `rotate` and `revoke`."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from taskhub.cli.parser import LIMITS, load_settings
from taskhub.cli.services import CannotRun, caller_in, checked, named_user, printable, run_with_services

if TYPE_CHECKING:
    from taskhub.auth.principal import Caller
    from taskhub.keys.model import ApiKey, IssuedKey
    from taskhub.opening import Services


def run(parsed: argparse.Namespace) -> int:
    """Manage the API keys of a workspace, beside running servers. A new key alone goes to standard output."""
    return run_with_services(load_settings(parsed).settings, partial(_ACTIONS[parsed.action], parsed))


async def _create(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.keys.model import NewKey

    caller = await caller_in(services, parsed.workspace)
    expires_at = None if parsed.expires is None else datetime.now(UTC) + timedelta(seconds=parsed.expires)
    given = {"user": parsed.user, "name": parsed.name, "scopes": parsed.scopes, "expires_at": expires_at}
    given["limits"] = parsed.limits
    new = checked(NewKey, given, {"expires_at": "--expires"})
    await _have_user(parsed, services, caller)
    _tell(await services.keys.create(caller, new))
    return 0


async def _change(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.keys.model import KeyChange

    change = checked(KeyChange, {"limits": parsed.limits})
    print(_line(await services.keys.change(await caller_in(services, parsed.workspace), parsed.id, change)))
    return 0


async def _have_user(parsed: argparse.Namespace, services: "Services", caller: "Caller") -> None:
    """Add the user of the new key if there is none and a role was given. Raises CannotRun and TicketError."""
    from taskhub.auth.roles import SCOPES_OF_ROLE
    from taskhub.tickets.reference_inputs import NewUser

    if await named_user(services, caller, parsed.user, role=parsed.role, kind=parsed.kind) is not None:
        return
    if parsed.role is None:
        reason = f"there is no user {parsed.user[:80]!r} in the workspace {caller.principal.workspace}"
        raise CannotRun(f"{reason}; --role adds one, such as --role agent")
    if beyond := sorted(set(parsed.scopes or ()) - SCOPES_OF_ROLE[parsed.role]):
        raise CannotRun(f"--scopes: the role {parsed.role} may not {', '.join(beyond)}")
    new = checked(NewUser, {"name": parsed.user, "kind": parsed.kind or "human", "role": parsed.role})
    await services.tickets.create_reference(caller, "users", new)


async def _rotate(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.keys.model import DEFAULT_OVERLAP_S, Rotation

    caller = await caller_in(services, parsed.workspace)
    overlap_s = DEFAULT_OVERLAP_S if parsed.overlap is None else parsed.overlap
    _tell(
        await services.keys.rotate(
            caller, parsed.id, checked(Rotation, {"overlap_s": overlap_s}, {"overlap_s": "--overlap"})
        )
    )
    return 0


async def _revoke(parsed: argparse.Namespace, services: "Services") -> int:
    key = await services.keys.revoke(await caller_in(services, parsed.workspace), parsed.id)
    print(f"{key.id} is revoked")
    return 0


async def _list(parsed: argparse.Namespace, services: "Services") -> int:
    for key in await services.keys.list(await caller_in(services, parsed.workspace), user=parsed.user):
        print(orjson.dumps(key).decode() if parsed.json else _line(key))
    return 0


_ACTIONS: Final[Mapping[str, "Callable[[argparse.Namespace, Services], Awaitable[int]]"]] = {
    "create": _create,
    "change": _change,
    "list": _list,
    "rotate": _rotate,
    "revoke": _revoke,
}


def _tell(issued: "IssuedKey") -> None:
    print(f"{_line(issued.key)}\nThis is the only time that the key is shown:", file=sys.stderr)
    print(issued.secret)


def _line(key: "ApiKey") -> str:
    state = "revoked" if key.revoked_at else f"until {key.expires_at}" if key.expires_at else "no end"
    scopes = "all of its role" if key.scopes is None else " ".join(key.scopes)
    used = f"used {key.last_used_at}" if key.last_used_at else "never used"
    line = f"{key.id}  {key.user}  {key.name}  {scopes}  {state}  {used}"
    if key.limits is not None:
        own = ((name, getattr(key.limits, name)) for name in LIMITS)
        line += "  " + ",".join(f"{name}={value:g}" for name, value in own if value is not None)
    return printable(line)
