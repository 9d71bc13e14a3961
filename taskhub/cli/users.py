"""`taskhub users list`, `add`, `change`, `set-password`, `sign-in-link`, `sign-out` and `unlink`."""

import argparse
import getpass
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from taskhub import server_file
from taskhub.cli.mcp_config import default_url
from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, caller_in, checked, named_user, printable, run_with_services

if TYPE_CHECKING:
    from taskhub.opening import Services


def run(parsed: argparse.Namespace) -> int:
    """Manage who can sign in, beside running servers. A new link alone goes to standard output."""
    return run_with_services(load_settings(parsed).settings, partial(_ACTIONS[parsed.action], parsed))


async def _list(parsed: argparse.Namespace, services: "Services") -> int:
    with_password = await services.sign_in.with_password(parsed.workspace)
    for user in await services.tickets.users(await caller_in(services, parsed.workspace)):
        if parsed.json:
            print(orjson.dumps({**asdict(user), "has_password": user.id in with_password}).decode())
            continue
        state = "password" if user.id in with_password else "no password"
        if not user.active:
            state = f"out of use  {state}"
        print(printable(f"{user.id}  {user.name}  {user.kind}  {user.role}  {state}"))
    return 0


async def _add(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.tickets.reference_inputs import NewUser

    caller = await caller_in(services, parsed.workspace)
    new = checked(NewUser, {"name": parsed.user, "kind": parsed.kind, "role": parsed.role, "email": parsed.email})
    added = await services.tickets.create_reference(caller, "users", new)
    print(f"{added.id} is added", file=sys.stderr)
    return 0


async def _change(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.tickets.reference_inputs import UserChange

    given = {"role": parsed.role, "active": parsed.active, "email": parsed.email}
    change = checked(UserChange, {name: value for name, value in given.items() if value is not None})
    if not change.model_fields_set:
        raise CannotRun("nothing is to be changed: --role, --email, --out-of-use or --in-use says what")
    caller = await caller_in(services, parsed.workspace)
    user = await named_user(services, caller, parsed.user)
    if user is None:
        raise CannotRun(f"there is no user {parsed.user[:80]!r}: `taskhub users list` tells who there is")
    await services.tickets.change_reference(caller, "users", user.id, change)
    print(f"{user.id} is changed", file=sys.stderr)
    return 0


async def _sign_in_link(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.sign_in.service import LINK_S

    caller = await caller_in(services, parsed.workspace)
    user = await named_user(services, caller, parsed.user, role=parsed.role)
    if user is None and parsed.role is not None:
        parsed.kind, parsed.email = "human", None
        await _add(parsed, services)
    link = await services.sign_in.new_link(caller, parsed.user)
    settings = load_settings(parsed).settings
    server = server_file.read(settings.data_dir)
    url = parsed.url or (server.url if server else default_url(settings))
    print(f"Signs {link.user} in, once, within {LINK_S // 60} minutes:", file=sys.stderr)
    # Behind #: browsers keep that to themselves, so no log of a server or a proxy gets to see it.
    print(f"{url}/login#link={link.secret}")
    return 0


async def _set_password(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.sign_in.model import NewPassword

    caller = await caller_in(services, parsed.workspace)
    new = checked(NewPassword, {"password": _asked_password()}, {"password": "the password"})
    user_id = await services.sign_in.set_password(caller, parsed.user, new)
    print(f"{user_id} has a new password, and is signed out everywhere", file=sys.stderr)
    return 0


async def _sign_out(parsed: argparse.Namespace, services: "Services") -> int:
    caller = await caller_in(services, parsed.workspace)
    print(f"{await services.sign_in.sign_out(caller, parsed.user)} sessions have ended", file=sys.stderr)
    return 0


async def _unlink(parsed: argparse.Namespace, services: "Services") -> int:
    caller = await caller_in(services, parsed.workspace)
    if not await services.sign_in.unlink(caller, parsed.user):
        raise CannotRun(f"{parsed.user[:80]!r} is linked with no account at an OpenID provider")
    print("the next account that has the address is linked", file=sys.stderr)
    return 0


_ACTIONS: Final[Mapping[str, "Callable[[argparse.Namespace, Services], Awaitable[int]]"]] = {
    "list": _list,
    "add": _add,
    "change": _change,
    "sign-in-link": _sign_in_link,
    "set-password": _set_password,
    "sign-out": _sign_out,
    "unlink": _unlink,
}


def _asked_password() -> str:
    """From the keyboard, without showing it, else a line of standard input: arguments are there for all to see."""
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    return sys.stdin.readline().rstrip("\r\n")
