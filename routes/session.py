"""`/api/v1/session` and `/api/v1/sessions`: signing in and out, for the people at the board."""

from typing import Final

from aiohttp import hdrs, web

from routes import cookies
from routes.access import client_address
from routes.api import Route
from routes.bodies import Items, NoParameters, json_response, read_model
from routes.errors import Problem
from routes.keys import AUTH, CALLER, INSTANCES, REQUEST_ID, SETTINGS, SIGN_IN
from routes.middlewares import GATE
from taskhub.auth.providers import DEFAULT_WORKSPACE
from taskhub.sign_in.model import NewPassword, Opened, Session, SignedIn, SignInRequest, Visitor


async def sign_in(request: web.Request) -> web.Response:
    """POST /api/v1/session → 201 SignedIn, and the cookie."""
    trusted = request.app[GATE].trusted
    if request.app[AUTH].name == "none":
        raise Problem("nobody_signs_in", "AUTH=none: everybody on this machine is let in")
    # Else a page of others could sign somebody in as somebody else, who then reads what is written.
    cookies.check_same_origin(request)
    cookies.check_private(request, trusted)
    asked = await read_model(request, SignInRequest)
    visitor = visitor_of(request)
    service = request.app[SIGN_IN]
    if asked.name is not None and asked.password is not None:
        workspace = asked.workspace or DEFAULT_WORKSPACE
        opened = await service.by_password(workspace, asked.name, asked.password.get_secret_value(), visitor)
    else:
        secret = "" if asked.link is None else asked.link.get_secret_value()
        opened = await service.by_link(secret, visitor)
    response = json_response(opened.signed_in, status=201, headers={hdrs.LOCATION: "/api/v1/session"})
    await hand_over(request, response, opened, visitor)
    return response


def visitor_of(request: web.Request) -> Visitor:
    """Who wants to sign in, before that can be told."""
    trusted = request.app[GATE].trusted
    return Visitor(
        address=client_address(request, trusted),
        user_agent=request.headers.get(hdrs.USER_AGENT, ""),
        replacing=cookies.presented(request, trusted),
        request_id=request[REQUEST_ID],
    )


async def hand_over(request: web.Request, response: web.Response, opened: Opened, visitor: Visitor) -> None:
    """Have the browser keep a new session; what the one before has open ends on every instance."""
    if visitor.replacing is not None:
        await request.app[INSTANCES].credentials_changed()
    max_age_s, trusted = request.app[SETTINGS].session_max_s, request.app[GATE].trusted
    cookies.set_session(request, response, opened.secret, max_age_s, trusted)


async def session(request: web.Request) -> web.Response:
    """GET /api/v1/session → SignedIn."""
    return json_response(await request.app[SIGN_IN].sessions.current(request[CALLER].principal))


async def sign_out(request: web.Request) -> web.Response:
    """DELETE /api/v1/session → 204; what the session has open ends on every instance."""
    await request.app[SIGN_IN].sessions.end_current(request[CALLER])
    return await _ended(request, forget=True)


async def change_password(request: web.Request) -> web.Response:
    """PUT /api/v1/session/password → 204; the user's other sessions end."""
    new = await read_model(request, NewPassword)
    await request.app[SIGN_IN].change_password(request[CALLER], new)
    return await _ended(request, forget=False)


async def sessions(request: web.Request) -> web.Response:
    """GET /api/v1/sessions → one's own, the newest first."""
    return json_response(Items(await request.app[SIGN_IN].sessions.list(request[CALLER].principal)))


async def end_session(request: web.Request) -> web.Response:
    """DELETE /api/v1/sessions/{id} → 204."""
    caller, session_id = request[CALLER], request.match_info["id"]
    await request.app[SIGN_IN].sessions.end(caller, session_id)
    return await _ended(request, forget=session_id == caller.principal.credential)


async def sign_out_everywhere(request: web.Request) -> web.Response:
    """DELETE /api/v1/sessions → 204; this session ends, too."""
    await request.app[SIGN_IN].sessions.end_all(request[CALLER])
    return await _ended(request, forget=True)


async def _ended(request: web.Request, *, forget: bool) -> web.Response:
    await request.app[INSTANCES].credentials_changed()
    response = web.Response(status=204)
    if forget:
        cookies.forget_session(request, response, request.app[GATE].trusted)
    return response


_OF_SESSIONS: Final = ("no_session", "storage_busy")

ROUTES: Final = (
    Route(
        "POST", "/api/v1/session", sign_in, "sign_in", "Sign in, by name and password or by a link",
        detail="For pages of this server: the session is in a cookie that no script reads. Programs use API keys. "
        "The link is what `taskhub users sign-in-link` prints; it works once. A session that the browser had ends.",
        query=NoParameters, body=SignInRequest, example={"name": "olga", "password": "correct horse battery staple"},
        answer=SignedIn, status=201,
        problems=(
            "sign_in_refused", "too_many_attempts", "not_same_origin", "insecure_connection", "nobody_signs_in",
            "storage_busy",
        ),
    ),
    Route(
        "GET", "/api/v1/session", session, "get_session", "Tell who is signed in, and until when",
        query=NoParameters, answer=SignedIn, problems=_OF_SESSIONS,
    ),
    Route(
        "DELETE", "/api/v1/session", sign_out, "sign_out", "Sign out",
        query=NoParameters, media=(), status=204, problems=_OF_SESSIONS,
    ),
    Route(
        "PUT", "/api/v1/session/password", change_password, "change_password", "Set one's own password",
        detail="One's other sessions end.",
        query=NoParameters, body=NewPassword,
        example={"password": "correct horse battery staple", "current_password": "the one before this"},
        media=(), status=204, problems=(*_OF_SESSIONS, "too_many_attempts"),
    ),
    Route(
        "GET", "/api/v1/sessions", sessions, "list_sessions", "List one's own sessions",
        query=NoParameters, answer=Items[Session], problems=_OF_SESSIONS,
    ),
    Route(
        "DELETE", "/api/v1/sessions", sign_out_everywhere, "sign_out_everywhere", "End all of one's sessions",
        query=NoParameters, media=(), status=204, problems=_OF_SESSIONS,
    ),
    Route(
        "DELETE", "/api/v1/sessions/{id}", end_session, "end_session", "End one of one's sessions",
        query=NoParameters, media=(), status=204, problems=(*_OF_SESSIONS, "not_found"),
    ),
)  # fmt: skip
