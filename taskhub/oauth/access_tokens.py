"""Access tokens: JWTs by the profile of RFC 9068, with what RFC 8725 says of checking them.

Who calls gets one answer whatever is wrong with a token; what it was goes into the log.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args

from jwt import PyJWK

from taskhub.auth.errors import InvalidToken
from taskhub.auth.secret import digest
from taskhub.oauth.jwts import check_times, key_for, key_named, needed_text, signed_claims, text
from taskhub.oauth.keys import KeySet
from taskhub.oauth.model import GRANT_CLAIM
from taskhub.settings.oauth import Algorithm

MAX_TOKEN_CHARACTERS: Final = 8_000
"""The HTTP server takes headers of about this length."""
MAX_HEADER_CHARACTERS: Final = 1_000
MAX_SCOPES: Final = 100
MAX_KEPT: Final = 2_000
"""Tokens whose signature is not checked again, by their digest: tokens themselves are kept nowhere."""
_TYPES: Final = ("at+jwt", "application/at+jwt")


@dataclass(frozen=True, slots=True)
class Claims:
    """What a token says that is good. `expires_at` is in seconds since 1970."""

    issuer: str
    subject: str
    client_id: str
    scopes: frozenset[str]
    jti: str
    grant: str | None
    """The id of the grant (`grt_…`) where TaskHub has issued the token itself."""
    expires_at: float
    _all: Mapping[str, Any] = field(repr=False, default_factory=dict)

    def text(self, claim: str) -> str | None:
        """A claim that is a text of reasonable length; None when it is missing or something else."""
        return text(self._all, claim)

    def true(self, claim: str) -> bool:
        """Whether a claim says true."""
        return self._all.get(claim) is True


@dataclass(frozen=True, slots=True)
class _Signed:
    """A token whose signature is good, as long as its key is what `key` is."""

    kid: str | None
    algorithm: Algorithm
    key: PyJWK
    claims: Mapping[str, Any]


class AccessTokens:
    """Judges the access tokens of one issuer for one resource.

    A token must be signed with one of `keys` by one of `algorithms`, and name `audience` alone as its audience.
    """

    def __init__(
        self,
        issuer: str,
        audience: str,
        keys: KeySet,
        algorithms: Collection[Algorithm] = get_args(Algorithm),
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        self._algorithms = frozenset(algorithms)
        self._clock = clock
        # Checking a signature costs more than most requests; the rest of a token is judged each time.
        self._signed: OrderedDict[str, _Signed] = OrderedDict()

    async def verify(self, token: str) -> Claims:
        """What a token says. Raises InvalidToken, and KeysUnavailable when that cannot be told at the moment."""
        if len(token) > MAX_TOKEN_CHARACTERS or len(token.partition(".")[0]) > MAX_HEADER_CHARACTERS:
            raise InvalidToken("too long")
        kept_as = digest(token)
        signed = self._signed.get(kept_as)
        if signed is None:
            kid, algorithm = key_named(token, _TYPES, self._algorithms)
        else:
            kid, algorithm = signed.kid, signed.algorithm
        key = await key_for(self._keys, kid, algorithm)
        if signed is None or signed.key is not key:
            signed = _Signed(kid, algorithm, key, signed_claims(token, key, algorithm))
        claims = self._judged(signed.claims)
        self._keep(kept_as, signed)
        return claims

    def _keep(self, kept_as: str, signed: "_Signed") -> None:
        self._signed[kept_as] = signed
        self._signed.move_to_end(kept_as)
        if len(self._signed) > MAX_KEPT:
            self._signed.popitem(last=False)

    def _judged(self, claims: Mapping[str, Any]) -> Claims:
        if claims.get("iss") != self._issuer:
            raise InvalidToken("another issuer")
        if claims.get("aud") != self._audience:
            raise InvalidToken("its audience is not this resource alone")
        expires_at = check_times(claims, self._clock())
        return Claims(
            issuer=self._issuer,
            subject=needed_text(claims, "sub"),
            client_id=needed_text(claims, "client_id"),
            scopes=_scopes(claims),
            jti=needed_text(claims, "jti"),
            grant=needed_text(claims, GRANT_CLAIM) if GRANT_CLAIM in claims else None,
            expires_at=expires_at,
            _all=claims,
        )


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """None are said by leaving the claim out: a client that was given none may call, and do nothing."""
    text = claims.get("scope", "")
    if not isinstance(text, str) or len(found := text.split()) > MAX_SCOPES:
        raise InvalidToken("scope is no text of reasonable length")
    return frozenset(found)
