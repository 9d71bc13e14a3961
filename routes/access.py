"""Who calls: addresses behind proxies, paths that need no credential, scopes."""

import ipaddress
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy, istr

from routes.challenges import MCP_METADATA, WELL_KNOWN
from routes.errors import Fault, Problem
from routes.keys import CALLER
from taskhub.auth.principal import Caller, Scope
from taskhub.auth.providers import ACTOR_HEADER, MAX_ACTOR_LENGTH, actor_of
from taskhub.tickets.requests import require

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Asked by machines that know an address and no name: neither Host nor credential counts."""
OPENID: Final = "/login/openid"
OPENID_CALLBACK: Final = f"{OPENID}/callback"
OPEN: Final = PROBES | {
    "/", "/favicon.ico", "/health", "/version", "/capabilities", "/openapi.json", "/docs", "/feed",
    "/login", OPENID, OPENID_CALLBACK, WELL_KNOWN, MCP_METADATA,
}  # fmt: skip
"""What a caller must be able to read before it knows how to authenticate; and all that is `STATIC`."""
OAUTH: Final = ("/oauth/", "/.well-known/oauth-authorization-server")
"""What the addresses begin with that are asked by those who have no credential yet: what they bring instead, the
authorization server judges itself."""
SIGN_IN: Final = "/api/v1/session"
"""A POST to it is how to authenticate."""
STATIC: Final = "/static/"
"""What the addresses of files begin with that pages are made of."""
SHOWN: Final = frozenset({"/events/debug"})
"""Data for programs; what browsers get at these addresses is a page, which asks for the data with what a person gives
it."""
METRICS_PATH: Final = "/metrics"
"""Collectors know addresses and no names, so the Host does not count; who may read it stands in the settings."""
MCP_PATHS: Final = frozenset({"/mcp", "/sse", "/message"})
STREAM: Final = "/events/stream"
TOKEN: Final = "token"  # noqa: S105  # its name
"""The parameter by which a stream is opened without headers."""

_ACTOR_HEADER: Final = istr(ACTOR_HEADER)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def is_open(method: str, path: str) -> bool:
    """Whether anybody may ask this."""
    return path in OPEN or path.startswith((STATIC, *OAUTH)) or (path == SIGN_IN and method == hdrs.METH_POST)


def wants_page(request: web.BaseRequest) -> bool:
    """Whether the request comes from a browser's address line."""
    return "text/html" in request.headers.get(hdrs.ACCEPT, "").lower()


def is_page_of_data(request: web.BaseRequest) -> bool:
    """Whether the answer is a page, which says nothing, at an address of data, which does."""
    return request.path in SHOWN and request.method in (hdrs.METH_GET, hdrs.METH_HEAD) and wants_page(request)


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Addresses or networks as written in TRUSTED_PROXIES. Raises ValueError."""
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def proxied(request: web.BaseRequest) -> str | None:
    """The header that shows that a proxy passed the request on; None when it came directly."""
    return next(filter(_set_by_proxies, request.headers), None)


def may_scrape(request: web.BaseRequest, trusted: Sequence[Network], scrapers: Sequence[Network]) -> bool:
    """Whether this client may read the metrics without a credential: by its address, where that is known for sure."""
    peer = request.remote
    if proxied(request) is not None and not (peer is not None and _trusted(peer, trusted)):
        return False  # the address is that of a proxy, which may stand before anybody
    address = client_address(request, trusted)
    return address is not None and _trusted(address, scrapers)


def client_address(request: web.BaseRequest, trusted: Sequence[Network]) -> str | None:
    """The client's address: the peer's, or, when that is a trusted proxy, the last one in the chain that is none."""
    peer = request.remote
    if peer is None or not trusted or not _trusted(peer, trusted):
        return peer
    if "Forwarded" in request.headers:
        chain = [element.get("for", "") for element in request.forwarded]
    else:
        chain = [part for line in request.headers.getall("X-Forwarded-For", []) for part in line.split(",")]
    for hop in reversed(chain):
        address = _address(hop)
        if address is None:
            break
        peer = address
        if not _trusted(address, trusted):
            break
    return peer


def over_https(request: web.BaseRequest, trusted: Sequence[Network]) -> bool:
    """Whether the client's connection is encrypted: ours is, or the one that ends at a trusted proxy."""
    if request.secure:
        return True
    if request.remote is None or not _trusted(request.remote, trusted):
        return False
    if "Forwarded" in request.headers:
        told = [element["proto"] for element in request.forwarded if "proto" in element]
    else:
        told = request.headers.get("X-Forwarded-Proto", "").split(",")
    # What stands last, the proxy that is trusted has written.
    return bool(told) and told[-1].strip().lower() == "https"


def failure_address(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """Whom a wrong credential is counted against: the client's address, and nobody else's.

    Behind a proxy that is not trusted, its address stands for everybody's; then it is that and the last hop that the
    request names, which is what such a proxy has added, so that nobody is counted for another.
    """
    address = client_address(request, trusted) or ""
    if address != request.remote or proxied(request) is None:
        return address
    hops = [part for line in request.headers.getall("X-Forwarded-For", []) for part in line.split(",")]
    last = (hops or request.headers.getall("Forwarded", [""]))[-1]
    return f"{address} {last.strip()[-60:]}"


def check_actor(headers: CIMultiDictProxy[str]) -> None:
    """Raise Problem (bad_header) when the name that a caller gives itself is none that an actor can have.

    An empty one counts as not given; a name without a kind is an agent's.
    """
    text = headers.get(_ACTOR_HEADER, "").strip()
    if not text:
        return
    actor = actor_of(text)
    if actor is None or _plain(actor.partition(":")[2]) != _plain(_own_name(text, actor)):
        reason = (
            f"must be letters, digits, _, - and . ({MAX_ACTOR_LENGTH} at most), after user:, agent:, service: or alone"
        )
        raise Problem.of("bad_header", [Fault(reason, header=ACTOR_HEADER, did_you_mean=actor)])


def caller_with(request: web.Request, scope: Scope) -> Caller:
    """The caller of a request. Raises Forbidden unless it has the scope."""
    caller = request[CALLER]
    require(caller, scope)
    return caller


def _own_name(text: str, actor: str) -> str:
    """The name in `text`, which begins with the actor's kind or is all name."""
    kind, colon, name = text.partition(":")
    return name if colon and actor.startswith(f"{kind.lower()}:") else text


def _plain(name: str) -> str:
    """A name as far as it is the same actor's: case, and the three marks between words, make no difference."""
    return unicodedata.normalize("NFKC", name).casefold().replace("-", "_").replace(".", "_")


@lru_cache(maxsize=256)
def _set_by_proxies(header: str) -> bool:
    name = header.lower()
    return name in ("forwarded", "via") or name.startswith("x-forwarded-")


def _trusted(address: str, trusted: Sequence[Network]) -> bool:
    parsed = _parsed(address)
    return parsed is not None and any(parsed in network for network in trusted)


@lru_cache(maxsize=1024)
def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address)
    except ValueError:
        return None


def _address(hop: str) -> str | None:
    """The address in a hop such as `192.0.2.1`, `192.0.2.1:4711` or `"[2001:db8::1]:4711"`; None when it has none."""
    text = hop.strip().strip('"')
    candidates = (text, text.partition("]")[0].removeprefix("["), text.rpartition(":")[0])
    return next((str(address) for candidate in candidates if (address := _parsed(candidate)) is not None), None)
