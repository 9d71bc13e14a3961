"""Who goes on asking although it was told to wait.

A client that is a little too fast is told so at once. One that does not heed that gets its refusals later: if it waits
for an answer before it asks again, it is slowed down to what it is allowed. And it is known by what it presents, so
that it can be refused by the first bytes of a request, which costs a fraction of what it takes to understand one.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import structlog

from taskhub.auth.principal import Principal
from taskhub.rates import Rate

REFUSALS_PER_S: Final = 5.0
REFUSALS_AT_ONCE: Final = 20
"""Refusals that come at once, and so many a second: beyond them somebody insists."""
KNOWN_S: Final = 1.0
"""After so long a credential is looked at again: it may be over, or allowed more."""
MAX_KNOWN: Final = 1000
TELL_EVERY_S: Final = 60.0

log = structlog.get_logger("taskhub.limits")


@dataclass(frozen=True, slots=True)
class Insistent:
    """Who insists, and until when that is known; `answers` is for whoever refuses it, to keep what can be said
    again."""

    principal: Principal
    until: float
    answers: dict[str, tuple[bytes, bytes, bytes]] = field(default_factory=dict)


class Insisting:
    """Who insists now. `known` is empty where nobody does: then there is nothing to ask."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refusals = Rate(REFUSALS_PER_S, REFUSALS_AT_ONCE, clock=clock)
        self.known: OrderedDict[int, Insistent] = OrderedDict()
        """By Python's own hash of what was presented, which has a key of this process."""
        self._told: OrderedDict[str, float] = OrderedDict()

    def refused(self, who: str) -> bool:
        """Somebody was refused; whether it insists. `who` is whom the limits count."""
        return self._refusals.take(who) > 0

    def remember(self, presented: int, principal: Principal) -> None:
        """Somebody who insists presented this."""
        now = self._clock()
        self.known[presented] = Insistent(principal, now + KNOWN_S)
        self.known.move_to_end(presented)
        if len(self.known) > MAX_KNOWN:
            self.known.popitem(last=False)

    def presenting(self, presented: int) -> Insistent | None:
        """Who insists and has presented this a moment ago."""
        found = self.known.get(presented)
        if found is not None and self._clock() >= found.until:
            del self.known[presented]
            return None
        return found

    def tell(self, who: str, setting: str) -> None:
        """Say so in the log, once in a minute of each."""
        now = self._clock()
        if now < self._told.get(who, 0.0):
            return
        log.warning("somebody asks on after refusals, which now come later", who=who, limit=setting)
        self._told[who] = now + TELL_EVERY_S
        self._told.move_to_end(who)
        if len(self._told) > MAX_KNOWN:
            self._told.popitem(last=False)
