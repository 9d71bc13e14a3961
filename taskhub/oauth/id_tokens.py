"""ID tokens: who somebody is to an OpenID provider (OpenID Connect Core 1.0, 3.1.3.7), for one client and one sign-in.

An access token is no ID token, nor the other way round: each has a type of its own, and is judged in a module of its
own.
"""

import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import jwt

from taskhub.auth.errors import InvalidToken
from taskhub.oauth.access_tokens import LEEWAY_S, MAX_TEXT_CHARACTERS
from taskhub.oauth.keys import KeySet
from taskhub.settings.oauth import Algorithm

ALGORITHMS: Final[frozenset[Algorithm]] = frozenset(("ES256", "EdDSA", "RS256", "PS256"))
MAX_CHARACTERS: Final = 16_000
"""Larger than what a request may bring: it comes from the provider itself."""
MAX_SUBJECT: Final = 255
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
# jwt looks at the signature alone: what the claims must be is said below, with a clock that tests can turn.
_SIGNATURE_ALONE: Final[Any] = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


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
        if len(token) > MAX_CHARACTERS or _FORM.fullmatch(token) is None:
            raise InvalidToken("no signed JWT of reasonable length")
        kid, algorithm = _header(token)
        key = await self._keys.key(kid, algorithm)
        if key is None:
            raise InvalidToken("no key of the issuer has this id and algorithm")
        try:
            claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ALONE)
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
            raise InvalidToken(type(error).__name__) from None
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
        now = self._clock()
        if _time(claims, "exp") + LEEWAY_S <= now:
            raise InvalidToken("expired")
        if _time(claims, "iat") - LEEWAY_S > now or ("nbf" in claims and _time(claims, "nbf") - LEEWAY_S > now):
            raise InvalidToken("not good yet")
        if (subject := text(claims, "sub")) is None or len(subject) > MAX_SUBJECT:
            raise InvalidToken("sub is missing or no text of reasonable length")


def text(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that is a text of reasonable length, with nothing invisible in it; None when it is anything else."""
    value = claims.get(name)
    fine = isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS and value.isprintable()
    return value if fine else None


def _header(token: str) -> tuple[str | None, Algorithm]:
    """The key's id and the algorithm. What else a header says of keys (`jku`, `x5u`, `jwk`) does not count."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise InvalidToken("its header cannot be read") from None
    if "crit" in header or "b64" in header:
        raise InvalidToken("its header asks for an extension")
    kind, algorithm, kid = header.get("typ", "JWT"), header.get("alg"), header.get("kid")
    if not isinstance(kind, str) or kind.upper() != "JWT":
        raise InvalidToken("its type is not JWT")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise InvalidToken("its algorithm is not allowed")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_TEXT_CHARACTERS):
        raise InvalidToken("its key id is no text of reasonable length")
    return kid, algorithm


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 253_402_300_000:
        raise InvalidToken(f"{name} is missing or no time")
    return float(value)
