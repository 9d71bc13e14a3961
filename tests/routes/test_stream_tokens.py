"""`POST /events/tokens`, and the streams that tokens open."""

import asyncio
import io
import logging
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest
import structlog
from sqlalchemy import text, update

from routes.keys import DATABASE, LIMITS, STREAM_ACCESS, TICKETS
from taskhub import logs
from taskhub.auth.errors import Unauthenticated
from taskhub.storage.schema import stream_tokens
from taskhub.stream_tokens.model import Lifetimes, new_secret
from taskhub.tickets.reference_inputs import NewUser, UserChange
from tests.routes.conftest import Hub, Start
from tests.routes.test_api_keys import KEYS, ROOT, bearing, make
from tests.taskhub.world import ALICE, execute, rows, until

TOKENS = "/events/tokens"


@pytest.fixture
async def locked(start: Start) -> Hub:
    hub = await start(api_key="k-bootstrap")
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    return hub


async def token(hub: Hub, headers: Mapping[str, str] | None = None, **asked: Any) -> str:
    answer = await hub.post(TOKENS, asked, headers=headers)
    assert answer.status == 201, answer
    made: str = answer.json["token"]
    return made


async def test_a_token_opens_the_stream_that_it_was_made_for_without_a_key(locked: Hub) -> None:
    answer = await locked.post(TOKENS, {"type": ["build.started", "build.finished"], "batch": 0}, headers=ROOT)
    made = answer.json

    assert answer.headers["Cache-Control"] == "no-store"
    assert made["token"].startswith("tht_")
    assert made["url"] == f"/events/stream?token={made['token']}"
    assert made["first_use_before"] < made["expires_at"]
    async with locked.stream(f"token={made['token']}") as stream:
        hello = (await stream.caught_up())[0]
        for name in ("build.queued", "build.finished"):
            assert (await locked.post("/events", {"type": name, "data": {}}, headers=ROOT)).status == 201
        event = (await stream.until("message")).data

    assert hello.data["filter"] == {"type": ["build.finished", "build.started"]}
    assert event["type"] == "build.finished"


async def test_a_client_comes_back_with_its_token_and_position(locked: Hub) -> None:
    made = await token(locked, ROOT, type="build.*")
    async with locked.stream(f"token={made}") as stream:
        position = (await stream.caught_up())[-1].id or ""
    await locked.post("/events", {"type": "build.finished", "data": {}}, headers=ROOT)

    for query, headers in (
        (f"token={made}", {"Last-Event-ID": position}),
        (f"token={made}&last_event_id={position}", {}),
    ):
        async with locked.stream(query, **headers) as stream:
            assert [frame.event for frame in await stream.caught_up()] == ["hello", "message", "ready"]


async def test_me_is_who_made_the_token(locked: Hub) -> None:
    key = await make(locked)
    made = await token(locked, bearing(key["secret"], **{"X-TaskHub-Actor": "agent:bot"}), actor="me")
    async with locked.stream(f"token={made}") as stream:
        hello = (await stream.caught_up())[0]
        figures = (await locked.get("/events/debug", headers=ROOT)).json

    assert "agent:carol.bot" in str(hello.data["filter"])
    assert figures["instances"][0]["streams"][0]["principal"] == "agent:carol.bot"


@pytest.mark.parametrize(
    ("query", "headers", "code", "named"),
    [
        ("type=build.*", {}, "bad_parameter", "type"),
        ("since=earliest", {}, "bad_parameter", "since"),
        ("tokn=x", {}, "bad_parameter", "tokn"),
        ("token=tht_x", {}, "bad_parameter", "token"),
        ("", {"x-api-key": "k-bootstrap"}, "bad_header", "X-API-Key"),
        ("", {"Authorization": "Bearer k-bootstrap"}, "bad_header", "Authorization"),
        ("", {"X-TaskHub-Actor": "bot"}, "bad_header", "X-TaskHub-Actor"),
    ],
)
async def test_what_goes_with_no_token_is_named(
    locked: Hub, query: str, headers: dict[str, str], code: str, named: str
) -> None:
    made = await token(locked, ROOT)
    answer = await locked.get(f"/events/stream?token={made}&{query}", headers=headers)

    assert answer.code == code
    assert named in answer.named


@pytest.mark.parametrize(
    ("body", "place", "reason"),
    [
        ({"tipe": "x"}, "/tipe", "there is no such field"),
        ({"status": "opne"}, "/status", "there is no status 'opne'"),
        ({"batch": 5000}, "/batch", "less than or equal to 2000"),
        ({"since": "yesterday"}, "/since", ""),
        ({"errors": "status"}, "/errors", "there is no such field"),
        ({"since": "earliest", "snapshot": True}, "/since", "a snapshot shows"),
    ],
)
async def test_what_is_wrong_with_a_token_is_told_when_it_is_made(
    locked: Hub, body: dict[str, Any], place: str, reason: str
) -> None:
    answer = await locked.post(TOKENS, body, headers=ROOT)

    assert answer.code == "invalid_input"
    assert reason in answer.named[place]["reason"]


@pytest.mark.parametrize("given", ["", "tht_", "k-bootstrap", "tht_" + 24 * "A", "tht_é", None])
async def test_what_is_no_token_opens_nothing(locked: Hub, given: str | None) -> None:
    answer = await locked.get("/events/stream", params={"token": new_secret() if given is None else given})

    assert (answer.status, answer.code) == (401, "unauthenticated")


@pytest.mark.parametrize("path", ["/api/v1/tickets", "/api/v1/events", "/events/debug", "/mcp"])
async def test_a_token_opens_nothing_else(locked: Hub, path: str) -> None:
    made = await token(locked, ROOT)

    assert (await locked.get(f"{path}?token={made}")).status == 401
    assert (await locked.get(path, headers=bearing(made))).status == 401
    assert (await locked.get(path, headers={"x-api-key": made})).status == 401


async def test_who_may_not_read_events_gets_no_token(locked: Hub) -> None:
    key = await make(locked, scopes=["tickets:read"])
    answer = await locked.post(TOKENS, {}, headers=bearing(key["secret"]))

    assert (answer.code, answer.json["scope"]) == ("forbidden", "events:read")
    assert (await locked.post(TOKENS, {})).code == "unauthenticated"


async def test_a_token_is_kept_as_a_digest_and_logged_nowhere(start: Start) -> None:
    output = io.StringIO()
    root = logging.getLogger()
    before = list(root.handlers), root.level
    logs.configure(level="debug", json=True, stream=output)
    try:
        hub = await start(api_key="k-bootstrap")
        made = await token(hub, ROOT)
        async with hub.stream(f"token={made}") as stream:
            await stream.caught_up()
            figures = await hub.get("/events/debug", headers=ROOT)
        assert (await hub.get(f"/events/stream?token={made}&type=x")).status == 400
        assert (await hub.get(f"/api/v1/nothing?token={made}")).status == 404
    finally:
        root.handlers[:], level = before
        root.setLevel(level)
        structlog.reset_defaults()
    dumped = str(await rows(hub.app[DATABASE], text("SELECT * FROM stream_tokens")))

    assert "stream opened" in output.getvalue()
    for place in (output.getvalue(), figures.body.decode(), dumped):
        assert made.removeprefix("tht_") not in place


async def test_a_revoked_key_ends_the_streams_of_its_tokens_and_the_tokens(locked: Hub) -> None:
    key = await make(locked)
    made, unused = [await token(locked, bearing(key["secret"])) for _ in range(2)]
    async with locked.stream(f"token={made}") as stream:
        await stream.caught_up()
        assert (await locked.request("DELETE", f"{KEYS}/{key['key']['id']}", headers=ROOT)).status == 204
        goodbye = await stream.until("goodbye")

    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("revoked", False)
    for each in (made, unused):
        assert (await locked.get(f"/events/stream?token={each}")).code == "unauthenticated"


@pytest.mark.parametrize("by_token", [True, False])
async def test_a_stream_ends_when_its_caller_may_no_longer_read_events(locked: Hub, by_token: bool) -> None:
    key = await make(locked)
    query = f"token={await token(locked, bearing(key['secret']))}" if by_token else ""
    async with locked.stream(query, **({} if by_token else bearing(key["secret"]))) as stream:
        await stream.caught_up()
        await execute(
            locked.app[DATABASE], text(f"UPDATE api_keys SET scopes='tickets:read' WHERE id='{key['key']['id']}'")
        )
        await locked.app[TICKETS].change_reference(ALICE, "users", "carol", UserChange(role="requester"))
        assert (await stream.until("goodbye")).data["reason"] == "revoked"


async def test_a_token_of_the_bootstrap_key_ends_with_that_key_and_one_of_nobody_with_authentication(
    start: Start,
) -> None:
    old = await start(api_key="k-old")
    of_old = await token(old, {"x-api-key": "k-old"})
    same, other, none = await start(api_key="k-old"), await start(api_key="k-new"), await start()
    of_nobody = await token(none)

    async with same.stream(f"token={of_old}") as stream, none.stream(f"token={of_nobody}") as anonymous:
        await stream.caught_up()
        await anonymous.caught_up()
    for hub, made in ((other, of_old), (none, of_old), (same, of_nobody)):
        assert (await hub.get(f"/events/stream?token={made}")).code == "unauthenticated"


async def test_a_second_stream_of_a_token_ends_the_first(locked: Hub) -> None:
    made = await token(locked, ROOT)
    async with locked.stream(f"token={made}") as first:
        await first.caught_up()
        async with locked.stream(f"token={made}") as second:
            await second.caught_up()
            goodbye = (await first.rest())[-1]
            async with locked.stream(f"token={await token(locked, ROOT)}") as other:
                await other.caught_up()
                assert (await locked.post("/events", {"type": "build.done", "data": {}}, headers=ROOT)).status == 201
                assert (await second.until("message")).data["type"] == "build.done"

    assert (goodbye.event, goodbye.data["reason"], goodbye.data["reconnect"]) == ("goodbye", "replaced", False)


async def test_a_token_has_to_be_used_within_a_minute_and_is_kept_for_a_quarter_of_an_hour(locked: Hub) -> None:
    store, now = locked.app[STREAM_ACCESS].store, locked.app[STREAM_ACCESS].store._clock()
    store._clock = lambda: now
    made, unused = [await token(locked, ROOT) for _ in range(2)]

    def pass_(seconds: float) -> None:
        nonlocal now
        now += timedelta(seconds=seconds)

    async def opens(secret: str) -> bool:
        try:
            await locked.app[STREAM_ACCESS].find(secret)
        except Unauthenticated:
            return False
        return True

    pass_(59)
    async with locked.stream(f"token={made}") as stream:
        await stream.caught_up()
        pass_(2)
        assert not await opens(unused)
        for _ in range(3):
            pass_(900)
            await locked.app[STREAM_ACCESS].look()
        assert await opens(made)
    await until(lambda: not locked.app[STREAM_ACCESS]._open)
    pass_(899)
    assert await opens(made)
    pass_(62)
    assert not await opens(made)

    await store.sweep()
    assert len(await rows(locked.app[DATABASE], text("SELECT id FROM stream_tokens"))) == 1
    pass_(3600)
    await store.sweep()
    assert await rows(locked.app[DATABASE], text("SELECT id FROM stream_tokens")) == []


async def test_the_stream_of_a_token_is_warned_of_its_end_and_ends(locked: Hub) -> None:
    locked.app[STREAM_ACCESS].store.lifetimes = Lifetimes(most_s=2)
    made = await token(locked, ROOT)
    async with locked.stream(f"token={made}") as stream:
        notice, goodbye = await stream.until("notice"), await stream.until("goodbye")

    assert notice.data["code"] == "auth_expiring"
    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("auth_expired", False)
    assert (await locked.get(f"/events/stream?token={made}")).code == "unauthenticated"


async def test_a_token_that_ends_while_its_stream_is_opened_opens_none(
    locked: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, access = await token(locked, ROOT), locked.app[STREAM_ACCESS]
    find = access.find

    async def find_and_lose(secret: str) -> Any:
        found = await find(secret)
        await execute(locked.app[DATABASE], update(stream_tokens).values(good_until="2020"))
        return found

    monkeypatch.setattr(access, "find", find_and_lose)

    assert (await locked.get(f"/events/stream?token={made}")).code == "unauthenticated"
    assert (await locked.get("/events/debug", headers=ROOT)).json["connected_clients"] == 0
    assert not locked.app[LIMITS]._held


async def test_head_tells_the_position_and_uses_nothing(locked: Hub) -> None:
    made = await token(locked, ROOT)
    answer = await locked.request("HEAD", f"/events/stream?token={made}")

    assert answer.status == 200
    assert answer.headers["TaskHub-Position"]
    assert (await rows(locked.app[DATABASE], text("SELECT stream FROM stream_tokens")))[0].stream is None


async def test_the_page_of_another_origin_makes_a_token_and_opens_its_stream(start: Start) -> None:
    hub = await start(api_key="k-bootstrap", allowed_origins=("https://board.example.org",))
    origin = {"Origin": "https://board.example.org"}
    asked = {**origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key"}
    preflight = await hub.request("OPTIONS", TOKENS, headers=asked)
    made = await token(hub, {**ROOT, **origin})
    async with hub.session.get(f"{hub.url}/events/stream?token={made}", headers=origin) as response:
        opened = response.headers["Access-Control-Allow-Origin"]

    assert preflight.status == 204
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert opened == "https://board.example.org"


async def test_tokens_in_use_are_many_and_none_is_taken_for_another(locked: Hub) -> None:
    made = await asyncio.gather(*(token(locked, ROOT, subject=f"n/{n}") for n in range(8)))
    for number, each in enumerate(made):
        async with locked.stream(f"token={each}") as stream:
            assert f"n/{number}" in str((await stream.frame()).data["filter"])
