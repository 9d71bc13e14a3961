"""Who comes with wrong credentials too often, and is no longer looked up for that.

Judging a credential that nobody has seen may cost a read of the database, so whoever sends guesses would have everybody
wait. Refusing is by address, and addresses are shared: a credential that was good is let through to be judged even
where others fail, and the address is one that nobody but its owner can have (see `routes.access.failure_address`).
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from taskhub.rates import MAX_KEYS, Rate, household

MAX_KNOWN: Final = 10_000


class Failures:
    """`per_min` failures a minute of one address are judged, as many at once; further credentials from there only if
    they were good before."""

    def __init__(self, per_min: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.per_min = per_min
        self._rate = Rate(per_min / 60, max(1, int(per_min)), max_keys=MAX_KEYS, clock=clock)
        # By Python's own hash, with a key of this process: whoever else gets through is judged, and nothing more.
        self._known: OrderedDict[int, None] = OrderedDict()

    def refused(self, address: str, presented: str) -> float:
        """For how many seconds this credential from this address is not looked at; 0.0 when it is."""
        wait_s = self._rate.wait_s(household(address))
        return wait_s if wait_s and hash(presented) not in self._known else 0.0

    def failed(self, address: str) -> None:
        """A credential from there was wrong."""
        self._rate.take(household(address))

    def succeeded(self, presented: str) -> None:
        """A credential was good."""
        known = hash(presented)
        if known not in self._known:
            self._known[known] = None
            if len(self._known) > MAX_KNOWN:
                self._known.popitem(last=False)
