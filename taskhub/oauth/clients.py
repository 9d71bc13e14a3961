"""Clients: the applications that ask users to be let in. All are public ones: none of them has a secret to keep."""

import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sqlalchemy import Connection, Row, delete, func, insert, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller
from taskhub.oauth.errors import ErrorCode, OAuthError, UnsafeRequest
from taskhub.oauth.redirects import unusable
from taskhub.storage.database import Database
from taskhub.storage.schema import oauth_clients
from taskhub.storage.times import Clock, to_text, utc_now
from taskhub.tickets.requests import require

PREFIX: Final = "cli_"
_ID: Final = re.compile(rf"{PREFIX}[0-9a-f]{{24}}")
MAX_NAME: Final = 100
MAX_REDIRECTS: Final = 10
MAX_SELF_REGISTERED: Final = 10_000
UNUSED_FOR: Final = timedelta(hours=24)
"""A client that registered itself and was let in by nobody for so long is forgotten."""
_C: Final = oauth_clients.c

Kind = Literal["document", "registered", "operator"]


@dataclass(frozen=True, slots=True)
class Client:
    """An application. `kind`: how it came to be known: by its own document, by registering itself, by an operator.

    `host`: whose document it is; None for the others. The name is what the application calls itself."""

    id: str
    name: str
    redirect_uris: tuple[str, ...]
    kind: Kind
    host: str | None = None


@dataclass(frozen=True, slots=True)
class RegisteredClient:
    """A client as operators see it. `created_by`: null for one that registered itself. Times are RFC 3339, in UTC."""

    id: str
    name: str
    redirect_uris: list[str]
    created_at: str
    created_by: str | None
    used_at: str | None


class ClientMetadata(BaseModel):
    """What counts here of RFC 7591, 2; the rest is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    redirect_uris: tuple[str, ...] = Field(min_length=1, max_length=MAX_REDIRECTS)
    client_name: str | None = None
    grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")
    response_types: tuple[str, ...] = ("code",)


def checked_metadata(said: Any) -> ClientMetadata:
    """What a client says of itself, if it can be one here. Raises OAuthError."""
    try:
        metadata = ClientMetadata.model_validate(said)
    except ValidationError as error:
        field = str(next(iter(error.errors(include_url=False, include_input=False)[0]["loc"]), ""))
        code: ErrorCode = "invalid_redirect_uri" if field == "redirect_uris" else "invalid_client_metadata"
        wanted = f"1 to {MAX_REDIRECTS} addresses" if field == "redirect_uris" else "what RFC 7591 says it is"
        raise OAuthError(code, f"{field or 'the metadata'} must be {wanted}") from None
    for uri in metadata.redirect_uris:
        if (reason := unusable(uri)) is not None:
            raise OAuthError("invalid_redirect_uri", f"a redirect URI {reason}")
    if "authorization_code" not in metadata.grant_types or "code" not in metadata.response_types:
        raise OAuthError("invalid_client_metadata", "only the grant type authorization_code is offered")
    name = plain(metadata.client_name or "")
    return metadata.model_copy(update={"client_name": name or None})


def plain(name: str) -> str:
    """A name without what is invisible, turns the direction of writing or breaks lines, and not too long."""
    visible = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in unicodedata.normalize("NFC", name))
    return " ".join(visible.split())[:MAX_NAME].rstrip()


class RegisteredClients:
    """The clients that were given an id here."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def client(self, client_id: str) -> Client:
        """Raises UnsafeRequest and StorageBusy."""
        statement = select(oauth_clients).where(_C.id == client_id)
        row = None
        if _ID.fullmatch(client_id):
            row = await self._database.read(lambda connection: connection.execute(statement).first())
        if row is None:
            raise UnsafeRequest("unknown_client", "there is no such client; it may have to be registered again")
        kind: Kind = "registered" if row.created_by is None else "operator"
        return Client(row.id, row.name, tuple(row.redirect_uris.split()), kind)

    async def register(self, said: Mapping[str, Any]) -> dict[str, Any]:
        """Let a client register itself: the answer of RFC 7591, 3.2.1. Raises OAuthError and StorageBusy."""
        metadata = checked_metadata(said)
        now = self._clock()

        def work(connection: Connection) -> RegisteredClient:
            own = _C.created_by.is_(None)
            unused = own & _C.used_at.is_(None) & (_C.created_at < to_text(now - UNUSED_FOR))
            connection.execute(delete(oauth_clients).where(unused))
            if connection.execute(select(func.count()).where(own)).scalar_one() >= MAX_SELF_REGISTERED:
                raise OAuthError("temporarily_unavailable", "too many clients have registered")
            return _store(connection, metadata, to_text(now), None)

        client = await self._database.write(work)
        return {
            "client_id": client.id,
            "client_id_issued_at": int(now.timestamp()),
            "client_name": client.name,
            "redirect_uris": client.redirect_uris,
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
        }

    async def add(self, caller: Caller, name: str, redirect_uris: list[str]) -> RegisteredClient:
        """Make a client known, for an application that cannot do so itself. Raises OAuthError, Forbidden and
        StorageBusy."""
        require(caller, "admin")
        metadata = checked_metadata({"client_name": name, "redirect_uris": redirect_uris})
        now, by = to_text(self._clock()), caller.principal.actor

        def work(connection: Connection) -> RegisteredClient:
            client = _store(connection, metadata, now, by)
            uris = client.redirect_uris
            record(connection, Entry.by(caller, "client.added", client.id, name=client.name, redirect_uris=uris))
            return client

        return await self._database.write(work)

    async def list(self, caller: Caller) -> list[RegisteredClient]:
        """In the order in which they were made. Raises Forbidden and StorageBusy."""
        require(caller, "admin")
        statement = select(oauth_clients).order_by(_C.created_at, _C.id)
        return await self._database.read(lambda connection: [_registered(row) for row in connection.execute(statement)])

    async def remove(self, caller: Caller, client_id: str) -> bool:
        """Forget a client; what users granted it stays until it is ended. Raises Forbidden and StorageBusy."""
        require(caller, "admin")

        def work(connection: Connection) -> bool:
            removed = connection.execute(delete(oauth_clients).where(_C.id == client_id)).rowcount > 0
            if removed:
                record(connection, Entry.by(caller, "client.removed", client_id))
            return removed

        return await self._database.write(work)


def note_use(connection: Connection, client_id: str, now: str) -> None:
    """A user has let a client in, which keeps one that registered itself from being forgotten."""
    if client_id.startswith(PREFIX):
        connection.execute(update(oauth_clients).where(_C.id == client_id).values(used_at=now))


def _store(connection: Connection, metadata: ClientMetadata, now: str, by: str | None) -> RegisteredClient:
    client_id = f"{PREFIX}{secrets.token_hex(12)}"
    row = {
        "id": client_id, "name": metadata.client_name or client_id, "redirect_uris": " ".join(metadata.redirect_uris),
        "created_at": now, "created_by": by, "used_at": None,
    }  # fmt: skip
    connection.execute(insert(oauth_clients), row)
    return RegisteredClient(client_id, row["name"] or client_id, list(metadata.redirect_uris), now, by, None)


def _registered(row: Row[Any]) -> RegisteredClient:
    return RegisteredClient(row.id, row.name, row.redirect_uris.split(), row.created_at, row.created_by, row.used_at)
