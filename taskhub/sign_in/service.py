"""Signing in: by name and password, or by a link that works once."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Connection, delete, insert, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller
from taskhub.auth.secret import SIGN_IN_LINK_PREFIX, digest, new_secret
from taskhub.rates import Rate, household
from taskhub.sign_in.errors import LINK_OVER, WRONG_PASSWORD, OpenIdRefused, SignInRefused, TooManyAttempts
from taskhub.sign_in.model import NewPassword, Opened, SignedInBy, SignInLink, Visitor
from taskhub.sign_in.passwords import PasswordHash, Passwords
from taskhub.sign_in.sessions import SessionStore, session_of
from taskhub.storage.database import Database
from taskhub.storage.names import normalise
from taskhub.storage.schema import identities, passwords, sessions, sign_in_links, users
from taskhub.storage.times import Clock, later, to_text, utc_now
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.reference import UnknownReference, load

LINK_S: Final = 900
"""How long a link works: it is made for somebody who waits for it."""
WITHOUT_PASSWORD: Final = timedelta(minutes=15)
"""For how long after a link was used its session may set a new password without the old one, which is lost."""
FAILURES_WITHIN_S: Final = 900.0
PER_USER: Final = 10
"""Failures of one user's name from one address, at once and within that time."""
PER_ADDRESS: Final = 50
"""Of all names: an office has one address."""
PER_USER_ANYWHERE: Final = 100
"""From all addresses. More than one has, so that nobody keeps somebody else out; and a link is always a way in."""

_P: Final = passwords.c
_L: Final = sign_in_links.c


class SignIn:
    """Opens sessions, and knows what opens them. Methods raise StorageBusy."""

    def __init__(
        self,
        database: Database,
        sessions: SessionStore,
        *,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sessions = sessions
        self._database = database
        self._clock = clock
        self.passwords = Passwords()
        self._attempts = [
            Rate(at_once / FAILURES_WITHIN_S, at_once, clock=monotonic)
            for at_once in (PER_ADDRESS, PER_USER, PER_USER_ANYWHERE)
        ]

    def close(self) -> None:
        """Nobody can sign in by a password any more."""
        self.passwords.close()

    async def by_password(self, workspace: str, name: str, password: str, visitor: Visitor) -> Opened:
        """Open a session for a person of the workspace, by id or name. What fails takes as long whoever it is.

        Raises SignInRefused and TooManyAttempts.
        """
        who = f"{workspace} {normalise(name)}"[:200]
        self._count(who, visitor.address)
        user, stored = await self._database.read(lambda connection: _with_password(connection, workspace, name))
        if not await self.passwords.fit(password, stored) or user is None or stored is None:
            raise SignInRefused(WRONG_PASSWORD)
        renewed = await self._renewed(password, stored)

        def work(connection: Connection) -> Opened:
            # Looked at again: what was good when it was read may have been changed since.
            if _with_password(connection, workspace, user.id)[1] != stored:
                raise SignInRefused(WRONG_PASSWORD)
            if renewed is not None:
                connection.execute(update(passwords).where(*_of(workspace, user.id)).values(hash=renewed))
            return self._open(connection, user, "password", visitor)

        opened = await self._database.write(work)
        self._succeeded(who, visitor.address)
        return opened

    async def by_link(self, secret: str, visitor: Visitor) -> Opened:
        """Open a session by a link, of whatever workspace; it is over with that.

        Raises SignInRefused and TooManyAttempts."""
        self._count(None, visitor.address)
        now = to_text(self._clock())
        usable = (_L.digest == digest(secret), _L.used_at.is_(None), _L.expires_at > now)

        def work(connection: Connection) -> Opened:
            row = connection.execute(select(_L.workspace_id, _L.user_id).where(*usable)).first()
            user = None if row is None else _person(connection, row.workspace_id, row.user_id)
            # The one of two who come at the same time that changes the row is let in.
            used = connection.execute(update(sign_in_links).where(*usable).values(used_at=now)).rowcount
            if user is None or not used:
                raise SignInRefused(LINK_OVER)
            return self._open(connection, user, "link", visitor)

        opened = await self._database.write(work)
        self._succeeded(None, visitor.address)
        return opened

    def attempt(self, visitor: Visitor) -> None:
        """Count that somebody has come back from a provider, for whom `by_openid` is next. Raises TooManyAttempts."""
        self._count(None, visitor.address)

    async def by_openid(self, workspace: str, user_id: str, visitor: Visitor) -> Opened:
        """Open a session for the user who somebody is to an OpenID provider. Raises OpenIdRefused."""

        def work(connection: Connection) -> Opened:
            user = _person(connection, workspace, user_id)
            if user is None:
                raise OpenIdRefused("unknown", f"{user_id} is not in use, or no person")
            return self._open(connection, user, "openid", visitor)

        opened = await self._database.write(work)
        self._succeeded(None, visitor.address)
        return opened

    async def change_password(self, caller: Caller, new: NewPassword) -> None:
        """Set the password of who came with a session; its other sessions end. Raises NoSession, InvalidInput and
        TooManyAttempts."""
        session_id, address = session_of(caller.principal), caller.address
        statement = select(sessions, _P.hash).outerjoin(
            passwords, (_P.workspace_id == sessions.c.workspace_id) & (_P.user_id == sessions.c.user_id)
        )
        found = statement.where(sessions.c.id == session_id)
        row: Any = await self._database.read(lambda connection: connection.execute(found).one())
        since = to_text(self._clock() - WITHOUT_PASSWORD)
        lost = row.opened_by == "link" and row.created_at > since
        if row.hash is not None and not lost:
            if new.current_password is None:
                raise InvalidInput([InputProblem("/current_password", "is required")])
            who = f"{row.workspace_id} {normalise(row.user_id)}"
            self._count(who, address)
            if not await self.passwords.fit(new.current_password.get_secret_value(), row.hash):
                raise InvalidInput([InputProblem("/current_password", "is not your password")])
            self._succeeded(who, address)
        await self._set(caller, row.user_id, new, but=session_id)

    async def set_password(self, caller: Caller, name: str, new: NewPassword) -> str:
        """Set the password of a person, by id or name; its sessions end. Answers the id. Raises InvalidInput."""
        workspace = caller.principal.workspace
        user = await self._database.read(lambda connection: _found(connection, workspace, name))
        await self._set(caller, user.id, new, but=None)
        return str(user.id)

    async def new_link(self, caller: Caller, name: str) -> SignInLink:
        """A link for a person, by id or name; those made before are over. Raises InvalidInput."""
        workspace, now, secret = caller.principal.workspace, to_text(self._clock()), new_secret(SIGN_IN_LINK_PREFIX)
        expires_at = later(now, LINK_S)

        def work(connection: Connection) -> SignInLink:
            user = _found(connection, workspace, name)
            earlier = (_L.workspace_id == workspace, _L.user_id == user.id)
            connection.execute(delete(sign_in_links).where(*earlier))
            connection.execute(delete(sign_in_links).where(_L.expires_at < now))
            row = {
                "digest": digest(secret), "workspace_id": workspace, "user_id": user.id, "created_at": now,
                "created_by": caller.principal.actor, "expires_at": expires_at, "used_at": None,
            }  # fmt: skip
            connection.execute(insert(sign_in_links), row)
            entry = Entry.by(caller, "sign_in_link.created", user.id, expires_at=expires_at)
            record(connection, entry, self._clock())
            return SignInLink(secret, user.id, expires_at)

        return await self._database.write(work)

    async def sign_out(self, caller: Caller, name: str) -> int:
        """End the sessions of a user, by id or name; how many there were. Raises InvalidInput."""
        workspace = caller.principal.workspace
        user = await self._database.read(lambda connection: _found(connection, workspace, name))
        return await self.sessions.end_all_of(caller, user.id)

    async def unlink(self, caller: Caller, name: str) -> int:
        """Forget who a user, by id or name, is to OpenID providers, and end its sessions; to how many it was somebody.
        Raises InvalidInput."""
        workspace = caller.principal.workspace

        def work(connection: Connection) -> int:
            user = _found(connection, workspace, name)
            own = (identities.c.workspace_id == workspace, identities.c.user_id == user.id)
            forgotten = connection.execute(delete(identities).where(*own)).rowcount
            if forgotten:
                self.sessions.end_others(connection, workspace, user.id, but=None)
                record(connection, Entry.by(caller, "identity.removed", user.id), self._clock())
            return forgotten

        return await self._database.write(work)

    async def with_password(self, workspace: str) -> frozenset[str]:
        """The ids of those who have one."""
        statement = select(_P.user_id).where(_P.workspace_id == workspace)
        return await self._database.read(lambda connection: frozenset(connection.execute(statement).scalars()))

    async def anybody(self) -> bool:
        """Whether somebody has a password who can sign in by it."""
        statement = select(_P.user_id).join(
            users, (users.c.workspace_id == _P.workspace_id) & (users.c.id == _P.user_id) & users.c.active
        )
        return await self._database.read(lambda connection: connection.execute(statement.limit(1)).first() is not None)

    def _count(self, user: str | None, address: str | None) -> None:
        """Somebody tries to get in. Raises TooManyAttempts."""
        for rate, key in self._counted(user, address):
            if wait_s := rate.take(key):
                raise TooManyAttempts(wait_s)

    def _succeeded(self, user: str | None, address: str | None) -> None:
        """What was counted was no failure."""
        for rate, key in self._counted(user, address):
            rate.give_back(key)

    def _counted(self, user: str | None, address: str | None) -> Iterator[tuple[Rate, str]]:
        sender = household(address or "")
        keys = [sender] if user is None else [sender, f"{sender} {user}", user]
        return zip(self._attempts, keys, strict=False)

    async def _renewed(self, password: str, stored: str) -> str | None:
        """The hash anew, when new ones cost more to try than this one."""
        same = PasswordHash.parse(stored).cost == self.passwords.cost
        return None if same else await self.passwords.hashed(password)

    def _open(self, connection: Connection, user: Any, by: SignedInBy, visitor: Visitor) -> Opened:
        secret, session_id = self.sessions.open(connection, user, by, visitor)
        return Opened(secret, self.sessions.signed_in(connection, session_id))

    async def _set(self, caller: Caller, user_id: str, new: NewPassword, *, but: str | None) -> None:
        workspace = caller.principal.workspace
        now, stored = to_text(self._clock()), await self.passwords.hashed(new.password.get_secret_value())

        def work(connection: Connection) -> None:
            # One after the other: both would find no row, and insert one.
            own = (users.c.workspace_id == workspace, users.c.id == user_id)
            connection.execute(select(users.c.id).where(*own).with_for_update())
            connection.execute(delete(passwords).where(*_of(workspace, user_id)))
            row = {"workspace_id": workspace, "user_id": user_id, "hash": stored, "changed_at": now}
            connection.execute(insert(passwords), row)
            ended = self.sessions.end_others(connection, workspace, user_id, but=but)
            entry = Entry.by(caller, "password.changed", user_id, sessions_ended=ended)
            record(connection, entry, self._clock())

        await self._database.write(work)


def _of(workspace: str, user_id: str) -> tuple[Any, ...]:
    return (_P.workspace_id == workspace, _P.user_id == user_id)


def _person(connection: Connection, workspace: str, user_id: str) -> Any:
    """The row of somebody who may sign in; None when there is none."""
    statement = select(users).where(
        users.c.workspace_id == workspace, users.c.id == user_id, users.c.active, users.c.kind == "human"
    )
    return connection.execute(statement).first()


def _with_password(connection: Connection, workspace: str, name: str) -> tuple[Any, str | None]:
    """Who is meant by an id or a name, and the hash of its password; None for what there is not."""
    try:
        user_id = load(connection, workspace, version=0).entries["users"].find(name)
    except UnknownReference:
        return None, None
    stored = connection.execute(select(_P.hash).where(*_of(workspace, user_id))).scalar()
    return _person(connection, workspace, user_id), stored


def _found(connection: Connection, workspace: str, name: str) -> Any:
    """The row of a person, by id or name. Raises InvalidInput."""
    try:
        user_id = load(connection, workspace, version=0).entries["users"].find(name)
    except UnknownReference as unknown:
        raise InvalidInput([unknown.problem("/user")]) from None
    user = _person(connection, workspace, user_id)
    if user is None:
        raise InvalidInput([InputProblem("/user", f"{user_id} is no person: agents and services have API keys")])
    return user
