"""The authorization server that TaskHub is itself, where the settings name no other."""

import ipaddress
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from taskhub.auth.errors import UnknownSubject
from taskhub.oauth.access_tokens import Claims
from taskhub.oauth.clients import RegisteredClients
from taskhub.oauth.documents import ClientDocuments
from taskhub.oauth.grants import GrantStore
from taskhub.oauth.guard import Guard
from taskhub.oauth.server import AuthorizationServer
from taskhub.oauth.signing import SigningKeys
from taskhub.oauth.tokens import TokenStore
from taskhub.oauth.users import USERS
from taskhub.settings import Settings
from taskhub.storage.database import Database
from taskhub.storage.schema import users


def authorization_server(
    settings: Settings, database: Database, secret: bytes, ended: Callable[[], Awaitable[None]]
) -> AuthorizationServer:
    """The server, by the settings. `secret` and `ended` are as GrantStore and AuthorizationServer say."""
    return AuthorizationServer(
        str(settings.issuer),
        str(settings.resource),
        registered=RegisteredClients(database),
        documents=ClientDocuments(database, Guard(map(ipaddress.ip_network, settings.oauth_document_networks))),
        grants=GrantStore(database, secret),
        keys=SigningKeys(database),
        secret=secret,
        ended=ended,
        registration=settings.oauth_registration,
    )


def token_store(server: AuthorizationServer, database: Database) -> TokenStore:
    """The server's own access tokens as credentials."""
    return TokenStore(database, server.tokens, OwnUsers(database), server.grants)


@dataclass(frozen=True, slots=True)
class OwnUsers:
    """A UserLookup: the subject of TaskHub's own tokens is the id of a user, and nothing else."""

    database: Database

    async def of(self, claims: Claims) -> Any:
        """The user's row. Raises UnknownSubject and StorageBusy."""
        statement = USERS.where(users.c.id == claims.subject, users.c.active)
        row = await self.database.read(lambda connection: connection.execute(statement).first())
        if row is None:
            raise UnknownSubject("sub")
        return row
