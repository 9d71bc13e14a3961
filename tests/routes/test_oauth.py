"""Access tokens at every door: who gets in, what it may do, and what it is told when it may not."""

import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import taskhub.oauth.issuer
from routes.keys import TICKETS
from taskhub.oauth.issuer import RemoteKeySet
from taskhub.tickets.reference_inputs import NewUser, UserChange
from tests.issuer import Issuer
from tests.routes.conftest import Answer, Hub, Start
from tests.signing import elliptic, rivest, segment
from tests.taskhub.world import ALICE

PUBLIC = "https://taskhub.example.org"
METADATA = f"{PUBLIC}/.well-known/oauth-protected-resource/mcp"
ROOT = {"x-api-key": "k-bootstrap"}
MODERN = {"MCP-Protocol-Version": "2026-07-28", "Accept": "application/json, text/event-stream"}
LEGACY = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(f"{PUBLIC}/mcp") as issuer:
        yield issuer


Open = Callable[..., Awaitable[Hub]]


@pytest.fixture
def open_hub(start: Start, issuer: Issuer) -> Open:
    """Start a hub that takes tokens of the issuer, with Alice, who is a manager."""

    async def open_hub(**settings: Any) -> Hub:
        given = {"auth": "oauth", "public_url": PUBLIC, "oauth_issuer": issuer.url, "api_key": "k-bootstrap"}
        hub = await start(**{**given, **settings})
        new = NewUser(name="Alice", role="manager", email="alice@example.org")
        await hub.app[TICKETS].create_reference(ALICE, "users", new)
        return hub

    return open_hub


@pytest.fixture
async def hub(open_hub: Open) -> Hub:
    return await open_hub()


def bearing(token: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **headers}


def challenge(answer: Answer) -> dict[str, str]:
    """The parameters of WWW-Authenticate."""
    told = answer.headers["WWW-Authenticate"]
    assert told.startswith("Bearer ")
    return dict(re.findall(r'(\w+)="([^"]*)"', told))


def modern(method: str, **params: Any) -> dict[str, Any]:
    """A message of the 2026 era, and the options to post it."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "tests", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    named = params.get("name") or params.get("uri")
    headers = {**MODERN, "Mcp-Method": method, **({"Mcp-Name": named} if named else {})}
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": meta, **params}}
    return {"json": body, "headers": headers}


async def send(hub: Hub, token: str, message: dict[str, Any]) -> Answer:
    return await hub.post("/mcp", message["json"], headers={**message["headers"], **bearing(token)})


async def test_a_token_lets_its_user_in_with_what_was_granted_and_no_more(hub: Hub, issuer: Issuer) -> None:
    token = issuer.token({"scope": "openid tickets:read tickets:write admin"})

    me = await hub.get("/api/v1/me", headers=bearing(token))

    assert (me.json["actor"], me.json["user"]["id"]) == ("user:alice", "alice")
    assert me.json["scopes"] == ["tickets:read", "tickets:write"]  # a manager has no admin to give
    assert (await hub.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(token))).status == 201


async def test_an_agent_behind_a_token_says_who_it_is(hub: Hub, issuer: Issuer) -> None:
    me = await hub.get("/api/v1/me", headers=bearing(issuer.token(), **{"X-TaskHub-Actor": "triage bot"}))

    assert me.json["actor"] == "agent:alice.triage_bot"


@pytest.mark.parametrize("path", ["/.well-known/oauth-protected-resource", "/.well-known/oauth-protected-resource/mcp"])
async def test_clients_learn_who_issues_tokens(hub: Hub, issuer: Issuer, path: str) -> None:
    answer = await hub.get(path)

    assert answer.status == 200
    assert answer.json == {
        "resource": f"{PUBLIC}/mcp",
        "authorization_servers": [issuer.url],
        "scopes_supported": ["tickets:read", "tickets:write", "events:read"],
        "bearer_methods_supported": ["header"],
        "resource_name": "TaskHub",
        "resource_documentation": f"{PUBLIC}/docs",
    }


async def test_a_server_without_oauth_has_no_such_metadata(start: Start) -> None:
    hub = await start(api_key="k-bootstrap")

    assert (await hub.get("/.well-known/oauth-protected-resource/mcp")).code == "no_such_resource"
    assert (await hub.get("/api/v1/me")).headers["WWW-Authenticate"] == 'Bearer realm="TaskHub"'


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", "/mcp", "tickets:read tickets:write events:read"),
        ("GET", "/mcp", "tickets:read tickets:write events:read"),
        ("GET", "/sse", "tickets:read tickets:write events:read"),
        ("POST", "/message", "tickets:read tickets:write events:read"),
        ("GET", "/api/v1/tickets", "tickets:read"),
        ("POST", "/api/v1/tickets", "tickets:write"),
        ("DELETE", "/api/v1/keys/key_1", "admin"),
        ("GET", "/events/stream", "events:read"),
        ("POST", "/events", "events:publish"),
    ],
)
async def test_who_brings_nothing_is_told_where_to_get_a_token(hub: Hub, method: str, path: str, scope: str) -> None:
    for headers in ({}, MODERN, LEGACY) if path == "/mcp" else ({},):
        answer = await hub.request(method, path, headers=headers)

        assert answer.code == "unauthenticated"
        assert challenge(answer) == {"realm": "TaskHub", "resource_metadata": METADATA, "scope": scope}


def forged(issuer: Issuer) -> dict[str, str]:
    """Tokens that must open nothing, by what is wrong with them."""
    stranger, wide = elliptic(issuer.signer.kid), elliptic(issuer.signer.kid, ec.SECP384R1(), "ES384")
    header, claims, signature = issuer.token().split(".")
    hour = 3600
    return {
        "another audience": issuer.token({"aud": "https://other.example.org/mcp"}),
        "an audience list": issuer.token({"aud": [f"{PUBLIC}/mcp"]}),
        "another issuer": issuer.token({"iss": "https://login.example.org"}),
        "an id token": issuer.token(header={"typ": "JWT"}),
        "none": f"{segment({'alg': 'none', 'typ': 'at+jwt'})}.{claims}.",
        "none with a signature": f"{segment({'alg': 'none', 'typ': 'at+jwt'})}.{claims}.{signature}",
        "HMAC": issuer.token(header={"alg": "HS256"}),
        "another curve": wide.token(issuer.claims(), header={"alg": "ES256"}),
        "another algorithm": rivest(issuer.signer.kid).token(issuer.claims()),
        "a stranger's": stranger.token(issuer.claims()),
        "a stranger's that brings its key": stranger.token(issuer.claims(), header={"jwk": stranger.jwk}),
        "a path as the key": issuer.token(header={"kid": "../../../dev/null"}),
        "an address as the key": issuer.token(header={"kid": f"{issuer.url}/keys", "jku": f"{issuer.url}/keys"}),
        "expired": issuer.token({"exp": int(time.time()) - hour}),
        "for ever": issuer.token({"exp": float("inf")}),
        "not yet": issuer.token({"nbf": int(time.time()) + hour}),
        "an extension": issuer.token(header={"crit": ["x"]}),
        "nested": f"{header}.{segment(b'[' * 4000)}.{signature}",
        "a nested header": f"{segment(b'[' * 600)}.e30.AAAA",
        "huge": issuer.token({"more": "x" * 9000}),
        "half": issuer.token()[:-20],
        "no claims": issuer.signer.token(dict.fromkeys(issuer.claims())),
        "opaque": "2YotnFZFEjr1zCsicMWpAA",
        "nothing": "",
        "a key that was never made": "thk_" + "a" * 48,
    }


async def test_a_token_that_is_not_good_opens_no_door_and_all_answers_are_the_same(hub: Hub, issuer: Issuer) -> None:
    texts = set()
    for what, token in forged(issuer).items():
        answer = await hub.get("/api/v1/me", headers=bearing(token))

        assert answer.code == "unauthenticated", what
        assert challenge(answer)["error"] == "invalid_token", what
        assert challenge(answer)["resource_metadata"] == METADATA
        if token.startswith("ey"):
            texts.add(answer.json["detail"])
    assert texts == {"the access token is not valid"}


@pytest.mark.parametrize(
    ("method", "path", "headers"),
    [
        ("POST", "/mcp", MODERN),
        ("POST", "/mcp", LEGACY),
        ("GET", "/mcp", {"Accept": "text/event-stream"}),
        ("DELETE", "/mcp", LEGACY),
        ("GET", "/sse", {}),
        ("POST", "/message", {}),
        ("GET", "/events/stream", {}),
        ("GET", "/events/stream", {"Accept": "application/x-ndjson"}),
        ("HEAD", "/events/stream", {}),
        ("GET", "/api/v1/events", {}),
        ("POST", "/events", {}),
    ],
)
async def test_every_door_takes_the_same_tokens(
    hub: Hub, issuer: Issuer, method: str, path: str, headers: dict[str, str]
) -> None:
    token = issuer.token({"aud": "https://other.example.org/mcp"})

    answer = await hub.request(method, path, headers={**headers, **bearing(token)})

    assert answer.status == 401
    assert challenge(answer)["error"] == "invalid_token"


async def test_a_token_is_taken_from_one_header_alone(hub: Hub, issuer: Issuer) -> None:
    token = issuer.token()
    twice = f"Host: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nAuthorization: Bearer x\r\nConnection: close\r\n\r\n"
    status, _, body = await hub.raw(f"GET /api/v1/me HTTP/1.1\r\n{twice}".encode())

    assert (status, b'"bad_header"' in body) == (400, True)
    assert (await hub.get("/api/v1/me", params={"access_token": token})).code == "unauthenticated"
    assert (await hub.get("/api/v1/me", headers={"x-api-key": token})).code == "unauthenticated"
    assert (await hub.post("/mcp", data={"access_token": token})).code == "unauthenticated"
    assert (await hub.get("/api/v1/me", headers={"Authorization": f"Basic {token}"})).code == "unauthenticated"
    assert (await hub.get("/api/v1/me", headers={"Authorization": f"BEARER  {token}"})).status == 200


async def test_a_client_is_told_which_scopes_to_ask_for(hub: Hub, issuer: Issuer) -> None:
    token = issuer.token({"scope": "events:read"})

    answer = await hub.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(token))

    assert (answer.code, answer.json["scope"]) == ("forbidden", "tickets:write")
    told = challenge(answer)
    assert told.pop("error_description") == "this needs the scope tickets:write"
    assert told == {
        "realm": "TaskHub", "error": "insufficient_scope", "scope": "tickets:write", "resource_metadata": METADATA,
    }  # fmt: skip


async def test_a_client_is_not_sent_for_what_its_user_may_not_do(hub: Hub, issuer: Issuer) -> None:
    answer = await hub.get("/api/v1/keys", headers=bearing(issuer.token()))

    assert (answer.code, answer.json["scope"]) == ("forbidden", "admin")
    assert "WWW-Authenticate" not in answer.headers


@pytest.mark.parametrize(
    ("method", "params", "scope"),
    [
        ("tools/call", {"name": "create_ticket", "arguments": {"summary": "x"}}, "tickets:write"),
        ("prompts/get", {"name": "standup"}, "tickets:read events:read"),
        ("resources/read", {"uri": "taskhub://board"}, "tickets:read"),
    ],
)
async def test_what_a_tool_a_prompt_or_a_resource_takes_is_asked_for_over_http(
    hub: Hub, issuer: Issuer, method: str, params: dict[str, Any], scope: str
) -> None:
    token = issuer.token({"scope": "events:read"})
    message = modern(method, **params)
    older = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}

    answers = [
        await send(hub, token, message),
        await hub.post("/mcp", older, headers={**LEGACY, **bearing(token)}),
        await hub.post("/message?session_id=0", older, headers=bearing(token)),
    ]

    for answer in answers:
        assert answer.code == "forbidden"
        assert (challenge(answer)["error"], challenge(answer)["scope"]) == ("insufficient_scope", scope)
    assert (await send(hub, issuer.token({"scope": scope}), message)).status == 200


async def test_a_tool_that_the_user_may_not_call_says_so_itself(hub: Hub, issuer: Issuer) -> None:
    await hub.app[TICKETS].change_reference(ALICE, "users", "alice", UserChange(role="viewer"))
    called = modern("tools/call", name="create_ticket", arguments={"summary": "x"})

    answer = await send(hub, issuer.token({"scope": "tickets:read tickets:write"}), called)

    assert answer.status == 200
    assert answer.json["result"]["structuredContent"]["code"] == "forbidden"


async def test_a_user_whom_nobody_knows_is_told_that_another_token_would_not_help(hub: Hub, issuer: Issuer) -> None:
    for subject in ("mallory", "Alice ", "ALICE", "al_ice"):
        answer = await hub.get("/api/v1/me", headers=bearing(issuer.token({"sub": subject})))

        assert (answer.code, answer.json["claim"]) == ("unknown_user", "sub")
        assert "WWW-Authenticate" not in answer.headers


async def test_a_user_who_is_not_active_any_more_is_let_in_no_more(hub: Hub, issuer: Issuer) -> None:
    headers = bearing(issuer.token())
    assert (await hub.get("/api/v1/me", headers=headers)).status == 200
    async with hub.stream(**headers) as stream:
        await stream.caught_up()
        await hub.app[TICKETS].change_reference(ALICE, "users", "alice", UserChange(active=False))

        assert (await stream.until("goodbye")).data["reason"] == "revoked"
    assert (await hub.get("/api/v1/me", headers=headers)).code == "unknown_user"


async def test_users_are_found_by_an_address_that_the_issuer_has_verified(open_hub: Open, issuer: Issuer) -> None:
    hub = await open_hub(oauth_user_claim="email")

    async def status(**claims: Any) -> int:
        return (await hub.get("/api/v1/me", headers=bearing(issuer.token({"sub": "248289761001", **claims})))).status

    assert await status(email="Alice@example.org", email_verified=True) == 200
    assert await status(email="alice@example.org", email_verified=False) == 403
    assert await status(email="alice@example.org", email_verified="true") == 403
    assert await status(email="alice@example.org") == 403
    assert await status(email=["alice@example.org"], email_verified=True) == 403
    assert await status() == 403
    # Two who share an address cannot be told apart.
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Alice Too", email="alice@example.org"))
    assert await status(email="alice@example.org", email_verified=True) == 403


async def test_users_are_made_where_that_is_said_and_never_in_place_of_others(open_hub: Open, issuer: Issuer) -> None:
    hub = await open_hub(oauth_new_user_role="viewer", oauth_user_claim="preferred_username")

    async def me(name: str) -> Answer:
        return await hub.get("/api/v1/me", headers=bearing(issuer.token({"preferred_username": name})))

    new = (await me("carol")).json
    assert (new["actor"], new["user"]["role"]) == ("user:carol", "viewer")
    assert (await me("carol")).json["user"] == new["user"]
    assert (await me("CAROL")).code == "unknown_user"
    assert (await me("me")).code == "unknown_user"
    await hub.app[TICKETS].change_reference(ALICE, "users", "carol", UserChange(active=False))
    assert (await me("carol")).code == "unknown_user"


async def test_keys_work_beside_tokens_also_when_the_issuer_is_away(hub: Hub, issuer: Issuer) -> None:
    made = await hub.post("/api/v1/keys", {"user": "alice", "name": "laptop"}, headers=ROOT)
    await issuer.stop()

    refused = await hub.get("/api/v1/me", headers=bearing(issuer.token()))

    assert (refused.code, refused.json["retryable"]) == ("issuer_unavailable", True)
    assert refused.headers["Retry-After"]
    for headers in (bearing(made.json["secret"]), {"x-api-key": made.json["secret"]}, ROOT, bearing("k-bootstrap")):
        assert (await hub.get("/api/v1/me", headers=headers)).status == 200
        assert (await hub.post("/mcp", headers={**MODERN, **headers})).status == 400


async def test_tokens_of_known_keys_are_good_while_the_issuer_is_away(hub: Hub, issuer: Issuer) -> None:
    headers = bearing(issuer.token())
    assert (await hub.get("/api/v1/me", headers=headers)).status == 200
    await issuer.stop()

    assert (await hub.get("/api/v1/me", headers=headers)).status == 200
    assert (await hub.get("/api/v1/me", headers=bearing(issuer.token()))).status == 200


async def test_a_new_key_of_the_issuer_is_followed_and_one_that_it_withdrew_opens_nothing(
    open_hub: Open, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskhub.oauth.issuer, "RemoteKeySet", partial(RemoteKeySet, refetch_s=0))
    hub = await open_hub()
    old = bearing(issuer.token())
    assert (await hub.get("/api/v1/me", headers=old)).status == 200
    issuer.rotate()

    assert (await hub.get("/api/v1/me", headers=bearing(issuer.token()))).status == 200
    assert (await hub.get("/api/v1/me", headers=old)).code == "unauthenticated"


async def test_who_has_no_trusted_keys_lets_nobody_in_by_a_token_that_was_good(
    open_hub: Open, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskhub.oauth.issuer, "RemoteKeySet", partial(RemoteKeySet, refetch_s=0, trust_s=0.001))
    hub = await open_hub()
    headers = bearing(issuer.token())
    await hub.get("/api/v1/me", headers=headers)
    await issuer.stop()

    assert (await hub.get("/api/v1/me", headers=headers)).code == "issuer_unavailable"
    assert (await hub.post("/mcp", headers={**MODERN, **headers})).code == "issuer_unavailable"
    assert (await hub.get("/events/stream?errors=status", headers=headers)).code == "issuer_unavailable"
    # A browser comes back after this, where a status would end its stream for good.
    assert b'"reason":"overloaded"' in (await hub.get("/events/stream", headers=headers)).body
    assert (await hub.get("/api/v1/me", headers=ROOT)).status == 200


async def test_a_stream_ends_with_the_token_that_opened_it(hub: Hub, issuer: Issuer) -> None:
    async with hub.stream(**bearing(issuer.token({"exp": int(time.time()) + 50}))) as stream:
        assert (await stream.until("notice")).data["code"] == "auth_expiring"
    async with hub.stream(**bearing(issuer.token({"exp": int(time.time()) + 1}))) as stream:
        goodbye = (await stream.rest())[-1]

    assert goodbye.event == "goodbye"
    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("auth_expired", False)


@pytest.mark.parametrize("path", ["/sse", "/mcp"])
async def test_a_stream_of_an_mcp_client_ends_with_its_token(hub: Hub, issuer: Issuer, path: str) -> None:
    headers = bearing(issuer.token({"exp": int(time.time()) + 1}), Accept="text/event-stream")
    async with hub.session.get(hub.url + path, headers=headers) as response:
        assert response.status == 200
        await response.read()  # to its end
