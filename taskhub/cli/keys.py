"""`taskhub keys create`, `list`, `rotate` and `revoke`."""

import argparse
import asyncio
import sys
from datetime import UTC, datetime, timedelta

import orjson

from taskhub.cli.parser import load_settings
from taskhub.settings import Settings, mask_url


def run(parsed: argparse.Namespace) -> int:
    """Manage the API keys of the database, beside running servers. A new key alone goes to standard output."""
    settings = load_settings(parsed).settings

    from taskhub.auth.errors import AuthError
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import StorageBusy, TicketError

    try:
        return asyncio.run(_run(parsed, settings))
    except (NewerSchema, StorageBusy) as error:
        print(f"taskhub: {mask_url(settings.database_address)}: {error}", file=sys.stderr)
    except (AuthError, TicketError) as error:
        print(f"taskhub: {error}", file=sys.stderr)
    return 1


async def _run(parsed: argparse.Namespace, settings: Settings) -> int:
    from pydantic import ValidationError

    from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
    from taskhub.keys.model import DEFAULT_OVERLAP_S, ApiKey, IssuedKey, NewKey, Rotation
    from taskhub.keys.store import KeyStore
    from taskhub.opening import open_keys
    from taskhub.storage.names import normalise
    from taskhub.tickets.reference_inputs import NewUser
    from taskhub.tickets.service import TicketService

    # Whoever can write the database needs no permission of it.
    caller = Caller(Principal("user:local", "default", ALL_SCOPES, authenticated=False), "system")

    async def create(keys: KeyStore, tickets: TicketService) -> int:
        expires_at = None if parsed.expires is None else datetime.now(UTC) + timedelta(seconds=parsed.expires)
        wanted = {"user": parsed.user, "name": parsed.name, "scopes": parsed.scopes, "expires_at": expires_at}
        try:
            new = NewKey.model_validate(wanted)
        except ValidationError as error:
            for found in error.errors(include_url=False):
                print(f"taskhub: --{found['loc'][0]}: {found['msg']}", file=sys.stderr)
            return 1
        spelled = normalise(parsed.user)
        known = any(spelled in (normalise(u.id), normalise(u.name)) for u in await tickets.users(caller))
        if parsed.role is not None and not known:
            user = NewUser(name=parsed.user, kind=parsed.kind, role=parsed.role)
            await tickets.create_reference(caller, "users", user)
        _tell(await keys.create(caller, new))
        return 0

    async def rotate(keys: KeyStore) -> int:
        overlap_s = DEFAULT_OVERLAP_S if parsed.overlap is None else parsed.overlap
        try:
            rotation = Rotation(overlap_s=overlap_s)
        except ValidationError as error:
            print(f"taskhub: --overlap: {error.errors(include_url=False)[0]['msg']}", file=sys.stderr)
            return 1
        _tell(await keys.rotate(caller, parsed.id, rotation))
        return 0

    def _tell(issued: IssuedKey) -> None:
        print(f"{_line(issued.key)}\nThis is the only time that the key is shown:", file=sys.stderr)
        print(issued.secret)

    def _line(key: ApiKey) -> str:
        state = "revoked" if key.revoked_at else f"until {key.expires_at}" if key.expires_at else "no end"
        scopes = "all of its role" if key.scopes is None else " ".join(key.scopes)
        used = f"used {key.last_used_at}" if key.last_used_at else "never used"
        return f"{key.id}  {key.user}  {key.name}  {scopes}  {state}  {used}"

    async with open_keys(settings) as (keys, tickets):
        if parsed.action == "create":
            return await create(keys, tickets)
        if parsed.action == "rotate":
            return await rotate(keys)
        if parsed.action == "revoke":
            key = await keys.revoke(caller, parsed.id)
            print(f"{key.id} is revoked")
            return 0
        for key in await keys.list(caller, user=parsed.user):
            print(orjson.dumps(key).decode() if parsed.json else _line(key))
        return 0
