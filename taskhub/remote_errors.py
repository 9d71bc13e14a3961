"""What the answers of a TaskHub elsewhere mean when they are no success: the errors that the local service raises."""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from taskhub.auth.errors import AuthError, Forbidden, Unauthenticated
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    Blocked,
    Conflict,
    IdempotencyMismatch,
    InputProblem,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    NotClaimable,
    NothingReady,
    PositionGone,
    StorageBusy,
    TakeOverRefused,
    TicketCycle,
    TicketError,
    TicketGone,
    TicketNotFound,
    UndoConflict,
    VersionConflict,
)
from taskhub.tickets.model import BatchResult

Answer = TypeVar("Answer")
_BATCH_RESULT: Final = TypeAdapter(BatchResult)
_CONFLICTS: Final = TypeAdapter(list[Conflict])


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
    """The server refused the request for a reason that no ticket error stands for."""

    code = "server_refused"

    def __init__(self, base_url: str, status: int, detail: str) -> None:
        super().__init__(f"{base_url} does not serve the request: {detail}")
        self.status = status
        self.hint = "check the address and the API key that this process was started with"


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
        case "forbidden":
            return Forbidden(str(problem.get("scope", "that the action has")))
        case "not_found":
            return TicketNotFound(str(problem.get("key", "")))
        case "deleted":
            return TicketGone(str(problem.get("key", "")), str(problem.get("summary", "")))
        case "version_conflict":
            changed = problem.get("changed")
            return VersionConflict(
                str(problem.get("key", "")),
                int(problem.get("expected") or 0),
                int(problem.get("current") or 0),
                changed if isinstance(changed, dict) else {},
                [str(actor) for actor in problem.get("actors") or ()],
            )
        case "lease_held":
            changing = [str(name) for name in problem.get("changing") or ()]
            holder, expires_at = str(problem.get("holder", "")), str(problem.get("expires_at", ""))
            return LeaseHeld(str(problem.get("key", "")), holder, expires_at, changing)
        case "lease_lost":
            present = problem.get("holder")
            return LeaseLost(str(problem.get("key", "")), None if present is None else str(present))
        case "not_claimable":
            return NotClaimable(str(problem.get("key", "")), str(problem.get("ticket_status", "")))
        case "blocked":
            return Blocked(str(problem.get("key", "")), [str(key) for key in problem.get("blockers") or ()])
        case "nothing_ready":
            return NothingReady()
        case "take_over_refused":
            return TakeOverRefused(str(problem.get("actor", "")))
        case "cycle":
            return TicketCycle([str(key) for key in problem.get("path") or ("it", "that")])
        case "no_such_batch":
            return BatchNotFound(str(problem.get("batch_id", "")))
        case "batch_failed":
            return BatchFailed(parsed(_BATCH_RESULT, problem.get("result"), base_url))
        case "already_undone":
            return AlreadyUndone(str(problem.get("batch_id", "")), str(problem.get("undone_by", "")))
        case "undo_conflict":
            conflicts = parsed(_CONFLICTS, problem.get("conflicts"), base_url)
            return UndoConflict(str(problem.get("batch_id", "")), conflicts)
        case "position_expired":
            return PositionGone(detail, str(problem.get("position", "now")))
        case "idempotency_mismatch":
            return IdempotencyMismatch()
    faults = problem.get("errors")
    if status in (400, 422) and isinstance(faults, list) and faults:
        return InvalidInput([_input_problem(fault) for fault in faults if isinstance(fault, dict)])
    return RemoteRefused(base_url, status, detail)


def _input_problem(fault: Mapping[str, Any]) -> InputProblem:
    place = str(fault.get("pointer") or fault.get("parameter") or fault.get("header") or "")
    near = fault.get("did_you_mean")
    return InputProblem(
        pointer=f"/{place.lstrip('/')}" if place else "",
        reason=str(fault.get("reason", "is wrong")),
        allowed=tuple(str(value) for value in fault.get("allowed") or ()),
        did_you_mean=None if near is None else str(near),
    )
