"""Errors of the event engine, named by the condition.

BroadcasterError
├── InvalidPosition      a position that is not `<epoch>-<seq>`
├── PositionExpired      events after this position are no longer in the log
├── InvalidFilter        one or more filter parameters are wrong
├── InvalidEvent         an event that may not be published
└── LogUnavailable       the log's database does not answer; try again later
"""

from dataclasses import dataclass


class BroadcasterError(Exception):
    """Base of all errors of this package."""


class InvalidPosition(BroadcasterError):
    """The text is not a position; `text` is what was given."""

    def __init__(self, text: str) -> None:
        super().__init__(f"not a position: {text[:80]!r}; a position looks like k7q2m4xa-1042")
        self.text = text


class PositionExpired(BroadcasterError):
    """Events right after `after` were removed by retention; `oldest` is the first seq still there."""

    def __init__(self, after: int, oldest: int) -> None:
        super().__init__(f"events after {after} are gone; the oldest is {oldest}")
        self.after = after
        self.oldest = oldest


class LogUnavailable(BroadcasterError):
    """The log cannot be read now. Nothing is lost; the same read may work later."""


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """What is wrong with one parameter or field, and the nearest value that would be right."""

    parameter: str
    reason: str
    did_you_mean: str | None = None


class InvalidFilter(BroadcasterError):
    """One or more filter parameters are wrong; `problems` names each."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{p.parameter}: {p.reason}" for p in problems))
        self.problems = problems


class InvalidEvent(BroadcasterError):
    """An event that may not be published; `problems` names each field."""

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{p.parameter}: {p.reason}" for p in problems))
        self.problems = problems
