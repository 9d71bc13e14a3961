"""`/api/v1/keys`, and what keys open."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from routes.keys import API_KEYS, TICKETS
from taskhub.keys.model import NewKey
from taskhub.tickets.reference_inputs import NewUser
from tests.routes.conftest import Answer, Hub, Start
from tests.taskhub.world import ALICE

ROOT = {"x-api-key": "k-bootstrap"}
KEYS = "/api/v1/keys"

Make = Callable[..., Awaitable[Any]]


@pytest.fixture
async def locked(start: Start) -> Hub:
    """A hub that asks for keys, with Carol, who is an agent, and a key that was set at the start."""
    hub = await start(api_key="k-bootstrap")
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    return hub


async def make(hub: Hub, **fields: Any) -> Any:
    answer = await hub.post(KEYS, {"user": "carol", "name": "laptop", **fields}, headers=ROOT)
    assert answer.status == 201, answer
    return answer.json


def bearing(secret: str, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}", **headers}


async def test_a_key_lets_its_user_in_and_is_shown_once(locked: Hub) -> None:
    answer = await locked.post(KEYS, {"user": "Carol", "name": "laptop"}, headers=ROOT)
    made = answer.json
    me = await locked.get("/api/v1/me", headers=bearing(made["secret"]))

    assert answer.headers["Location"] == f"{KEYS}/{made['key']['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert (me.json["actor"], me.json["scopes"]) == (
        "user:carol",
        ["events:publish", "events:read", "tickets:read", "tickets:write"],
    )
    for path in (KEYS, f"{KEYS}?user=carol", answer.headers["Location"]):
        shown = await locked.get(path, headers=ROOT)
        assert shown.status == 200
        assert made["key"]["id"].encode() in shown.body
        assert made["secret"].encode() not in shown.body


async def test_a_scope_that_a_key_lacks_is_named(locked: Hub) -> None:
    secret = (await make(locked, scopes=["tickets:read"]))["secret"]
    refused = await locked.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(secret))

    assert (await locked.get("/api/v1/tickets", headers=bearing(secret))).status == 200
    assert (refused.code, refused.json["scope"]) == ("forbidden", "tickets:write")


async def test_a_revoked_key_ends_its_streams_and_no_others(locked: Hub) -> None:
    made, other = await make(locked), await make(locked)
    async with (
        locked.stream(**bearing(made["secret"])) as stream,
        locked.stream(**bearing(other["secret"])) as staying,
    ):
        await stream.caught_up()
        await staying.caught_up()

        revoked = await locked.request("DELETE", f"{KEYS}/{made['key']['id']}", headers=ROOT)

        assert revoked.status == 204
        goodbye = await stream.until("goodbye")
        assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("revoked", False)
        assert (await locked.get("/api/v1/me", headers=bearing(made["secret"]))).code == "unauthenticated"
        await locked.post("/api/v1/tickets", {"summary": "x"}, headers=bearing(other["secret"]))
        assert (await staying.until("message")).data["type"] == "ticket.created"


async def test_an_expiring_key_warns_its_streams_and_ends_them(locked: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await make(locked)
    async with locked.stream(**bearing(made["secret"])) as stream:
        await stream.caught_up()
        rotated = await locked.post(f"{KEYS}/{made['key']['id']}/rotate", {"overlap_s": 2}, headers=ROOT)

        assert rotated.status == 201
        assert (await stream.until("notice")).data["code"] == "auth_expiring"
        goodbye = await stream.until("goodbye")
        assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("auth_expired", False)
    assert (await locked.get("/api/v1/me", headers=bearing(made["secret"]))).code == "unauthenticated"
    assert (await locked.get("/api/v1/me", headers=bearing(rotated.json["secret"]))).json["actor"] == "user:carol"


async def test_an_agent_behind_a_persons_key_says_who_it_is_and_never_that_it_is_another(locked: Hub) -> None:
    bot = NewUser(name="triage-bot", kind="agent")
    await locked.app[TICKETS].create_reference(ALICE, "users", bot)
    bots = (await make(locked, user="triage-bot"))["secret"]
    carols = (await make(locked))["secret"]

    async def actor(secret: str, name: str) -> str:
        answer = await locked.get("/api/v1/me", headers=bearing(secret, **{"X-TaskHub-Actor": name}))
        return str(answer.json["actor"])

    assert await actor(carols, "agent:triage_bot") == "agent:carol.triage_bot"
    assert await actor(carols, "user:olga") == "user:carol"
    assert await actor(bots, "worker 7") == "agent:triage_bot.worker_7"


@pytest.mark.parametrize(
    ("body", "place", "reason"),
    [
        ({"user": "nobody", "name": "x"}, "/user", "there is no 'nobody'"),
        ({"user": "carol"}, "/name", "is required"),
        ({"user": "carol", "name": ""}, "/name", "at least 1 character"),
        ({"user": "carol", "name": "x", "scopes": ["tickets:reed"]}, "/scopes/0", "is not one of the allowed values"),
        ({"user": "carol", "name": "x", "scopes": []}, "/scopes", "at least 1 item"),
        ({"user": "carol", "name": "x", "scopes": ["admin"]}, "/scopes", "Carol may not do that, being agent"),
        ({"user": "carol", "name": "x", "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at", "must be in the future"),
        ({"user": "carol", "name": "x", "expires_at": "2040-01-01T00:00:00"}, "/expires_at", "needs a time zone"),
        ({"user": "carol", "name": "x", "secret": "mine"}, "/secret", "there is no such field"),
    ],
)
async def test_what_is_wrong_with_a_new_key_is_named(
    locked: Hub, body: dict[str, Any], place: str, reason: str
) -> None:
    answer = await locked.post(KEYS, body, headers=ROOT)

    assert answer.code == "invalid_input"
    assert reason in answer.named[place]["reason"]


async def test_a_repeated_creation_cannot_be_told_so_it_takes_no_idempotency_key(locked: Hub) -> None:
    body = {"user": "carol", "name": "x"}
    answer = await locked.post(KEYS, body, headers={**ROOT, "Idempotency-Key": "k1"})

    assert answer.code == "bad_header"
    assert (await locked.get(KEYS, headers=ROOT)).json["items"] == []


async def test_keys_that_are_not_there_or_over_are_told(locked: Hub) -> None:
    made = await make(locked)
    path = f"{KEYS}/{made['key']['id']}"
    assert (await locked.request("DELETE", path, headers=ROOT)).status == 204

    assert (await locked.request("DELETE", path, headers=ROOT)).status == 204
    assert (await locked.post(f"{path}/rotate", headers=ROOT)).code == "key_over"
    assert (await locked.post(f"{path}/rotate", {"overlap_s": -1}, headers=ROOT)).code == "invalid_input"
    for method, missing in (("GET", f"{KEYS}/key_0"), ("DELETE", f"{KEYS}/key_0"), ("POST", f"{KEYS}/key_0/rotate")):
        assert (await locked.request(method, missing, headers=ROOT)).code == "not_found"


async def test_only_who_may_manages_keys(locked: Hub) -> None:
    secret = (await make(locked))["secret"]
    answers: list[Answer] = [
        await locked.get(KEYS, headers=bearing(secret)),
        await locked.post(KEYS, {"user": "carol", "name": "x"}, headers=bearing(secret)),
        await locked.request("DELETE", f"{KEYS}/key_0", headers=bearing(secret)),
        await locked.post(f"{KEYS}/key_0/rotate", headers=bearing(secret)),
    ]

    assert [answer.code for answer in answers] == ["forbidden"] * 4


@pytest.mark.parametrize("wrong", ["k-bootstra", "thk_" + "a" * 48, "x" * 5000, "", "ключ"])
async def test_a_wrong_key_lets_nobody_in(locked: Hub, wrong: str) -> None:
    await make(locked)

    assert (await locked.get("/api/v1/me", headers={"x-api-key": wrong.encode().decode("latin-1")})).status == 401


async def test_keys_are_all_there_is_where_none_was_set(start: Start) -> None:
    hub = await start(auth="api_key")
    assert (await hub.get("/api/v1/me")).code == "unauthenticated"
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="operator"))
    issued = await hub.app[API_KEYS].create(ALICE, NewKey(user="carol", name="first"))

    assert (await hub.get("/api/v1/me", headers=bearing(issued.secret))).json["actor"] == "user:carol"
    assert (await hub.get("/api/v1/me", headers={"x-api-key": ""})).code == "unauthenticated"
