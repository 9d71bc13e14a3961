"""Stream tokens in the database, so that every instance knows them. A token is found by its SHA-256."""

import secrets
from collections.abc import Collection
from typing import Any, Final

import orjson
from sqlalchemy import Connection, and_, bindparam, case, delete, insert, or_, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller, Principal
from taskhub.auth.secret import digest
from taskhub.credentials.holder import parts
from taskhub.storage.database import Database
from taskhub.storage.schema import stream_tokens
from taskhub.storage.times import Clock, later, to_text, utc_now
from taskhub.stream_tokens.model import IssuedToken, Lifetimes, Parameters, StreamToken, new_secret

LEFT_S: Final = 3600.0
"""How long after its end a token that was used is forgotten: a database that was away must not cost one whose stream
was open all the while."""
WITHOUT_AUTHENTICATION: Final = "none"
"""The issuer of tokens where nobody vouches for callers."""

_T: Final = stream_tokens.c
_BY_DIGEST: Final = select(stream_tokens).where(_T.digest == bindparam("digest"), _T.good_until > bindparam("now"))
_HELD: Final = (
    select(_T.stream, _T.instance)
    .where(_T.id == bindparam("token"), _T.good_until > bindparam("now"))
    .with_for_update()
)


class StreamTokenStore:
    """Makes tokens, finds those that are good, and knows where each one's stream is open."""

    def __init__(self, database: Database, lifetimes: Lifetimes | None = None, clock: Clock = utc_now) -> None:
        self._database = database
        self.lifetimes = lifetimes or Lifetimes()
        self._clock = clock

    async def create(self, caller: Caller, issuer: str, parameters: Parameters) -> IssuedToken:
        """Raises StorageBusy."""
        principal, secret, now = caller.principal, new_secret(), to_text(self._clock())
        first_use_before = later(now, self.lifetimes.first_use_s)
        expires_at = later(now, self.lifetimes.most_s)
        row = {
            "id": f"stk_{secrets.token_hex(8)}", "workspace_id": principal.workspace, "digest": digest(secret),
            "actor": principal.actor, "owner": principal.owner, "scopes": " ".join(sorted(principal.scopes)),
            "credential": principal.credential, "issuer": issuer, "parameters": orjson.dumps(parameters).decode(),
            "created_at": now, "expires_at": expires_at, "good_until": first_use_before,
        }  # fmt: skip

        def work(connection: Connection) -> None:
            connection.execute(insert(stream_tokens), row)
            entry = Entry.by(caller, "stream_token.created", row["id"], parameters=parameters, expires_at=expires_at)
            record(connection, entry, self._clock())

        await self._database.write(work)
        return IssuedToken(secret, f"/events/stream?token={secret}", first_use_before, expires_at)

    async def find(self, secret: str) -> StreamToken | None:
        """The token, if it is good now. Raises StorageBusy."""
        given = {"digest": digest(secret), "now": to_text(self._clock())}

        def work(connection: Connection) -> StreamToken | None:
            row: Any = connection.execute(_BY_DIGEST, given).first()
            return None if row is None else _token(row)

        return await self._database.read(work)

    async def opened(self, token_id: str, stream: str, instance: str) -> tuple[str, str] | None:
        """Note that a stream is open by it now; the one before, if there was one, and its instance.

        Raises LookupError when the token is over by now, and StorageBusy."""
        now = to_text(self._clock())

        def work(connection: Connection) -> tuple[str, str] | None:
            row: Any = connection.execute(_HELD, {"token": token_id, "now": now}).first()
            if row is None:
                raise LookupError(token_id)
            values = {"stream": stream, "instance": instance, "good_until": self._kept_until(now)}
            connection.execute(update(stream_tokens).where(_T.id == token_id).values(values))
            return None if row.stream is None else (row.stream, row.instance)

        return await self._database.write(work)

    async def still_open(self, token_ids: Collection[str]) -> None:
        """Keep tokens whose streams are open. Raises StorageBusy."""
        kept = self._kept_until(to_text(self._clock()))

        def work(connection: Connection) -> None:
            for part in parts(token_ids):
                connection.execute(update(stream_tokens).where(_T.id.in_(part)).values(good_until=kept))

        if token_ids:
            await self._database.write(work)

    async def sweep(self) -> None:
        """Forget those that are over. Raises StorageBusy."""
        now = to_text(self._clock())
        over = or_(_T.good_until < later(now, -LEFT_S), and_(_T.stream.is_(None), _T.good_until < now))
        await self._database.write(lambda connection: _execute(connection, delete(stream_tokens).where(over)))

    def _kept_until(self, now: str) -> Any:
        until = later(now, self.lifetimes.kept_s + self.lifetimes.seen_every_s)
        return case((_T.expires_at < until, _T.expires_at), else_=until)


def _execute(connection: Connection, statement: Any) -> None:
    connection.execute(statement)


def _token(row: Any) -> StreamToken:
    principal = Principal(
        row.actor,
        row.workspace_id,
        frozenset(row.scopes.split()),
        authenticated=row.issuer != WITHOUT_AUTHENTICATION,
        owner=row.owner,
        credential=row.credential,
    )
    parameters = tuple((name, text) for name, text in orjson.loads(row.parameters))
    return StreamToken(row.id, principal, row.issuer, parameters, row.expires_at)
