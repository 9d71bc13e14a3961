"""Access tokens as credentials: who has one, until when, and how what it opened is judged later."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, Self

from sqlalchemy import Connection

from taskhub.auth.errors import InvalidToken
from taskhub.auth.principal import ALL_SCOPES, Scope
from taskhub.auth.secret import digest
from taskhub.credentials.holder import Holder, holder_of_grant, parts
from taskhub.oauth.access_tokens import AccessTokens, Claims
from taskhub.oauth.jwts import LEEWAY_S
from taskhub.oauth.provider import TOKEN_PREFIX
from taskhub.oauth.users import USERS
from taskhub.storage.database import Database
from taskhub.storage.schema import users
from taskhub.storage.times import Clock, to_text, utc_now


class UserLookup(Protocol):
    """Whom a token stands for."""

    async def of(self, claims: Claims) -> Any:
        """The row of an active user. Raises UnknownSubject and StorageBusy."""


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
    def of(cls, claims: Claims, user: str, *, granted: bool) -> Self:
        name = claims.grant if granted and claims.grant is not None else digest(f"{claims.issuer}\0{claims.jti}")[:16]
        return cls(int(claims.expires_at), name, known_scopes(claims.scopes), user)

    @classmethod
    def read(cls, text: str) -> Self:
        expires_at, name, scopes, user = text.removeprefix(TokenStore.id_prefix).split(".", 3)
        return cls(int(expires_at), name, known_scopes(scopes.split("+")), user)

    @property
    def ends(self) -> str:
        """When the token expires, as stored."""
        return to_text(datetime.fromtimestamp(self.expires_at, UTC))

    def __str__(self) -> str:
        return f"{TokenStore.id_prefix}{self.expires_at}.{self.name}.{'+'.join(sorted(self.scopes))}.{self.user}"


class TokenStore:
    """Access tokens that `tokens` finds good, of users whom `users` knows, or of `grants`. A CredentialStore.

    With `grants`, a token is good only as long as the grant that it names, and whose it is the grant alone says: users
    of two workspaces may have one id.
    """

    secret_prefix = TOKEN_PREFIX
    id_prefix = "tok_"

    def __init__(
        self,
        database: Database,
        tokens: AccessTokens,
        users: UserLookup | None,
        grants: Grants | None = None,
        clock: Clock = utc_now,
    ) -> None:
        self._database = database
        self._tokens = tokens
        self._users = users
        self._grants = grants
        self._clock = clock

    async def holder(self, secret: str) -> Holder | None:
        """Who has a token. Raises InvalidToken, UnknownSubject, KeysUnavailable and StorageBusy."""
        claims = await self._tokens.verify(secret)
        found: Holder | None = None
        if self._grants is not None:
            if claims.grant is None:
                raise InvalidToken("no grant")
            token = TokenId.of(claims, claims.subject, granted=True)
            found = (await self._granted(self._grants, [token])).get(str(token))
        elif self._users is not None:
            user = await self._users.of(claims)
            token = TokenId.of(claims, user.user_id, granted=False)
            found = _judged([token], {user.user_id: user})[str(token)]
        # A grant may be over before the token is; the clocks may differ by as much as for tokens.
        ended = to_text(self._clock() - timedelta(seconds=LEEWAY_S))
        return None if found is None or (found.expires_at is not None and found.expires_at <= ended) else found

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """As CredentialStore.holders. Raises StorageBusy."""
        tokens = [TokenId.read(text) for text in ids]
        if self._grants is not None:
            return await self._granted(self._grants, tokens)
        named = {token.user for token in tokens}

        def work(connection: Connection) -> dict[str, Any]:
            statements = (USERS.where(users.c.active, users.c.id.in_(part)) for part in parts(named))
            return {row.user_id: row for statement in statements for row in connection.execute(statement)}

        return _judged(tokens, await self._database.read(work))

    async def used(self, ids: Collection[str]) -> None:
        """A token that somebody else issued has no row to note it in. Raises StorageBusy."""
        if self._grants is not None:
            await self._grants.used({TokenId.read(text).name for text in ids})

    async def _granted(self, grants: Grants, tokens: Collection[TokenId]) -> Mapping[str, Holder]:
        """The holders of those of the tokens whose grant lasts."""
        lasting = await grants.holders({token.name for token in tokens})
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


def _judged(tokens: Collection[TokenId], known: Mapping[str, Any]) -> Mapping[str, Holder]:
    """The holders of those of the tokens whose user is known."""
    return {
        str(token): holder_of_grant(known[token.user], str(token), token.scopes, token.ends)
        for token in tokens
        if token.user in known
    }


def known_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Those of the names that are scopes here; an issuer may grant others, such as `openid`."""
    return ALL_SCOPES.intersection(names)
