"""Which fault happens when: a schedule drawn from one seed, so that a run can be made to suffer the same again."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.e2e.harness.cluster import SERVERS

_OF_A_SERVER: Final = ("kill", "kill", "pause", "terminate")
_OF_A_LINK: Final = ("cut", "cut", "refuse", "blackhole", "delay")

KINDS: Final[Mapping[str, Sequence[str]]] = {
    **{f"server {name}": _OF_A_SERVER for name in SERVERS},
    **{f"link {name} database": _OF_A_LINK for name in SERVERS},
    **{f"link {name} redis": _OF_A_LINK for name in SERVERS},
    "database": ("kill", "pause", "stop", "disconnect"),
    "redis": ("kill", "pause", "flush", "kill pubsub", "client pause"),
    "followers": ("cut",),
}
"""Target → what can be done to it. What is named twice is twice as likely."""

_MEAN_GAP_S: Final = 2.0
_REST_S: Final = 1.0
"""After a fault its target is left alone for so long; others are not, so faults overlap."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`kind` is done to `target` after `at_s` seconds, and undone `for_s` later where there is something to undo."""

    at_s: float
    target: str
    kind: str
    for_s: float

    def __str__(self) -> str:
        return f"{self.at_s:7.2f} s  {self.target}: {self.kind} for {self.for_s:.2f} s"


def schedule(seed: int, seconds: float) -> list[Fault]:
    """The faults of a run that takes so long; each has ended by then."""
    chance = random.Random(seed)
    longest = min(12.0, seconds / 4)
    free_at = dict.fromkeys(KINDS, 0.0)
    faults: list[Fault] = []
    at = 1.0
    while at < seconds - longest:
        if free := [target for target, since in free_at.items() if since <= at]:
            target = chance.choice(free)
            kind = chance.choice(KINDS[target])
            # Most are short, so that there are many; some outlast every timeout.
            for_s = chance.uniform(0.1, 2.0) if chance.random() < 0.8 else chance.uniform(2.0, max(2.0, longest))
            faults.append(Fault(round(at, 2), target, kind, round(for_s, 2)))
            free_at[target] = at + for_s + _REST_S
        at += chance.expovariate(1 / _MEAN_GAP_S)
    return faults
