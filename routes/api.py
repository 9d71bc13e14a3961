"""What a route is: one declaration, from which it is registered, described (openapi.py, docs.py) and tested.

Each module of handlers has a tuple `ROUTES`; setup.py knows the modules. A route that is not declared does not exist.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from aiohttp import HttpVersion11, hdrs, web
from multidict import istr
from pydantic import BaseModel

from routes.access import MCP_PATHS, PROBES, is_open
from routes.bodies import NoParameters, no_parameters
from routes.challenges import SCOPES
from routes.errors import CODES, Fault, Problem, problem_response
from taskhub.auth.principal import Scope
from taskhub.headers import IDEMPOTENCY_HEADER, LEASE_HEADER

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON: Final = ("application/json",)
PAGE: Final = ("text/html",)

_ALWAYS: Final = frozenset({"bad_path", "query_too_long", "expectation_failed", "headers_too_large", "internal_error"})
_OF_HOSTS: Final = frozenset({"bad_host", "misdirected_request", "forbidden_origin", "proxied_request"})
_OF_BODIES: Final = frozenset(
    {
        "bad_request",
        "malformed_json",
        "request_timeout",
        "body_too_large",
        "unsupported_media_type",
        "invalid_input",
    }
)
_OF_HEADERS: Final = {
    IDEMPOTENCY_HEADER: frozenset({"bad_header", "idempotency_mismatch"}),
    "If-Match": frozenset({"bad_header", "version_conflict"}),
    LEASE_HEADER: frozenset({"bad_header", "lease_held", "lease_lost"}),
}


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. Its family, the tag it is listed under, is the module of its handler."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
    path: str
    handler: Handler
    name: str
    """Verb and resource, such as `create_ticket`: the operationId, which generated clients call it by. Stable."""
    summary: str
    detail: str = ""
    """What the summary does not say, in a few sentences."""
    scope: Scope | None = None
    """What the caller must be allowed; None: nothing beyond being let in."""
    named: type[BaseModel] | None = None
    """What the named parts of the path are checked against; None where each is just a text."""
    query: type[BaseModel] | None = None
    """Its parameters; NoParameters where any is refused, None where nobody looks."""
    filters: bool = False
    """Whether it takes the filters of events besides."""
    body: type[BaseModel] | None = None
    file: tuple[str, ...] = ()
    """The media types of a body that is no JSON."""
    body_optional: bool = False
    """Whether the body may be left out."""
    example: Any = None
    """A body that works."""
    answer: Any = None
    """The type of what a success answers as JSON; None where that is no JSON."""
    media: tuple[str, ...] = JSON
    """The media types of a success; none for an answer without a body."""
    status: int = 200
    also: tuple[int, ...] = ()
    """Further statuses of a success, or that answer the same. 202, 204 and 304 have no body."""
    takes: tuple[str, ...] = ()
    """Request headers that count, beyond those that count everywhere."""
    needs: tuple[str, ...] = ()
    """Those of them without which nothing can be done."""
    sends: tuple[str, ...] = ()
    """Headers of a success, beyond those of every answer."""
    problems: tuple[str, ...] = ()
    """Problem codes, beyond those that follow from the rest of the declaration."""
    finds_deleted: bool = False
    """Whether a ticket that was deleted is found like any other."""
    head: bool = True
    """Whether a GET answers HEAD as well."""

    @property
    def family(self) -> str:
        return self.handler.__module__.rpartition(".")[2]

    @property
    def authenticated(self) -> bool:
        return not is_open(self.method, self.path)

    @property
    def codes(self) -> tuple[str, ...]:
        """Every problem code that it may answer, in the order of CODES."""
        found = {*_ALWAYS, *self.problems}
        if self.path not in PROBES:
            found |= _OF_HOSTS
        if self.authenticated:
            # The header: the name that a caller gives itself, or more than one credential.
            found |= {
                "unauthenticated",
                "unknown_user",
                "issuer_unavailable",
                "rate_limited",
                "bad_header",
                "not_same_origin",
            }
        if self.scope is not None:
            found |= {"forbidden", "storage_busy"}
        if self.query is not None or self.named is not None:
            found.add("bad_parameter")
        if self.body is not None or self.file:
            found |= _OF_BODIES if self.body is not None else _OF_BODIES - {"malformed_json"}
        for header in self.takes:
            found |= _OF_HEADERS.get(header, frozenset())
        if "{key}" in self.path:
            found |= {"not_found"} if self.finds_deleted else {"not_found", "deleted"}
        return tuple(code for code in CODES if code in found)


CONDITIONS: Final = tuple(_OF_HEADERS)
"""Request headers that say when a write may happen, or how often: a write that cannot heed one is refused."""

ROUTES: Final[web.AppKey[Sequence[Route]]] = web.AppKey("routes", Sequence[Route])
"""What the application serves."""


def register(app: web.Application, routes: Sequence[Route]) -> None:
    """Serve these routes."""
    app[ROUTES] = (*app.get(ROUTES, ()), *routes)
    scopes: dict[tuple[str, str | None], Scope] = app.setdefault(SCOPES, {})
    scopes.update({(route.method, route.path): route.scope for route in routes if route.scope is not None})
    for route in routes:
        if route.method == hdrs.METH_GET:
            app.router.add_get(route.path, _checked(route), allow_head=route.head, expect_handler=_expect)
        else:
            app.router.add_route(route.method, route.path, _checked(route), expect_handler=_expect)


def _checked(route: Route) -> Handler:
    """The handler, for requests that say nothing it would pass over: no parameters where there are none, and of a write
    no conditions that it does not take."""
    reads = route.method == hdrs.METH_GET or route.path in MCP_PATHS
    unheeded = () if reads else tuple(istr(name) for name in CONDITIONS if name not in route.takes)
    if not unheeded and route.query is not NoParameters:
        return route.handler

    async def handle(request: web.Request) -> web.StreamResponse:
        for name in unheeded:
            if name in request.headers:
                reason = "has no effect on this request, which is not made for that reason: leave it out"
                raise Problem.of("bad_header", [Fault(reason, header=str(name))])
        if route.query is NoParameters:
            no_parameters(request)
        return await route.handler(request)

    return handle


async def _expect(request: web.Request) -> web.StreamResponse | None:
    """Answer an Expect header (RFC 9110, 10.1.1), which comes before all else that looks at a request."""
    if request.version < HttpVersion11:
        return None
    if request.headers[hdrs.EXPECT].lower() == "100-continue":
        return None  # said by whoever wants the body
    return problem_response(Problem("expectation_failed", "Expect must be 100-continue, or be left out"), request)
