"""Public keys that signatures of access tokens are checked with, as JSON Web Keys (RFC 7517)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Protocol

from jwt import PyJWK, PyJWTError

from taskhub.settings.oauth import Algorithm

MAX_KEYS: Final = 100
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Checking a signature with a larger key takes longer than anybody should wait."""
_CURVES: Final[Mapping[str, tuple[Algorithm, ...]]] = {
    "P-256": ("ES256",),
    "P-384": ("ES384",),
    "P-521": ("ES512",),
    "Ed25519": ("EdDSA",),
}
_OF_RSA: Final[tuple[Algorithm, ...]] = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVED: Final = {"EC": "P-", "OKP": "Ed"}


class KeySet(Protocol):
    """Where the keys of an issuer are found."""

    async def key(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        """The key of this id for this algorithm; without an id, the only one there is for it. None when there is none.

        Raises KeysUnavailable.
        """


class PublicKeys:
    """The usable keys of a JWK set. Others in it, of unknown kinds or for other uses, are passed over (RFC 7517, 5)."""

    def __init__(self, keys: Sequence[Mapping[str, Any]]) -> None:
        self._keys: dict[Algorithm, dict[str | None, PyJWK]] = {}
        self._repeated: set[tuple[Algorithm, str | None]] = set()
        for entry in keys[:MAX_KEYS]:
            for algorithm, key in _usable(entry):
                self._add(algorithm, key)

    def _add(self, algorithm: Algorithm, key: PyJWK) -> None:
        of_algorithm = self._keys.setdefault(algorithm, {})
        if key.key_id in of_algorithm:
            self._repeated.add((algorithm, key.key_id))
        of_algorithm[key.key_id] = key

    def __len__(self) -> int:
        return len({kid for of_algorithm in self._keys.values() for kid in of_algorithm})

    def find(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        """As KeySet.key. Two keys under one id are none: which of them was meant cannot be told."""
        of_algorithm = self._keys.get(algorithm, {})
        if kid is None:
            if len(of_algorithm) != 1:
                return None
            kid = next(iter(of_algorithm))
        return None if (algorithm, kid) in self._repeated else of_algorithm.get(kid)

    async def key(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        """These keys are a KeySet that never changes."""
        return self.find(kid, algorithm)


def _usable(entry: Any) -> Iterator[tuple[Algorithm, PyJWK]]:
    """The key for each algorithm that it can be used with. A private key is none that anybody should have sent."""
    if not isinstance(entry, Mapping) or "d" in entry or not isinstance(entry.get("kid"), str | None):
        return
    uses = entry.get("key_ops", ["verify"])
    if entry.get("use", "sig") != "sig" or not isinstance(uses, list) or "verify" not in uses:
        return
    for algorithm in _algorithms(entry):
        if entry.get("alg", algorithm) != algorithm:
            continue
        try:
            key = PyJWK(dict(entry), algorithm)
        except (PyJWTError, ValueError, TypeError, AttributeError):  # what is wrong in such an entry is not checked
            return
        if entry["kty"] == "RSA" and not MIN_RSA_BITS <= key.key.key_size <= MAX_RSA_BITS:
            return
        yield algorithm, key


def _algorithms(entry: Mapping[str, Any]) -> tuple[Algorithm, ...]:
    kind, curve = entry.get("kty"), entry.get("crv")
    if kind == "RSA":
        return _OF_RSA
    if isinstance(kind, str) and isinstance(curve, str) and curve.startswith(_CURVED.get(kind, " ")):
        return _CURVES.get(curve, ())
    return ()
