"""What access tokens and ID tokens have in common: both are signed JWTs (RFC 7519), read as RFC 8725 says.

What else a claim must be, each of the two says for itself.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final, cast

import jwt
from jwt import PyJWK

from taskhub.auth.errors import InvalidToken
from taskhub.oauth.keys import KeySet
from taskhub.settings.oauth import Algorithm

LEEWAY_S: Final = 30
"""By how much the clocks of issuer and server may differ."""
MAX_TEXT_CHARACTERS: Final = 500
"""Of ids in a token: they are compared, stored and logged."""
_FORM: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
# jwt looks at the signature alone: what the claims must be is said here, with a clock that tests can turn.
_SIGNATURE_ALONE: Final[Any] = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}


def key_named(token: str, kinds: Collection[str | None], algorithms: Collection[str]) -> tuple[str | None, Algorithm]:
    """The id and the algorithm of the key that a token's header names. `kinds`: types it may be of (None: without one),
    in lower case. What else a header says of keys (`jku`, `x5u`, `jwk`) does not count. Raises InvalidToken."""
    if not _FORM.fullmatch(token):
        raise InvalidToken("no signed JWT")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise InvalidToken("its header cannot be read") from None
    if "crit" in header or "b64" in header:
        raise InvalidToken("its header asks for an extension")
    kind, algorithm, kid = header.get("typ"), header.get("alg"), header.get("kid")
    if (kind.lower() if isinstance(kind, str) else kind) not in kinds:
        raise InvalidToken(f"its type is not {', '.join(filter(None, kinds))}")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise InvalidToken("its algorithm is not allowed")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_TEXT_CHARACTERS):
        raise InvalidToken("its key id is no text of reasonable length")
    return kid, cast(Algorithm, algorithm)


async def key_for(keys: KeySet, kid: str | None, algorithm: Algorithm) -> PyJWK:
    """Raises InvalidToken when there is none, and KeysUnavailable."""
    key = await keys.key(kid, algorithm)
    if key is None:
        raise InvalidToken("no key of the issuer has this id and algorithm")
    return key


def signed_claims(token: str, key: PyJWK, algorithm: Algorithm) -> Mapping[str, Any]:
    """The claims of a token whose signature is good. Raises InvalidToken."""
    try:
        claims: Mapping[str, Any] = jwt.decode(token, key, algorithms=[algorithm], options=_SIGNATURE_ALONE)
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise InvalidToken(type(error).__name__) from None
    return claims


def check_times(claims: Mapping[str, Any], now: float) -> float:
    """When a token that is good `now` expires, in seconds since 1970. Raises InvalidToken."""
    expires_at = _time(claims, "exp")
    if expires_at + LEEWAY_S <= now:
        raise InvalidToken("expired")
    if _time(claims, "iat") - LEEWAY_S > now or ("nbf" in claims and _time(claims, "nbf") - LEEWAY_S > now):
        raise InvalidToken("not good yet")
    return expires_at


def text(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that is a text of reasonable length; None when it is missing or anything else."""
    value = claims.get(name)
    # Nothing in an id may be invisible, nor half of a character.
    fine = isinstance(value, str) and 0 < len(value) <= MAX_TEXT_CHARACTERS and value.isprintable()
    return value if fine else None


def needed_text(claims: Mapping[str, Any], name: str) -> str:
    """The same of one that must be there. Raises InvalidToken."""
    value = text(claims, name)
    if value is None:
        raise InvalidToken(f"{name} is missing or no text of reasonable length")
    return value


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    # Until the year 9999: a number beyond it is none that a calendar can tell.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 253_402_300_000:
        raise InvalidToken(f"{name} is missing or no time")
    return float(value)
