"""What every request passes through: request id and log line, error mapping, host and origin, authentication."""

import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler
from multidict import istr

from routes import access, cookies, cors
from routes.access import MCP_PATHS, METRICS_PATH, PROBES, STREAM, TOKEN, Network
from routes.early import presented_by
from routes.errors import EVERY_ANSWER, Fault, Problem, problem_of, problem_response
from routes.hosts import HostRules, target_authority
from routes.keys import AUTH, CALLER, HELD, LIMITS, METERS, REFUSALS, REQUEST_ID
from routes.refusals import goodbye, told_in_stream
from taskhub import logs, tracing
from taskhub.audit.refusals import Refusal
from taskhub.auth.errors import AuthError, Forbidden, Unauthenticated, UnknownSubject
from taskhub.auth.principal import AuthProvider, Caller, Origin, Principal
from taskhub.auth.providers import ACTOR_HEADER, ApiKeyAuth
from taskhub.headers import IDEMPOTENCY_HEADER
from taskhub.limits.limits import NEW_STREAMS, TooManyStreams, account_of
from taskhub.mcp.headers import READ_ONLY_HEADER, SESSION_HEADER, TOOLSETS_HEADER
from taskhub.rates import household
from taskhub.settings.addresses import is_loopback
from taskhub.settings.model import Settings
from taskhub.sign_in.errors import SignInRefused, TooManyAttempts
from taskhub.tickets.errors import RateLimited

MAX_QUERY_BYTES: Final = 4096
MAX_HEADER_BYTES: Final = (("Last-Event-ID", 256), (IDEMPOTENCY_HEADER, 200), ("If-Match", 200))
"""Headers whose values go on to where they cost something."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
# Encoded slashes and control characters: what decodes to them means another path to a proxy than to us.
_BAD_PATH: Final = re.compile(r"%(?:2f|5c|7f|[01][0-9a-f])", re.IGNORECASE)
_HTTP_TARGET: Final = re.compile(r"/|https?://", re.IGNORECASE)
# A header is looked up under an `istr` without being folded to one case for each request.
_LIMITED_HEADERS: Final = tuple((istr(name), limit) for name, limit in MAX_HEADER_BYTES)
# Who calls, and where it goes on: of two, a proxy may have judged the other one.
_ONCE: Final = tuple(
    map(
        istr,
        (
            "X-API-Key", hdrs.AUTHORIZATION, ACTOR_HEADER, "Sec-Fetch-Site", "Sec-Fetch-Mode", "Last-Event-ID",
            SESSION_HEADER, READ_ONLY_HEADER, TOOLSETS_HEADER,
        ),
    )
)  # fmt: skip
_TRACEPARENT: Final = istr(tracing.TRACEPARENT)
_TRACESTATE: Final = istr(tracing.TRACESTATE)
_CREDENTIALS: Final = tuple(map(istr, ("X-API-Key", hdrs.AUTHORIZATION, hdrs.COOKIE)))
_STREAMS: Final = MCP_PATHS | {"/events/stream"}
"""Where an answer that was begun may last as long as its client stays: how long says nothing of the server."""
_X_REQUEST_ID: Final = istr("X-Request-ID")
_SEC_FETCH_SITE: Final = istr("Sec-Fetch-Site")
_X_API_KEY: Final = istr("X-API-Key")
_READING: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_EVERYWHERE: Final = tuple((istr(name), EVERY_ANSWER[name]) for name in ("Server", "X-Content-Type-Options"))
_UNLESS_SAID: Final = tuple((istr(name), EVERY_ANSWER[name]) for name in ("Referrer-Policy", "Content-Security-Policy"))

log = structlog.get_logger("taskhub.http")
_records: Final = logging.getLogger("taskhub.http")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the settings say of who may come in, and the ids of requests that bring none."""

    rules: HostRules
    trusted: tuple[Network, ...]
    scrapers: tuple[Network, ...]
    request_ids: Iterator[str]
    header_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> "Gate":
        """Raises ValueError when TRUSTED_PROXIES names something that is no address."""
        rules = HostRules.of(
            settings.allowed_hosts,
            settings.allowed_origins,
            loopback_hosts=is_loopback(settings.host),
            loopback_origins=not settings.production,
        )
        # Unique, not secret: a random name for this process, and a number.
        request_ids = map(f"{secrets.token_hex(5)}-{{:x}}".format, itertools.count(1))
        scrapers = access.networks(() if settings.metrics == ("off",) else settings.metrics)
        trusted = access.networks(settings.trusted_proxies)
        return cls(rules, trusted, scrapers, request_ids, settings.header_bytes)


GATE: Final = web.AppKey("gate", Gate)


@web.middleware
async def receive(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The way in for every request: give it an id, let it in or not, turn errors into problems, and log one line.

    One middleware, not one for each of these: what is refused early is a problem with a request id all the same.
    """
    app = request.app
    gate = app[GATE]
    given = request.headers.get(_X_REQUEST_ID)
    request_id = given if given is not None and _REQUEST_ID.fullmatch(given) else next(gate.request_ids)
    request[REQUEST_ID] = request_id
    logs.request_id.set(request_id)
    notes: dict[str, object] = {}
    logs.notes.set(notes)
    resource = request.match_info.route.resource
    route = resource.canonical if resource is not None else None
    started = time.perf_counter()
    response: web.StreamResponse | None
    came = _trace(request)
    with tracing.request_span(f"{request.method} {route}", came, {"http.request.method": request.method}) as span:
        try:
            response = guard(request, gate, app[AUTH])
            if response is None:
                await authenticate(request, gate, app[AUTH])
                response = await handler(request)
        except Exception as error:
            _note_refusal(error, request, gate)
            response = _error_response(error, request)
            if isinstance(error, RateLimited | TooManyStreams):
                await _hold_back(error, request, response, gate)
        if span is not None:
            span.set_attribute("http.response.status_code", response.status)
    seconds = time.perf_counter() - started
    if not response.prepared or request.path not in _STREAMS:
        app[METERS].request(route, request.method, response.status, seconds)
    level = logging.DEBUG if request.path in PROBES else logging.INFO
    # Asked first: even what is not written costs as much as the rest of this function.
    if _records.isEnabledFor(level) and not notes.get("stream"):  # which has lines of its own
        caller = request.get(CALLER)
        log.log(
            level,
            "request",
            method=request.method,
            route=route,
            status=response.status,
            duration_ms=round(1000 * seconds, 1),
            actor=caller.principal.actor if caller is not None else None,
            **notes,
        )
    return response


def guard(request: web.Request, gate: Gate, auth: AuthProvider) -> web.Response | None:
    """Refuse what must not even be looked at (raises Problem); the answer to a preflight, None to any other request."""
    url = request.rel_url
    if "%" in url.raw_path and _BAD_PATH.search(url.raw_path):
        raise Problem("bad_path", "a path must not contain encoded slashes or control characters")
    if "://" in request.raw_path and not _HTTP_TARGET.match(request.raw_path):
        raise Problem("bad_path", "a target is a path, or an http or https URL")
    if len(url.raw_query_string) > MAX_QUERY_BYTES:
        raise Problem("query_too_long", f"a query may have at most {MAX_QUERY_BYTES} bytes")
    if sum(map(_length, request.raw_headers)) > gate.header_bytes:
        raise Problem("headers_too_large", f"a request may have at most {gate.header_bytes} bytes of headers")
    headers = request.headers
    if (coding := headers.get(hdrs.CONTENT_ENCODING, "identity")).strip().lower() != "identity":
        # Where a packed body breaks off, aiohttp takes it for whole; and of a coding that it does not know, for plain.
        reason = f"is {coding[:40]!r}; send the body as it is, without a coding"
        fault = Fault(reason, header=hdrs.CONTENT_ENCODING)
        raise Problem("unsupported_media_type", str(fault), [fault], headers={hdrs.ACCEPT_ENCODING: "identity"})
    for name in _ONCE:
        if name in headers and len(headers.getall(name)) > 1:
            raise Problem.of("bad_header", [Fault("is there more than once", header=name)])
    for name, limit in _LIMITED_HEADERS:
        if len(headers.get(name, "")) > limit:
            raise Problem.of("headers_too_large", [Fault(f"has more than {limit} bytes", header=name)])
    if request.path not in PROBES:
        if request.path != METRICS_PATH:
            _check_host(request, gate.rules)
        if auth.name == "none" and (header := access.proxied(request)) is not None:
            detail = "set TASKHUB_API_KEY to serve through a proxy"
            raise Problem("proxied_request", f"the request came through a proxy ({header}); {detail}")
    return cors.options(request) if request.method == hdrs.METH_OPTIONS else None


async def authenticate(request: web.Request, gate: Gate, auth: AuthProvider) -> None:
    """Find out who calls, where that counts, and whether it may change something again so soon."""
    open_to_all = access.is_open(request.method, request.path) or access.is_page_of_data(request)
    if open_to_all or request.match_info.http_exception is not None:
        return
    if request.path == METRICS_PATH and access.may_scrape(request, gate.trusted, gate.scrapers):
        return
    if request.path == STREAM and TOKEN in request.query:
        return  # which the stream judges itself: it tells browsers of trouble in a way that they come back after
    address = access.client_address(request, gate.trusted)
    if auth.name == "none":
        access.check_actor(request.headers)
        principal = await auth.authenticate(request.headers, address)
    else:
        principal = await _judged(request, gate, auth, address)
    request[CALLER] = Caller(principal, _origin(request), request[REQUEST_ID], address, tracing.traceparent())
    if request.method not in _READING and request.path not in MCP_PATHS:  # where the tools that write are counted
        request.app[LIMITS].write(principal)


async def _judged(request: web.Request, gate: Gate, auth: AuthProvider, address: str | None) -> Principal:
    """Who presents a credential. Raises RateLimited, without looking at it, where too many wrong ones came from."""
    session = cookies.session_of(request, gate.trusted) if isinstance(auth, ApiKeyAuth) else None
    presented = session or request.headers.get(_X_API_KEY) or request.headers.get(hdrs.AUTHORIZATION)
    limits = request.app[LIMITS]
    sender = access.failure_address(request, gate.trusted)
    if presented is not None:
        limits.check_failures(sender, presented)
    try:
        if session is not None and isinstance(auth, ApiKeyAuth):
            cookies.check_same_origin(request)
            principal = await auth.by_session(session)
        else:
            principal = await auth.authenticate(request.headers, address)
    except Unauthenticated:
        if presented is not None:
            limits.failed(sender)
        raise
    if presented is not None:
        limits.succeeded(presented)
    return principal


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every response, streams and errors included; a signal, for a middleware comes too late for streams."""
    headers = response.headers
    for name, value in _EVERYWHERE:
        headers[name] = value
    for name, value in _UNLESS_SAID:
        headers.setdefault(name, value)
    if (request_id := request.get(REQUEST_ID)) is not None:
        headers[_X_REQUEST_ID] = request_id
    if (traceparent := tracing.traceparent()) is not None:
        headers[_TRACEPARENT] = traceparent
    cors.add_headers(request, response, request.app[GATE].rules)


def _length(header: tuple[bytes, bytes]) -> int:
    """Of its line."""
    return len(header[0]) + len(header[1]) + 4


def _trace(request: web.Request) -> tracing.Trace | None:
    """The place in a trace that a request comes from."""
    headers = request.headers
    if _TRACEPARENT not in headers:
        return None
    return tracing.Trace.parse(headers.getall(_TRACEPARENT), headers.getall(_TRACESTATE, ()))


def _count_refusal(error: Exception, request: web.Request) -> None:
    """Count who was not let in."""
    if isinstance(error, Forbidden):
        request.app[METERS].auth_failures["forbidden"] += 1
    elif isinstance(error, Unauthenticated | UnknownSubject | SignInRefused | TooManyAttempts):
        presented = TOKEN in request.query or any(name in request.headers for name in _CREDENTIALS)
        presented = presented or isinstance(error, SignInRefused | TooManyAttempts)
        request.app[METERS].auth_failures["invalid" if presented else "missing"] += 1


def _origin(request: web.Request) -> Origin:
    """Through what somebody calls. It says where to look, and allows nothing."""
    if request.path in MCP_PATHS:
        return "mcp_tool"
    # Browsers say so of requests that pages of this very server make, and no page can make them say otherwise.
    return "dashboard" if request.headers.get(_SEC_FETCH_SITE) == "same-origin" else "rest_api"


def _check_host(request: web.Request, rules: HostRules) -> None:
    hosts = request.headers.getall(hdrs.HOST, ())
    if len(hosts) != 1:
        raise Problem("bad_host", "a request has exactly one Host header")
    target = target_authority(request.raw_path)
    for host in hosts if target is None else [*hosts, target]:
        if not rules.host_allowed(host):
            hint = "set TASKHUB_ALLOWED_HOSTS to the names this server has"
            raise Problem("misdirected_request", f"this server does not answer for {host[:100]!r}; {hint}")
    for origin in request.headers.getall(hdrs.ORIGIN, ()):
        if not rules.origin_allowed(origin, hosts[0]):
            hint = "set TASKHUB_ALLOWED_ORIGINS to the origins of pages that may"
            raise Problem("forbidden_origin", f"pages of {origin[:100]!r} may not call TaskHub; {hint}")


def _note_refusal(error: Exception, request: web.Request, gate: Gate) -> None:
    """Count for the audit log that somebody was not let in, or not allowed something."""
    if not isinstance(error, AuthError) or (refusals := request.app.get(REFUSALS)) is None:
        return
    address = household(access.client_address(request, gate.trusted) or "") or None
    if isinstance(error, Unauthenticated | UnknownSubject):
        refusals.note(Refusal("authentication.failed", error.reason, address=address))
    elif isinstance(error, SignInRefused | TooManyAttempts):
        reason = "sign-in refused" if isinstance(error, SignInRefused) else "too many attempts to sign in"
        refusals.note(Refusal("authentication.failed", reason, address=address))
    elif isinstance(error, Forbidden) and (caller := request.get(CALLER)) is not None:
        refusals.note_denied(caller, error)


async def _hold_back(
    error: RateLimited | TooManyStreams, request: web.Request, response: web.StreamResponse, gate: Gate
) -> None:
    """Answer who asks on and on after refusals later, on a connection that ends with that."""
    limits = request.app[LIMITS]
    if error.setting == NEW_STREAMS:
        return  # which all reach together: nobody asks too much for that
    caller = request.get(CALLER)
    sender = access.failure_address(request, gate.trusted)
    who = f"@{household(sender)}" if caller is None else account_of(caller.principal)
    if not limits.insisting.refused(who):
        return
    limits.insisting.tell(who, error.setting)
    if caller is not None and (presented := presented_by(request.raw_headers)) is not None:
        limits.insisting.remember(presented, caller.principal)
    response.force_close()
    await request.app[HELD].wait()


def _error_response(error: Exception, request: web.Request) -> web.StreamResponse:
    if isinstance(error, web.HTTPException) and error.status < 400:
        raise error
    _count_refusal(error, request)
    problem = problem_of(error, request)
    if problem is None:
        log.error("request failed", method=request.method, path=request.path, exc_info=error)
        problem = Problem("internal_error", "an unexpected error; it is in the log under the request_id")
    if request.writer.output_size > 0:
        raise error  # The head of another response is out already: aiohttp closes the connection.
    if problem.status in (429, 503) and request.path == STREAM and told_in_stream(request):
        return goodbye(problem)
    return problem_response(problem, request)
