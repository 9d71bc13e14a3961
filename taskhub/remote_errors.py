"""What the answers of a TaskHub elsewhere mean when they are no success: the errors that the local service raises."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from taskhub.auth.errors import AuthError, Forbidden, Unauthenticated
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    Blocked,
    IdempotencyMismatch,
    InputProblem,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    NotClaimable,
    NothingReady,
    PositionGone,
    RateLimited,
    ReferenceNotFound,
    StorageBusy,
    TakeOverRefused,
    TicketCycle,
    TicketError,
    TicketGone,
    TicketNotFound,
    UndoConflict,
    VersionConflict,
)

Answer = TypeVar("Answer")
_KINDS: Final[tuple[type[TicketError], ...]] = (
    AlreadyUndone, BatchFailed, BatchNotFound, Blocked, IdempotencyMismatch, LeaseHeld, LeaseLost, NotClaimable,
    NothingReady, PositionGone, RateLimited, ReferenceNotFound, TakeOverRefused, TicketCycle, TicketGone,
    TicketNotFound, UndoConflict, VersionConflict,
)  # fmt: skip
"""What an answer may stand for, by its code; of two with the same code the one whose data it has."""

_LATER: Final = (408, 425, 429)
"""What the same request may get past later, where the answer does not say."""


class RemoteUnavailable(StorageBusy):
    """The server does not answer, or says that it cannot now. A write may or may not have taken effect there; to repeat
    it with its idempotency key is safe."""

    code = "server_unavailable"

    def __init__(self, base_url: str, reason: str) -> None:
        TicketError.__init__(self, f"the TaskHub at {base_url} {reason}")
        self.base_url = base_url
        self.uncertain = True
        self.hint = "check that it runs, then try again"


class RemoteRefused(TicketError):
    """The server refused the request for a reason that no ticket error stands for: with the code, the hint and the
    word on repeating that its answer has, where that is a problem document."""

    code = "server_refused"

    def __init__(self, base_url: str, status: int, detail: str, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{base_url} does not serve the request: {detail}")
        self.status = status
        self.hint = "check the address and the API key that this process was started with"
        if code := problem.get("code"):
            self.code, self.hint = str(code), problem.get("hint")
            self.retryable = bool(problem.get("retryable", status in _LATER))


def parsed(kind: TypeAdapter[Answer], answer: Any, base_url: str) -> Answer:
    """An answer as what it should be. Raises RemoteUnavailable."""
    try:
        return kind.validate_python(answer)
    except ValidationError as error:
        raise RemoteUnavailable(
            base_url,
            f"answered something that this version does not understand ({error.error_count()} problems)",
        ) from None


def error_of(base_url: str, status: int, answer: Any) -> TicketError | AuthError:
    """The error that an answer stands for, which should be a problem document."""
    problem: Mapping[str, Any] = answer if isinstance(answer, dict) else {}
    detail = str(problem.get("detail") or f"what answers there is no TaskHub API (HTTP status {status})")
    match problem.get("code"):
        case "unauthenticated":
            return Unauthenticated(f"{base_url}: {detail}")
        case "forbidden" if "scope" in problem:
            return Forbidden(str(problem["scope"]))
    faults = problem.get("errors")
    if status in (400, 422) and isinstance(faults, list) and faults:
        return InvalidInput([_input_problem(fault) for fault in faults if isinstance(fault, dict)])
    for kind in _KINDS:
        if kind.code == problem.get("code"):
            # Another version may tell of an error without all that makes it: then what it says is all there is.
            with suppress(ValidationError, LookupError):
                return kind.from_details(detail, problem)
    return RemoteRefused(base_url, status, detail, problem)


def _input_problem(fault: Mapping[str, Any]) -> InputProblem:
    place = str(fault.get("pointer") or fault.get("parameter") or fault.get("header") or "")
    near = fault.get("did_you_mean")
    return InputProblem(
        pointer=f"/{place.lstrip('/')}" if place else "",
        reason=str(fault.get("reason", "is wrong")),
        allowed=tuple(str(value) for value in fault.get("allowed") or ()),
        did_you_mean=None if near is None else str(near),
    )
