"""Access tokens: JWTs by the profile of RFC 9068, with what RFC 8725 says of checking them.

Who calls gets one answer whatever is wrong with a token; what it was goes into the log.
"""

import re
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeGuard, get_args

import jwt
from jwt import PyJWK

from taskhub.auth.errors import InvalidToken
from taskhub.auth.secret import digest
from taskhub.oauth.keys import KeySet
from taskhub.oauth.model import GRANT_CLAIM
from taskhub.settings.oauth import Algorithm

LEEWAY_S: Final = 30
"""By how much the clocks of issuer and server may differ."""
MAX_TOKEN_CHARACTERS: Final = 8_000
"""The HTTP server takes headers of about this length."""
MAX_HEADER_CHARACTERS: Final = 1_000
MAX_TEXT_CHARACTERS: Final = 500
"""Of ids in a token: they are compared, stored and logged."""
MAX_SCOPES: Final = 100
MAX_KEPT: Final = 2_000
"""Tokens whose signature is not checked again, by their digest: tokens themselves are kept nowhere."""
_FORM: Final = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
_TYPES: Final = ("at+jwt", "application/at+jwt")
# jwt looks at the signature alone: what the claims must be is said below, with a clock that tests can turn.
_SIGNATURE_ALONE: Final[Any] = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


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
        value = self._all.get(claim)
        return value if _is_text(value) else None

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
        if len(token) > MAX_TOKEN_CHARACTERS:
            raise InvalidToken("too long")
        kept_as = digest(token)
        signed = self._signed.get(kept_as)
        kid, algorithm = self._header(token) if signed is None else (signed.kid, signed.algorithm)
        key = await self._keys.key(kid, algorithm)
        if key is None:
            raise InvalidToken("no key of the issuer has this id and algorithm")
        if signed is None or signed.key is not key:
            signed = _Signed(kid, algorithm, key, _checked(token, key, algorithm))
        claims = self._judged(signed.claims)
        self._keep(kept_as, signed)
        return claims

    def _keep(self, kept_as: str, signed: "_Signed") -> None:
        self._signed[kept_as] = signed
        self._signed.move_to_end(kept_as)
        if len(self._signed) > MAX_KEPT:
            self._signed.popitem(last=False)

    def _header(self, token: str) -> tuple[str | None, Algorithm]:
        """The key's id and the algorithm. What else a header says of keys (`jku`, `x5u`, `jwk`) does not count."""
        found = _FORM.fullmatch(token)
        if found is None or len(found[1]) > MAX_HEADER_CHARACTERS:
            raise InvalidToken("no signed JWT")
        try:
            header = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, ValueError, RecursionError):
            raise InvalidToken("its header cannot be read") from None
        if "crit" in header or "b64" in header:
            raise InvalidToken("its header asks for an extension")
        kind, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
        if not isinstance(kind, str) or kind.lower() not in _TYPES:
            raise InvalidToken("its type is not at+jwt")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise InvalidToken("its algorithm is not allowed")
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_TEXT_CHARACTERS):
            raise InvalidToken("its key id is no text of reasonable length")
        return kid, algorithm

    def _judged(self, claims: Mapping[str, Any]) -> Claims:
        if claims.get("iss") != self._issuer:
            raise InvalidToken("another issuer")
        if claims.get("aud") != self._audience:
            raise InvalidToken("its audience is not this resource alone")
        now = self._clock()
        expires_at = _time(claims, "exp")
        if expires_at + LEEWAY_S <= now:
            raise InvalidToken("expired")
        if _time(claims, "iat") - LEEWAY_S > now or ("nbf" in claims and _time(claims, "nbf") - LEEWAY_S > now):
            raise InvalidToken("not good yet")
        grant = _text(claims, GRANT_CLAIM) if GRANT_CLAIM in claims else None
        return Claims(
            issuer=self._issuer,
            subject=_text(claims, "sub"),
            client_id=_text(claims, "client_id"),
            scopes=_scopes(claims),
            jti=_text(claims, "jti"),
            grant=grant,
            expires_at=expires_at,
            _all=claims,
        )


def _checked(token: str, key: PyJWK, algorithm: Algorithm) -> Mapping[str, Any]:
    """The claims of a token, whose signature is good. Raises InvalidToken."""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ALONE)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken(type(error).__name__) from None
    return claims


def _is_text(value: object) -> TypeGuard[str]:
    # Nothing in an id may be invisible, nor half of a character.
    return isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS and value.isprintable()


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not _is_text(value):
        raise InvalidToken(f"{name} is missing or no text of reasonable length")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    # Until the year 9999: a number beyond it is none that a calendar can tell.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 253_402_300_000:
        raise InvalidToken(f"{name} is missing or no time")
    return float(value)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """None are said by leaving the claim out: a client that was given none may call, and do nothing."""
    text = claims.get("scope", "")
    if not isinstance(text, str) or len(found := text.split()) > MAX_SCOPES:
        raise InvalidToken("scope is no text of reasonable length")
    return frozenset(found)
