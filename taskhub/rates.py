"""How often something may happen, in bounded memory and without timers; and who is counted as one."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

MAX_KEYS: Final = 10_000
"""Beyond so many, those that were longest quiet are forgotten, which gives them their whole allowance."""

ROUNDING_S: Final = 1e-6
"""What sums of intervals may be wrong by."""


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many a second, and `burst` at once after a quiet time, which is one at least."""

    per_s: float
    burst: int


class Rate:
    """So many a second for each key, and `burst` at once after a quiet time; for a key with an allowance of its own,
    what that says.

    The generic cell rate algorithm: of each key it knows only the moment at which its whole allowance is back.
    """

    def __init__(
        self,
        per_s: float,
        burst: int,
        *,
        max_keys: int = MAX_KEYS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usual = Allowance(per_s, max(1, burst))
        self._max_keys = max_keys
        self._clock = clock
        self._whole_at: OrderedDict[Hashable, float] = OrderedDict()

    @property
    def per_s(self) -> float:
        return self._usual.per_s

    @property
    def burst(self) -> int:
        return self._usual.burst

    def take(self, key: Hashable = None, allowance: Allowance | None = None) -> float:
        """Take one: 0.0 when there was one; else nothing is taken, and the answer is after how many seconds there will
        be."""
        if wait_s := self.wait_s(key, allowance):
            self._whole_at.move_to_end(key)
            return wait_s
        now = self._clock()
        self._whole_at[key] = max(now, self._whole_at.get(key, now)) + 1 / (allowance or self._usual).per_s
        self._whole_at.move_to_end(key)
        if len(self._whole_at) > self._max_keys:
            self._whole_at.popitem(last=False)
        return 0.0

    def give_back(self, key: Hashable = None) -> None:
        """What was taken did not happen."""
        if key in self._whole_at:
            self._whole_at[key] -= 1 / self._usual.per_s

    def wait_s(self, key: Hashable = None, allowance: Allowance | None = None) -> float:
        """After how many seconds there will be one; 0.0 when there is one now."""
        now = self._clock()
        allowance = allowance or self._usual
        wait_s = self._whole_at.get(key, now) - now - (allowance.burst - 1) / allowance.per_s
        return wait_s if wait_s > ROUNDING_S else 0.0


@lru_cache(maxsize=1024)
def household(address: str) -> str:
    """Whom an address stands for: of IPv6 the network of 2**64, of whose addresses one host may have as many as it
    likes. A text that is no address stands for itself."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.is_loopback or "%" in address:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))
