"""`/oauth` and its metadata: the authorization server for MCP clients (OAuth 2.1), where TaskHub issues tokens."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote

from aiohttp import hdrs, web
from multidict import istr

from routes import consent_page, cookies
from routes.access import failure_address
from routes.api import PAGE, Route
from routes.assets import ASSETS
from routes.bodies import json_response, read_body, read_json
from routes.errors import RETRY_AFTER_S, Problem
from routes.hosts import same_origin
from routes.keys import AUTH, LIMITS
from routes.middlewares import GATE
from taskhub.auth.errors import KeysUnavailable, Unauthenticated
from taskhub.auth.principal import Principal
from taskhub.auth.providers import ApiKeyAuth
from taskhub.oauth.clients import ClientMetadata
from taskhub.oauth.errors import OAuthError, Reason, UnsafeRequest
from taskhub.oauth.redirects import form_targets, shown
from taskhub.oauth.server import (
    AUTHORIZE,
    INTROSPECT,
    KEYS,
    REGISTER,
    REVOKE,
    TOKEN,
    Asked,
    AuthorizationServer,
    Refused,
)
from taskhub.tickets.errors import RateLimited, StorageBusy

METADATA: Final = "/.well-known/oauth-authorization-server"
FORM: Final = "application/x-www-form-urlencoded"
MAX_FORM_BYTES: Final = 16 * 1024
MAX_REGISTRATION_BYTES: Final = 32 * 1024
MAX_FIELDS: Final = 50
METADATA_MAX_AGE_S: Final = 300

AUTHORIZATION_SERVER: Final = web.AppKey("authorization_server", AuthorizationServer)

_SITE: Final = istr("Sec-Fetch-Site")
_NO_STORE: Final[Mapping[str, str]] = {hdrs.CACHE_CONTROL: "no-store"}
# The form's own page must say where it comes from: without that, browsers send `Origin: null`.
_OF_PAGES: Final[Mapping[str, str]] = {**_NO_STORE, "Referrer-Policy": "same-origin", "X-Frame-Options": "DENY"}
_POLICY: Final = "default-src 'self'; base-uri 'none'; frame-ancestors 'none'; object-src 'none'; form-action 'self'"


async def metadata(request: web.Request) -> web.Response:
    """GET /.well-known/oauth-authorization-server → RFC 8414."""
    return _public(server_of(request).metadata())


async def keys(request: web.Request) -> web.Response:
    """GET /oauth/jwks.json → the keys that access tokens are signed with (RFC 7517)."""
    return _public({"keys": await server_of(request).keys.published()})


async def authorize(request: web.Request) -> web.Response:
    """GET /oauth/authorize: the question to the person who is signed in, or the way to sign in first."""
    server = server_of(request)
    user = await _signed_in(request)
    parameters = tuple(request.query.items())
    try:
        if user is None:
            await server.recognise(parameters)
            # Before anything else is looked at: who is not signed in is sent nowhere else.
            return _see_other(f"/login?next={quote(request.raw_path, safe='')}")
        request.app[LIMITS].write(user)  # it may fetch what the client says of itself, and remember it
        asked = await server.asked(user, parameters)
        if await server.agreed(user, asked):
            return _see_other(await server.allow(user, asked, asked.scopes))
    except (UnsafeRequest, Refused) as error:
        return await _unanswered(request, error)
    return await _asking(request, asked, user, server.seal(user, parameters))


async def answer(request: web.Request) -> web.Response:
    """POST /oauth/authorize: what the person says."""
    server = server_of(request)
    try:
        user = await _signed_in(request)
        _check_own_page(request)
        form = await _form(request)
        given = dict(form)
        if user is None:
            raise UnsafeRequest("expired", "you are not signed in any more")
        asked = await server.asked(user, server.unseal(user, given.get("request", "")))
        if given.get("answer") != "allow":
            return _see_other(server.deny(asked))
        return _see_other(await server.allow(user, asked, [value for name, value in form if name == "scope"]))
    except OAuthError as error:
        return await _unanswered(request, UnsafeRequest("not_yours", error.description))
    except (UnsafeRequest, Refused) as error:
        return await _unanswered(request, error)


async def token(request: web.Request) -> web.Response:
    """POST /oauth/token → tokens (RFC 6749, 5.1)."""
    return await _told(request, server_of(request).token)


async def introspect(request: web.Request) -> web.Response:
    """POST /oauth/introspect → what a token is good for (RFC 7662)."""
    return await _told(request, server_of(request).introspect)


async def revoke(request: web.Request) -> web.Response:
    """POST /oauth/revoke (RFC 7009): the token, and all others of the same grant, are good no more."""
    server = server_of(request)

    async def revoked(form: list[tuple[str, str]]) -> dict[str, Any]:
        await server.revoke(form)
        return {}

    return await _told(request, revoked)


async def register(request: web.Request) -> web.Response:
    """POST /oauth/register → the client, with its id (RFC 7591)."""
    server = server_of(request)
    try:
        _count(request)
        said = await read_json(request, MAX_REGISTRATION_BYTES)
        return json_response(await server.register(said), status=201)
    except Problem as problem:
        return _error(OAuthError("invalid_client_metadata", _printable(problem.detail)), problem.status)
    except (OAuthError, StorageBusy, RateLimited) as error:
        return _error(error)


def server_of(request: web.Request) -> AuthorizationServer:
    """Raises Problem (no_such_resource) where somebody else issues tokens, or nobody."""
    server = request.app.get(AUTHORIZATION_SERVER)
    if server is None:
        detail = "this server issues no access tokens; TASKHUB_AUTH=oauth without TASKHUB_OAUTH_ISSUER would make it"
        raise Problem("no_such_resource", detail)
    return server


async def _signed_in(request: web.Request) -> Principal | None:
    """Who is signed in with this browser; None when nobody is. No other credential counts: what was given to a program
    is not for letting others in. Raises StorageBusy."""
    auth, secret = request.app[AUTH], cookies.presented(request, request.app[GATE].trusted)
    if secret is None or not isinstance(auth, ApiKeyAuth):
        return None
    try:
        return await auth.by_session(secret)
    except Unauthenticated:
        return None


async def _told(
    request: web.Request, ask: Callable[[list[tuple[str, str]]], Awaitable[dict[str, Any]]]
) -> web.Response:
    """The answer to a form of a client."""
    try:
        _count(request)
        if hdrs.AUTHORIZATION in request.headers:
            detail = "clients have no secrets here: send client_id in the form alone"
            # To these alone 401 (RFC 6749, 5.2): with its challenge, clients look no further for what is wrong.
            return _error(OAuthError("invalid_client", detail), 401)
        if request.rel_url.raw_query_string:
            raise OAuthError("invalid_request", "parameters belong into the body, not into the address")
        return json_response(await ask(await _form(request)))
    except Problem as problem:
        return _error(OAuthError("invalid_request", _printable(problem.detail)), problem.status)
    except (OAuthError, StorageBusy, KeysUnavailable, RateLimited) as error:
        return _error(error)


def _count(request: web.Request) -> None:
    """Raise RateLimited where too many of these come from one address: nobody has let in who sends them."""
    request.app[LIMITS].oauth(failure_address(request, request.app[GATE].trusted))


async def _form(request: web.Request) -> list[tuple[str, str]]:
    """Raises OAuthError, and Problem as `read_body`."""
    if request.content_type.lower() != FORM or hdrs.CONTENT_TYPE not in request.headers:
        raise OAuthError("invalid_request", f"send the parameters as {FORM}")
    body = await read_body(request, MAX_FORM_BYTES)
    try:
        return parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=MAX_FIELDS, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", f"the body is no form, or has more than {MAX_FIELDS} fields") from None


def _check_own_page(request: web.Request) -> None:
    """Raise UnsafeRequest unless the form is one of this server's (besides the seal, which only its pages have)."""
    site, origin = request.headers.get(_SITE), request.headers.get(hdrs.ORIGIN)
    if (site is not None and site != "same-origin") or (
        origin is not None and not same_origin(origin, request.headers.get(hdrs.HOST, ""))
    ):
        raise UnsafeRequest("not_yours", "the answer comes from another site")


async def _asking(request: web.Request, asked: Asked, user: Principal, sealed: str) -> web.Response:
    assets = request.app[ASSETS]
    await asyncio.to_thread(lambda: assets.digest)
    policy = {"Content-Security-Policy": f"{_POLICY} {form_targets(asked.redirect_uri)}"}
    return _html(consent_page.question(asked, user, sealed, assets), 200, policy)


async def _unanswered(request: web.Request, error: UnsafeRequest | Refused) -> web.Response:
    """What is wrong: to the client where a browser may be sent to it, else to the person."""
    if isinstance(error, Refused) and error.safe:
        return _see_other(error.location)
    assets = request.app[ASSETS]
    await asyncio.to_thread(lambda: assets.digest)
    reason: Reason | str
    if isinstance(error, Refused):
        reason, detail, onward = "refused", str(error), (error.location, shown(error.redirect_uri))
        return _html(consent_page.refusal(reason, detail, assets, onward), 400)
    return _html(consent_page.refusal(error.reason, error.detail, assets), 400)


def _html(text: str, status: int, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(text=text, status=status, content_type=PAGE[0], headers={**_OF_PAGES, **(headers or {})})


def _see_other(location: str) -> web.Response:
    return web.Response(status=303, content_type=PAGE[0], headers={**_NO_STORE, hdrs.LOCATION: location})


def _public(value: object) -> web.Response:
    return json_response(value, headers={hdrs.CACHE_CONTROL: f"public, max-age={METADATA_MAX_AGE_S}"})


def _error(error: OAuthError | StorageBusy | KeysUnavailable | RateLimited, status: int | None = None) -> web.Response:
    """RFC 6749, 5.2."""
    retry_s: float = RETRY_AFTER_S
    if isinstance(error, RateLimited):
        status, retry_s = 429, error.retry_after_s
        error = OAuthError("temporarily_unavailable", _printable(str(error)))
    elif not isinstance(error, OAuthError):
        error = OAuthError("temporarily_unavailable", "the database is busy or away: try again")
    headers = {"Retry-After": str(math.ceil(retry_s))} if error.code == "temporarily_unavailable" else {}
    if status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = 'Basic realm="TaskHub"'
    said = {"error": error.code, "error_description": error.description}
    return json_response(said, status=status or error.status, headers=headers)


def _printable(text: str) -> str:
    """As an error_description may be (RFC 6749, 5.2)."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in text)[:200]


_OF_FORMS: Final = (FORM,)

ROUTES: Final = (
    Route(
        "GET", METADATA, metadata, "get_authorization_server", "Tell OAuth clients what they need to know (RFC 8414)",
        answer=dict[str, Any], problems=("no_such_resource",),
    ),
    Route(
        "GET", KEYS, keys, "get_signing_keys", "Read the keys that access tokens are signed with",
        answer=dict[str, Any], problems=("no_such_resource", "storage_busy"),
    ),
    Route(
        "GET", AUTHORIZE, authorize, "ask_for_authorization", "Ask the user to let an OAuth client in",
        detail="The code flow of OAuth 2.1 with PKCE (S256). `client_id` is the address of a client ID metadata "
        "document, or the id of a registered client; `resource` is the address of `/mcp`. Answers carry `iss`.",
        media=PAGE, also=(303,), problems=("no_such_resource", "storage_busy"), head=False,
    ),
    Route(
        "POST", AUTHORIZE, answer, "answer_authorization", "Answer that question, from its own page",
        file=_OF_FORMS, media=PAGE, status=303, problems=("no_such_resource", "storage_busy"),
    ),
    Route(
        "POST", TOKEN, token, "issue_tokens", "Get tokens for a code or a refresh token",
        detail="For public clients. An access token is good for 10 minutes; a refresh token is replaced with each use. "
        'Errors are those of OAuth: `{"error": "invalid_grant", "error_description": …}`.',
        file=_OF_FORMS, answer=dict[str, Any], problems=("no_such_resource", "storage_busy"),
    ),
    Route(
        "POST", REVOKE, revoke, "revoke_token", "End what a token was issued for (RFC 7009)",
        file=_OF_FORMS, answer=dict[str, Any], problems=("no_such_resource", "storage_busy"),
    ),
    Route(
        "POST", INTROSPECT, introspect, "introspect_token", "Ask what one's own token is good for (RFC 7662)",
        file=_OF_FORMS, answer=dict[str, Any], problems=("no_such_resource", "storage_busy"),
    ),
    Route(
        "POST", REGISTER, register, "register_client", "Register an OAuth client (RFC 7591)",
        detail="Where `OAUTH_REGISTRATION` is on.",
        body=ClientMetadata, example={"redirect_uris": ["http://127.0.0.1/callback"], "client_name": "my client"},
        answer=dict[str, Any], status=201, problems=("no_such_resource", "storage_busy"),
    ),
)  # fmt: skip
