"""An OpenID provider for tests: on loopback, with keys that rotate, and with whatever faults a test wants of it."""

import asyncio
import base64
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any, Self
from urllib.parse import unquote_plus, urlencode

from aiohttp import BasicAuth, web

from tests.signing import Signer, elliptic, good_claims


@dataclass(eq=False)
class Issuer:
    """Who signs in there is `subject`, and is granted what the client asks for, as far as it is in `grants`."""

    resource: str = "https://taskhub.example.org/mcp"
    subject: str = "alice"
    grants: frozenset[str] = frozenset(
        {"tickets:read", "tickets:write", "reference:write", "events:read", "events:publish", "admin"}
    )
    signer: Signer = field(default_factory=elliptic)
    keys: list[dict[str, Any]] = field(default_factory=list)
    well_known: tuple[str, ...] = ("/.well-known/openid-configuration",)
    metadata: dict[str, Any] = field(default_factory=dict)
    """What it says otherwise than an honest one."""
    answer: Callable[[web.Request], web.Response | None] = field(default=lambda request: None)
    """An answer of its own to any request."""
    asked: Counter[str] = field(default_factory=Counter)
    """How often each path was asked for."""
    scopes_asked: list[str] = field(default_factory=list)
    resources_asked: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    """While it is not set, no request is answered."""
    clients: dict[str, str] = field(default_factory=lambda: {"taskhub": "s3cret & more"})
    """Those that people sign in to, with their secrets."""
    person: dict[str, Any] = field(default_factory=lambda: {"email": "olga@example.org", "email_verified": True})
    """What ID tokens say of the subject."""
    id_token: Callable[[dict[str, Any]], str] | None = None
    """Another token than an honest one would make of these claims."""
    asks: bool = False
    """Whether people are asked, on a page, before they are sent back."""
    port: int = 0
    _codes: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self.keys = self.keys or [self.signer.jwk]
        self.open.set()
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open.set()
        await self.stop()

    async def start(self) -> None:
        """Listen, at the port that it had before if it had one."""
        app = web.Application(middlewares=[self._receive])
        app.router.add_post("/register", self._register)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/{path:.*}", self._metadata)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def rotate(self, *, keep: bool = False) -> Signer:
        """Sign with a new key from now on; the old one is withdrawn unless it is kept. The old one."""
        old, self.signer = self.signer, elliptic(f"ec-{secrets.token_hex(4)}")
        self.keys = [*(self.keys if keep else []), self.signer.jwk]
        return old

    def token(self, claims: Mapping[str, Any] | None = None, *, header: Mapping[str, Any] | None = None) -> str:
        """An access token of the subject for the resource."""
        return self.signer.token(self.claims(claims), header=header)

    def claims(self, claims: Mapping[str, Any] | None = None) -> dict[str, Any]:
        unique = {"jti": secrets.token_hex(8)}
        return {
            **good_claims(), "iss": self.url, "aud": self.resource, "sub": self.subject, **unique, **(claims or {})
        }  # fmt: skip

    @web.middleware
    async def _receive(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked[request.path] += 1
        await self.open.wait()
        answer = self.answer(request)
        response: web.StreamResponse = answer if answer is not None else await handler(request)
        return response

    async def _metadata(self, request: web.Request) -> web.Response:
        if request.path not in self.well_known:
            return web.Response(status=404)
        said = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "registration_endpoint": f"{self.url}/register",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            **self.metadata,
        }
        return web.json_response({name: value for name, value in said.items() if value is not None})

    async def _keys(self, request: web.Request) -> web.Response:
        return web.json_response({"keys": self.keys})

    async def _register(self, request: web.Request) -> web.Response:
        return web.json_response({**await request.json(), "client_id": secrets.token_hex(4)}, status=201)

    async def _authorize(self, request: web.Request) -> web.Response:
        if self.asks and "agreed" not in request.query:
            given = (f'<input type="hidden" name="{escape(n)}" value="{escape(v)}">' for n, v in request.query.items())
            button = f'<button name="agreed">Go on as {self.subject}</button>'
            page = f"<!doctype html><title>Provider</title><form>{''.join(given)}{button}</form>"
            return web.Response(text=page, content_type="text/html")
        code = secrets.token_hex(8)
        self._codes[code] = dict(request.query)
        self.scopes_asked.append(request.query.get("scope", ""))
        self.resources_asked.append(request.query.get("resource", ""))
        told = urlencode({"code": code, "state": request.query["state"], "iss": self.url})
        raise web.HTTPFound(f"{request.query['redirect_uri']}?{told}")

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        asked = self._codes.pop(str(form["code"]), None)
        if asked is None:
            return web.json_response({"error": "invalid_grant"}, status=400)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(str(form["code_verifier"]).encode()).digest())
        if challenge.decode().rstrip("=") != asked["code_challenge"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        if "openid" in asked["scope"].split():
            return self._signed_in(request, form, asked)
        scope = " ".join(sorted(self.grants & set(asked.get("scope", "").split())))
        claims = {"aud": str(form["resource"]), "client_id": asked["client_id"], "scope": scope}
        return web.json_response(
            {"access_token": self.token(claims), "token_type": "Bearer", "expires_in": 600, "scope": scope}
        )

    def _signed_in(self, request: web.Request, form: Mapping[str, Any], asked: Mapping[str, str]) -> web.Response:
        """The answer to a client that somebody signs in to."""
        client_id = asked["client_id"]
        pair = BasicAuth.decode(request.headers["Authorization"])
        if (unquote_plus(pair.login), unquote_plus(pair.password)) != (client_id, self.clients.get(client_id)):
            return web.json_response({"error": "invalid_client"}, status=401)
        if form["redirect_uri"] != asked["redirect_uri"]:
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.url, "sub": self.subject, "aud": client_id, "iat": now, "exp": now + 300,
            "nonce": asked["nonce"], **self.person,
        }  # fmt: skip
        token = self.signer.signed(claims) if self.id_token is None else self.id_token(claims)
        return web.json_response({"access_token": "opaque", "token_type": "Bearer", "id_token": token})
