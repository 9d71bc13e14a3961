"""What a consent page carries to and fro: the request that is answered, sealed for one user in one session.

No instance remembers the question, so any can take the answer, also after a restart; and a form that another site made
up, or that was shown to somebody else, opens nothing.
"""

import base64
import binascii
import hmac
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Self

import orjson

from taskhub.auth.principal import Principal
from taskhub.oauth.errors import UnsafeRequest

GOOD_FOR_S: Final = 1800
"""How long a person may take to answer."""
_MAC_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Consent:
    """A question to a user. `session` is the credential that the user came with."""

    workspace: str
    actor: str
    session: str
    parameters: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, user: Principal, parameters: Iterable[tuple[str, str]]) -> Self:
        return cls(user.workspace, user.actor, user.credential or "", tuple(parameters))

    def parameters_for(self, user: Principal) -> tuple[tuple[str, str], ...]:
        """The parameters, if it is this user who was asked. Raises UnsafeRequest."""
        if Consent.of(user, ()) != Consent(self.workspace, self.actor, self.session, ()):
            raise UnsafeRequest("not_yours", "the question was put to another session")
        return self.parameters


class Seal:
    """`secret` must be known to all instances and to nobody else."""

    def __init__(self, secret: bytes, clock: Callable[[], float]) -> None:
        self._key = hmac.digest(secret, b"taskhub oauth consent 1", "sha256")
        self._clock = clock

    def close(self, consent: Consent) -> str:
        body = orjson.dumps([int(self._clock()), consent])
        return base64.urlsafe_b64encode(hmac.digest(self._key, body, "sha256") + body).decode()

    def open(self, sealed: str) -> Consent:
        """Raises UnsafeRequest."""
        try:
            raw = base64.b64decode(sealed.encode(), b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, hmac.digest(self._key, body, "sha256")):
            raise UnsafeRequest("not_yours", "the answer does not belong to a question of this server")
        at, said = orjson.loads(body)
        if self._clock() - at > GOOD_FOR_S:
            raise UnsafeRequest("expired", f"the question is older than {GOOD_FOR_S // 60} minutes")
        parameters = tuple((str(name), str(value)) for name, value in said["parameters"])
        return Consent(said["workspace"], said["actor"], said["session"], parameters)
