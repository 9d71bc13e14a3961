"""The authorization server that TaskHub is itself, where the settings name no other."""

import ipaddress
from collections.abc import Awaitable, Callable

from taskhub.oauth.access_tokens import AccessTokens
from taskhub.oauth.clients import RegisteredClients
from taskhub.oauth.documents import ClientDocuments
from taskhub.oauth.grants import GrantStore
from taskhub.oauth.guard import Guard
from taskhub.oauth.server import AuthorizationServer
from taskhub.oauth.signing import ALGORITHM, SigningKeys
from taskhub.settings.model import Settings
from taskhub.storage.database import Database


def authorization_server(
    settings: Settings, database: Database, secret: bytes, ended: Callable[[], Awaitable[None]]
) -> AuthorizationServer:
    """The server, by the settings. `secret` and `ended` are as GrantStore and AuthorizationServer say."""
    issuer, resource, keys = str(settings.issuer), str(settings.resource), SigningKeys(database)
    return AuthorizationServer(
        issuer,
        resource,
        registered=RegisteredClients(database),
        documents=ClientDocuments(database, Guard(map(ipaddress.ip_network, settings.oauth_document_networks))),
        grants=GrantStore(database, secret),
        keys=keys,
        tokens=AccessTokens(issuer, resource, keys, (ALGORITHM,)),
        secret=secret,
        ended=ended,
        registration=settings.oauth_registration,
    )
