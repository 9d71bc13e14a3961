"""What every request passes through: request id and log line, error mapping, host and origin, authentication."""

import re
import secrets
import time
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from routes import access, cors
from routes.access import MCP_PATHS, OPEN, PROBES, Network
from routes.errors import Fault, Problem, problem_of, problem_response
from routes.hosts import HostRules, target_authority
from routes.keys import AUTH, CALLER, PRINCIPAL, REQUEST_ID
from taskhub.auth.principal import Caller, Origin
from taskhub.settings import Settings, is_loopback

MAX_QUERY_BYTES: Final = 4096
MAX_HEADER_BYTES: Final[dict[str, int]] = {"Last-Event-ID": 256, "Idempotency-Key": 200, "If-Match": 200}
"""Headers whose values go on to where they cost something."""
CONTENT_SECURITY_POLICY: Final = (
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,100}")
# Encoded slashes and control characters: what decodes to them means another path to a proxy than to us.
_BAD_PATH: Final = re.compile(r"%(?:2f|5c|7f|[01][0-9a-f])", re.IGNORECASE)

log = structlog.get_logger("taskhub.http")


@dataclass(frozen=True, slots=True)
class Gate:
    """What the settings say of who may come in."""

    rules: HostRules
    trusted: tuple[Network, ...]

    @classmethod
    def of(cls, settings: Settings) -> "Gate":
        """Raises ValueError when TRUSTED_PROXIES names something that is no address."""
        rules = HostRules.of(
            settings.allowed_hosts,
            settings.allowed_origins,
            loopback_hosts=is_loopback(settings.host),
            loopback_origins=not settings.production,
        )
        return cls(rules, access.networks(settings.trusted_proxies))


GATE: Final = web.AppKey("gate", Gate)


@web.middleware
async def record(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Give the request its id, turn errors into problems, and log one line."""
    given = request.headers.get("X-Request-ID", "")
    request_id = request[REQUEST_ID] = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
    structlog.contextvars.bind_contextvars(request_id=request_id)
    started = time.perf_counter()
    response: web.StreamResponse
    try:
        response = await handler(request)
    except Exception as error:
        response = _error_response(error, request)
    if not response.prepared:  # a stream logs for itself
        principal = request.get(PRINCIPAL)
        resource = request.match_info.route.resource
        log.log(
            10 if request.path in PROBES else 20,
            "request",
            method=request.method,
            route=resource.canonical if resource is not None else None,
            status=response.status,
            duration_ms=round(1000 * (time.perf_counter() - started), 1),
            actor=principal.actor if principal is not None else None,
        )
    return response


@web.middleware
async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what must not even be looked at; answer preflights."""
    if _BAD_PATH.search(request.rel_url.raw_path):
        raise Problem("bad_path", "a path must not contain encoded slashes or control characters")
    if len(request.rel_url.raw_query_string) > MAX_QUERY_BYTES:
        raise Problem("query_too_long", f"a query may have at most {MAX_QUERY_BYTES} bytes")
    for name, limit in MAX_HEADER_BYTES.items():
        if len(request.headers.get(name, "")) > limit:
            raise Problem.of("headers_too_large", [Fault(f"has more than {limit} bytes", header=name)])
    if request.path not in PROBES:
        _check_host(request, request.app[GATE].rules)
        if request.app[AUTH].name == "none" and (header := access.proxied(request)) is not None:
            detail = "set TASKHUB_API_KEY to serve through a proxy"
            raise Problem("proxied_request", f"the request came through a proxy ({header}); {detail}")
    if request.method == hdrs.METH_OPTIONS and (response := cors.options(request)) is not None:
        return response
    return await handler(request)


@web.middleware
async def authenticate(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find out who calls, where that counts."""
    if request.path not in OPEN and request.match_info.http_exception is None:
        address = access.client_address(request, request.app[GATE].trusted)
        if request.app[AUTH].name == "none":
            access.check_actor(request.headers)
        principal = await request.app[AUTH].authenticate(request.headers, address)
        request[PRINCIPAL] = principal
        origin: Origin = "mcp_tool" if request.path in MCP_PATHS else "rest_api"
        request[CALLER] = Caller(principal, origin, request[REQUEST_ID])
    return await handler(request)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Headers of every response, streams and errors included; a signal, for a middleware comes too late for streams."""
    headers = response.headers
    headers[hdrs.SERVER] = "TaskHub"
    headers.setdefault("Content-Security-Policy", CONTENT_SECURITY_POLICY)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "no-referrer"
    if (request_id := request.get(REQUEST_ID)) is not None:
        headers["X-Request-ID"] = request_id
    cors.add_headers(request, response, request.app[GATE].rules)


def _check_host(request: web.Request, rules: HostRules) -> None:
    hosts = request.headers.getall(hdrs.HOST, [])
    if len(hosts) != 1:
        raise Problem("bad_host", "a request has exactly one Host header")
    target = target_authority(request.raw_path)
    for host in hosts if target is None else [*hosts, target]:
        if not rules.host_allowed(host):
            hint = "set TASKHUB_ALLOWED_HOSTS to the names this server has"
            raise Problem("misdirected_request", f"this server does not answer for {host[:100]!r}; {hint}")
    for origin in request.headers.getall(hdrs.ORIGIN, []):
        if not rules.origin_allowed(origin, hosts[0]):
            hint = "set TASKHUB_ALLOWED_ORIGINS to the origins of pages that may"
            raise Problem("forbidden_origin", f"pages of {origin[:100]!r} may not call TaskHub; {hint}")


def _error_response(error: Exception, request: web.Request) -> web.StreamResponse:
    if isinstance(error, web.HTTPException) and error.status < 400:
        raise error
    problem = problem_of(error, request)
    if problem is None:
        log.error("request failed", method=request.method, path=request.path, exc_info=error)
        problem = Problem("internal_error", "an unexpected error; it is in the log under the request_id")
    if request.writer.output_size > 0:
        raise error  # The head of another response is out already: aiohttp closes the connection.
    return problem_response(problem, request)
