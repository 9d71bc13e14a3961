"""`taskhub oauth grants`, `end`, `clients`, `add-client`, `remove-client` and `rotate-keys`."""

import argparse
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, caller_in, printable, run_with_services

if TYPE_CHECKING:
    from taskhub.opening import Services


def run(parsed: argparse.Namespace) -> int:
    """Look after the applications that users let in, beside running servers. The id of a new client alone goes to
    standard output."""
    settings = load_settings(parsed).settings
    return run_with_services(settings, partial(_ACTIONS[parsed.action], parsed))


async def _grants(parsed: argparse.Namespace, services: "Services") -> int:
    caller = await caller_in(services, parsed.workspace)
    for grant in await services.grants.list(caller, user=parsed.user, everybody=parsed.user is None):
        if parsed.json:
            print(orjson.dumps(grant).decode())
        else:
            scopes = " ".join(grant.scopes)
            print(printable(f"{grant.id}  {grant.user}  {grant.name}  {grant.host}  {scopes}  used {grant.used_at}"))
    return 0


async def _end(parsed: argparse.Namespace, services: "Services") -> int:
    await services.grants.revoke(await caller_in(services, parsed.workspace), parsed.id)
    print(f"{parsed.id} is over", file=sys.stderr)
    return 0


async def _clients(parsed: argparse.Namespace, services: "Services") -> int:
    for client in await services.oauth_clients.list(await caller_in(services, parsed.workspace)):
        if parsed.json:
            print(orjson.dumps(client).decode())
        else:
            by = client.created_by or "itself"
            print(printable(f"{client.id}  {client.name}  by {by}  {' '.join(client.redirect_uris)}"))
    return 0


async def _add_client(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.oauth.errors import OAuthError

    try:
        caller = await caller_in(services, parsed.workspace)
        client = await services.oauth_clients.add(caller, parsed.name, parsed.redirect_uri)
    except OAuthError as error:
        raise CannotRun(error.description) from None
    print(f"{printable(client.name)} is known now, by this client id:", file=sys.stderr)
    print(client.id)
    return 0


async def _remove_client(parsed: argparse.Namespace, services: "Services") -> int:
    caller = await caller_in(services, parsed.workspace)
    if not await services.oauth_clients.remove(caller, parsed.id):
        raise CannotRun(f"there is no client {parsed.id[:80]!r}: `taskhub oauth clients` lists them")
    print(f"{parsed.id} is forgotten; what users let it do ends with `taskhub oauth end`", file=sys.stderr)
    return 0


async def _rotate_keys(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.oauth.signing import SigningKeys

    keys = SigningKeys(services.database)
    key_id = await (keys.replace() if parsed.now else keys.rotate())
    when = "signs from now on, and the others are forgotten" if parsed.now else "is published, and signs soon"
    print(f"the key {key_id} {when}", file=sys.stderr)
    return 0


_ACTIONS: Final[Mapping[str, "Callable[[argparse.Namespace, Services], Awaitable[int]]"]] = {
    "grants": _grants,
    "end": _end,
    "clients": _clients,
    "add-client": _add_client,
    "remove-client": _remove_client,
    "rotate-keys": _rotate_keys,
}
