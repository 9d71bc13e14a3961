"""Hashes of passwords: scrypt (RFC 7914), with its parameters beside each hash, so that they can be raised.

Argon2id would need a library, for no more than the same cost to whoever tries passwords: what OWASP's Password Storage
Cheat Sheet takes for its equal is in the standard library.
"""

import asyncio
import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Self, TypeVar

from taskhub.sign_in.errors import TooManyAttempts

T = TypeVar("T")

AT_ONCE: Final = 2
"""Each takes a core for a moment and 16 MiB: the server has other things to do."""
MAX_WAITING: Final = 32
_KEY_BYTES: Final = 32
_SALT_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Cost:
    """Of trying one password: scrypt's N, r and p."""

    n: int = 2**14
    r: int = 8
    p: int = 5

    def key(self, password: str, salt: bytes) -> bytes:
        memory = 128 * self.r * (self.n + self.p + 2)
        return hashlib.scrypt(
            password.encode(), salt=salt, n=self.n, r=self.r, p=self.p, maxmem=memory, dklen=_KEY_BYTES
        )


COST: Final = Cost()
"""Of new hashes: one of the settings that the cheat sheet calls equal, that with the least memory."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """As stored: `scrypt$16384$8$5$SALT$KEY`, the last two in base64."""

    cost: Cost
    salt: bytes
    key: bytes

    @classmethod
    def of(cls, password: str, cost: Cost) -> Self:
        salt = secrets.token_bytes(_SALT_BYTES)
        return cls(cost, salt, cost.key(password, salt))

    @classmethod
    def nobodys(cls, cost: Cost) -> Self:
        """One that no password fits, and that costs as much to find that out."""
        return cls(cost, secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError."""
        kind, n, r, p, salt, key = text.split("$")
        if kind != "scrypt":
            raise ValueError(f"a password hash of an unknown kind, {kind[:20]!r}")
        return cls(Cost(int(n), int(r), int(p)), base64.b64decode(salt), base64.b64decode(key))

    def fits(self, password: str) -> bool:
        return hmac.compare_digest(self.cost.key(password, self.salt), self.key)

    def __str__(self) -> str:
        salt, key = (base64.b64encode(part).decode() for part in (self.salt, self.key))
        return f"scrypt${self.cost.n}${self.cost.r}${self.cost.p}${salt}${key}"


class Passwords:
    """Hashes in threads of its own, few at once, new ones of this cost. `hashed` and `fit` raise TooManyAttempts when
    too many wait already."""

    def __init__(self, cost: Cost = COST) -> None:
        self.cost = cost
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
        self._waiting = 0

    def close(self) -> None:
        """What waits is given up."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hashed(self, password: str) -> str:
        """The hash of a password, as stored."""
        return str(await self._in_turn(lambda: PasswordHash.of(password, self.cost)))

    async def fit(self, password: str, stored: str | None) -> bool:
        """Whether a password is the one of this hash; None is that of nobody, and takes as long."""
        expected = PasswordHash.nobodys(self.cost) if stored is None else PasswordHash.parse(stored)
        return await self._in_turn(lambda: expected.fits(password))

    async def _in_turn(self, work: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise TooManyAttempts(wait_s=5)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._waiting -= 1
