"""Which user an access token of an issuer elsewhere stands for.

Names and ids are compared as they are: at the issuer, others may have those that merely look alike.
"""

from dataclasses import dataclass
from typing import Any, Final

import structlog
from pydantic import ValidationError
from sqlalchemy import Connection, func, or_, select

from taskhub.auth.errors import UnknownSubject
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.auth.providers import DEFAULT_WORKSPACE
from taskhub.oauth.access_tokens import Claims
from taskhub.storage.database import Database
from taskhub.storage.schema import users
from taskhub.tickets.errors import InvalidInput
from taskhub.tickets.reference_inputs import NewUser, UserRole
from taskhub.tickets.service import TicketService

EMAIL: Final = "email"
USERS: Final = select(
    users.c.workspace_id, users.c.id.label("user_id"), users.c.kind, users.c.role, users.c.active
).where(users.c.workspace_id == DEFAULT_WORKSPACE)
"""The rows that make a principal (credentials/holder.py)."""
_MAKER: Final = Principal("system:taskhub", DEFAULT_WORKSPACE, ALL_SCOPES, authenticated=False)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Users:
    """Finds the user whom the `claim` of a token names; with a role, makes one of that role when there is none.

    A user who is not active is none, and is not made again.
    """

    database: Database
    tickets: TicketService
    claim: str = "sub"
    new_role: UserRole | None = None

    async def of(self, claims: Claims) -> Any:
        """The user's row. Raises UnknownSubject and StorageBusy."""
        value = claims.text(self.claim)
        # An address that nobody has verified is whatever its owner at the issuer typed.
        if value is None or (self.claim == EMAIL and not claims.true("email_verified")):
            raise UnknownSubject(self.claim)
        found = await self._find(value)
        if not found and self.new_role is not None:
            await self._make(value, claims, self.new_role)
            found = await self._find(value)
        if len(found) != 1 or not found[0].active:
            log.info("no user is who an access token names", claim=self.claim, value=value)
            raise UnknownSubject(self.claim)
        return found[0]

    async def _find(self, value: str) -> list[Any]:
        if self.claim == EMAIL:
            statement = USERS.where(func.lower(users.c.email) == value.lower())
        else:
            statement = USERS.where(or_(users.c.id == value, users.c.name == value))

        def work(connection: Connection) -> list[Any]:
            return list(connection.execute(statement.limit(2)))

        return await self.database.read(work)

    async def _make(self, value: str, claims: Claims, role: UserRole) -> None:
        """Make the user, unless the name is taken: by another request that does the same, or by somebody else."""
        email = value if self.claim == EMAIL else claims.text(EMAIL) if claims.true("email_verified") else None
        names = [claims.text("name"), value] if self.claim == EMAIL else [value]
        for name in filter(None, names):
            try:
                new = NewUser(name=name, email=email, role=role)
                await self.tickets.create_reference(Caller(_MAKER, "system"), "users", new)
            except (ValidationError, InvalidInput):
                continue
            log.info("a user was made for an access token", user=name, role=role)
            return
