"""Cross-origin reads: which pages of other origins may call what, and see which headers."""

import re
from typing import Final

from aiohttp import hdrs, web

from routes.access import MCP_PATHS, STATIC
from routes.hosts import HostRules, same_origin
from taskhub.headers import IDEMPOTENCY_HEADER, LEASE_HEADER
from taskhub.mcp.headers import CORS_ALLOW_HEADER_PREFIX, CORS_ALLOW_HEADERS, CORS_EXPOSE_HEADERS

MAX_AGE_S: Final = 600
_MCP_PARAM: Final = re.compile(rf"{CORS_ALLOW_HEADER_PREFIX}[\w-]{{1,100}}", re.IGNORECASE | re.ASCII)
_API_HEADERS: Final = (
    "Accept", "Authorization", "Cache-Control", "Content-Type", IDEMPOTENCY_HEADER, "If-Match", "Last-Event-ID",
    "Prefer", LEASE_HEADER, "X-API-Key", "X-Request-ID", "X-TaskHub-Actor",
)  # fmt: skip
_API_EXPOSED: Final = "ETag, Location, Retry-After, TaskHub-Position, TaskHub-Stream, WWW-Authenticate, X-Request-ID"
_MCP_EXPOSED: Final = ", ".join((*CORS_EXPOSE_HEADERS, "X-Request-ID"))


def shared(path: str) -> bool:
    """Whether pages of other origins may use this path."""
    if path.startswith("/oauth/"):
        return path != "/oauth/authorize"  # it is gone to, not asked
    return path == "/events" or path.startswith(("/events/", "/api/v1/", "/.well-known/", STATIC)) or path in MCP_PATHS


def add_headers(request: web.BaseRequest, response: web.StreamResponse, rules: HostRules) -> None:
    """Let an allowed page read this response."""
    if not shared(request.path):
        return
    # What is answered depends on Origin, so a cache must keep the answers apart, those without CORS as well.
    response.headers.add(hdrs.VARY, hdrs.ORIGIN)
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or same_origin(origin, request.headers.get(hdrs.HOST, "")):
        return
    if rules.cross_origin_allowed(origin):
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        exposed = _MCP_EXPOSED if request.path in MCP_PATHS else _API_EXPOSED
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = exposed


def options(request: web.Request) -> web.Response | None:
    """The answer to OPTIONS, a preflight or not; None when nothing lives at the path, or it answers by itself."""
    refused = request.match_info.http_exception
    if not isinstance(refused, web.HTTPMethodNotAllowed):
        return None
    methods = ", ".join(sorted({*refused.allowed_methods, hdrs.METH_OPTIONS}))
    response = web.Response(status=204, headers={hdrs.ALLOW: methods})
    if hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers and shared(request.path):
        known = (*CORS_ALLOW_HEADERS, "X-Request-ID") if request.path in MCP_PATHS else _API_HEADERS
        # A tool's own parameters may come as headers: only the page knows their names.
        named = _MCP_PARAM.findall(request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, ""))
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_METHODS] = methods
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = ", ".join((*known, *named))
        response.headers[hdrs.ACCESS_CONTROL_MAX_AGE] = str(MAX_AGE_S)
    return response
