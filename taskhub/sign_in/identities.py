"""Which user somebody is whom an OpenID provider knows.

The first time by a verified address, from then on by what the provider calls them (`sub`), which is theirs for ever:
addresses change, and go to others.
"""

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.auth.providers import DEFAULT_WORKSPACE
from taskhub.settings.openid import GOOGLE
from taskhub.sign_in.errors import OpenIdRefused
from taskhub.sign_in.model import Visitor
from taskhub.storage.database import Database
from taskhub.storage.schema import identities, users
from taskhub.storage.times import Clock, to_text, utc_now
from taskhub.tickets.errors import InvalidInput
from taskhub.tickets.reference_inputs import NewUser, UserRole
from taskhub.tickets.service import TicketService

_GMAIL: Final = "gmail.com"
_MAKER: Final = Principal("system:taskhub", DEFAULT_WORKSPACE, ALL_SCOPES, authenticated=False)

_I: Final = identities.c

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Identity:
    """What an OpenID provider says of somebody. `email`: an address that it has verified; `hosted_domain`: the
    organisation at Google whose account it is."""

    issuer: str
    subject: str
    email: str | None
    hosted_domain: str | None
    name: str | None

    @property
    def domain(self) -> str | None:
        """Who vouches for them, in lower case.

        A Google account may have an address of anybody's mail server, which Google once wrote to: that organisation
        vouches for it only where Google says that the account is its own (`hd`).
        """
        of_address = None if self.email is None else self.email.rpartition("@")[2].lower()
        if self.issuer != GOOGLE or of_address == _GMAIL:
            return of_address
        return None if self.hosted_domain is None else self.hosted_domain.lower()


class Identities:
    """Finds the user, and links them. With `domains` only those of one of these get in; with a role, who is nobody yet
    is made a user of it, in the default workspace."""

    def __init__(
        self,
        database: Database,
        tickets: TicketService,
        domains: Collection[str] = (),
        new_role: UserRole | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._tickets = tickets
        self._domains = frozenset(domain.lower() for domain in domains)
        self._new_role = new_role
        self._clock = clock

    async def link(self, workspace: str, identity: Identity, visitor: Visitor) -> str:
        """The id of the user who somebody is from now on. Raises OpenIdRefused and StorageBusy."""
        if self._domains and identity.domain not in self._domains:
            raise OpenIdRefused("domain", f"{identity.domain or 'no domain'} is none of OPENID_DOMAINS")

        def work(connection: Connection) -> str | None:
            return self._linked(connection, workspace, identity, visitor)

        found = await self._database.write(work)
        if found is None and self._new_role is not None and workspace == DEFAULT_WORKSPACE:
            # Under another name where theirs is taken; but by whom? Perhaps by another request that does the same.
            for name in filter(None, (identity.name, identity.email)):
                await self._make(name, identity, self._new_role)
                if (found := await self._database.write(work)) is not None:
                    break
        if found is None:
            raise OpenIdRefused("unknown", "no user has this address, or can be added for it")
        return found

    def _linked(self, connection: Connection, workspace: str, identity: Identity, visitor: Visitor) -> str | None:
        """The id of the user, who is linked if need be; None when nobody has the address. Raises OpenIdRefused."""
        of_issuer = (_I.workspace_id == workspace, _I.issuer == identity.issuer)
        own = select(_I.user_id).where(*of_issuer, _I.subject == identity.subject)
        if (linked := connection.execute(own).scalar()) is not None:
            return str(linked)
        # Letters that only look alike, or become alike in lower case, are those of somebody else.
        if identity.email is None or not identity.email.isascii():
            raise OpenIdRefused("unverified", "the provider has verified no address")
        # One after the other: both would find no link, and make one.
        statement = select(users).where(
            users.c.workspace_id == workspace, func.lower(users.c.email) == identity.email.lower()
        )
        found: list[Any] = list(connection.execute(statement.limit(3).with_for_update()))
        if not found:
            return None
        if len(found) > 1:
            raise OpenIdRefused("unknown", "several users have this address")
        (user,) = found
        if not user.active or user.kind != "human":
            raise OpenIdRefused("unknown", f"{user.id} is not in use, or no person")
        if (linked := connection.execute(own).scalar()) is not None:
            return str(linked)
        if connection.execute(select(_I.subject).where(*of_issuer, _I.user_id == user.id)).first() is not None:
            raise OpenIdRefused("unknown", f"{user.id} is linked with another account, which had this address before")
        row = {
            "workspace_id": workspace, "issuer": identity.issuer, "subject": identity.subject, "user_id": user.id,
            "email": identity.email, "created_at": to_text(self._clock()),
        }  # fmt: skip
        connection.execute(insert(identities), row)
        told = {"issuer": identity.issuer, "subject": identity.subject, "email": identity.email}
        entry = Entry(
            "identity.linked", workspace, f"user:{user.id}", user.id, address=visitor.address,
            request_id=visitor.request_id, details=told,
        )  # fmt: skip
        record(connection, entry, self._clock())
        return str(user.id)

    async def _make(self, name: str, identity: Identity, role: UserRole) -> None:
        """Add the user, unless the name is taken."""
        with contextlib.suppress(ValidationError, InvalidInput):
            new = NewUser(name=name, email=identity.email, role=role)
            await self._tickets.create_reference(Caller(_MAKER, "system"), "users", new)
            log.info("a user was added for an account at the provider", user=name, role=role)
