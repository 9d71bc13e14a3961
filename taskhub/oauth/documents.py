"""Client ID metadata documents: a client whose id is an https address, where it says what it is
(draft-ietf-oauth-client-id-metadata-document)."""

import asyncio
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
from aiohttp import ClientError, ClientSession, ClientTimeout, hdrs
from sqlalchemy import Connection, delete, insert, select

from taskhub.oauth.clients import Client, ClientMetadata, checked_metadata
from taskhub.oauth.errors import OAuthError, UnsafeRequest
from taskhub.oauth.guard import Guard, was_refused
from taskhub.storage.database import Database
from taskhub.storage.schema import deployment, oauth_client_documents
from taskhub.storage.times import Clock, to_text, utc_now

MAX_BYTES: Final = 5 * 1024
MAX_ID_CHARACTERS: Final = 500
TIMEOUT_S: Final = 5.0
"""For all of it: a person waits for the page."""
MAX_AT_ONCE: Final = 8
MAX_KEPT: Final = 1000
"""Documents in the database; those that were read longest ago give way."""
SHORTEST: Final = timedelta(minutes=5)
LONGEST: Final = timedelta(hours=24)
USUAL: Final = timedelta(hours=1)
"""For how long a document is good that does not say so."""

_ID: Final = re.compile(
    r"https://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?"
    r"(?P<path>/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})+)(?:\?(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*)?",
    re.ASCII,
)
_HIDDEN: Final = re.compile(r"%(?:2e|2f|5c|7f|[01][0-9a-f])", re.IGNORECASE)
_JSON: Final = re.compile(r"application/(?:[a-z0-9.-]+\+)?json", re.ASCII)
_MAX_AGE: Final = re.compile(r"(?:^|,)\s*max-age=([0-9]{1,9})\s*(?:,|$)", re.IGNORECASE)
_D: Final = oauth_client_documents.c


def host_of(client_id: str) -> str | None:
    """The host of an id that is the address of a document; None for what is no such id."""
    found = _ID.fullmatch(client_id) if len(client_id) <= MAX_ID_CHARACTERS else None
    if found is None or _HIDDEN.search(found["path"]) or {".", ".."} & set(found["path"].split("/")):
        return None
    return found["host"]


class ClientDocuments:
    """Reads the documents of clients, and keeps them in the database for as long as they are good.

    Whoever is signed in can name any address here, so the request is one that can reach nothing but the public network:
    it goes to no other address (see guard), follows no redirect, and sends and reads little.
    """

    def __init__(self, database: Database, guard: Guard, clock: Clock = utc_now) -> None:
        self._database = database
        self._guard = guard
        self._clock = clock
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    async def client(self, client_id: str) -> Client:
        """The client of this id. Raises UnsafeRequest and StorageBusy."""
        host = host_of(client_id)
        if host is None:
            raise UnsafeRequest("client_id", "the client's id is not the address of a document about it")
        now = self._clock()
        kept = await self._database.read(lambda connection: _kept(connection, client_id, to_text(now)))
        if kept is None:
            document, good_for = await self._fetch(client_id)
            kept = _checked(client_id, document)
            await self._database.write(lambda connection: _keep(connection, client_id, document, now, good_for))
        return Client(client_id, kept.client_name or host, kept.redirect_uris, "document", host)

    async def _fetch(self, client_id: str) -> tuple[bytes, timedelta]:
        try:
            async with self._slots, asyncio.timeout(TIMEOUT_S):
                return await self._read(client_id)
        except TimeoutError:
            raise _unusable(f"it did not come within {TIMEOUT_S:g} seconds") from None
        except (ClientError, OSError, ValueError) as error:
            refused = was_refused(error)
            raise _unusable("its address is not a public one" if refused else "it could not be read") from error

    async def _read(self, client_id: str) -> tuple[bytes, timedelta]:
        headers = {hdrs.ACCEPT: "application/json", hdrs.ACCEPT_ENCODING: "identity", hdrs.USER_AGENT: "TaskHub"}
        async with (
            ClientSession(
                connector=await self._guard.connector(),
                timeout=ClientTimeout(total=TIMEOUT_S),
                headers=headers,
                trust_env=False,  # a proxy would be the address that is guarded
                auto_decompress=False,
            ) as session,
            session.get(client_id, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise _unusable(f"it was answered with status {response.status}")
            if not _JSON.fullmatch(response.content_type.lower()) or hdrs.CONTENT_ENCODING in response.headers:
                raise _unusable("it is not application/json")
            body = bytearray()
            while piece := await response.content.read(MAX_BYTES + 1 - len(body)):
                body += piece
                if len(body) > MAX_BYTES:
                    raise _unusable(f"it has more than {MAX_BYTES} bytes")
            return bytes(body), _good_for(response.headers.get(hdrs.CACHE_CONTROL, ""))


def _unusable(reason: str) -> UnsafeRequest:
    return UnsafeRequest("document", f"the document about the client cannot be used: {reason}")


def _checked(client_id: str, document: bytes) -> ClientMetadata:
    try:
        said = orjson.loads(document)
    except orjson.JSONDecodeError:
        raise _unusable("it is not JSON") from None
    if not isinstance(said, Mapping):
        raise _unusable("it is not a JSON object")
    if said.get("client_id") != client_id:
        raise _unusable("its client_id is not its own address")
    if "client_secret" in said or said.get("token_endpoint_auth_method", "none") not in ("none", "private_key_jwt"):
        raise _unusable("a client that everybody can read about cannot have a secret")
    try:
        # What it signs with, if it does, is not asked for: every client is a public one here.
        return checked_metadata({**said, "token_endpoint_auth_method": "none"})
    except OAuthError as error:
        raise _unusable(error.description) from None


def _good_for(cache_control: str) -> timedelta:
    if (found := _MAX_AGE.search(cache_control)) is not None:
        return min(max(timedelta(seconds=int(found[1])), SHORTEST), LONGEST)
    return SHORTEST if "no-store" in cache_control.lower() or "no-cache" in cache_control.lower() else USUAL


def _kept(connection: Connection, client_id: str, now: str) -> ClientMetadata | None:
    statement = select(_D.document).where(_D.client_id == client_id, _D.expires_at > now)
    document = connection.execute(statement).scalar()
    return None if document is None else _checked(client_id, document.encode())


def _keep(connection: Connection, client_id: str, document: bytes, now: datetime, good_for: timedelta) -> None:
    connection.execute(select(deployment.c.id).with_for_update())  # others may have read it at the same time
    connection.execute(delete(oauth_client_documents).where(_D.client_id == client_id))
    oldest = select(_D.client_id).order_by(_D.fetched_at.desc(), _D.client_id).offset(MAX_KEPT - 1)
    connection.execute(delete(oauth_client_documents).where(_D.client_id.in_(oldest)))
    row: dict[str, Any] = {
        "client_id": client_id, "document": document.decode(), "fetched_at": to_text(now),
        "expires_at": to_text(now + good_for),
    }  # fmt: skip
    connection.execute(insert(oauth_client_documents), row)
