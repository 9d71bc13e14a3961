"""The authorization server over HTTP: what clients and browsers send, well-meant or not, and what they are answered."""

import asyncio
import hmac
import re
from collections.abc import Awaitable, Callable
from html import unescape
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from orjson import dumps

from routes.keys import SIGN_IN, TICKETS
from routes.oauth import AUTHORIZATION_SERVER
from taskhub.tickets.reference_inputs import NewUser, UserChange
from tests.routes.conftest import DEADLINE_S, Answer, Hub, Start
from tests.servers import free_port
from tests.taskhub.oauth.flow import CHALLENGE, VERIFIER, query_of
from tests.taskhub.world import ALICE

LOOPBACK = "http://127.0.0.1:3334/cb"
WEB = "https://client.example.org/cb"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Person:
    """Somebody at a browser, who is signed in."""

    def __init__(self, hub: Hub, cookie: str) -> None:
        self.hub = hub
        self.headers = {"Cookie": cookie, "Sec-Fetch-Site": "same-origin"}

    async def ask(self, parameters: list[tuple[str, str]] | dict[str, str], **headers: str) -> Answer:
        """Go where a client sends people."""
        address = f"/oauth/authorize?{urlencode(parameters)}"
        navigating = {"Cookie": self.headers["Cookie"], "Accept": "text/html", "Sec-Fetch-Mode": "navigate", **headers}
        return await self.hub.get(address, headers=navigating, allow_redirects=False)

    async def answer(self, page: Answer, choice: str = "allow", **headers: str) -> Answer:
        """Use the form of the page."""
        form = [("request", field(page, "request")), ("answer", choice)]
        form += [("scope", scope) for scope in scopes_of(page)]
        return await self.post(form, **headers)

    async def post(self, form: list[tuple[str, str]], **headers: str) -> Answer:
        sent = {**self.headers, "Origin": self.hub.url, **FORM, **headers}
        return await self.hub.post("/oauth/authorize", data=urlencode(form), headers=sent, allow_redirects=False)

    async def end(self, grant: str) -> Answer:
        """Disconnect an application."""
        return await self.hub.request("DELETE", f"/api/v1/grants/{grant}", headers=self.headers)

    async def code(self, client: str, **parameters: str) -> str:
        allowed = await self.answer(await self.ask(asking(self.hub, client, **parameters)))
        assert allowed.status == 303, allowed
        return query_of(allowed.headers["Location"])["code"]


def field(page: Answer, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]*)"', page.body.decode())
    assert found is not None, page
    return unescape(found[1])


def scopes_of(page: Answer) -> list[str]:
    return re.findall(r'name="scope" value="([^"]*)"', page.body.decode())


def asking(hub: Hub, client: str, **parameters: str) -> dict[str, str]:
    return {
        "response_type": "code", "client_id": client, "redirect_uri": LOOPBACK, "state": "s 1&<",
        "code_challenge": CHALLENGE, "code_challenge_method": "S256", "resource": f"{hub.url}/mcp",
        "scope": "tickets:read tickets:write", **parameters,
    }  # fmt: skip


@pytest.fixture
async def hub(start: Start) -> Hub:
    """A server that issues tokens itself, and lets clients register."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    return await start(auth="oauth", public_url=url, port=port, oauth_registration=True)


async def person(hub: Hub, name: str, role: Any) -> Person:
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name=name, role=role))
    link = await hub.app[SIGN_IN].new_link(ALICE, name)
    headers = {"Sec-Fetch-Site": "same-origin", "Origin": hub.url}
    opened = await hub.post("/api/v1/session", {"link": link.secret}, headers=headers)
    (cookie,) = SimpleCookie(opened.headers["Set-Cookie"]).values()
    return Person(hub, f"{cookie.key}={cookie.value}")


@pytest.fixture
async def olga(hub: Hub) -> Person:
    return await person(hub, "Olga", "operator")


async def register(hub: Hub, *redirect_uris: str, **said: Any) -> str:
    body = {"redirect_uris": list(redirect_uris or (LOOPBACK, WEB)), "client_name": "A <b>client</b>", **said}
    answer = await hub.post("/oauth/register", body)
    assert answer.status == 201, answer
    client: str = answer.json["client_id"]
    return client


async def send(hub: Hub, path: str, form: dict[str, str] | str, **headers: str) -> Answer:
    body = form if isinstance(form, str) else urlencode(form)
    return await hub.post(path, data=body, headers={**FORM, **headers})


async def tokens(hub: Hub, client: str, code: str, **parameters: str) -> Answer:
    form = {
        "grant_type": "authorization_code", "client_id": client, "code": code, "code_verifier": VERIFIER,
        "redirect_uri": LOOPBACK, "resource": f"{hub.url}/mcp", **parameters,
    }  # fmt: skip
    return await send(hub, "/oauth/token", form)


async def eventually(true: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not await true():
            await asyncio.sleep(0.05)


def bearing(answer: Answer) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json['access_token']}"}


async def test_a_client_learns_where_everything_is(hub: Hub) -> None:
    resource = (await hub.get("/.well-known/oauth-protected-resource/mcp")).json
    (issuer,) = resource["authorization_servers"]
    metadata = await hub.get("/.well-known/oauth-authorization-server")
    said = metadata.json

    assert said["issuer"] == issuer == hub.url
    assert said["code_challenge_methods_supported"] == ["S256"]
    assert said["response_types_supported"] == ["code"]
    assert said["grant_types_supported"] == ["authorization_code", "refresh_token"]
    assert said["token_endpoint_auth_methods_supported"] == ["none"]
    assert said["authorization_response_iss_parameter_supported"] is True
    assert said["client_id_metadata_document_supported"] is True
    for name in ("authorization", "token", "revocation", "introspection", "registration"):
        assert said[f"{name}_endpoint"].startswith(f"{hub.url}/oauth/")
    (key,) = (await hub.get(said["jwks_uri"].removeprefix(hub.url))).json["keys"]
    assert {key["kty"], key["crv"], key["alg"], key["use"]} == {"EC", "P-256", "ES256", "sig"}
    assert "d" not in key


async def test_without_registration_there_is_no_word_of_it_and_none_is_made(start: Start) -> None:
    hub = await start(auth="oauth", public_url="https://taskhub.example.org")
    metadata = (await hub.get("/.well-known/oauth-authorization-server")).json
    answer = await hub.post("/oauth/register", {"redirect_uris": [LOOPBACK]})

    assert "registration_endpoint" not in metadata
    assert (answer.status, answer.json["error"]) == (403, "access_denied")


async def test_where_somebody_else_issues_tokens_or_nobody_there_is_nothing(start: Start) -> None:
    for settings in ({"auth": "api_key", "api_key": "k"}, {}):
        hub = await start(**settings)
        for path in ("/.well-known/oauth-authorization-server", "/oauth/jwks.json", "/oauth/authorize"):
            assert (await hub.get(path)).code == "no_such_resource"
        assert (await hub.post("/oauth/token", data="grant_type=x", headers=FORM)).code == "no_such_resource"


async def test_a_person_lets_a_client_in(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    page = await olga.ask(asking(hub, client))
    text = page.body.decode()
    assert page.status == 200
    assert "A &lt;b&gt;client&lt;/b&gt;" in text
    assert "127.0.0.1:3334" in text
    assert scopes_of(page) == ["tickets:read", "tickets:write"]
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Cache-Control"] == "no-store"
    policy = page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert "form-action 'self' http://127.0.0.1:*" in policy
    assert "unsafe" not in policy

    allowed = await olga.answer(page)
    assert allowed.status == 303
    assert allowed.headers["Location"].startswith(f"{LOOPBACK}?")
    answer = query_of(allowed.headers["Location"])
    assert answer["state"] == "s 1&<"
    assert answer["iss"] == hub.url

    got = await tokens(hub, client, answer["code"])
    assert (got.status, got.headers["Cache-Control"]) == (200, "no-store")
    me = await hub.get("/api/v1/me", headers=bearing(got))
    assert me.status == 200
    assert (await hub.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(got))).status == 201
    keys = await hub.get("/api/v1/keys", headers=bearing(got))
    assert keys.code == "forbidden"  # she may, but did not let the client


async def test_a_person_may_allow_less_or_nothing(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    page = await olga.ask(asking(hub, client))
    less = await olga.post([("request", field(page, "request")), ("answer", "allow"), ("scope", "tickets:read")])
    got = await tokens(hub, client, query_of(less.headers["Location"])["code"])
    assert got.json["scope"] == "tickets:read"

    for form in (
        [("answer", "deny"), ("scope", "tickets:read")], [("answer", "allow")], [],
        [("answer", "allow"), ("scope", "admin")],
    ):  # fmt: skip
        denied = await olga.post([("request", field(page, "request")), *form])
        assert query_of(denied.headers["Location"]) == {
            "error": "access_denied", "error_description": "the user did not agree", "state": "s 1&<", "iss": hub.url,
        }  # fmt: skip


async def test_who_is_not_signed_in_does_that_first(hub: Hub) -> None:
    client = await register(hub)
    for parameters in (
        asking(hub, client), asking(hub, client, code_challenge="none"), asking(hub, "https://127.0.0.1/client.json"),
    ):  # fmt: skip
        address = f"/oauth/authorize?{urlencode(parameters)}"
        answer = await hub.get(address, allow_redirects=False)
        assert answer.status == 303
        login, _, query = answer.headers["Location"].partition("?")
        assert login == "/login"
        ((name, following),) = parse_qsl(query, strict_parsing=True)
        assert (name, dict(parse_qsl(following.partition("?")[2]))) == ("next", parameters)
        assert following.startswith("/oauth/authorize?")
    # A client whose registration is forgotten looks before it troubles a person, and registers again.
    for wrong in (asking(hub, "cli_unknown"), asking(hub, client, redirect_uri="https://evil.example/cb"), {}):
        answer = await hub.get(f"/oauth/authorize?{urlencode(wrong)}", allow_redirects=False)
        assert (answer.status, "Location" in answer.headers) == (400, False)


async def test_no_credential_but_a_session_lets_anything_in(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    got = await tokens(hub, client, await olga.code(client))

    answer = await hub.get(
        f"/oauth/authorize?{urlencode(asking(hub, client))}", headers=bearing(got), allow_redirects=False
    )

    assert answer.headers["Location"].startswith("/login?")


UNSAFE: list[dict[str, str]] = [
    {"redirect_uri": uri}
    for uri in (
        "https://client.example.org@evil.example/cb", "https://evil.example/cb", "https://client.example.org/cb%2f..",
        "https://client.example.org/cb/../x", "https://client.example.org/cb#x", "https://client.example.org/cb#",
        "https://client.example.org/CB", "javascript:alert(1)", "data:text/html,x", "//client.example.org/cb", "/cb",
        "",
        "http://client.example.org/cb", "http://127.0.0.1.evil.example:3334/cb", "http://localhost:3334/cb",
        "http://127.0.0.1:3334@evil.example/cb", "http://127.0.0.1:3334/CB", "http://127.1:3334/cb",
        "http://2130706433:3334/cb", "https://127.0.0.1:3334/cb", "https://client.example.org/cb\r\nX-Evil: 1",
        "https://client.example.org/cb ", "https://client.example.org\\@evil.example/cb",
    )
] + [
    {"client_id": client_id}
    for client_id in (
        "", "cli_unknown", "../cli", "https://client.example.org", "https://client.example.org/../x", "http://127.0.0.1/x",
        "https://127.0.0.1/client.json", "https://localhost/client.json", "https://[::1]/client.json",
        "https://[::ffff:127.0.0.1]/client.json", "https://169.254.169.254/latest/meta-data", "\x00", "\u00fc" * 100,
    )
]  # fmt: skip


async def test_a_browser_is_never_sent_to_an_address_that_is_not_the_clients(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    for wrong in UNSAFE:
        answer = await olga.ask({**asking(hub, client), **wrong})
        assert answer.status == 400, (wrong, answer)
        assert "Location" not in answer.headers
        assert answer.headers["Content-Type"].startswith("text/html")
        assert b"evil" not in answer.body
        assert b"javascript:" not in answer.body
    for name in ("redirect_uri", "client_id"):
        parameters = asking(hub, client)
        for other in ("https://evil.example/cb", parameters[name]):
            answer = await olga.ask([*parameters.items(), (name, other)])
            assert (answer.status, "Location" in answer.headers) == (400, False)


WRONG: list[tuple[dict[str, str], str]] = [
    ({"response_type": ""}, "invalid_request"), ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": "code token"}, "unsupported_response_type"), ({"response_mode": "fragment"}, "invalid_request"),
    ({"code_challenge": ""}, "invalid_request"), ({"code_challenge": CHALLENGE[:-1]}, "invalid_request"),
    ({"code_challenge": CHALLENGE + "A"}, "invalid_request"), ({"code_challenge": VERIFIER}, "invalid_request"),
    ({"code_challenge_method": ""}, "invalid_request"), ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": "s256"}, "invalid_request"), ({"code_challenge_method": "none"}, "invalid_request"),
    ({"code_challenge": "", "code_challenge_method": ""}, "invalid_request"),
    ({"resource": "https://other.example/mcp"}, "invalid_target"), ({"resource": "http://127.0.0.1"}, "invalid_target"),
    ({"scope": "everything"}, "invalid_scope"), ({"scope": " "}, "invalid_scope"),
    ({"request": "ey.ey.x"}, "invalid_request"), ({"request_uri": "https://evil.example/r"}, "invalid_request"),
    ({"state": "x" * 2001}, "invalid_request"),
]  # fmt: skip


async def test_a_client_is_told_what_is_wrong_with_what_it_asks(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    for wrong, code in WRONG:
        answer = await olga.ask({**asking(hub, client), **wrong})
        assert answer.status == 303, (wrong, answer)
        told = query_of(answer.headers["Location"])
        assert (told["error"], told["iss"]) == (code, hub.url), wrong
        assert re.fullmatch(r"[ !#-\[\]-~]+", told["error_description"])
        assert told.get("state") == (None if "state" in wrong else "s 1&<")
    for name in ("state", "resource", "scope", "code_challenge"):
        answer = await olga.ask([*asking(hub, client).items(), (name, "twice")])
        assert query_of(answer.headers["Location"])["error"] == "invalid_request"


async def test_nobody_is_sent_unasked_to_where_somebody_else_chose(hub: Hub, olga: Person) -> None:
    """Else any client that registered itself could make this server send people anywhere."""
    client = await register(hub)
    answer = await olga.ask(asking(hub, client, redirect_uri=WEB, code_challenge_method="plain"))

    assert (answer.status, "Location" in answer.headers) == (400, False)
    link = re.search(r'href="(https://client\.example\.org/cb\?[^"]*)"', answer.body.decode())
    assert link is not None
    assert query_of(unescape(link[1]))["error"] == "invalid_request"


async def test_who_may_less_than_is_asked_for_is_asked_for_less(hub: Hub) -> None:
    client = await register(hub)
    viewer = await person(hub, "Vera", "viewer")
    page = await viewer.ask(asking(hub, client, scope="openid tickets:read tickets:write admin"))
    assert scopes_of(page) == ["tickets:read"]
    page = await viewer.ask({**asking(hub, client), "scope": ""})
    assert scopes_of(page) == ["tickets:read", "events:read"]

    refused = await viewer.ask(asking(hub, client, scope="admin"))

    assert query_of(refused.headers["Location"])["error"] == "access_denied"


async def test_a_client_that_was_let_in_is_let_in_again_but_not_for_more(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    await tokens(hub, client, await olga.code(client, redirect_uri=WEB), redirect_uri=WEB)

    again = await olga.ask(asking(hub, client, redirect_uri=WEB, scope="tickets:read"))
    assert query_of(again.headers["Location"])["code"]

    for asked_all_the_same in (
        {"scope": "tickets:read events:read"}, {"prompt": "consent"}, {"redirect_uri": LOOPBACK},
        {"client_id": await register(hub)},
    ):  # fmt: skip
        page = await olga.ask(asking(hub, client, **{"redirect_uri": WEB, **asked_all_the_same}))
        assert page.status == 200, asked_all_the_same
    (grant,) = (await hub.get("/api/v1/grants", headers=olga.headers)).json["items"]
    assert (await olga.end(grant["id"])).status == 204
    assert (await olga.ask(asking(hub, client, redirect_uri=WEB))).status == 200


async def test_an_answer_counts_from_the_page_it_was_asked_on_alone(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    page = await olga.ask(asking(hub, client))
    sealed = field(page, "request")
    rita = await person(hub, "Rita", "agent")
    allow = [("answer", "allow"), ("scope", "tickets:read")]
    forged = [
        await olga.post([("request", sealed), *allow], Origin="http://127.0.0.1:1"),
        await olga.post([("request", sealed), *allow], **{"Sec-Fetch-Site": "same-site"}),
        await olga.post([("request", sealed), *allow], **{"Sec-Fetch-Site": "cross-site"}),
        await olga.post(allow),
        await olga.post([("request", sealed[:-4] + "AAAA"), *allow]),
        await olga.post([("request", "A" * 100), *allow]),
        await olga.post([("request", sealed), *allow, ("x", "y" * 20_000)]),
        await rita.post([("request", sealed), *allow]),
    ]
    for number, answer in enumerate(forged):
        assert 400 <= answer.status < 500, (number, answer)
        assert "Location" not in answer.headers
    other = await olga.post([("request", sealed), *allow], Origin="https://evil.example")
    assert other.code == "forbidden_origin"

    assert query_of((await olga.answer(page)).headers["Location"])["code"]


async def test_the_token_endpoint_takes_forms_alone_and_each_parameter_once(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    code = await olga.code(client)
    form = {"grant_type": "authorization_code", "client_id": client, "code": code, "code_verifier": VERIFIER}
    wrong = [
        await hub.post("/oauth/token", form),
        await hub.post("/oauth/token", data=urlencode(form), headers={"Content-Type": "text/plain"}),
        await hub.post(f"/oauth/token?{urlencode(form)}", data="", headers=FORM),
        await hub.post(f"/oauth/token?client_id={client}", data=urlencode(form), headers=FORM),
        await send(hub, "/oauth/token", f"{urlencode(form)}&code={code}"),
        await send(hub, "/oauth/token", "&".join(f"x{n}=1" for n in range(100))),
        await send(hub, "/oauth/token", "grant_type=%ff&code=%fe"),
        await hub.post("/oauth/token", data=b"\xff\xfe=1", headers=FORM),
        await send(hub, "/oauth/token", "x=" + "y" * 20_000),
        await send(hub, "/oauth/token", ""),
    ]
    for number, answer in enumerate(wrong):
        assert answer.status in (400, 413), (number, answer)
        assert answer.json["error"] == "invalid_request"
        assert answer.headers["Cache-Control"] == "no-store"
    secret = await send(hub, "/oauth/token", form, Authorization="Basic Y2xpZW50OnNlY3JldA==")
    assert (secret.status, secret.json["error"]) == (401, "invalid_client")
    assert (await hub.get("/oauth/token")).code == "method_not_allowed"

    assert (await send(hub, "/oauth/token", form)).status == 200


async def test_pages_that_may_call_may_get_tokens(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    form = {"grant_type": "refresh_token", "client_id": client, "refresh_token": "x"}
    page = "http://localhost:6274"
    for path in ("/oauth/token", "/oauth/revoke", "/oauth/register", "/.well-known/oauth-authorization-server"):
        asked = {"Origin": page, "Access-Control-Request-Method": "POST"}
        preflight = await hub.request("OPTIONS", path, headers=asked)
        assert preflight.headers["Access-Control-Allow-Origin"] == page
    answer = await send(hub, "/oauth/token", form, Origin=page)
    assert answer.headers["Access-Control-Allow-Origin"] == page
    assert "Access-Control-Allow-Credentials" not in answer.headers
    for other in ("https://evil.example", "null"):
        assert (await send(hub, "/oauth/token", form, Origin=other)).code == "forbidden_origin"
    assert "Access-Control-Allow-Origin" not in (await olga.ask(asking(hub, client), Origin=page)).headers


async def test_a_client_may_register_what_can_do_no_harm(hub: Hub) -> None:
    answer = await hub.post(
        "/oauth/register",
        {
            "redirect_uris": ["http://localhost:1/cb"], "client_name": "An application", "scope": "anything",
            "token_endpoint_auth_method": "client_secret_basic", "logo_uri": "https://evil.example/logo.svg",
        },
    )  # fmt: skip
    assert (answer.status, answer.headers["Cache-Control"]) == (201, "no-store")
    # RFC 7591, 3.2.1: the server may replace what was asked for.
    assert answer.json["token_endpoint_auth_method"] == "none"
    assert "client_secret" not in answer.json

    for wrong, code in (
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"), ({}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"), ({"redirect_uris": [LOOPBACK] * 11}, "invalid_redirect_uri"),
        ({"redirect_uris": [1]}, "invalid_redirect_uri"), ([], "invalid_client_metadata"),
        (None, "invalid_client_metadata"),
        ({"redirect_uris": [LOOPBACK], "grant_types": ["implicit"]}, "invalid_client_metadata"),
        ({"redirect_uris": [LOOPBACK], "client_name": 7}, "invalid_client_metadata"),
        ({"redirect_uris": [LOOPBACK], "client_name": "x" * 40_000}, "invalid_client_metadata"),
    ):  # fmt: skip
        refused = await hub.post("/oauth/register", wrong)
        assert 400 <= refused.status < 500, wrong
        assert refused.json["error"] == code, wrong


async def test_tokens_that_somebody_made_up_let_nobody_in(hub: Hub, olga: Person) -> None:
    await person(hub, "Rita", "agent")
    client = await register(hub)
    got = await tokens(hub, client, await olga.code(client))
    token = got.json["access_token"]
    claims, header = jwt.decode(token, options={"verify_signature": False}), jwt.get_unverified_header(token)
    server = hub.app[AUTHORIZATION_SERVER]
    (key,) = server.keys._keys
    public = key.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def signed(said: dict[str, Any] | None = None, **head: str) -> str:
        return jwt.encode({**claims, **(said or {})}, key.private, "ES256", headers={**header, **head})

    def by_hand(head: dict[str, str], secret: bytes) -> str:
        parts = [jwt.utils.base64url_encode(part).decode() for part in (dumps(head), dumps(claims))]
        mac = b"" if not secret else hmac.digest(secret, ".".join(parts).encode(), "sha256")
        return ".".join([*parts, jwt.utils.base64url_encode(mac).decode()])

    forged = {
        "audience": signed({"aud": "https://other.example/mcp"}),
        "audiences": signed({"aud": [claims["aud"]]}),
        "two audiences": signed({"aud": [claims["aud"], "https://other.example/mcp"]}),
        "issuer": signed({"iss": "https://other.example"}),
        "type": signed(typ="JWT"),
        "expired": signed({"exp": claims["iat"] - 60}),
        "not yet": signed({"iat": claims["exp"], "nbf": claims["exp"]}),
        "no grant": signed({"grant_id": None}),
        "another grant": signed({"grant_id": "grt_0000000000000000"}),
        "another user": signed({"sub": "rita"}),
        "nobody": signed({"sub": "local"}),
        "key by path": signed(kid="../../../../dev/null"),
        "key by address": signed(kid="https://evil.example/key.json"),
        "none": by_hand({**header, "alg": "none"}, b""),
        "HS256 with the public key": by_hand({**header, "alg": "HS256"}, public),
        "grant as a token": claims["grant_id"],
        "refresh token": got.json["refresh_token"],
    }
    for name, wrong in forged.items():
        answer = await hub.get("/api/v1/me", headers={"Authorization": f"Bearer {wrong}"})
        assert answer.status == 401, (name, answer)
    assert (await hub.get("/api/v1/me", headers={"Authorization": f"Bearer {signed()}"})).status == 200

    # Its jti, and with it all that was granted, is revoked.
    assert (await send(hub, "/oauth/revoke", {"token": token, "client_id": client})).status == 200
    assert (await hub.get("/api/v1/me", headers={"Authorization": f"Bearer {token}"})).status == 401


async def test_an_end_of_a_grant_ends_what_is_open(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    got = await tokens(hub, client, await olga.code(client, scope="events:read"))
    async with hub.stream(**bearing(got)) as stream:
        await stream.caught_up()
        (grant,) = (await hub.get("/api/v1/grants", headers=olga.headers)).json["items"]
        assert (grant["name"], grant["host"], grant["scopes"]) == ("A <b>client</b>", "127.0.0.1:3334", ["events:read"])

        assert (await olga.end(grant["id"])).status == 204

        assert (await stream.until("goodbye")).data["reason"] == "revoked"
    assert (await hub.get("/api/v1/grants", headers=olga.headers)).json["items"] == []


async def test_a_user_who_may_less_or_is_gone_has_let_in_less_or_nothing(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    got = await tokens(hub, client, await olga.code(client))
    tickets = hub.app[TICKETS]
    assert (await hub.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(got))).status == 201
    await tickets.change_reference(ALICE, "users", "olga", UserChange(role="viewer"))

    async def denied() -> bool:
        return (await hub.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(got))).status == 403

    await eventually(denied)
    assert (await hub.get("/api/v1/tickets", headers=bearing(got))).status == 200
    await tickets.change_reference(ALICE, "users", "olga", UserChange(active=False))

    async def gone() -> bool:
        return (await hub.get("/api/v1/tickets", headers=bearing(got))).status in (401, 403)

    await eventually(gone)


async def test_applications_do_not_look_after_each_other(hub: Hub, olga: Person) -> None:
    client = await register(hub)
    got = await tokens(hub, client, await olga.code(client))
    (grant,) = (await hub.get("/api/v1/grants", headers=olga.headers)).json["items"]

    assert (await hub.get("/api/v1/grants", headers=bearing(got))).code == "forbidden"
    assert (await hub.request("DELETE", f"/api/v1/grants/{grant['id']}", headers=bearing(got))).code == "forbidden"


async def test_who_asks_too_much_is_told_when_to_come_again(start: Start) -> None:
    hub = await start(auth="oauth", public_url="http://127.0.0.1:1", oauth_registration=True, oauth_requests_per_min=3)
    body = {"redirect_uris": [LOOPBACK]}
    first = await hub.post("/oauth/register", body)
    second = await send(hub, "/oauth/revoke", {"token": "x", "client_id": "y"})
    third = await send(hub, "/oauth/token", {})
    over = [
        await send(hub, "/oauth/token", {"grant_type": "refresh_token"}),
        await hub.post("/oauth/register", body),
        await send(hub, "/oauth/introspect", {"token": "x"}),
    ]

    assert 429 not in (first.status, second.status, third.status)
    for answer in over:
        assert (answer.status, answer.json["error"]) == (429, "temporarily_unavailable")
        assert "TASKHUB_OAUTH_REQUESTS_PER_MIN" in answer.json["error_description"]
        assert 0 < int(answer.headers["Retry-After"]) <= 21
