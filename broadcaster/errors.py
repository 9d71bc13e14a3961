"""Errors of the event engine, named by the condition.

BroadcasterError
├── InvalidPosition      a position that is not `<epoch>-<seq>`
├── InvalidStart         what says where to begin reading says nothing
├── PositionExpired      events after this position are no longer in the log
├── CannotContinue       a poll named a position after which it cannot go on
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


class InvalidStart(BroadcasterError):
    """The text is none of the forms in which a place to begin is given; `str()` says what it must be."""


class CannotContinue(BroadcasterError):
    """Events after `requested` cannot be read, for a `reason` that a stream's `reset` would give. What can be read
    begins after `oldest`; who has read the tickets anew goes on after `position`."""

    def __init__(self, reason: str, requested: str, oldest: str, position: str) -> None:
        detail = {
            "expired": "events after it were removed by retention",
            "epoch_changed": "it belongs to a log that was replaced",
            "ahead": "the log has not come so far: it was probably restored",
        }[reason]
        super().__init__(
            f"cannot continue after {requested}: {detail}; read the tickets again, then continue after `position`"
        )
        self.reason = reason
        self.requested = requested
        self.oldest = oldest
        self.position = position


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
