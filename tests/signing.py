"""Keys that tests sign access tokens with."""

import base64
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER: Final = "https://login.example.org"
RESOURCE: Final = "https://taskhub.example.org/mcp"


@dataclass(frozen=True, slots=True, eq=False)
class Signer:
    """A private key, and tokens signed with it."""

    private: Any
    algorithm: str
    kid: str
    jwk: dict[str, Any] = field(init=False)
    """The public key."""

    def __post_init__(self) -> None:
        kind: Any = {"E": ECAlgorithm, "R": RSAAlgorithm, "P": RSAAlgorithm}[self.algorithm[0]]
        if self.algorithm == "EdDSA":
            kind = OKPAlgorithm
        jwk = kind.to_jwk(self.private.public_key(), as_dict=True)
        object.__setattr__(self, "jwk", {**jwk, "kid": self.kid, "use": "sig", "alg": self.algorithm})

    def token(self, claims: Mapping[str, Any] | None = None, *, header: Mapping[str, Any] | None = None) -> str:
        """A good token, but for what is given. A claim or member of the header that is None is left out."""
        return self.signed({**good_claims(), **(claims or {})}, {"typ": "at+jwt", **(header or {})})

    def signed(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """A token that says this and nothing else."""
        said = without_none(claims)
        headers = {"kid": self.kid, **(header or {})}
        given = without_none({"alg": self.algorithm, **headers})
        signed = f"{segment(given)}.{segment(said)}"
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        signature = algorithm.sign(signed.encode(), self.private)
        return f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def good_claims() -> dict[str, Any]:
    now = int(time.time())
    return {
        "iss": ISSUER, "aud": RESOURCE, "sub": "alice", "client_id": "https://client.example.org/metadata.json",
        "scope": "tickets:read events:read", "jti": "token-1", "iat": now, "exp": now + 600,
    }  # fmt: skip


def elliptic(kid: str = "ec-1", curve: ec.EllipticCurve | None = None, algorithm: str = "ES256") -> Signer:
    return Signer(ec.generate_private_key(curve or ec.SECP256R1()), algorithm, kid)


def edwards(kid: str = "ed-1") -> Signer:
    return Signer(ed25519.Ed25519PrivateKey.generate(), "EdDSA", kid)


def rivest(kid: str = "rsa-1", bits: int = 2048, algorithm: str = "RS256") -> Signer:
    return Signer(rsa.generate_private_key(public_exponent=65537, key_size=bits), algorithm, kid)


def segment(value: Any) -> str:
    """JSON in base64url without padding, as the parts of a JWT are."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def without_none(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
