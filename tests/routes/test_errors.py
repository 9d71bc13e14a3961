"""The one map from errors to problems."""

import re
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from broadcaster.errors import (
    FieldProblem,
    InvalidEvent,
    InvalidFilter,
    InvalidPosition,
    LogUnavailable,
    PositionExpired,
)
from broadcaster.stream import StreamRefused
from routes.api import CONDITIONS, ROUTES
from routes.errors import CODES, Problem, problem_of
from routes.keys import AUTH, TICKETS
from taskhub.auth.errors import Forbidden, InvalidToken, KeysUnavailable, Unauthenticated, UnknownSubject
from taskhub.auth.providers import NoAuth
from taskhub.tickets import errors as ticket_errors
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    Blocked,
    Conflict,
    Draining,
    IdempotencyMismatch,
    InputProblem,
    InUse,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    NotClaimable,
    NothingReady,
    PositionGone,
    RateLimited,
    ReferenceNotFound,
    StatusNeeded,
    StorageBusy,
    TakeOverRefused,
    TicketCycle,
    TicketError,
    TicketGone,
    TicketNotFound,
    UndoConflict,
    VersionConflict,
)
from taskhub.tickets.imports import ImportInterrupted
from taskhub.tickets.model import BatchResult, ItemError, ItemResult
from tests.routes.conftest import Hub

WRONG = InputProblem("/status", "there is no status x", ("received", "waiting"), "received")
FAILED = BatchResult(None, True, False, False, [ItemResult("TH-9", False, error=ItemError("not_found", "no"))], "x-1")
CASES: list[tuple[Exception, int, str]] = [
    (InvalidInput([WRONG]), 422, "invalid_input"),
    (TicketNotFound("TH-9"), 404, "not_found"),
    (TicketGone("TH-9"), 410, "deleted"),
    (VersionConflict("TH-9", 3, 5, {"status": ["received", "waiting"]}, ["user:bob"]), 412, "version_conflict"),
    (LeaseHeld("TH-9", "agent:bot", "2026-11-20T12:30:00.000Z", ["status"]), 409, "lease_held"),
    (LeaseLost("TH-9", None), 409, "lease_lost"),
    (NotClaimable("TH-9", "Completed"), 409, "not_claimable"),
    (Blocked("TH-9", ["TH-1"]), 409, "blocked"),
    (NothingReady(), 409, "nothing_ready"),
    (TakeOverRefused("agent:bot"), 403, "take_over_refused"),
    (ReferenceNotFound("accounts", "acme"), 404, "not_found"),
    (InUse("accounts", "acme", 3, "it stays"), 409, "in_use"),
    (StatusNeeded("the last one"), 409, "status_needed"),
    (PositionGone("abc-1"), 410, "position_expired"),
    (TicketCycle(["TH-1", "TH-2", "TH-1"]), 409, "cycle"),
    (BatchNotFound("b-x"), 404, "no_such_batch"),
    (BatchFailed(FAILED), 409, "batch_failed"),
    (AlreadyUndone("b-x", "b-y"), 409, "already_undone"),
    (UndoConflict("b-x", [Conflict("TH-1", "status", "user:bob", "2026", "status was changed")]), 409, "undo_conflict"),
    (IdempotencyMismatch(), 422, "idempotency_mismatch"),
    (Draining(), 503, "draining"),
    (RateLimited("20 changes a second", "TASKHUB_WRITES_PER_S", 0.4), 429, "rate_limited"),
    (ImportInterrupted(100, 5, 0, 1), 503, "import_interrupted"),
    (StorageBusy(), 503, "storage_busy"),
    (Unauthenticated("no"), 401, "unauthenticated"),
    (InvalidToken("expired"), 401, "unauthenticated"),
    (UnknownSubject("sub"), 403, "unknown_user"),
    (KeysUnavailable("no answer"), 503, "issuer_unavailable"),
    (Forbidden("admin"), 403, "forbidden"),
    (InvalidFilter([FieldProblem("status", "no", "yes")]), 400, "bad_parameter"),
    (InvalidEvent([FieldProblem("type", "no")]), 422, "invalid_input"),
    (InvalidPosition("x"), 400, "bad_parameter"),
    (PositionExpired(1, 5), 410, "position_expired"),
    (LogUnavailable(), 503, "storage_busy"),
    (StreamRefused("limit", "full", 1500), 429, "too_many_streams"),
    (StreamRefused("shutdown", "bye", 100), 503, "draining"),
    (StreamRefused("overloaded", "busy", 100), 503, "overloaded"),
]


def problem(error: Exception, method: str = "POST") -> dict[str, Any]:
    app = web.Application()
    app[AUTH] = NoAuth()
    found = problem_of(error, make_mocked_request(method, "/", app=app))
    assert found is not None
    return {"headers": dict(found.headers), **found.document("r-1")}


@pytest.mark.parametrize(("error", "status", "code"), CASES, ids=lambda value: type(value).__name__)
def test_each_error_has_its_status_and_code(error: Exception, status: int, code: str) -> None:
    found = problem(error)

    assert (found["status"], found["code"], found["request_id"]) == (status, code, "r-1")
    assert found["detail"]


def test_no_ticket_error_is_without_a_case() -> None:
    known = {type(error) for error, _, _ in CASES}
    all_of_them = {
        kind
        for kind in vars(ticket_errors).values()
        if isinstance(kind, type) and issubclass(kind, TicketError) and kind is not TicketError
    }

    assert all_of_them <= known


def test_input_is_named_by_parameter_in_a_query_and_by_pointer_in_a_body() -> None:
    reading, writing = problem(InvalidInput([WRONG]), "GET"), problem(InvalidInput([WRONG]), "POST")
    rest = {"reason": "there is no status x", "did_you_mean": "received", "allowed": ["received", "waiting"]}

    assert (reading["status"], reading["errors"]) == (400, [{"parameter": "status", **rest}])
    assert (writing["status"], writing["errors"]) == (422, [{"pointer": "/status", **rest}])


def test_a_conflict_says_what_changed_and_carries_the_current_version() -> None:
    found = problem(VersionConflict("TH-9", 3, 5, {"status": ["received", "waiting"]}, ["user:bob"]))

    assert found["headers"]["ETag"] == '"5"'
    assert (found["expected"], found["current"], found["key"]) == (3, 5, "TH-9")
    assert found["changed"] == {"status": ["received", "waiting"]}
    assert found["actors"] == ["user:bob"]
    assert found["hint"]


@pytest.mark.parametrize("error", [StorageBusy(), LogUnavailable(), StreamRefused("limit", "full", 1500)])
def test_what_may_work_later_says_when(error: Exception) -> None:
    found = problem(error)

    assert found["headers"]["Retry-After"] == "2"
    assert found["retryable"] is True


def test_only_a_write_is_told_that_nothing_was_changed() -> None:
    reading, writing = problem(StorageBusy("the database is away"), "GET"), problem(StorageBusy("the database is away"))
    releasing = problem(StorageBusy("the database is away"), "DELETE")
    unclear = problem(StorageBusy("the database is away", uncertain=True))

    assert (reading["detail"], reading["hint"]) == ("the database is away", "try again in a few seconds")
    assert writing["detail"] == "the database is away; nothing was changed"
    assert releasing["detail"] == writing["detail"]
    assert writing["hint"].endswith("with the same idempotency key")
    assert unclear["detail"] == "the database is away; the change may have been made"


def test_a_long_list_of_allowed_values_is_cut_in_the_sentence_and_whole_in_the_data() -> None:
    names = tuple(f"n{number}" for number in range(30))
    found = problem(InvalidInput([InputProblem("/account", "there is no 'x'", names)]))

    assert found["detail"] == f"account: there is no 'x'; allowed are {', '.join(names[:20])}, …"
    assert found["errors"][0]["allowed"] == list(names)


def test_unforeseen_errors_and_redirects_are_no_problem_of_this_map() -> None:
    request = make_mocked_request("GET", "/")

    assert problem_of(ZeroDivisionError(), request) is None
    assert problem_of(web.HTTPFound("/elsewhere"), request) is None


def test_every_code_has_a_status_of_an_error_and_a_title() -> None:
    assert all(400 <= status < 600 and title for status, title in CODES.values())
    assert Problem("bad_path", "x").status == 400


async def test_an_unexpected_error_tells_nothing_but_its_id(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    # A service of another kind under the key: every call of it fails in a way nobody foresaw.
    hub.app._state[TICKETS] = "no service"
    answer = await hub.get("/api/v1/tickets")

    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"list_tickets" not in answer.body
    assert b"Traceback" not in answer.body
    logged = capsys.readouterr().out
    assert "AttributeError" in logged
    assert answer.headers["X-Request-ID"] in logged


async def test_a_wrong_path_suggests_the_nearest_one(hub: Hub) -> None:
    answer = await hub.get("/events/steam")

    assert (answer.status, answer.code) == (404, "no_such_resource")
    assert "/events/stream" in answer.json["detail"]


async def test_an_expectation_nobody_can_meet_is_refused(hub: Hub) -> None:
    status, _, _ = await hub.raw(b"GET /version HTTP/1.1\r\nHost: localhost\r\nExpect: a-miracle\r\n\r\n")

    assert status == 417


@pytest.mark.parametrize("header", CONDITIONS)
async def test_a_condition_that_a_write_cannot_heed_keeps_it_from_being_made(hub: Hub, header: str) -> None:
    unheeding = [
        route for route in hub.app[ROUTES] if route.method != "GET" and not route.path.startswith(("/mcp", "/message"))
        and header not in route.takes
    ]  # fmt: skip
    before = (await hub.get("/api/v1/events?after=now")).json["position"]

    for route in unheeding:
        path = re.sub(r"{.*?}", "1", route.path)
        answer = await hub.request(route.method, path, json={"summary": "1"}, headers={header: '"1"'})
        assert (route.path, answer.status, answer.code) == (route.path, 400, "bad_header")
        assert header in answer.named

    assert unheeding
    assert (await hub.get("/api/v1/events?after=now")).json["position"] == before


async def test_what_is_no_utf_8_is_named_without_it(hub: Hub) -> None:
    status, _, body = await hub.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: \xff\r\n\r\n")

    assert (status, orjson.loads(body)["code"]) == (417, "expectation_failed")

    answer = await hub.request(
        "POST", "/api/v1/import", data=b"external_ticket_id,\xff\n", headers={"Content-Type": "text/csv"}
    )

    assert answer.code == "invalid_input"
    assert "UTF-8" in answer.body.decode()
