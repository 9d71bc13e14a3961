"""What users let applications do: codes, grants, and the refresh tokens by which grants live on.

A refresh token is replaced with each use. The application may not have got the answer, so until the successor is used
its predecessor is taken once more: within REPEAT for the same successor, as requests that are under way together ask
for it, and later for another one, which takes the place of the first. Who then comes with any other token of the grant
has a copy, or is who it was copied from: nobody can tell which, and the grant ends (RFC 9700, 4.14.2).
"""

import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller, Principal, Scope
from taskhub.auth.secret import digest, new_secret, well_formed
from taskhub.credentials.holder import Holder, holder_of_grant, parts, principal_of
from taskhub.credentials.version import raise_version
from taskhub.oauth.clients import note_use
from taskhub.oauth.errors import OAuthError, UnsafeRequest
from taskhub.oauth.model import CODE_S, IDLE, Authorization, Grant, GrantNotFound, Issued
from taskhub.oauth.pkce import verifies
from taskhub.oauth.redirects import shown
from taskhub.storage.database import Database
from taskhub.storage.schema import oauth_client_documents, oauth_codes, oauth_grants, oauth_refresh_tokens, users
from taskhub.storage.times import Clock, later, to_text, utc_now
from taskhub.tickets.requests import require

GRANT_PREFIX: Final = "grt_"
CODE_PREFIX: Final = "thc_"
REFRESH_PREFIX: Final = "thr_"
TOKEN_IDS: Final = "tok_"  # noqa: S105  # no secret
"""What the ids of access tokens as credentials begin with."""
REPEAT: Final = timedelta(seconds=60)
CODES_KEPT: Final = timedelta(days=1)
"""A code that is shown a second time within this time ends what it was redeemed for."""
_C: Final = oauth_codes.c
_G: Final = oauth_grants.c
_R: Final = oauth_refresh_tokens.c
_USERS: Final = users.alias("u")
_HOLDERS: Final = select(
    _G.id, _G.workspace_id, _G.user_id, _G.scopes, _G.expires_at, _USERS.c.kind, _USERS.c.role
).join(
    _USERS, (_USERS.c.workspace_id == _G.workspace_id) & (_USERS.c.id == _G.user_id) & _USERS.c.active
).where(_G.revoked_at.is_(None))  # fmt: skip
_NOT_GOOD: Final = "the code is unknown, used up, expired, or was issued for another request"
_NO_REFRESH: Final = "the refresh token is unknown, used up, expired or revoked, or was issued to another client"


@dataclass(frozen=True, slots=True)
class Redemption:
    """A code as a client brings it. What is None was not said."""

    code: str
    client_id: str
    verifier: str
    redirect_uri: str | None
    resource: str | None


@dataclass(frozen=True, slots=True)
class Refresh:
    """A refresh token as a client brings it. What is None was not said."""

    token: str
    client_id: str
    scopes: frozenset[str] | None
    resource: str | None


class GrantStore:
    """Issues codes and redeems them, refreshes, lists and ends grants.

    `secret` must be known to all instances and to nobody else.
    """

    def __init__(self, database: Database, secret: bytes, clock: Clock = utc_now) -> None:
        self._database = database
        self._secret = hmac.digest(secret, b"taskhub oauth refresh 1", "sha256")
        self._clock = clock

    async def issue_code(self, user: Principal, agreed: Authorization) -> str:
        """A code for what the user agreed to. Raises UnsafeRequest when it is no user in use, and StorageBusy."""
        now, code = to_text(self._clock()), new_secret(CODE_PREFIX)
        row = {
            "digest": digest(code), "workspace_id": user.workspace, "user_id": user.user_id,
            "client_id": agreed.client_id, "client_name": agreed.client_name, "redirect_uri": agreed.redirect_uri,
            "challenge": agreed.challenge, "resource": agreed.resource, "scopes": _joined(agreed.scopes),
            "expires_at": later(now, CODE_S), "grant_id": None,
        }  # fmt: skip

        def work(connection: Connection) -> None:
            if _user(connection, user.workspace, user.user_id) is None:
                raise UnsafeRequest("not_a_user", f"{user.actor} is no user of this TaskHub who could let anything in")
            connection.execute(insert(oauth_codes), row)
            note_use(connection, agreed.client_id, now)

        await self._database.write(work)
        return code

    async def redeem(self, given: Redemption) -> Issued:
        """Make a code the grant that was agreed to. A code that was redeemed before ends its grant: call
        `Instances.credentials_changed` when that is raised. Raises OAuthError, Reused and StorageBusy."""
        now = to_text(self._clock())

        def work(connection: Connection) -> Issued | None:
            statement = select(oauth_codes).where(_C.digest == digest(given.code)).with_for_update()
            row = connection.execute(statement).first() if well_formed(given.code) else None
            if (
                row is None
                or row.client_id != given.client_id
                or given.redirect_uri not in (None, row.redirect_uri)
                or not verifies(given.verifier, row.challenge)
            ):
                raise OAuthError("invalid_grant", _NOT_GOOD)
            if row.grant_id is not None:
                _end(connection, row.grant_id, now, "its code was shown twice")
                return None
            if row.expires_at <= now:
                raise OAuthError("invalid_grant", _NOT_GOOD)
            _check_resource(given.resource, row.resource)
            scopes = _allowed(connection, row)
            issued = Issued(
                grant=f"{GRANT_PREFIX}{secrets.token_hex(8)}",
                user=row.user_id,
                client_id=row.client_id,
                resource=row.resource,
                scopes=scopes,
                refresh_token=new_secret(REFRESH_PREFIX),
            )
            connection.execute(update(oauth_codes).where(_C.digest == row.digest).values(grant_id=issued.grant))
            _store(connection, row, issued, now)
            connected = Entry("application.connected", row.workspace_id, target=issued.grant, details=_told(row))
            record(connection, connected)
            return issued

        issued = await self._database.write(work)
        if issued is None:
            raise Reused(_NOT_GOOD)
        return issued

    async def refresh(self, given: Refresh) -> Issued:
        """Replace a refresh token. One that was replaced before ends its grant: call `Instances.credentials_changed`
        when that is raised. Raises OAuthError, Reused and StorageBusy."""
        moment = self._clock()
        now = to_text(moment)

        def work(connection: Connection) -> Issued | None:
            row = self._grant_of(connection, given.token)
            if row is None or row.client_id != given.client_id or row.revoked_at is not None or row.expires_at <= now:
                raise OAuthError("invalid_grant", _NO_REFRESH)
            shown = digest(given.token)
            if shown not in (row.current, row.previous):
                _end(connection, row.id, now, "an old refresh token was shown")
                return None
            _check_resource(given.resource, row.resource)
            scopes = _allowed(connection, row)
            if given.scopes is not None:
                if not given.scopes <= set(row.scopes.split()):
                    raise OAuthError("invalid_scope", "more is asked for than was granted")
                scopes &= given.scopes
            values = {"expires_at": to_text(moment + IDLE), "used_at": now}
            repeated = shown == row.previous and row.rotated_at > to_text(moment - REPEAT)
            nonce = row.nonce if repeated else secrets.token_hex(16)
            successor = self._successor(given.token, nonce)
            if not repeated:
                values |= {"current": digest(successor), "previous": shown, "nonce": nonce, "rotated_at": now}
                _remember(connection, successor, row.id, now)
            connection.execute(update(oauth_grants).where(_G.id == row.id).values(values))
            return Issued(row.id, row.user_id, row.client_id, row.resource, scopes, successor)

        issued = await self._database.write(work)
        if issued is None:
            raise Reused(_NO_REFRESH)
        return issued

    async def revoke_token(self, token: str, client_id: str) -> bool:
        """End the grant of a refresh token, old or new; whether there was one. Raises OAuthError when it is another
        client's, and StorageBusy."""

        def work(connection: Connection) -> bool:
            row = self._grant_of(connection, token)
            if row is not None and row.client_id != client_id:
                raise OAuthError("invalid_grant", "the token was issued to another client")
            return row is not None and _end(connection, row.id, to_text(self._clock()), "by the application")

        return await self._database.write(work)

    async def of_refresh_token(self, token: str) -> Grant | None:
        """The grant that a refresh token is good for now. Raises StorageBusy."""

        def work(connection: Connection) -> Grant | None:
            row = self._grant_of(connection, token, lock=False)
            if row is None or row.revoked_at is not None or row.expires_at <= to_text(self._clock()):
                return None
            return _grant(row) if digest(token) in (row.current, row.previous) else None

        return await self._database.read(work)

    async def end(self, grant_id: str, client_id: str) -> bool:
        """End a client's grant; whether it was not over. Raises OAuthError when it is another client's, StorageBusy."""

        def work(connection: Connection) -> bool:
            owner = connection.execute(select(_G.client_id).where(_G.id == grant_id)).scalar()
            if owner not in (None, client_id):
                raise OAuthError("invalid_grant", "the token was issued to another client")
            return _end(connection, grant_id, to_text(self._clock()), "by the application")

        return await self._database.write(work)

    async def agreed(self, user: Principal, client_id: str, resource: str) -> frozenset[str]:
        """What the user lets this client do already. Raises StorageBusy."""
        statement = select(_G.scopes).where(
            *_live(to_text(self._clock())), _G.workspace_id == user.workspace, _G.user_id == user.user_id,
            _G.client_id == client_id, _G.resource == resource,
        )  # fmt: skip

        def work(connection: Connection) -> frozenset[str]:
            return frozenset(scope for row in connection.execute(statement) for scope in row.scopes.split())

        return await self._database.read(work)

    async def list(self, caller: Caller, *, user: str | None = None, everybody: bool = False) -> list[Grant]:
        """The applications that the caller has connected, those used last first; for operators those of a user (id), or
        all. Raises Forbidden and StorageBusy."""
        own = not everybody and user in (None, caller.principal.user_id)
        _check(caller, own=own)
        statement = _grants(to_text(self._clock())).where(_G.workspace_id == caller.principal.workspace)
        if not everybody:
            statement = statement.where(_G.user_id == (user or caller.principal.user_id))

        def work(connection: Connection) -> list[Grant]:
            return [_grant(row) for row in connection.execute(statement)]

        return await self._database.read(work)

    async def revoke(self, caller: Caller, grant_id: str) -> None:
        """End a grant of the caller's; for operators, anybody's. Raises GrantNotFound, Forbidden and StorageBusy."""

        def work(connection: Connection) -> None:
            now = to_text(self._clock())
            found = _grants(now).where(_G.id == grant_id, _G.workspace_id == caller.principal.workspace)
            row = connection.execute(found).first()
            own = row is not None and row.user_id == caller.principal.user_id
            _check(caller, own=own or row is None)
            if row is None or not _end(connection, grant_id, now, "by hand", caller):
                raise GrantNotFound(grant_id)

        await self._database.write(work)

    async def forget(self) -> None:
        """Remove what is over and of no more use. Raises StorageBusy."""
        now = self._clock()
        old = to_text(now - IDLE)

        def work(connection: Connection) -> None:
            connection.execute(delete(oauth_codes).where(_C.expires_at < to_text(now - CODES_KEPT)))
            over = select(_G.id).where((_G.expires_at < old) | (_G.revoked_at < old))
            connection.execute(delete(oauth_refresh_tokens).where(_R.grant_id.in_(over)))
            connection.execute(delete(oauth_grants).where((_G.expires_at < old) | (_G.revoked_at < old)))
            # The two that are good are younger, or their grant has expired.
            connection.execute(delete(oauth_refresh_tokens).where(_R.created_at < to_text(now - 2 * IDLE)))
            documents = oauth_client_documents
            connection.execute(delete(documents).where(documents.c.expires_at < old))

        await self._database.write(work)

    # What is asked of the grants that tokens name

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """Who gave those of the grants that are not revoked, by id; they may have expired. Raises StorageBusy."""

        def work(connection: Connection) -> Mapping[str, Holder]:
            rows = (row for part in parts(ids) for row in connection.execute(_HOLDERS.where(_G.id.in_(part))))
            return {row.id: holder_of_grant(row, row.id, row.scopes.split(), row.expires_at) for row in rows}

        return await self._database.read(work)

    async def used(self, ids: Collection[str]) -> None:
        """Note that grants were used about now. Raises StorageBusy."""
        now = to_text(self._clock())

        def work(connection: Connection) -> None:
            for part in parts(ids):
                connection.execute(update(oauth_grants).where(_G.id.in_(part)).values(used_at=now))

        if ids:
            await self._database.write(work)

    def _grant_of(self, connection: Connection, token: str, *, lock: bool = True) -> Row[Any] | None:
        if not well_formed(token):
            return None
        statement = select(oauth_grants).join(oauth_refresh_tokens, _R.grant_id == _G.id)
        statement = statement.where(_R.digest == digest(token))
        return connection.execute(statement.with_for_update(of=oauth_grants) if lock else statement).first()

    def _successor(self, token: str, nonce: str) -> str:
        """The refresh token that follows, for who has this one: the database alone has not enough to make it."""
        return new_secret(REFRESH_PREFIX, hmac.digest(self._secret, f"{nonce} {token}".encode(), "sha256"))


class Reused(OAuthError):
    """What may be used once was used again, and what it was good for has ended."""

    def __init__(self, description: str) -> None:
        super().__init__("invalid_grant", description)


def _joined(scopes: Collection[str]) -> str:
    return " ".join(sorted(scopes))


def _live(now: str) -> tuple[Any, ...]:
    return _G.revoked_at.is_(None), _G.expires_at > now


def _grants(now: str) -> Select[Any]:
    return select(oauth_grants).where(*_live(now)).order_by(_G.used_at.desc(), _G.id)


def _grant(row: Any) -> Grant:
    return Grant(
        id=row.id,
        user=row.user_id,
        client_id=row.client_id,
        name=row.client_name,
        host=shown(row.redirect_uri),
        scopes=row.scopes.split(),
        created_at=row.created_at,
        used_at=row.used_at,
        expires_at=row.expires_at,
    )


def _check(caller: Caller, *, own: bool) -> None:
    """Applications do not look after each other: only people do, and operators."""
    if not own or (caller.principal.credential or "").startswith(TOKEN_IDS):
        require(caller, "admin")


def _user(connection: Connection, workspace: str, user_id: str) -> Row[Any] | None:
    statement = select(
        users.c.workspace_id, users.c.id.label("user_id"), users.c.kind, users.c.role
    ).where(users.c.workspace_id == workspace, users.c.id == user_id, users.c.active)  # fmt: skip
    return connection.execute(statement).first()


def _allowed(connection: Connection, row: Any) -> frozenset[Scope]:
    """What the user may do now of what was agreed to. Raises OAuthError."""
    user = _user(connection, row.workspace_id, row.user_id)
    scopes = frozenset[Scope]() if user is None else principal_of(user, "", row.scopes.split()).scopes
    if not scopes:
        raise OAuthError("invalid_grant", "the user may not do any more what was granted")
    return scopes


def _check_resource(given: str | None, own: str) -> None:
    if given not in (None, own):
        raise OAuthError("invalid_target", "this was granted for another resource")


def _store(connection: Connection, agreed: Any, issued: Issued, now: str) -> None:
    row = {
        "id": issued.grant, "workspace_id": agreed.workspace_id, "user_id": agreed.user_id,
        "client_id": agreed.client_id, "client_name": agreed.client_name, "redirect_uri": agreed.redirect_uri,
        "resource": agreed.resource, "scopes": agreed.scopes, "created_at": now,
        "expires_at": later(now, IDLE.total_seconds()), "revoked_at": None, "used_at": now,
        "current": digest(issued.refresh_token), "previous": None, "nonce": "", "rotated_at": now,
    }  # fmt: skip
    connection.execute(insert(oauth_grants), row)
    _remember(connection, issued.refresh_token, issued.grant, now)


def _remember(connection: Connection, token: str, grant_id: str, now: str) -> None:
    row = {"digest": digest(token), "grant_id": grant_id, "created_at": now}
    connection.execute(insert(oauth_refresh_tokens), row)


def _end(connection: Connection, grant_id: str, now: str, why: str, by: Caller | None = None) -> bool:
    """End a grant; whether it was not revoked before. `why` is for the audit log."""
    statement = update(oauth_grants).where(_G.id == grant_id, _G.revoked_at.is_(None)).values(revoked_at=now)
    if not connection.execute(statement).rowcount:
        return False
    raise_version(connection)
    row: Any = connection.execute(select(oauth_grants).where(_G.id == grant_id)).one()
    told = {**_told(row), "why": why}
    if by is not None:
        record(connection, Entry.by(by, "application.disconnected", grant_id, **told))
    else:
        record(connection, Entry("application.disconnected", row.workspace_id, target=grant_id, details=told))
    return True


def _told(row: Any) -> dict[str, Any]:
    """What the audit log tells of a grant, or of the code that it came from."""
    return {"user": row.user_id, "client": row.client_id, "name": row.client_name, "scopes": row.scopes.split()}
