"""Sessions in the database. As an API key, one is found by the SHA-256 of its secret."""

import secrets
from collections.abc import Collection, Mapping
from typing import Any, Final

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller, Principal
from taskhub.auth.secret import SESSION_PREFIX, digest, new_secret
from taskhub.credentials.holder import Holder, parts, principal_of
from taskhub.credentials.version import raise_version
from taskhub.sign_in.errors import NoSession, SessionNotFound
from taskhub.sign_in.model import Session, SignedIn, SignedInBy, Visitor
from taskhub.storage.database import Database
from taskhub.storage.schema import passwords, sessions, users
from taskhub.storage.times import Clock, later, to_text, utc_now

MAX_USER_AGENT: Final = 200
ID_PREFIX: Final = "ses_"

_S: Final = sessions.c
_HOLDERS: Final = select(
    _S.id, _S.workspace_id, _S.digest, _S.last_used_at, _S.expires_at, users.c.id.label("user_id"), users.c.kind,
    users.c.role,
).join(users, (users.c.workspace_id == _S.workspace_id) & (users.c.id == _S.user_id) & users.c.active).where(
    _S.ended_at.is_(None)
)  # fmt: skip
_BY_DIGEST: Final = _HOLDERS.where(_S.digest == bindparam("digest"))
_NOTE_USE: Final = (
    update(sessions).where(_S.id == bindparam("session_id")).values(last_used_at=bindparam("now"))
)  # fmt: skip


class SessionStore:
    """Opens, lists and ends sessions; a CredentialStore.

    A session that nobody uses ends after `idle_s`: a browser that was lost or sold lets nobody in for long. One in use
    ends `max_s` after it began: a copied cookie is not good for ever, either.
    """

    secret_prefix = SESSION_PREFIX
    id_prefix = ID_PREFIX

    def __init__(self, database: Database, *, idle_s: float, max_s: float, clock: Clock = utc_now) -> None:
        self._database = database
        self._idle_s = idle_s
        self._max_s = max_s
        self._clock = clock

    def open(self, connection: Connection, user: Any, by: SignedInBy, visitor: Visitor) -> tuple[str, str]:
        """A new session of a user (a row of users); its secret and its id. The one that the browser had ends."""
        now, secret, session_id = to_text(self._clock()), new_secret(SESSION_PREFIX), ID_PREFIX + secrets.token_hex(8)
        # Nobody wants to know any more what ended long ago.
        connection.execute(delete(sessions).where(_S.expires_at < now))
        if visitor.replacing is not None:
            _end(connection, now, _S.digest == digest(visitor.replacing))
        row = {
            "id": session_id, "workspace_id": user.workspace_id, "user_id": user.id, "digest": digest(secret),
            "opened_by": by, "user_agent": visitor.user_agent[:MAX_USER_AGENT], "created_at": now, "last_used_at": now,
            "expires_at": later(now, self._max_s), "ended_at": None,
        }  # fmt: skip
        connection.execute(insert(sessions), row)
        entry = Entry(
            "session.opened", user.workspace_id, f"user:{user.id}", session_id, credential=session_id,
            address=visitor.address, request_id=visitor.request_id, details={"by": by},
        )  # fmt: skip
        record(connection, entry, self._clock())
        return secret, session_id

    async def current(self, principal: Principal) -> SignedIn:
        """Who is signed in by the session with which somebody came. Raises NoSession and StorageBusy."""
        session_id = session_of(principal)
        return await self._database.read(lambda connection: self.signed_in(connection, session_id))

    def signed_in(self, connection: Connection, session_id: str) -> SignedIn:
        """Raises NoSession when it has just ended."""
        statement = (
            select(sessions, users.c.name, users.c.kind, users.c.role, passwords.c.user_id.label("password_of"))
            .join(users, (users.c.workspace_id == _S.workspace_id) & (users.c.id == _S.user_id))
            .outerjoin(
                passwords, (passwords.c.workspace_id == _S.workspace_id) & (passwords.c.user_id == _S.user_id)
            )
            .where(_S.id == session_id, _S.ended_at.is_(None))
        )  # fmt: skip
        row: Any = connection.execute(statement).first()
        if row is None:
            raise NoSession
        return SignedIn(
            actor=principal_of(row, row.id).actor,
            user=row.user_id,
            name=row.name,
            has_password=row.password_of is not None,
            session=self._session(row, session_id),
        )

    async def list(self, principal: Principal) -> list[Session]:
        """The sessions of who came with one, the newest first. Raises NoSession and StorageBusy."""
        current, now = session_of(principal), to_text(self._clock())
        statement = select(sessions).where(*_of(principal), _S.ended_at.is_(None)).order_by(_S.created_at.desc(), _S.id)

        def work(connection: Connection) -> list[Session]:
            found = [self._session(row, current) for row in connection.execute(statement)]
            return [session for session in found if session.ends_at > now]

        return await self._database.read(work)

    async def end(self, caller: Caller, session_id: str) -> None:
        """End a session of who came with one. Raises NoSession, SessionNotFound and StorageBusy."""
        session_of(caller.principal)
        if not await self._end(caller, session_id, *_of(caller.principal), _S.id == session_id):
            raise SessionNotFound(session_id)

    async def end_current(self, caller: Caller) -> None:
        """Sign out. Raises NoSession and StorageBusy."""
        current = session_of(caller.principal)
        await self._end(caller, current, _S.id == current)

    async def end_all(self, caller: Caller) -> None:
        """Sign out everywhere. Raises NoSession and StorageBusy."""
        session_of(caller.principal)
        await self._end(caller, None, *_of(caller.principal))

    async def end_all_of(self, caller: Caller, user_id: str) -> int:
        """End the sessions of a user, and say how many there were. Raises StorageBusy."""
        of_user = (_S.workspace_id == caller.principal.workspace, _S.user_id == user_id)
        return await self._end(caller, user_id, *of_user)

    def end_others(self, connection: Connection, workspace: str, user_id: str, *, but: str | None) -> int:
        """Within a transaction: end the sessions of a user, all `but` one; how many there were."""
        others = (_S.workspace_id == workspace, _S.user_id == user_id, _S.id != (but or ""))
        return _end(connection, to_text(self._clock()), *others)

    async def _end(self, caller: Caller, target: str | None, *which: Any) -> int:
        """`target`: the session, or the user whose they all are; None for the caller."""
        now = self._clock()

        def work(connection: Connection) -> int:
            if ended := _end(connection, to_text(now), *which):
                record(connection, Entry.by(caller, "session.ended", target, sessions=ended), now)
            return ended

        return await self._database.write(work)

    # What the ring asks

    async def holder(self, secret: str) -> Holder | None:
        """Who has a session, if it is good now. Raises StorageBusy."""
        now, given = to_text(self._clock()), {"digest": digest(secret)}

        def work(connection: Connection) -> Holder | None:
            row = connection.execute(_BY_DIGEST, given).first()
            holder = None if row is None else self._holder(row)
            return None if holder is None or (holder.expires_at or now) <= now else holder

        return await self._database.read(work)

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """The holders of those of the sessions that have not been ended, by id. Raises StorageBusy."""

        def work(connection: Connection) -> Mapping[str, Holder]:
            rows = (row for part in parts(ids) for row in connection.execute(_HOLDERS.where(_S.id.in_(part))))
            return {row.id: self._holder(row) for row in rows}

        return await self._database.read(work)

    async def used(self, ids: Collection[str]) -> None:
        """Note that sessions were used about now. Raises StorageBusy."""
        now = to_text(self._clock())
        given = [{"session_id": each, "now": now} for each in ids]
        if given:
            await self._database.write(lambda connection: connection.execute(_NOTE_USE, given))

    def _ends_at(self, row: Any) -> str:
        return min(later(row.last_used_at, self._idle_s), str(row.expires_at))

    def _holder(self, row: Any) -> Holder:
        return Holder(principal_of(row, row.id), self._ends_at(row))

    def _session(self, row: Any, current: str) -> Session:
        return Session(
            id=row.id,
            by=row.opened_by,
            user_agent=row.user_agent,
            created_at=row.created_at,
            last_used_at=row.last_used_at,
            ends_at=self._ends_at(row),
            expires_at=row.expires_at,
            current=row.id == current,
        )


def session_of(principal: Principal) -> str:
    """The id of the session with which somebody came. Raises NoSession."""
    if principal.credential is None or not principal.credential.startswith(ID_PREFIX):
        raise NoSession
    return principal.credential


def _of(principal: Principal) -> tuple[Any, ...]:
    """Conditions: the sessions of the user who came with one, by whatever name it goes."""
    own = select(_S.user_id).where(_S.id == session_of(principal)).scalar_subquery()
    return (_S.workspace_id == principal.workspace, _S.user_id == own)


def _end(connection: Connection, now: str, *which: Any) -> int:
    ended = connection.execute(update(sessions).where(*which, _S.ended_at.is_(None)).values(ended_at=now)).rowcount
    if ended:
        raise_version(connection)
    return ended
