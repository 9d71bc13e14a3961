"""Authentication by access tokens, with API keys beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import structlog

from taskhub.auth.errors import InvalidToken, KeysUnavailable, Unauthenticated
from taskhub.auth.principal import Principal
from taskhub.auth.providers import ACTOR_HEADER, ApiKeyAuth, actor_of, named

if TYPE_CHECKING:
    from taskhub.oauth.access_tokens import AccessTokens

TOKEN_PREFIX: Final = "ey"  # noqa: S105  # no secret
"""A JSON object in base64url, which a JWT begins with."""
_NEEDED: Final = "an access token is needed, as `Authorization: Bearer`, or an API key, so or as `x-api-key`"

log = structlog.get_logger(__name__)


class OAuthAuth(ApiKeyAuth):
    """Access tokens by `Authorization: Bearer`, which `tokens` judges; whose they are `holders` knows, as with keys.

    A bearer credential that does not look like a token is judged as an API key.
    """

    name = "oauth"

    def __init__(self, bootstrap_key: str | None) -> None:
        super().__init__(bootstrap_key)
        self.tokens: AccessTokens | None = None

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        """As AuthProvider.authenticate; raises UnknownSubject and KeysUnavailable as well."""
        token = _token(headers)
        if token is None:
            try:
                return await super().authenticate(headers, client_address)
            except Unauthenticated:
                raise Unauthenticated(_NEEDED) from None
        try:
            holder = await self._holder_of(token)
        except (InvalidToken, KeysUnavailable) as error:
            log.info("an access token was refused", reason=error.reason, address=client_address)
            raise
        actor = actor_of(headers.get(ACTOR_HEADER, ""))
        return holder if actor is None or actor.startswith("user:") else named(holder, actor)

    async def _holder_of(self, token: str) -> Principal:
        if self.tokens is None or self.holders is None:
            raise InvalidToken("the server is starting")
        # Each time: what is kept of a token would outlive the key that it was signed with.
        await self.tokens.verify(token)
        holder = await self.holders.holder(token)
        if holder is None:
            raise InvalidToken("its user or its grant is gone")
        return holder


def _token(headers: Mapping[str, str]) -> str | None:
    """The bearer credential if it is meant as a token. A key in a header of its own goes before it."""
    scheme, _, credentials = headers.get("Authorization", "").partition(" ")
    token = credentials.strip()
    if "x-api-key" in headers or scheme.lower() != "bearer" or not token.startswith(TOKEN_PREFIX):
        return None
    return token
