"""An error carries its data once: REST tells it, a client elsewhere makes the same error of that, and tools tell it."""

from typing import Any

import orjson
import pytest
from aiohttp.test_utils import make_mocked_request

from routes.errors import MAX_PROBLEM_BYTES, problem_of, problem_response
from taskhub.fitting import MAX_CHARACTERS, size_of
from taskhub.mcp.errors import from_ticket_error
from taskhub.remote_errors import RemoteRefused, error_of
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    Blocked,
    Conflict,
    IdempotencyMismatch,
    LeaseHeld,
    LeaseLost,
    NotClaimable,
    NothingReady,
    PositionGone,
    ReferenceNotFound,
    TakeOverRefused,
    TicketCycle,
    TicketError,
    TicketGone,
    TicketNotFound,
    UndoConflict,
    VersionConflict,
)
from taskhub.tickets.model import BatchResult, ItemError, ItemResult
from tests.taskhub.mcp.world import data_of, text_of

LONG = "長" * 65_536
FAILED = [ItemResult(f"TH-{no}", False, error=ItemError("blocked", "no " + "x" * 2_000)) for no in range(1, 51)]
ERRORS = [
    TicketNotFound("TH-9"),
    TicketGone("TH-9", "Printer"),
    VersionConflict("TH-9", 3, 5, {"status": ["received", "waiting"]}, ["user:bob"]),
    VersionConflict("TH-9", 3, 9, {}, ["user:bob"]),
    LeaseHeld("TH-9", "agent:bot", "2026-11-20T12:30:00.000Z", ["status"]),
    LeaseLost("TH-9", None),
    LeaseLost("TH-9", "agent:bot"),
    NotClaimable("TH-9", "Completed"),
    Blocked("TH-9", ["TH-1"]),
    NothingReady(),
    TakeOverRefused("agent:bot"),
    ReferenceNotFound("accounts", "acme"),
    PositionGone("abc-1", "events after it were removed"),
    TicketCycle(["TH-1", "TH-2", "TH-1"]),
    BatchNotFound("b-x"),
    BatchFailed(BatchResult(None, True, False, False, FAILED[:2], "x-1")),
    AlreadyUndone("b-x", "b-y"),
    UndoConflict("b-x", [Conflict("TH-1", "status", "user:bob", "2026", "status was changed")]),
    IdempotencyMismatch(),
]
LONG_ONES = [
    VersionConflict("TH-9", 3, 5, {"description": [LONG, LONG], "remarks": [None, LONG]}, ["user:bob"] * 1_000),
    Blocked("TH-9", [f"TH-{no}" for no in range(20_000)]),
    TicketCycle([f"TH-{no}" for no in range(20_000)]),
    UndoConflict("b-x", [Conflict(f"TH-{no}", "labels", "user:bob", "2026", "x" * 5_000) for no in range(50)]),
    BatchFailed(BatchResult(None, True, False, False, FAILED, "x-1")),
]


def document(error: TicketError) -> dict[str, Any]:
    request = make_mocked_request("POST", "/")
    problem = problem_of(error, request)
    assert problem is not None
    body = problem_response(problem, request).body
    assert isinstance(body, bytes)
    assert len(body) <= MAX_PROBLEM_BYTES
    found: dict[str, Any] = orjson.loads(body)
    return found


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_comes_back_from_elsewhere_as_it_was(error: TicketError) -> None:
    found = document(error)

    again = error_of("http://elsewhere", found["status"], found)

    assert isinstance(again, type(error))
    assert (str(again), again.details()) == (str(error), error.details())
    assert error.details().items() <= found.items()


def test_what_a_tool_tells_of_a_conflict_is_what_the_error_carries() -> None:
    conflict = VersionConflict("TH-9", 3, 5, {"status": ["received", "waiting"]}, ["user:bob"])

    assert conflict.details().items() <= data_of(from_ticket_error(conflict, writing=True)).items()


@pytest.mark.parametrize("error", LONG_ONES, ids=lambda error: type(error).__name__)
def test_an_error_about_long_values_is_cut_and_says_so(error: TicketError) -> None:
    result, found = from_ticket_error(error, writing=True), document(error)

    data = data_of(result)
    assert size_of(data) + len(text_of(result)) <= MAX_CHARACTERS
    assert (data["code"], data["truncated"]) == (error.code, True)
    assert "get_ticket_detail" in data["hint"]
    if "truncated" in found:
        assert "cut" in found["hint"]
    assert isinstance(error_of("http://elsewhere", found["status"], found), type(error))


def test_a_long_text_of_a_conflict_keeps_its_beginning_in_both_answers() -> None:
    conflict = LONG_ONES[0]

    for data in (data_of(from_ticket_error(conflict, writing=True)), document(conflict)):
        before, after = data["changed"]["description"]
        assert before.startswith("長長長")
        assert after.endswith("more characters]")


@pytest.mark.parametrize(
    ("status", "problem", "expected"),
    [
        (408, {"code": "request_timeout", "detail": "too slow"}, ("request_timeout", None, True)),
        (413, {"code": "body_too_large", "detail": "too much"}, ("body_too_large", None, False)),
        (429, {"code": "too_many_streams", "detail": "full", "retryable": True}, ("too_many_streams", None, True)),
        (409, {"code": "status_needed", "hint": "keep one", "retryable": False}, ("status_needed", "keep one", False)),
        (409, {"code": "version_conflict", "hint": "read"}, ("version_conflict", "read", False)),
    ],
)
def test_what_is_refused_elsewhere_keeps_its_own_code_hint_and_word_on_repeating(
    status: int, problem: dict[str, Any], expected: tuple[str, str | None, bool]
) -> None:
    refused = error_of("http://elsewhere", status, problem)

    assert isinstance(refused, RemoteRefused)
    assert (refused.code, refused.hint, refused.retryable) == expected


def test_what_is_no_problem_document_is_about_the_address() -> None:
    refused = error_of("http://elsewhere", 404, None)

    assert isinstance(refused, RemoteRefused)
    assert (refused.code, refused.retryable) == ("server_refused", False)
    assert "address" in (refused.hint or "")
