"""API keys in the database. A key is found by its SHA-256, so the table is of no use to whoever reads it."""

import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, replace
from typing import Any, Final

import orjson
from sqlalchemy import Connection, Row, Select, bindparam, insert, or_, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller, OwnLimits, Scope
from taskhub.auth.roles import SCOPES_OF_ROLE
from taskhub.auth.secret import API_KEY_PREFIX, digest, new_secret
from taskhub.credentials.holder import Holder, principal_of
from taskhub.credentials.version import raise_version
from taskhub.keys.model import ApiKey, IssuedKey, KeyChange, KeyNotFound, KeyOver, NewKey, Rotation
from taskhub.storage.database import Database
from taskhub.storage.schema import api_keys, users
from taskhub.storage.times import Clock, later, to_text, utc_now
from taskhub.storage.transaction import lock_workspace
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.model import User
from taskhub.tickets.reference import UnknownReference, load
from taskhub.tickets.requests import require

_K: Final = api_keys.c
_HOLDERS: Final = select(
    _K.id, _K.workspace_id, _K.digest, _K.scopes, _K.limits, _K.expires_at, _K.revoked_at,
    users.c.id.label("user_id"), users.c.kind, users.c.role,
).join(users, (users.c.workspace_id == _K.workspace_id) & (users.c.id == _K.user_id) & users.c.active)  # fmt: skip
_BY_DIGEST: Final = _HOLDERS.where(_K.digest == bindparam("digest"))
_GOOD: Final = (_K.revoked_at.is_(None), or_(_K.expires_at.is_(None), _K.expires_at > bindparam("now")))
_ANY: Final = _HOLDERS.where(*_GOOD).limit(1)
_IN_ORDER: Final = (_K.created_at, _K.id)


class KeyStore:
    """Makes, lists and ends keys. Who manages them needs the scope `admin`, and cannot give more than it has itself.

    A CredentialStore.
    """

    secret_prefix = API_KEY_PREFIX
    id_prefix = "key_"

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock

    async def create(self, caller: Caller, new: NewKey) -> IssuedKey:
        """Make a key. Raises InvalidInput, Forbidden and StorageBusy."""
        require(caller, "admin")
        now, secret = to_text(self._clock()), new_secret(API_KEY_PREFIX)
        expires_at = None if new.expires_at is None else to_text(new.expires_at)
        if expires_at is not None and expires_at <= now:
            raise InvalidInput([InputProblem("/expires_at", "must be in the future")])

        def work(connection: Connection) -> ApiKey:
            lock_workspace(connection, caller.principal.workspace)  # else the user could be removed meanwhile
            user = _user(connection, caller.principal.workspace, new.user)
            _check_scopes(new.scopes, user)
            key = ApiKey(
                id=f"{self.id_prefix}{secrets.token_hex(8)}",
                user=user.id,
                name=new.name,
                scopes=new.scopes,
                created_at=now,
                created_by=caller.principal.actor,
                expires_at=expires_at,
                revoked_at=None,
                last_used_at=None,
                limits=None if new.limits is None else new.limits.own,
            )
            _store(connection, caller.principal.workspace, key, secret)
            record(connection, Entry.by(caller, "key.created", key.id, **_told(key)), self._clock())
            return key

        return IssuedKey(secret, await self._database.write(work))

    async def list(self, caller: Caller, *, user: str | None = None) -> list[ApiKey]:
        """The keys of the workspace, or of a user of it (id), in the order in which they were made.

        Raises Forbidden and StorageBusy."""
        require(caller, "admin")
        statement = select(api_keys).where(_K.workspace_id == caller.principal.workspace).order_by(*_IN_ORDER)
        if user is not None:
            statement = statement.where(_K.user_id == user)

        def work(connection: Connection) -> list[ApiKey]:
            return [_key(row) for row in connection.execute(statement)]

        return await self._database.read(work)

    async def get(self, caller: Caller, key_id: str) -> ApiKey:
        """Raises KeyNotFound, Forbidden and StorageBusy."""
        require(caller, "admin")
        return await self._database.read(lambda connection: _found(connection, caller.principal.workspace, key_id))

    async def change(self, caller: Caller, key_id: str, change: KeyChange) -> ApiKey:
        """Give a key other limits. Raises KeyNotFound, KeyOver, Forbidden and StorageBusy."""
        require(caller, "admin")

        def work(connection: Connection) -> ApiKey:
            lock_workspace(connection, caller.principal.workspace)
            old = self._good(connection, caller, key_id)
            key = replace(old, limits=change.applied(old.limits))
            if key != old:
                connection.execute(update(api_keys).where(_K.id == key_id).values(limits=_limits_text(key)))
                raise_version(connection)
                record(connection, Entry.by(caller, "key.changed", key.id, **_told(key)), self._clock())
            return key

        return await self._database.write(work)

    def _good(self, connection: Connection, caller: Caller, key_id: str) -> ApiKey:
        """A key that is not over. Raises KeyNotFound and KeyOver."""
        key = _found(connection, caller.principal.workspace, key_id)
        if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= to_text(self._clock())):
            raise KeyOver(key_id)
        return key

    async def revoke(self, caller: Caller, key_id: str) -> ApiKey:
        """End a key. Once more does nothing. Raises KeyNotFound, Forbidden and StorageBusy."""
        require(caller, "admin")
        now = to_text(self._clock())

        def work(connection: Connection) -> ApiKey:
            lock_workspace(connection, caller.principal.workspace)
            key = _found(connection, caller.principal.workspace, key_id)
            if key.revoked_at is not None:
                return key
            connection.execute(update(api_keys).where(_K.id == key_id).values(revoked_at=now))
            raise_version(connection)
            record(connection, Entry.by(caller, "key.revoked", key.id, **_told(key)), self._clock())
            return replace(key, revoked_at=now)

        return await self._database.write(work)

    async def rotate(self, caller: Caller, key_id: str, rotation: Rotation) -> IssuedKey:
        """Make a key that replaces this one, which stays good for `overlap_s` at most. Raises KeyNotFound, KeyOver,
        Forbidden and StorageBusy."""
        require(caller, "admin")
        now, secret = to_text(self._clock()), new_secret(API_KEY_PREFIX)

        def work(connection: Connection) -> ApiKey:
            lock_workspace(connection, caller.principal.workspace)
            old = self._good(connection, caller, key_id)
            until = later(now, rotation.overlap_s)
            if old.expires_at is None or until < old.expires_at:
                connection.execute(update(api_keys).where(_K.id == key_id).values(expires_at=until))
            key = replace(
                old,
                id=f"{self.id_prefix}{secrets.token_hex(8)}",
                created_at=now,
                created_by=caller.principal.actor,
                last_used_at=None,
            )
            _store(connection, caller.principal.workspace, key, secret)
            raise_version(connection)
            told = {**_told(key), "replaces": old.id, "overlap_s": rotation.overlap_s}
            record(connection, Entry.by(caller, "key.rotated", key.id, **told), self._clock())
            return key

        return IssuedKey(secret, await self._database.write(work))

    # What the ring asks

    async def holder(self, secret: str) -> Holder | None:
        """Who has a key, if it is good now. Raises StorageBusy."""
        now, given = to_text(self._clock()), {"digest": digest(secret)}

        def work(connection: Connection) -> Holder | None:
            row: Any = connection.execute(_BY_DIGEST, given).first()
            holder = None if row is None else _holder(row)
            return None if holder is None or (holder.expires_at is not None and holder.expires_at <= now) else holder

        return await self._database.read(work)

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """The holders of those of the keys that are not revoked, by id; they may have expired. Raises StorageBusy."""
        wanted = sorted(ids)

        def work(connection: Connection) -> Mapping[str, Holder]:
            found: dict[str, Holder] = {}
            for row in _by_ids(connection, _HOLDERS, wanted):
                if (holder := _holder(row)) is not None:
                    found[row.id] = holder
            return found

        return await self._database.read(work)

    async def any(self) -> bool:
        """Whether there is a key with which somebody gets in. Raises StorageBusy."""
        given = {"now": to_text(self._clock())}
        return await self._database.read(lambda connection: connection.execute(_ANY, given).first() is not None)

    async def used(self, ids: Collection[str]) -> None:
        """Note that keys were used about now. Raises StorageBusy."""
        now, wanted = to_text(self._clock()), list(ids)

        def work(connection: Connection) -> None:
            connection.execute(
                update(api_keys).where(_K.id == bindparam("key_id")).values(last_used_at=now),
                [{"key_id": key_id} for key_id in wanted],
            )

        if wanted:
            await self._database.write(work)


def _store(connection: Connection, workspace: str, key: ApiKey, secret: str) -> None:
    row = {
        "id": key.id, "workspace_id": workspace, "user_id": key.user, "name": key.name, "digest": digest(secret),
        "scopes": None if key.scopes is None else " ".join(key.scopes), "created_at": key.created_at,
        "created_by": key.created_by, "expires_at": key.expires_at, "revoked_at": None, "last_used_at": None,
        "limits": _limits_text(key),
    }  # fmt: skip
    connection.execute(insert(api_keys), row)


def _told(key: ApiKey) -> dict[str, Any]:
    """A key as the audit log tells of it."""
    limits = None if key.limits is None else asdict(key.limits)
    return {
        "user": key.user, "name": key.name, "scopes": key.scopes, "expires_at": key.expires_at, "limits": limits,
    }  # fmt: skip


def _limits_text(key: ApiKey) -> str | None:
    return None if key.limits is None else orjson.dumps(key.limits).decode()


def _limits(text: str | None) -> OwnLimits | None:
    return None if text is None else OwnLimits(**orjson.loads(text))


def _user(connection: Connection, workspace: str, text: str) -> User:
    """A user in use, by id or name. Raises InvalidInput."""
    known = load(connection, workspace, version=0)
    try:
        user_id = known.entries["users"].find(text)
    except UnknownReference as unknown:
        raise InvalidInput([unknown.problem("/user")]) from None
    return next(user for user in known.users if user.id == user_id)


def _check_scopes(scopes: list[Scope] | None, user: User) -> None:
    """Raise InvalidInput for what the user may not do: the key would look as if it could."""
    allowed = SCOPES_OF_ROLE[user.role]
    if beyond := [scope for scope in scopes or () if scope not in allowed]:
        reason = f"{', '.join(beyond)}: {user.name} may not do that, being {user.role}"
        raise InvalidInput([InputProblem("/scopes", reason, tuple(sorted(allowed)))])


def _found(connection: Connection, workspace: str, key_id: str) -> ApiKey:
    statement = select(api_keys).where(_K.id == key_id, _K.workspace_id == workspace)
    row = connection.execute(statement).first()
    if row is None:
        raise KeyNotFound(key_id)
    return _key(row)


def _by_ids(connection: Connection, statement: Select[Any], ids: list[str]) -> Iterable[Row[Any]]:
    for start in range(0, len(ids), 500):
        yield from connection.execute(statement.where(_K.id.in_(ids[start : start + 500])))


def _key(row: Row[Any]) -> ApiKey:
    return ApiKey(
        id=row.id,
        user=row.user_id,
        name=row.name,
        scopes=None if row.scopes is None else row.scopes.split(),
        created_at=row.created_at,
        created_by=row.created_by,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
        last_used_at=row.last_used_at,
        limits=_limits(row.limits),
    )


def _holder(row: Any) -> Holder | None:
    if row.revoked_at is not None:
        return None
    scopes = None if row.scopes is None else row.scopes.split()
    return Holder(replace(principal_of(row, row.id, scopes), limits=_limits(row.limits)), row.expires_at)
