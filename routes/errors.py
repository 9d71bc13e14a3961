"""The one map from errors to HTTP: RFC 9457 problems with stable codes.

Every error that leaves TaskHub over HTTP has this shape, whoever raised it, aiohttp's own included:

    {"type": "urn:taskhub:problem:bad_parameter", "title": "A query parameter is wrong", "status": 400,
     "code": "bad_parameter", "detail": "statuss: there is no such parameter; did you mean status?",
     "errors": [{"parameter": "statuss", "reason": "there is no such parameter", "did_you_mean": "status"}],
     "request_id": "5b1f…"}
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from aiohttp import web
from pydantic import ValidationError

from broadcaster.errors import (
    CannotContinue,
    FieldProblem,
    InvalidEvent,
    InvalidFilter,
    InvalidPosition,
    LogUnavailable,
    PositionExpired,
)
from broadcaster.filters import CHANGE_FIELDS, ORIGINS, nearest
from broadcaster.stream import StreamRefused
from routes import challenges
from routes.keys import REQUEST_ID
from taskhub.auth.errors import Forbidden, KeysUnavailable, Unauthenticated, UnknownSubject
from taskhub.fitting import bytes_of, fitted
from taskhub.keys.model import KeyNotFound, KeyOver
from taskhub.limits.limits import TooManyStreams
from taskhub.oauth.model import GrantNotFound
from taskhub.redaction import without_keys
from taskhub.sign_in.errors import NoSession, SessionNotFound, SignInRefused, TooManyAttempts
from taskhub.tickets.errors import (
    Draining,
    InputProblem,
    InvalidInput,
    RateLimited,
    StorageBusy,
    TicketError,
    TicketNotFound,
    VersionConflict,
    in_words,
)
from taskhub.tickets.fields import suggested_name

CODES: Final[Mapping[str, tuple[int, str]]] = {
    "bad_request": (400, "The request is malformed"),
    "bad_parameter": (400, "A query parameter is wrong"),
    "bad_header": (400, "A header is wrong"),
    "bad_path": (400, "The path is malformed"),
    "bad_host": (400, "The Host header is missing or repeated"),
    "malformed_json": (400, "The body is not JSON"),
    "unauthenticated": (401, "Credentials are missing or wrong"),
    "sign_in_refused": (401, "This does not let anybody in"),
    "forbidden": (403, "The credentials do not allow this"),
    "forbidden_origin": (403, "Pages of this origin may not call TaskHub"),
    "not_same_origin": (403, "With a session, only TaskHub's own pages may do this"),
    "insecure_connection": (403, "Signing in needs HTTPS"),
    "proxied_request": (403, "Without authentication, requests through a proxy are refused"),
    "unknown_user": (403, "Nobody here is who the access token names"),
    "take_over_refused": (403, "Only a person may take a ticket over"),
    "not_found": (404, "There is no such thing"),
    "no_session": (404, "The caller has no session"),
    "no_such_batch": (404, "There is no such batch"),
    "no_such_resource": (404, "There is nothing at this address"),
    "method_not_allowed": (405, "This method is not available here"),
    "not_acceptable": (406, "None of the accepted media types is available"),
    "request_timeout": (408, "The request did not arrive in time"),
    "nobody_signs_in": (409, "This server does not ask who calls"),
    "lease_held": (409, "Somebody else has claimed the ticket"),
    "lease_lost": (409, "The lease is over"),
    "not_claimable": (409, "There is nothing left to do on the ticket"),
    "blocked": (409, "Other tickets must be done first"),
    "import_refused": (422, "Lines of the file cannot be taken"),
    "in_use": (409, "Something still refers to it"),
    "key_over": (409, "The API key is over"),
    "status_needed": (409, "Without this status tickets could not be worked on"),
    "nothing_ready": (409, "No ticket is ready to be claimed"),
    "cycle": (409, "A ticket would block itself"),
    "batch_failed": (409, "Nothing of the batch was stored"),
    "already_undone": (409, "The batch was undone before"),
    "undo_conflict": (409, "Something changed since the batch"),
    "deleted": (410, "It was deleted"),
    "position_expired": (410, "Events after this position cannot be read any more"),
    "version_conflict": (412, "It changed since it was read"),
    "body_too_large": (413, "The body is too large"),
    "query_too_long": (414, "The query is too long"),
    "unsupported_media_type": (415, "The body has an unsupported media type"),
    "expectation_failed": (417, "The Expect header cannot be met"),
    "misdirected_request": (421, "This server does not answer for that host"),
    "invalid_input": (422, "The body is not valid"),
    "idempotency_mismatch": (422, "The idempotency key was used with another request"),
    "headers_too_large": (431, "A header is too large"),
    "too_many_attempts": (429, "Too many attempts to sign in"),
    "too_many_streams": (429, "Too many streams are open"),
    "rate_limited": (429, "Too much in too short a time"),
    "internal_error": (500, "Something went wrong in TaskHub"),
    "issuer_unavailable": (503, "Access tokens cannot be checked now"),
    "draining": (503, "This process is shutting down"),
    "not_all_answered": (503, "Not every instance answered"),
    "import_interrupted": (503, "The file was taken in part"),
    "overloaded": (503, "TaskHub cannot take this now"),
    "storage_busy": (503, "The database is busy or away"),
}
"""Code → status and title. Codes are stable: clients may branch on them."""

_HTTP_CODES: Final = {
    408: "request_timeout",
    413: "body_too_large",
    414: "query_too_long",
    415: "unsupported_media_type",
    417: "expectation_failed",
    431: "headers_too_large",
}
_FILTER_VALUES: Final[Mapping[str, Sequence[str]]] = {"origin": ORIGINS, "changed": CHANGE_FIELDS}
"""The filters whose values are the same in every workspace, and can be listed."""
EVERY_ANSWER: Final[Mapping[str, str]] = {
    "Server": "TaskHub",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": (
        "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    ),
}
"""Headers of every response, where a page does not say otherwise of the last two."""
PROBLEM_HEADERS: Final[Mapping[str, str]] = {
    "Content-Type": "application/problem+json",
    "Cache-Control": "no-store",
}
RETRY_AFTER_S: Final = 2
MAX_PROBLEM_BYTES: Final = 64 * 1024
MAX_FAULTS: Final = 20
"""Of one body: who sends more of them has another problem than the twenty-first."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one part of a request: one of parameter, pointer (into the body) and header names the part."""

    reason: str
    parameter: str | None = None
    pointer: str | None = None
    header: str | None = None
    did_you_mean: str | None = None
    allowed: Sequence[str] = ()

    @property
    def place(self) -> str:
        """The part in words."""
        return self.parameter or self.header or (self.pointer or "").lstrip("/") or "body"

    def __str__(self) -> str:
        return f"{self.place}: {in_words(self.reason, self.did_you_mean, self.allowed)}"

    def as_json(self) -> dict[str, Any]:
        named = {
            "parameter": self.parameter,
            "pointer": self.pointer,
            "header": self.header,
            "reason": self.reason,
            "did_you_mean": self.did_you_mean,
            "allowed": list(self.allowed) or None,
        }
        return {name: value for name, value in named.items() if value is not None}


@dataclass(eq=False)
class Problem(Exception):
    """An error as HTTP will tell it. `code` is one of CODES; `members` are further members of the document."""

    code: str
    detail: str
    errors: Sequence[Fault] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Any] = field(default_factory=dict)
    retry_ms: int | None = None
    """When to try again, where that is known more exactly than Retry-After says it."""
    status: int = field(init=False)

    def __post_init__(self) -> None:
        super().__init__(self.detail)
        self.status = CODES[self.code][0]

    @classmethod
    def of(cls, code: str, faults: Sequence[Fault]) -> "Problem":
        """A problem whose detail is the list of its faults."""
        return cls(code, "; ".join(str(fault) for fault in faults), faults)

    def document(self, request_id: str | None) -> dict[str, Any]:
        document: dict[str, Any] = {
            "type": f"urn:taskhub:problem:{self.code}",
            "title": CODES[self.code][1],
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        if self.errors:
            document["errors"] = [fault.as_json() for fault in self.errors]
        document.update(self.members)
        if request_id is not None:
            document["request_id"] = request_id
        return document


def problem_response(problem: Problem, request: web.BaseRequest) -> web.Response:
    """The problem as application/problem+json, of at most MAX_PROBLEM_BYTES."""
    document = _encodable(problem.document(request.get(REQUEST_ID)))
    # What was sent is told again where it is wrong, and answers are kept in more places than keys should be.
    document = orjson.loads(without_keys(orjson.dumps(document).decode()))
    hint = "; ".join(filter(None, (document.get("hint"), "long values were cut here: GET what they belong to")))
    return web.Response(
        status=problem.status,
        headers={**PROBLEM_HEADERS, **problem.headers},
        body=orjson.dumps(fitted(document, MAX_PROBLEM_BYTES, hint, keep="first", size=bytes_of)),
    )


def _encodable(document: dict[str, Any]) -> dict[str, Any]:
    """What is no UTF-8 comes as halves of surrogate pairs, which a problem may name, and JSON has no word for."""
    try:
        orjson.dumps(document)
    except TypeError:
        text = json.dumps(document, default=str, ensure_ascii=False).encode("utf-8", "replace")
        document = orjson.loads(text)
    return document


def problem_of(error: Exception, request: web.Request) -> Problem | None:
    """The problem that an error is; None for one that nobody foresaw."""
    reading = request.method in ("GET", "HEAD", "DELETE")
    match error:
        case Problem():
            return error
        case TicketError():
            return _ticket_problem(error, reading, writing=request.method not in ("GET", "HEAD"))
        case Unauthenticated():
            return Problem("unauthenticated", str(error), headers=challenges.of_unauthenticated(request, error))
        case Forbidden():
            headers = challenges.of_forbidden(request, error)
            return Problem("forbidden", str(error), headers=headers, members={"scope": error.scope})
        case UnknownSubject():
            return Problem("unknown_user", str(error), members={"claim": error.claim})
        case KeysUnavailable():
            retry = {"Retry-After": str(RETRY_AFTER_S)}
            return Problem("issuer_unavailable", str(error), headers=retry, members={"retryable": True})
        case KeyNotFound() | GrantNotFound():
            return Problem("not_found", str(error))
        case SignInRefused():
            return Problem("sign_in_refused", str(error))
        case TooManyAttempts():
            headers = {"Retry-After": str(error.wait_s)}
            return Problem("too_many_attempts", str(error), headers=headers, members={"retryable": True})
        case NoSession():
            return Problem("no_session", str(error))
        case SessionNotFound():
            return Problem("not_found", str(error))
        case KeyOver():
            return Problem("key_over", str(error))
        case InvalidFilter():
            return Problem.of("bad_parameter", parameter_faults(error.problems))
        case InvalidEvent():
            return Problem.of("invalid_input", event_faults(error.problems))
        case InvalidPosition():
            return Problem("bad_parameter", str(error))
        case CannotContinue():
            members = {
                "reason": error.reason,
                "requested": error.requested,
                "oldest": error.oldest,
                "position": error.position,
                "snapshot": "/api/v1/tickets?show_completed=true",
            }
            return Problem("position_expired", str(error), members=members)
        case PositionExpired():
            return Problem("position_expired", str(error))
        case LogUnavailable():
            return unavailable(str(error) or "the event log cannot be read now")
        case StreamRefused():
            return refusal(error)
        case ValidationError():
            faults = validation_faults(error, query=reading)
            return Problem.of("bad_parameter" if reading else "invalid_input", faults)
        case web.RequestPayloadError():
            return Problem("bad_request", "the body could not be read to its end")
        case ConnectionError() if request.transport is None or request.transport.is_closing():
            return Problem("bad_request", "the client is gone")
        case web.HTTPException():
            return _http_problem(error, request)
    return None


def refusal(error: StreamRefused) -> Problem:
    """A stream that cannot be served now."""
    code = {"shutdown": "draining", "limit": "too_many_streams"}.get(error.reason, "overloaded")
    seconds = max(1, -(-error.retry_ms // 1000))
    members: dict[str, Any] = {"retryable": True}
    if isinstance(error, TooManyStreams):
        members["setting"] = error.setting
    headers = {"Retry-After": str(seconds)}
    return Problem(code, error.detail, headers=headers, members=members, retry_ms=error.retry_ms)


def limited(error: RateLimited) -> Problem:
    """A request that is too much in too short a time."""
    return _ticket_problem(error, reading=False, writing=True)


def unavailable(detail: str) -> Problem:
    """The database does not answer; the same request may work later."""
    return Problem("storage_busy", detail, headers={"Retry-After": str(RETRY_AFTER_S)}, members={"retryable": True})


def parameter_faults(problems: Iterable[FieldProblem]) -> list[Fault]:
    return [
        Fault(
            p.reason,
            parameter=p.parameter,
            did_you_mean=p.did_you_mean,
            allowed=_FILTER_VALUES.get(p.parameter, ()),
        )
        for p in problems
    ]


def event_faults(problems: Iterable[FieldProblem], prefix: str = "") -> list[Fault]:
    """What is wrong with an event's fields, at `prefix` in the body."""
    return [Fault(p.reason, pointer=f"{prefix}/{p.parameter}", did_you_mean=p.did_you_mean) for p in problems]


def validation_faults(error: ValidationError, *, query: bool, names: Iterable[str] = ()) -> list[Fault]:
    """pydantic's errors, by parameter or by JSON pointer (RFC 6901). `names` are what an unknown one may have meant."""
    faults: list[Fault] = []
    every = error.errors(include_url=False)
    for found in every[:MAX_FAULTS]:
        reason = found["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        given = found.get("input")
        allowed: tuple[str, ...] = ()
        instead: str | None = None
        location = list(found["loc"])
        if found["type"] == "extra_forbidden":
            reason = "there is no such parameter" if query else "there is no such field"
            instead = suggested_name(str(location[-1]), list(names)) if len(location) == 1 else None
        elif found["type"] == "missing":
            reason = "is required"
        elif found["type"] == "literal_error":
            reason = "is not one of the allowed values"
            allowed = _literals(found.get("ctx", {}).get("expected", ""))
            instead = nearest(given, allowed) if isinstance(given, str) else None
        if query:
            faults.append(Fault(reason, parameter=str(location[0]), did_you_mean=instead, allowed=allowed))
        else:
            faults.append(Fault(reason, pointer=json_pointer(location), did_you_mean=instead, allowed=allowed))
    if len(every) > MAX_FAULTS:
        faults.append(Fault(f"{len(every) - MAX_FAULTS} more faults are not listed", pointer=""))
    return faults


def json_pointer(location: Sequence[str | int]) -> str:
    """RFC 6901: the way from a body to one of its values."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1")[:100] for step in location)


def _literals(expected: str) -> tuple[str, ...]:
    """`'a', 'b' or 'c'` → a, b, c: how pydantic lists what a literal may be."""
    return tuple(expected.replace(" or ", ", ").replace("'", "").split(", ")) if expected else ()


def _ticket_problem(error: TicketError, reading: bool, *, writing: bool) -> Problem:
    """The sentence, the hint and the data that the error itself carries."""
    detail, hint = error.told(writing=writing)
    code = error.code if error.code in CODES else "bad_request"
    faults: list[Fault] = []
    headers: dict[str, str] = {}
    match error:
        case InvalidInput():
            code = "bad_parameter" if reading else code
            faults = [_input_fault(problem, reading) for problem in error.problems]
        case TicketNotFound():
            hint = "GET /api/v1/tickets lists the tickets with their keys; a key looks like TH-12"
        case VersionConflict():
            headers["ETag"] = f'"{error.current}"'
        case StorageBusy() | Draining():
            headers["Retry-After"] = str(RETRY_AFTER_S)
        case RateLimited():
            headers["Retry-After"] = str(math.ceil(error.retry_after_s))
    members = {"retryable": error.retryable} | ({} if hint is None else {"hint": hint}) | error.details()
    return Problem(code, detail, faults, headers, members)


def _input_fault(problem: InputProblem, reading: bool) -> Fault:
    if reading:
        name = problem.pointer.lstrip("/").partition("/")[0]
        return Fault(problem.reason, parameter=name, did_you_mean=problem.did_you_mean, allowed=problem.allowed)
    return Fault(problem.reason, pointer=problem.pointer, did_you_mean=problem.did_you_mean, allowed=problem.allowed)


def _http_problem(error: web.HTTPException, request: web.Request) -> Problem | None:
    """aiohttp's own refusals; None for what is no refusal, such as a redirect."""
    if error.status < 400:
        return None
    if isinstance(error, web.HTTPNotFound):
        paths = [resource.canonical for resource in request.app.router.resources()]
        instead = nearest(request.path, [path for path in paths if "{" not in path and len(path) > 1])
        hint = f"; did you mean {instead}?" if instead else ""
        return Problem("no_such_resource", f"there is nothing at {request.path[:200]!r}{hint}")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{request.method[:20]} is not available here, but {allowed}"
        return Problem("method_not_allowed", detail, headers={"Allow": allowed})
    code = _HTTP_CODES.get(error.status, "internal_error" if error.status >= 500 else "bad_request")
    return Problem(code, error.reason or CODES[code][1])
