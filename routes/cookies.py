"""The cookie of a session: what it is called, and which requests it counts for.

Browsers send a cookie with whatever a page asks for, also a page of others, so that it is no proof of what a person
meant (CSRF). SameSite=Lax keeps most of those away; what is left is told apart by headers that no page can set: what
changes something must come from TaskHub's own pages.
"""

from collections.abc import Sequence
from typing import Final

from aiohttp import hdrs, web
from multidict import istr

from routes.access import MCP_PATHS, Network, over_https
from routes.errors import Problem
from routes.hosts import Authority, same_origin
from routes.keys import SETTINGS

# A browser takes a cookie of this name only over HTTPS, for one host and all of its paths (RFC 6265bis, 4.1.3.2).
_OVER_HTTPS: Final = "__Host-taskhub_session"
_IN_PLAIN: Final = "taskhub_session"
_SAFE: Final = frozenset({hdrs.METH_GET, hdrs.METH_HEAD, hdrs.METH_OPTIONS})
_SITE: Final = istr("Sec-Fetch-Site")
_MODE: Final = istr("Sec-Fetch-Mode")
_API_KEY: Final = istr("x-api-key")


def session_of(request: web.Request, trusted: Sequence[Network]) -> str | None:
    """The secret of the session that a request comes with; None when it has another credential, or none.

    MCP clients have credentials of their own: no cookie counts there.
    """
    headers = request.headers
    if hdrs.COOKIE not in headers or request.path in MCP_PATHS or _API_KEY in headers or hdrs.AUTHORIZATION in headers:
        return None
    return presented(request, trusted)


def presented(request: web.Request, trusted: Sequence[Network]) -> str | None:
    """The value of the cookie; None when there is none."""
    name = _name(request, trusted)
    return None if name is None else request.cookies.get(name)


def check_same_origin(request: web.Request) -> None:
    """Raise Problem unless a page of this very server asks. What only reads may also be gone to from elsewhere."""
    site, origins = request.headers.get(_SITE), request.headers.getall(hdrs.ORIGIN, ())
    if request.method in _SAFE:
        fine = site in (None, "same-origin", "none") or request.headers.get(_MODE) == "navigate"
    elif site is None and not origins:
        fine = False
    else:
        host = request.headers.get(hdrs.HOST, "")
        fine = site in (None, "same-origin") and all(same_origin(origin, host) for origin in origins)
    if not fine:
        raise Problem(
            "not_same_origin",
            "a session counts for what TaskHub's own pages do (Origin or Sec-Fetch-Site); programs use an API key",
        )


def check_private(request: web.Request, trusted: Sequence[Network]) -> None:
    """Raise Problem where a session would go over the network in plain text."""
    if _name(request, trusted) is None:
        raise Problem(
            "insecure_connection",
            "open this page with https://; where a proxy does that already, set TASKHUB_TRUSTED_PROXIES to its address",
        )


def set_session(
    request: web.Request, response: web.Response, secret: str, max_age_s: int, trusted: Sequence[Network]
) -> None:
    """Have the browser keep a session, out of reach of scripts."""
    if (name := _name(request, trusted)) is not None:
        _set(response, name, secret, max_age_s)


def forget_session(request: web.Request, response: web.Response, trusted: Sequence[Network]) -> None:
    """Have the browser throw its session away."""
    if (name := _name(request, trusted)) is not None:
        _set(response, name, "", 0)


def flow(request: web.Request, trusted: Sequence[Network]) -> str | None:
    """What the browser keeps of a sign-in through a provider that is under way."""
    name = _name(request, trusted)
    return None if name is None else request.cookies.get(_of_flow(name))


def keep_flow(
    request: web.Request, response: web.Response, sealed: str, max_age_s: int, trusted: Sequence[Network]
) -> None:
    """Have the browser keep it; nothing, where it is over."""
    if (name := _name(request, trusted)) is not None:
        _set(response, _of_flow(name), sealed, max_age_s)


def _of_flow(name: str) -> str:
    return name.replace("session", "openid")


def _set(response: web.Response, name: str, value: str, max_age_s: int) -> None:
    response.set_cookie(
        name, value, max_age=max_age_s, path="/", httponly=True, samesite="Lax", secure=name.startswith("__Host-")
    )


def _name(request: web.Request, trusted: Sequence[Network]) -> str | None:
    """What the cookie is called; None where there must be none."""
    if over_https(request, trusted):
        return _OVER_HTTPS
    host = Authority.parse(request.headers.get(hdrs.HOST, ""))
    if host is None or not (host.loopback or request.app[SETTINGS].insecure):
        return None
    # Cookies do not tell ports apart, and on one machine there may be several servers.
    return f"{_IN_PLAIN}_{host.port or 80}"
