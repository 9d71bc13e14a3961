"""ID tokens: who somebody is to an OpenID provider (OpenID Connect Core 1.0, 3.1.3.7), for one client and one sign-in.

An access token is no ID token, nor the other way round: each has a type of its own, and is judged in a module of its
own.
"""

import hmac
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from taskhub.auth.errors import InvalidToken
from taskhub.oauth.jwts import check_times, key_for, key_named, needed_text, signed_claims
from taskhub.oauth.keys import KeySet
from taskhub.settings.oauth import Algorithm

ALGORITHMS: Final[frozenset[Algorithm]] = frozenset(("ES256", "EdDSA", "RS256", "PS256"))
MAX_CHARACTERS: Final = 16_000
"""Larger than what a request may bring: it comes from the provider itself."""
MAX_SUBJECT: Final = 255
_TYPES: Final = ("jwt", None)


class IdTokens:
    """Judges the ID tokens that an issuer makes for one client, `client_id`."""

    def __init__(self, issuer: str, client_id: str, keys: KeySet, *, clock: Callable[[], float] = time.time) -> None:
        self._issuer = issuer
        self._client_id = client_id
        self._keys = keys
        self._clock = clock

    async def verify(self, token: str, nonce: str) -> Mapping[str, Any]:
        """The claims of a token that was made for the sign-in with this nonce. Raises InvalidToken and
        KeysUnavailable."""
        if len(token) > MAX_CHARACTERS:
            raise InvalidToken("too long")
        kid, algorithm = key_named(token, _TYPES, ALGORITHMS)
        claims = signed_claims(token, await key_for(self._keys, kid, algorithm), algorithm)
        self._judge(claims, nonce)
        return claims

    def _judge(self, claims: Mapping[str, Any], nonce: str) -> None:
        if claims.get("iss") != self._issuer:
            raise InvalidToken("another issuer")
        # One that others may use as well is one that others may have brought here.
        if claims.get("aud") not in (self._client_id, [self._client_id]):
            raise InvalidToken("its audience is not this client alone")
        if claims.get("azp", self._client_id) != self._client_id:
            raise InvalidToken("it was made for another client")
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(
            given.encode("utf-8", "surrogatepass"), nonce.encode()
        ):
            raise InvalidToken("it was made for another sign-in")
        check_times(claims, self._clock())
        if len(needed_text(claims, "sub")) > MAX_SUBJECT:
            raise InvalidToken("sub is too long")
