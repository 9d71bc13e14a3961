"""`/login/openid`: signing in through an OpenID provider, such as Google.

People are sent there and come back; whatever goes wrong, they are back at `/login`, which says so in words. That page
also goes on to where they wanted to: nothing here leads a browser to an address that came with a request.
"""

from typing import Final
from urllib.parse import urlencode

import structlog
from aiohttp import hdrs, web
from multidict import istr
from pydantic import BaseModel, Field

from routes import cookies
from routes.access import OPENID as BEGIN
from routes.access import OPENID_CALLBACK, client_address
from routes.api import Route
from routes.errors import Problem
from routes.keys import OPENID, REFUSALS, SIGN_IN, OpenId
from routes.middlewares import GATE
from routes.session import hand_over, visitor_of
from taskhub.audit.refusals import Refusal
from taskhub.auth.providers import DEFAULT_WORKSPACE
from taskhub.rates import household
from taskhub.sign_in.errors import OpenIdRefused, TooManyAttempts
from taskhub.tickets.errors import StorageBusy

FLOW_S: Final = 600
"""For how long a browser keeps what it began with; what it keeps says until when it counts."""
_SITE: Final = istr("Sec-Fetch-Site")
_COUNTED: Final = frozenset({"refused", "unverified", "domain", "unknown"})
"""What somebody was kept out by, and that is not that they did not want to, or the provider was away."""

log = structlog.get_logger(__name__)


class BeginParameters(BaseModel):
    next: str | None = Field(None, description="the page of this server to go on to")
    workspace: str | None = Field(None, description="whose user it is; when absent, `default`")


class CallbackParameters(BaseModel):
    """What providers send; what else they do counts for nothing."""

    state: str | None = None
    code: str | None = None
    iss: str | None = None
    error: str | None = None


async def begin(request: web.Request) -> web.Response:
    """GET /login/openid → 303 to the provider."""
    openid, query = _openid(request), request.query
    workspace, next_ = query.get("workspace", DEFAULT_WORKSPACE), query.get("next", "")
    cookies.check_private(request, request.app[GATE].trusted)
    # A page of others must not sign anybody in as somebody else of theirs: here people are asked.
    if request.headers.get(_SITE, "none") not in ("same-origin", "none"):
        return _to_login(workspace, next_)
    try:
        begun = await openid.provider.begin(workspace, next_)
    except OpenIdRefused as refused:
        return _refused(request, refused, workspace, next_)
    response = web.Response(status=303, headers={hdrs.LOCATION: begun.address, hdrs.CACHE_CONTROL: "no-store"})
    cookies.keep_flow(request, response, begun.sealed, FLOW_S, request.app[GATE].trusted)
    return response


async def callback(request: web.Request) -> web.Response:
    """GET /login/openid/callback → 303 to the login page, which goes on from there; with the cookie of a session."""
    openid, visitor, service = _openid(request), visitor_of(request), request.app[SIGN_IN]
    flow = openid.provider.flow(cookies.flow(request, request.app[GATE].trusted))
    workspace, next_ = (DEFAULT_WORKSPACE, "") if flow is None else (flow.workspace, flow.next)
    try:
        if flow is not None:  # without one nobody is asked anything
            service.attempt(visitor)
        identity = await openid.provider.finish(flow, request.query)
        user_id = await openid.identities.link(workspace, identity, visitor)
        opened = await service.by_openid(workspace, user_id, visitor)
    except OpenIdRefused as refused:
        response = _refused(request, refused, workspace, next_)
    except TooManyAttempts:
        response = _to_login(workspace, next_, "too_many")
    except StorageBusy as busy:
        log.warning("somebody could not sign in through the provider", reason=str(busy))
        response = _to_login(workspace, next_, "busy")
    else:
        response = _to_login(workspace, next_)
        await hand_over(request, response, opened, visitor)
    # What was begun is over, however it ended: it cannot be brought here again.
    cookies.keep_flow(request, response, "", 0, request.app[GATE].trusted)
    return response


def _openid(request: web.Request) -> OpenId:
    openid = request.app.get(OPENID)
    if openid is None:
        raise Problem(
            "no_such_resource", "nobody signs in through a provider here; TASKHUB_OPENID_ISSUER would name one"
        )
    return openid


def _refused(request: web.Request, refused: OpenIdRefused, workspace: str, next_: str) -> web.Response:
    """Whoever is kept out is told as much as lets them go on, and the log why."""
    address = client_address(request, request.app[GATE].trusted)
    log.info("a sign-in through the provider failed", trouble=refused.trouble, reason=refused.reason, address=address)
    if refused.trouble in _COUNTED:
        reason = f"sign-in through the provider: {refused.trouble}"
        request.app[REFUSALS].note(Refusal("authentication.failed", reason, address=household(address or "") or None))
    return _to_login(workspace, next_, refused.trouble)


def _to_login(workspace: str, next_: str, trouble: str = "") -> web.Response:
    asked = {"workspace": workspace if workspace != DEFAULT_WORKSPACE else "", "next": next_, "trouble": trouble}
    query = urlencode({name: value for name, value in asked.items() if value})
    address = f"/login?{query}" if query else "/login"
    return web.Response(status=303, headers={hdrs.LOCATION: address, hdrs.CACHE_CONTROL: "no-store"})


ROUTES: Final = (
    Route(
        "GET", BEGIN, begin, "begin_openid_sign_in", "Go to the OpenID provider to sign in",
        detail="For browsers: it answers with the provider's page. Whatever goes wrong there, `/login` says so.",
        query=BeginParameters, media=(), status=303, problems=("no_such_resource", "insecure_connection"),
    ),
    Route(
        "GET", OPENID_CALLBACK, callback, "finish_openid_sign_in", "Come back from the OpenID provider",
        detail="The address to register with the provider. It opens a session and leads to `/login`, which goes on.",
        query=CallbackParameters, media=(), status=303, problems=("no_such_resource",),
    ),
)  # fmt: skip
