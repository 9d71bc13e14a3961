"""The keys that TaskHub signs its own access tokens with: kept in the database, known to every instance.

A new key is published some time before it signs, so that whoever keeps a copy of the set has it by then, and stays
published until the last token it signed has expired.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm
from sqlalchemy import Connection, delete, insert, select

from taskhub.auth.errors import KeysUnavailable
from taskhub.auth.secret import digest
from taskhub.oauth.keys import PublicKeys
from taskhub.settings.oauth import Algorithm
from taskhub.storage.database import Database
from taskhub.storage.schema import deployment, oauth_signing_keys
from taskhub.storage.times import Clock, to_text, utc_now
from taskhub.tickets.errors import StorageBusy

ALGORITHM: Final[Algorithm] = "ES256"
LEAD: Final = timedelta(minutes=15)
"""How long a key is published before it signs."""
OVERLAP: Final = timedelta(hours=1)
"""How long it is published after it has signed last; longer than any token is good."""
ROTATED_AFTER: Final = timedelta(days=90)
READ_EVERY_S: Final = 30.0
ASK_AGAIN_S: Final = 1.0
"""How soon the database is asked again for a key that was not there: others make new ones, and anybody makes up ids."""
_K: Final = oauth_signing_keys.c


@dataclass(frozen=True, slots=True, eq=False)
class SigningKey:
    """`signs_from`: as stored."""

    id: str
    signs_from: str
    private: EllipticCurvePrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.id})"

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key (RFC 7517)."""
        public = ECAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**public, "kid": self.id, "use": "sig", "alg": ALGORITHM}


class SigningKeys:
    """Signs tokens, and is the KeySet that they are checked with."""

    def __init__(self, database: Database, clock: Clock = utc_now) -> None:
        self._database = database
        self._clock = clock
        self._keys: Sequence[SigningKey] = ()
        self._public = PublicKeys(())
        self._read_at = float("-inf")

    async def sign(self, claims: Mapping[str, Any], kind: str) -> str:
        """A JWT of this type (`typ`) that says so. Raises StorageBusy."""
        keys = await self._known()
        # The last of those whose time has come; the first of all signs as soon as it is there.
        now = to_text(self._clock())
        key = next((key for key in reversed(keys) if key.signs_from <= now), keys[0])
        return jwt.encode(dict(claims), key.private, ALGORITHM, headers={"typ": kind, "kid": key.id})

    async def key(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        """As KeySet.key. Tokens of TaskHub always name their key."""
        if kid is None or algorithm != ALGORITHM:
            return None
        try:
            await self._read_if_older(READ_EVERY_S)
            if (found := self._public.find(kid, algorithm)) is None:
                await self._read_if_older(ASK_AGAIN_S)
                found = self._public.find(kid, algorithm)
        except StorageBusy as busy:
            raise KeysUnavailable(str(busy)) from busy
        return found

    async def published(self) -> list[dict[str, Any]]:
        """The public keys. Raises StorageBusy."""
        return [key.jwk for key in await self._known()]

    async def rotate_if_due(self) -> None:
        """Make a new key when the newest is old, and forget those that nobody needs. Raises StorageBusy."""
        now = self._clock()

        def work(connection: Connection) -> Sequence[SigningKey]:
            keys = _locked(connection)
            if keys and keys[-1].signs_from < to_text(now - ROTATED_AFTER):
                _make(connection, now, now + LEAD)
            _forget(connection, now)
            return _load(connection)

        self._take(await self._database.write(work))

    async def rotate(self) -> str:
        """Make a new key that signs after LEAD, unless there is such a one already; its id. Raises StorageBusy."""
        now = self._clock()

        def work(connection: Connection) -> Sequence[SigningKey]:
            keys = _locked(connection)
            if not keys or keys[-1].signs_from <= to_text(now):
                _make(connection, now, now + LEAD if keys else now)
            return _load(connection)

        self._take(await self._database.write(work))
        return self._keys[-1].id

    async def replace(self) -> str:
        """Forget all keys, for one that signs at once; its id. What the others have signed is good no more, on every
        instance within READ_EVERY_S. Raises StorageBusy."""
        now = self._clock()

        def work(connection: Connection) -> Sequence[SigningKey]:
            _locked(connection)
            connection.execute(delete(oauth_signing_keys))
            _make(connection, now, now)
            return _load(connection)

        self._take(await self._database.write(work))
        return self._keys[-1].id

    async def _known(self) -> Sequence[SigningKey]:
        """The keys; the first one is made when somebody first asks."""
        await self._read_if_older(READ_EVERY_S)
        if not self._keys:
            await self.rotate()
        return self._keys

    async def _read_if_older(self, seconds: float) -> None:
        if time.monotonic() - self._read_at >= seconds:
            self._take(await self._database.read(_load))

    def _take(self, keys: Sequence[SigningKey]) -> None:
        self._keys = keys
        self._public = PublicKeys([key.jwk for key in keys])
        self._read_at = time.monotonic()


def _locked(connection: Connection) -> Sequence[SigningKey]:
    """The keys, of which nobody else changes any until the commit."""
    connection.execute(select(deployment.c.id).with_for_update())
    return _load(connection)


def _load(connection: Connection) -> Sequence[SigningKey]:
    """In the order in which they sign."""
    rows = connection.execute(select(oauth_signing_keys).order_by(_K.signs_from, _K.id))
    return [SigningKey(row.id, row.signs_from, _private(row.private_key)) for row in rows]


def _private(pem: str) -> EllipticCurvePrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise TypeError("a signing key in the database is of another kind than TaskHub makes")
    return key


def _make(connection: Connection, now: datetime, signs_from: datetime) -> None:
    private = generate_private_key(SECP256R1())
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    row = {
        "id": _thumbprint(private), "private_key": pem.decode(), "signs_from": to_text(signs_from),
        "created_at": to_text(now),
    }  # fmt: skip
    connection.execute(insert(oauth_signing_keys), row)


def _thumbprint(private: EllipticCurvePrivateKey) -> str:
    """RFC 7638, of the public key; in hexadecimal, as other ids here."""
    public = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    members = ",".join(f'"{name}":"{public[name]}"' for name in ("crv", "kty", "x", "y"))
    return digest(f"{{{members}}}")[:32]


def _forget(connection: Connection, now: datetime) -> None:
    """Remove the keys whose successors have signed for longer than the overlap."""
    rows = connection.execute(select(_K.id, _K.signs_from).order_by(_K.signs_from, _K.id)).all()
    until = to_text(now - OVERLAP)
    over = [row.id for row, successor in pairwise(rows) if successor.signs_from < until]
    if over:
        connection.execute(delete(oauth_signing_keys).where(_K.id.in_(over)))
