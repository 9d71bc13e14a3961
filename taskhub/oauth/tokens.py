"""Access tokens as credentials: who has one, until when, and how what it opened is judged later."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol, Self

from sqlalchemy import Connection

from taskhub.auth.errors import InvalidToken
from taskhub.auth.principal import ALL_SCOPES, Scope
from taskhub.auth.secret import digest
from taskhub.credentials.holder import Holder, holder_of_grant, parts
from taskhub.oauth.access_tokens import AccessTokens, Claims
from taskhub.oauth.jwts import LEEWAY_S
from taskhub.oauth.provider import TOKEN_PREFIX
from taskhub.oauth.users import USERS, Users
from taskhub.storage.database import Database
from taskhub.storage.schema import users
from taskhub.storage.times import Clock, to_text, utc_now

ID_PREFIX: Final = "tok_"


class Grants(Protocol):
    """What users have granted to clients, where TaskHub issues the tokens itself. Both methods raise StorageBusy."""

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """Of those of the grants that are not revoked, by id, what they are good for."""

    async def used(self, ids: Collection[str]) -> None:
        """Note that grants were used about now."""


@dataclass(frozen=True, slots=True)
class TokenId:
    """The id of a token as a credential. It says all that any instance needs to judge what the token has opened:
    tokens themselves are kept nowhere.

    `tok_<expiry, seconds>.<grant, or a digest>.<scopes, joined by +>.<user>`
    """

    expires_at: int
    name: str
    scopes: frozenset[Scope]
    user: str

    @classmethod
    def of(cls, claims: Claims, user: str, name: str) -> Self:
        return cls(int(claims.expires_at), name, known_scopes(claims.scopes), user)

    @classmethod
    def read(cls, text: str) -> Self:
        expires_at, name, scopes, user = text.removeprefix(ID_PREFIX).split(".", 3)
        return cls(int(expires_at), name, known_scopes(scopes.split("+")), user)

    @property
    def ends(self) -> str:
        """When the token expires, as stored."""
        return to_text(datetime.fromtimestamp(self.expires_at, UTC))

    def __str__(self) -> str:
        return f"{ID_PREFIX}{self.expires_at}.{self.name}.{'+'.join(sorted(self.scopes))}.{self.user}"


class GrantedTokens:
    """Access tokens that TaskHub has issued itself, as credentials. A CredentialStore.

    A token is good only as long as the grant that it names, and whose it is the grant alone says: users of two
    workspaces may have one id.
    """

    secret_prefix = TOKEN_PREFIX
    id_prefix = ID_PREFIX

    def __init__(self, tokens: AccessTokens, grants: Grants, clock: Clock = utc_now) -> None:
        self._tokens = tokens
        self._grants = grants
        self._clock = clock

    async def holder(self, secret: str) -> Holder | None:
        """Who has a token. Raises InvalidToken, KeysUnavailable and StorageBusy."""
        claims = await self._tokens.verify(secret)
        if claims.grant is None:
            raise InvalidToken("no grant")
        token = str(TokenId.of(claims, claims.subject, claims.grant))
        found = (await self.holders([token])).get(token)
        # A grant may be over before the token is; the clocks may differ by as much as for tokens.
        ended = to_text(self._clock() - timedelta(seconds=LEEWAY_S))
        return None if found is None or (found.expires_at is not None and found.expires_at <= ended) else found

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """The holders of those of the tokens whose grant lasts. Raises StorageBusy."""
        tokens = [TokenId.read(text) for text in ids]
        lasting = await self._grants.holders({token.name for token in tokens})
        found: dict[str, Holder] = {}
        for token in tokens:
            grant = lasting.get(token.name)
            if grant is None or grant.principal.user_id != token.user:
                continue
            granted = grant.principal.scopes
            principal = replace(
                grant.principal,
                credential=str(token),
                scopes=granted & token.scopes,
                grantable=grant.principal.grantable | (granted - token.scopes),
            )
            ends = [token.ends] + ([] if grant.expires_at is None else [grant.expires_at])
            found[str(token)] = Holder(principal, min(ends))
        return found

    async def used(self, ids: Collection[str]) -> None:
        """Note that their grants were used about now. Raises StorageBusy."""
        await self._grants.used({TokenId.read(text).name for text in ids})


class ForeignTokens:
    """Access tokens of an issuer elsewhere, of whoever is one of `users`, as credentials. A CredentialStore."""

    secret_prefix = TOKEN_PREFIX
    id_prefix = ID_PREFIX

    def __init__(self, database: Database, tokens: AccessTokens, users: Users) -> None:
        self._database = database
        self._tokens = tokens
        self._users = users

    async def holder(self, secret: str) -> Holder | None:
        """Who has a token. Raises InvalidToken, UnknownSubject, KeysUnavailable and StorageBusy."""
        claims = await self._tokens.verify(secret)
        user = await self._users.of(claims)
        return _holder(user, TokenId.of(claims, user.user_id, digest(f"{claims.issuer}\0{claims.jti}")[:16]))

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """The holders of those of the tokens whose user is known and in use. Raises StorageBusy."""
        tokens = [TokenId.read(text) for text in ids]
        named = {token.user for token in tokens}

        def work(connection: Connection) -> dict[str, Any]:
            statements = (USERS.where(users.c.active, users.c.id.in_(part)) for part in parts(named))
            return {row.user_id: row for statement in statements for row in connection.execute(statement)}

        known = await self._database.read(work)
        return {str(token): _holder(known[token.user], token) for token in tokens if token.user in known}

    async def used(self, ids: Collection[str]) -> None:
        """There is no row to note it in."""


def _holder(user: Any, token: TokenId) -> Holder:
    return holder_of_grant(user, str(token), token.scopes, token.ends)


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Those of the names that are scopes here; an issuer may grant others, such as `openid`."""
    return ALL_SCOPES.intersection(names)
