"""`taskhub users list`, `add`, `set-password`, `sign-in-link` and `sign-out`."""

import argparse
import asyncio
import getpass
import sys
from dataclasses import asdict

import orjson

from taskhub import server_file
from taskhub.cli.mcp_config import default_url
from taskhub.cli.parser import load_settings
from taskhub.settings import Settings, mask_url


def run(parsed: argparse.Namespace) -> int:
    """Manage who can sign in, beside running servers. A new link alone goes to standard output."""
    settings = load_settings(parsed).settings

    from taskhub.auth.errors import AuthError
    from taskhub.storage.migrate import NewerSchema
    from taskhub.storage.transaction import UnknownWorkspace
    from taskhub.tickets.errors import StorageBusy, TicketError

    try:
        return asyncio.run(_run(parsed, settings))
    except (NewerSchema, StorageBusy) as error:
        print(f"taskhub: {mask_url(settings.database_address)}: {error}", file=sys.stderr)
    except UnknownWorkspace:
        print(f"taskhub: there is no workspace {parsed.workspace}", file=sys.stderr)
    except (AuthError, TicketError) as error:
        print(f"taskhub: {error}", file=sys.stderr)
    return 1


async def _run(parsed: argparse.Namespace, settings: Settings) -> int:
    from pydantic import ValidationError

    from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
    from taskhub.opening import open_sign_in
    from taskhub.sign_in.model import NewPassword
    from taskhub.sign_in.service import LINK_S, SignIn
    from taskhub.storage.names import normalise
    from taskhub.tickets.reference_inputs import NewUser
    from taskhub.tickets.service import TicketService

    workspace = parsed.workspace
    # Whoever can write the database needs no permission of it.
    caller = Caller(Principal("user:local", workspace, ALL_SCOPES, authenticated=False), "system")

    async def known(tickets: TicketService) -> bool:
        spelled = normalise(parsed.user)
        return any(spelled in (normalise(user.id), normalise(user.name)) for user in await tickets.users(caller))

    async def add(tickets: TicketService) -> int:
        user = NewUser(name=parsed.user, kind=getattr(parsed, "kind", "human"), role=parsed.role)
        added = await tickets.create_reference(caller, "users", user)
        print(f"{added.id} is added", file=sys.stderr)
        return 0

    async def sign_in_link(sign_in: SignIn, tickets: TicketService) -> int:
        if parsed.role is not None and not await known(tickets):
            await add(tickets)
        link = await sign_in.new_link(workspace, parsed.user, caller.principal.actor)
        server = server_file.read(settings.data_dir)
        url = parsed.url or (server.url if server else default_url(settings))
        print(f"Signs {link.user} in, once, within {LINK_S // 60} minutes:", file=sys.stderr)
        # Behind #: browsers keep that to themselves, so no log of a server or a proxy gets to see it.
        print(f"{url}/login#link={link.secret}")
        return 0

    async def set_password(sign_in: SignIn) -> int:
        try:
            new = NewPassword.model_validate({"password": _asked_password()})
        except ValidationError as error:
            for found in error.errors(include_url=False, include_input=False):
                print(f"taskhub: the password: {found['msg']}", file=sys.stderr)
            return 1
        user_id = await sign_in.set_password(workspace, parsed.user, new)
        print(f"{user_id} has a new password, and is signed out everywhere", file=sys.stderr)
        return 0

    async def list_(sign_in: SignIn, tickets: TicketService) -> int:
        with_password = await sign_in.with_password(workspace)
        for user in await tickets.users(caller):
            if parsed.json:
                print(orjson.dumps({**asdict(user), "has_password": user.id in with_password}).decode())
                continue
            state = "password" if user.id in with_password else "no password"
            if not user.active:
                state = f"out of use  {state}"
            print(f"{user.id}  {user.name}  {user.kind}  {user.role}  {state}")
        return 0

    async with open_sign_in(settings, workspace) as (sign_in, tickets):
        if parsed.action == "add":
            return await add(tickets)
        if parsed.action == "sign-in-link":
            return await sign_in_link(sign_in, tickets)
        if parsed.action == "set-password":
            return await set_password(sign_in)
        if parsed.action == "sign-out":
            print(f"{await sign_in.sign_out(workspace, parsed.user)} sessions have ended", file=sys.stderr)
            return 0
        return await list_(sign_in, tickets)


def _asked_password() -> str:
    """From the keyboard, without showing it, else a line of standard input: arguments are there for all to see."""
    if sys.stdin.isatty():
        return getpass.getpass("New password: ")
    return sys.stdin.readline().rstrip("\r\n")
