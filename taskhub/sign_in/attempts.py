"""How often somebody may try to sign in."""

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

MAX_KEPT: Final = 10_000


class Attempts:
    """Counts what was tried under each key: `at_once` times, and from then on as many within `within_s`.

    Kept in memory, by each instance for itself, for a time as short as this. Of more than MAX_KEPT keys those that
    tried longest ago are forgotten.
    """

    def __init__(self, at_once: int, within_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._each_s = within_s / at_once
        self._monotonic = monotonic
        self._free_at: OrderedDict[str, float] = OrderedDict()
        """When what was tried so far will be forgotten."""

    def take(self, key: str) -> float:
        """Count an attempt; 0 when it may be made, else after how many seconds it may, and it is not counted."""
        now = self._monotonic()
        free_at = max(self._free_at.get(key, now), now) + self._each_s
        too_early_s = free_at - now - self._at_once * self._each_s
        # Sums of fractions: a hair's breadth is no wait.
        if too_early_s > 1e-6:
            return too_early_s
        self._keep(key, free_at)
        return 0.0

    def give_back(self, key: str) -> None:
        """The attempt was none: it succeeded."""
        if key in self._free_at:
            self._keep(key, self._free_at[key] - self._each_s)

    def _keep(self, key: str, free_at: float) -> None:
        self._free_at[key] = free_at
        self._free_at.move_to_end(key)
        if len(self._free_at) > MAX_KEPT:
            self._free_at.popitem(last=False)


def household(address: str | None) -> str:
    """What attempts from an address count for: who has one IPv6 address has a network of 64 bits of them."""
    try:
        parsed = ipaddress.ip_address(address or "")
    except ValueError:
        return ""
    if parsed.version == 4:
        return str(parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
