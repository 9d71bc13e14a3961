"""What a caller is told who may not do what it asks for: `WWW-Authenticate` (RFC 6750, RFC 9728, MCP authorization).

With OAuth it says where to learn who issues tokens, and which scopes to ask for.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from aiohttp import hdrs, web

from routes.keys import AUTH, CALLER, SETTINGS
from taskhub.auth.errors import Forbidden, Unauthenticated
from taskhub.auth.principal import Scope

WELL_KNOWN: Final = "/.well-known/oauth-protected-resource"
MCP_METADATA: Final = f"{WELL_KNOWN}/mcp"
BASIC_SCOPES: Final[tuple[Scope, ...]] = ("tickets:read", "tickets:write", "events:read")
"""Enough to work on tickets. A client that needs more is told so when it does."""
SCOPES: Final = web.AppKey("scopes", dict[tuple[str, str | None], Scope])
"""What each route takes, by method and path, where that is one scope."""
REALM: Final = 'Bearer realm="TaskHub"'


def of_unauthenticated(request: web.Request, error: Unauthenticated) -> Mapping[str, str]:
    """The headers of a 401. Raises nothing, whatever the request is."""
    parts = [REALM]
    if request.app[AUTH].name == "oauth":
        if "bearer" in request.headers.get(hdrs.AUTHORIZATION, "").lower():
            parts += ['error="invalid_token"', f'error_description="{error}"']
        parts += _where(request, _wanted(request))
    return {hdrs.WWW_AUTHENTICATE: ", ".join(parts)}


def of_forbidden(request: web.Request, error: Forbidden) -> Mapping[str, str]:
    """The headers of a 403: which scopes to ask for, to a client whose user may have them; none to any other, which
    would ask in vain."""
    caller = request.get(CALLER)
    if caller is None or request.app[AUTH].name != "oauth":
        return {}
    if not set(error.needed) - caller.principal.scopes <= caller.principal.grantable:
        return {}
    parts = [REALM, 'error="insufficient_scope"', f'error_description="{error}"', *_where(request, error.needed)]
    return {hdrs.WWW_AUTHENTICATE: ", ".join(parts)}


def _where(request: web.Request, scopes: Iterable[str]) -> list[str]:
    metadata = f"{request.app[SETTINGS].public_url}{MCP_METADATA}"
    return [f'scope="{" ".join(scopes)}"', f'resource_metadata="{metadata}"']


def _wanted(request: web.Request) -> Iterable[str]:
    """What a token for this request should allow."""
    method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
    scope = request.app.get(SCOPES, {}).get((method, _path(request)))
    return BASIC_SCOPES if scope is None else (scope,)


def _path(request: web.Request) -> str | None:
    resource = request.match_info.route.resource
    return None if resource is None else resource.canonical
