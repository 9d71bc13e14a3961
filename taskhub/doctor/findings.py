"""What the doctor has found."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

MOST: Final = 50
"""Problems of one kind that are named; the others are counted. One cause can show in every ticket."""


@dataclass(frozen=True, slots=True)
class Problem:
    """`check`: what kind of thing is not as it should be. `workspace`: None where it concerns the whole database."""

    check: str
    workspace: str | None
    what: str


@dataclass(frozen=True, slots=True)
class Examined:
    """What was looked at of a workspace."""

    workspace: str
    tickets: int
    events: int
    oldest_seq: int
    head_seq: int


@dataclass(eq=False, slots=True)
class Findings:
    """All that was looked at, and found. `unnamed`: how many more problems there are, by check."""

    examined: list[Examined] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unnamed: Counter[str] = field(default_factory=Counter)
    _named: Counter[str] = field(default_factory=Counter)

    def add(self, check: str, workspace: str | None, what: str) -> None:
        if self._named[check] < MOST:
            self._named[check] += 1
            self.problems.append(Problem(check, workspace, what))
        else:
            self.unnamed[check] += 1

    @property
    def sound(self) -> bool:
        return not self.problems
