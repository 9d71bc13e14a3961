"""An authorization server on a database, a user who is signed in, and a client that goes the usual way."""

import base64
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, urlsplit

from taskhub.auth.principal import Principal, Scope
from taskhub.auth.roles import SCOPES_OF_ROLE
from taskhub.oauth.access_tokens import AccessTokens
from taskhub.oauth.clients import RegisteredClients
from taskhub.oauth.documents import ClientDocuments
from taskhub.oauth.grants import GrantStore
from taskhub.oauth.guard import Guard
from taskhub.oauth.server import AuthorizationServer
from taskhub.oauth.signing import SigningKeys
from taskhub.storage.database import Database
from tests.taskhub.world import NOON

ISSUER = "https://taskhub.example.org"
RESOURCE = f"{ISSUER}/mcp"
VERIFIER = "a-verifier-as-long-as-it-must-be-at-the-very-least"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
REDIRECT = "https://client.example.org/cb"


def user(name: str = "carol", role: str = "agent", scopes: Iterable[Scope] | None = None) -> Principal:
    """Somebody who is signed in."""
    allowed = SCOPES_OF_ROLE[role] if scopes is None else frozenset(scopes)
    return Principal(f"user:{name}", "default", allowed, authenticated=True, credential=f"ses_{name}")


CAROL = user()


@dataclass
class Instance:
    """One server of several on a database."""

    database: Database
    now: datetime = NOON
    ended: int = 0
    """How often it was told that a grant has ended."""
    server: AuthorizationServer = field(init=False)
    guard: Guard = field(default_factory=Guard)

    def __post_init__(self) -> None:
        def clock() -> datetime:
            return self.now

        async def ended() -> None:
            self.ended += 1

        keys = SigningKeys(self.database, clock)
        self.server = AuthorizationServer(
            ISSUER,
            RESOURCE,
            registered=RegisteredClients(self.database, clock),
            documents=ClientDocuments(self.database, self.guard, clock),
            grants=GrantStore(self.database, b"secret", clock),
            keys=keys,
            tokens=AccessTokens(ISSUER, RESOURCE, keys, clock=lambda: self.now.timestamp()),
            secret=b"secret",
            ended=ended,
            registration=True,
            clock=lambda: self.now.timestamp(),
        )

    async def registered(self, *redirect_uris: str, **said: Any) -> str:
        """A client that has registered itself; its id."""
        answer = await self.server.register({"redirect_uris": list(redirect_uris or (REDIRECT,)), **said})
        client_id: str = answer["client_id"]
        return client_id

    async def code(self, client_id: str, by: Principal = CAROL, **parameters: str) -> str:
        """Let a client in, as the user."""
        asked = await self.server.asked(by, asking(client_id, **parameters).items())
        answered = query_of(await self.server.allow(by, asked, asked.scopes))
        assert answered["iss"] == ISSUER
        return answered["code"]

    async def redeem(self, client_id: str, code: str, /, **parameters: str | None) -> dict[str, Any]:
        return await self.server.token(without_none(redeeming(client_id, code), parameters))

    async def refresh(self, client_id: str, token: str, /, **parameters: str | None) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
        return await self.server.token(without_none(form, parameters))

    async def tokens(self, client_id: str, by: Principal = CAROL, **parameters: str) -> dict[str, Any]:
        return await self.redeem(client_id, await self.code(client_id, by, **parameters))

    async def active(self, client_id: str, token: str) -> bool:
        answer = await self.server.introspect([("client_id", client_id), ("token", token)])
        active: bool = answer["active"]
        return active


def asking(client_id: str, **parameters: str) -> dict[str, str]:
    """The parameters of a good authorization request, but for what is given; an empty one counts as left out."""
    return {
        "response_type": "code", "client_id": client_id, "redirect_uri": REDIRECT, "state": "s-1",
        "code_challenge": CHALLENGE, "code_challenge_method": "S256", "resource": RESOURCE,
        "scope": "tickets:read tickets:write", **parameters,
    }  # fmt: skip


def redeeming(client_id: str, code: str) -> dict[str, str]:
    return {
        "grant_type": "authorization_code", "client_id": client_id, "code": code, "code_verifier": VERIFIER,
        "redirect_uri": REDIRECT, "resource": RESOURCE,
    }  # fmt: skip


def without_none(form: dict[str, str], parameters: dict[str, str | None]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in {**form, **parameters}.items() if value is not None]


def query_of(location: str) -> dict[str, str]:
    """What an answer says, each once."""
    found = parse_qs(urlsplit(location).query, strict_parsing=True)
    assert all(len(values) == 1 for values in found.values())
    return {name: values[0] for name, values in found.items()}
