"""Signing in and out over HTTP, and what a session is good for."""

from dataclasses import replace
from http.cookies import SimpleCookie
from typing import Any

import pytest
from sqlalchemy import update

from routes.keys import AUDIT, DATABASE, INSTANCES, SIGN_IN, TICKETS
from taskhub.audit.log import AuditQuery
from taskhub.sign_in.model import NewPassword
from taskhub.sign_in.passwords import Cost, Passwords
from taskhub.sign_in.service import FAILURES_WITHIN_S, PER_USER
from taskhub.storage.schema import sessions
from taskhub.storage.seeds import add_workspace
from taskhub.tickets.reference_inputs import NewUser, UserChange
from tests.routes.conftest import Answer, Hub, Start
from tests.taskhub.world import ALICE, execute, until

PASSWORD = "correct horse battery"
OTHER = "staple correct horse"
SESSION = "/api/v1/session"
PAGE = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def office(start: Start) -> Hub:
    """A hub that asks who calls, with Olga, who operates it and has a password."""
    hub = await start(auth="api_key")
    hub.app[SIGN_IN].passwords = Passwords(Cost(n=16))  # as many of them as there are would take long
    await add(hub, "Olga", "operator")
    await hub.app[SIGN_IN].set_password(ALICE, "olga", NewPassword.model_validate({"password": PASSWORD}))
    return hub


async def add(hub: Hub, name: str, role: Any = "agent") -> None:
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name=name, role=role))


async def sign_in(hub: Hub, headers: dict[str, str] | None = None, **body: str) -> Answer:
    body = body or {"name": "Olga", "password": PASSWORD}
    return await hub.post(SESSION, body, headers={**PAGE, **(headers or {})})


def kept(answer: Answer) -> Any:
    """The cookie that an answer sets."""
    (cookie,) = SimpleCookie(answer.headers["Set-Cookie"]).values()
    return cookie


def with_cookie(answer: Answer, **headers: str) -> dict[str, str]:
    """Headers of a page of this server in the browser that got this answer."""
    return {"Cookie": f"{kept(answer).key}={kept(answer).value}", **PAGE, **headers}


async def is_answered(hub: Hub, headers: dict[str, str], code: str) -> bool:
    """Whether a write is answered by this problem."""
    answer = await hub.post("/api/v1/tickets", {"summary": "x"}, headers=headers)
    return answer.status >= 400 and answer.code == code


async def link(hub: Hub, name: str = "Olga") -> str:
    return (await hub.app[SIGN_IN].new_link(ALICE, name)).secret


async def test_a_password_opens_a_session_in_a_cookie_that_no_script_reads(office: Hub) -> None:
    answer = await sign_in(office)
    mine = with_cookie(answer)
    me = await office.get("/api/v1/me", headers=mine)
    created = await office.post("/api/v1/tickets", {"summary": "From the board"}, headers=mine)

    assert (answer.status, answer.headers["Cache-Control"]) == (201, "no-store")
    assert (answer.json["name"], answer.json["has_password"], answer.json["session"]["by"]) == (
        "Olga", True, "password",
    )  # fmt: skip
    cookie = kept(answer)
    assert (cookie.key, cookie["path"], cookie["samesite"], cookie["secure"]) == (
        f"taskhub_session_{office.port}", "/", "Lax", "",
    )  # fmt: skip
    assert cookie["httponly"] is True
    assert int(cookie["max-age"]) == 2_592_000
    assert cookie.value.encode() not in answer.body
    assert me.json["actor"] == "user:olga"
    assert "admin" in me.json["scopes"]
    assert created.status == 201
    async with office.stream(**mine) as stream:
        assert (await stream.frame()).event == "hello"


async def test_behind_a_trusted_proxy_with_https_the_cookie_is_for_this_host_alone(start: Start) -> None:
    hub = await start(auth="api_key", trusted_proxies="127.0.0.1", allowed_hosts="hub.example.org")
    await add(hub, "Olga")
    outside = {"Host": "hub.example.org", "X-Forwarded-Proto": "https", "Origin": "https://hub.example.org"}
    answer = await sign_in(hub, outside, link=await link(hub))

    assert answer.status == 201
    assert kept(answer).key == "__Host-taskhub_session"
    assert kept(answer)["secure"] is True
    assert (await hub.get("/api/v1/me", headers=with_cookie(answer, **outside))).status == 200
    assert (await hub.get("/api/v1/me", headers=with_cookie(answer))).code == "unauthenticated"


async def test_nobody_signs_in_over_a_network_in_plain_text(start: Start) -> None:
    hub = await start(auth="api_key", allowed_hosts="hub.example.org")
    await add(hub, "Olga")
    # Whoever says so is no proxy that is trusted.
    plain = {"Host": "hub.example.org", "X-Forwarded-Proto": "https"}
    answer = await sign_in(hub, plain, link=await link(hub))

    assert answer.code == "insecure_connection"
    assert "TASKHUB_TRUSTED_PROXIES" in answer.json["detail"]


async def test_who_has_no_password_gets_the_same_answer_as_who_has_another_one(office: Hub) -> None:
    await add(office, "Pia")
    await add(office, "Nils")
    await office.app[SIGN_IN].set_password(ALICE, "nils", NewPassword.model_validate({"password": PASSWORD}))
    await office.app[TICKETS].change_reference(ALICE, "users", "nils", UserChange(active=False))
    tried = [("Olga", OTHER), ("Pia", PASSWORD), ("Nils", PASSWORD), ("Nobody", PASSWORD)]

    answers = [await sign_in(office, name=name, password=password) for name, password in tried]

    assert [answer.code for answer in answers] == ["sign_in_refused"] * 4
    assert len({answer.json["detail"] for answer in answers}) == 1
    assert not any("Set-Cookie" in answer.headers for answer in answers)


async def test_a_hash_is_made_for_whoever_is_named(office: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str | None] = []
    passwords = office.app[SIGN_IN].passwords
    fit = passwords.fit

    async def counted(password: str, stored: str | None) -> bool:
        tried.append(stored)
        return await fit(password, stored)

    monkeypatch.setattr(passwords, "fit", counted)
    for name in ("Olga", "Nobody"):
        await sign_in(office, name=name, password=OTHER)

    assert [stored is None for stored in tried] == [False, True]


async def test_a_link_works_once(office: Hub) -> None:
    await add(office, "Pia")
    secret = await link(office, "Pia")

    first = await sign_in(office, link=secret)
    second = await sign_in(office, link=secret)

    assert (first.status, first.json["user"], first.json["has_password"]) == (201, "pia", False)
    assert (second.code, "used before" in second.json["detail"]) == ("sign_in_refused", True)
    assert (await sign_in(office, link="thl_" + "a" * 48)).json["detail"] == second.json["detail"]


async def test_a_new_link_takes_the_place_of_the_one_before(office: Hub) -> None:
    old, new = await link(office), await link(office)

    assert (await sign_in(office, link=old)).code == "sign_in_refused"
    assert (await sign_in(office, link=new)).status == 201


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({}, ""),
        ({"name": "Olga"}, ""),
        ({"name": "Olga", "password": PASSWORD, "link": "x"}, ""),
        ({"workspace": "default", "link": "x"}, ""),
        ({"password": PASSWORD}, ""),
        ({"name": "Olga", "password": "x" * 257}, "/password"),
        ({"name": "Olga", "password": ["x"]}, "/password"),
    ],
)
async def test_what_is_no_way_to_sign_in_is_told(office: Hub, body: dict[str, Any], place: str) -> None:
    answer = await office.post(SESSION, body, headers=PAGE)

    assert answer.code == "invalid_input"
    assert place in answer.named
    assert PASSWORD.encode() not in answer.body


async def test_signing_out_ends_the_session_and_what_it_has_open(office: Hub) -> None:
    mine, other = with_cookie(await sign_in(office)), with_cookie(await sign_in(office))
    async with office.stream(**mine) as stream, office.stream(**other) as staying:
        await stream.caught_up()
        await staying.caught_up()

        answer = await office.request("DELETE", SESSION, headers=mine)

        assert answer.status == 204
        assert (kept(answer).value, kept(answer)["max-age"]) == ("", "0")
        assert (await stream.until("goodbye")).data["reason"] == "revoked"
        assert (await office.get("/api/v1/me", headers=mine)).code == "unauthenticated"
        await office.post("/api/v1/tickets", {"summary": "x"}, headers=other)
        assert (await staying.until("message")).data["type"] == "ticket.created"


async def test_signing_in_again_ends_the_session_that_the_browser_had(office: Hub) -> None:
    before = with_cookie(await sign_in(office))
    again = await sign_in(office, {"Cookie": before["Cookie"]})

    assert (await office.get("/api/v1/me", headers=before)).code == "unauthenticated"
    assert (await office.get("/api/v1/me", headers=with_cookie(again))).status == 200


async def test_signing_out_everywhere_ends_all_of_ones_sessions_and_nobody_elses(office: Hub) -> None:
    await add(office, "Pia")
    pias = with_cookie(await sign_in(office, link=await link(office, "Pia")))
    mine = [with_cookie(await sign_in(office)) for _ in range(2)]

    assert (await office.request("DELETE", "/api/v1/sessions", headers=mine[0])).status == 204

    for headers in mine:
        assert (await office.get("/api/v1/me", headers=headers)).code == "unauthenticated"
    assert (await office.get("/api/v1/me", headers=pias)).status == 200


async def test_one_sees_ones_own_sessions_and_ends_one(office: Hub) -> None:
    await add(office, "Pia")
    pias = await sign_in(office, link=await link(office, "Pia"))
    first = await sign_in(office, {"User-Agent": "Laptop" * 100})
    mine = with_cookie(await sign_in(office))
    listed = (await office.get("/api/v1/sessions", headers=mine)).json["items"]
    lost = first.json["session"]["id"]

    assert {each["id"] for each in listed if not each["current"]} == {lost}
    assert len(listed) == 2
    assert next(each for each in listed if each["id"] == lost)["user_agent"] == ("Laptop" * 100)[:200]
    foreign = f"/api/v1/sessions/{pias.json['session']['id']}"
    assert (await office.request("DELETE", foreign, headers=mine)).code == "not_found"
    assert (await office.request("DELETE", f"/api/v1/sessions/{lost}", headers=mine)).status == 204
    assert (await office.get("/api/v1/me", headers=with_cookie(first))).code == "unauthenticated"
    assert (await office.get("/api/v1/me", headers=with_cookie(pias))).status == 200


async def test_a_new_password_ends_the_other_sessions_and_the_old_one(office: Hub) -> None:
    other, mine = with_cookie(await sign_in(office)), with_cookie(await sign_in(office))
    path = f"{SESSION}/password"
    refused = [
        await office.request("PUT", path, json={"password": OTHER, **extra}, headers=mine)
        for extra in ({}, {"current_password": OTHER})
    ]
    short = await office.request("PUT", path, json={"password": "short"}, headers=mine)
    changed = await office.request("PUT", path, json={"password": OTHER, "current_password": PASSWORD}, headers=mine)

    assert [answer.named["/current_password"]["reason"] for answer in refused] == [
        "is required", "is not your password",
    ]  # fmt: skip
    assert "at least 12" in short.named["/password"]["reason"]
    assert changed.status == 204
    assert (await office.get("/api/v1/me", headers=mine)).status == 200
    assert (await office.get("/api/v1/me", headers=other)).code == "unauthenticated"
    assert (await sign_in(office)).code == "sign_in_refused"
    assert (await sign_in(office, name="olga", password=OTHER)).status == 201


async def test_who_has_lost_a_password_sets_another_after_a_link(office: Hub) -> None:
    mine = with_cookie(await sign_in(office, link=await link(office)))
    changed = await office.request("PUT", f"{SESSION}/password", json={"password": OTHER}, headers=mine)

    assert changed.status == 204
    assert (await sign_in(office, name="olga", password=OTHER)).status == 201


async def test_a_link_used_a_while_ago_sets_no_password(office: Hub) -> None:
    mine = with_cookie(await sign_in(office, link=await link(office)))
    await execute(office.app[DATABASE], update(sessions).values(created_at="2020-01-01T00:00:00.000Z"))
    answer = await office.request("PUT", f"{SESSION}/password", json={"password": OTHER}, headers=mine)

    assert answer.named["/current_password"]["reason"] == "is required"


async def test_with_a_session_only_pages_of_this_server_change_anything(office: Hub) -> None:
    mine = with_cookie(await sign_in(office))
    mine.pop("Sec-Fetch-Site")
    forged: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {},
        {"Origin": "http://localhost:1"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost:1"},
    ]
    changes = [
        ("POST", "/api/v1/tickets"), ("PATCH", "/api/v1/tickets/TH-1"), ("DELETE", SESSION), ("POST", "/events"),
        ("POST", SESSION),
    ]  # fmt: skip
    for method, path in changes:
        for headers in forged:
            answer = await office.request(method, path, json={"summary": "Forged"}, headers={**mine, **headers})

            assert (answer.status, answer.code) == (403, "not_same_origin"), (method, path, headers)
    form = await office.request("POST", "/api/v1/tickets", data={"summary": "Forged"}, headers={**mine, **PAGE})
    assert form.code == "unsupported_media_type"
    assert (await office.get("/api/v1/tickets", headers=mine)).json["tickets"] == []


async def test_an_older_browser_tells_the_origin_alone(office: Hub) -> None:
    mine = with_cookie(await sign_in(office))
    mine.pop("Sec-Fetch-Site")
    answer = await office.post("/api/v1/tickets", {"summary": "x"}, headers={**mine, "Origin": office.url})

    assert answer.status == 201


async def test_pages_of_others_read_nothing_with_a_session_and_links_from_there_work(office: Hub) -> None:
    mine = with_cookie(await sign_in(office))
    asked = {**mine, "Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}

    assert (await office.get("/api/v1/tickets", headers=asked)).code == "not_same_origin"
    assert (await office.get("/events/stream", headers=asked)).code == "not_same_origin"
    assert (await office.get("/api/v1/export", headers={**asked, "Sec-Fetch-Mode": "navigate"})).status == 200


async def test_a_cookie_opens_no_mcp(office: Hub) -> None:
    answer = await sign_in(office)
    for method, path in (("POST", "/mcp"), ("POST", "/message"), ("GET", "/sse")):
        for headers in (with_cookie(answer), {"Authorization": f"Bearer {kept(answer).value}"}):
            assert (await office.request(method, path, json={}, headers=headers)).status == 401


async def test_a_session_is_no_key_and_a_key_no_session(office: Hub) -> None:
    answer = await sign_in(office)
    issued = await office.post("/api/v1/keys", {"user": "olga", "name": "x"}, headers=with_cookie(answer))
    secret = issued.json["secret"]

    assert (await office.get("/api/v1/me", headers={"x-api-key": kept(answer).value})).code == "unauthenticated"
    cookie = {"Cookie": f"{kept(answer).key}={secret}"}
    assert (await office.get("/api/v1/me", headers=cookie)).code == "unauthenticated"
    keyed = {"x-api-key": secret}
    assert (await office.get("/api/v1/me", headers=keyed)).status == 200
    for method, path in (("GET", SESSION), ("GET", "/api/v1/sessions"), ("DELETE", "/api/v1/sessions")):
        assert (await office.request(method, path, headers=keyed)).code == "no_session"
    # A header is meant, a cookie comes along: the header counts.
    assert (await office.get("/api/v1/me", headers={**with_cookie(answer), "x-api-key": "wrong"})).status == 401


async def test_a_role_that_changes_counts_and_who_is_out_of_use_is_out(office: Hub) -> None:
    await add(office, "Pia", "operator")
    mine = with_cookie(await sign_in(office))
    pias = with_cookie(await sign_in(office, link=await link(office, "Pia")))
    changed = await office.request("PATCH", "/api/v1/users/pia", json={"role": "viewer"}, headers=mine)
    assert changed.status == 200, changed

    async with office.stream(**pias) as stream:
        await stream.caught_up()
        # From the next look at the credentials on.
        await until(lambda: is_answered(office, pias, "forbidden"))
        out = await office.request("PATCH", "/api/v1/users/pia", json={"active": False}, headers=mine)

        assert out.status == 200
        assert (await stream.until("goodbye")).data["reason"] == "revoked"
    assert (await office.get("/api/v1/me", headers=pias)).code == "unauthenticated"


async def test_a_user_who_is_removed_leaves_nothing_for_the_next_of_that_name(office: Hub) -> None:
    await add(office, "Pia")
    mine = with_cookie(await sign_in(office))
    pias = with_cookie(await sign_in(office, link=await link(office, "Pia")))
    await office.request("PUT", f"{SESSION}/password", json={"password": OTHER}, headers=pias)
    unused = await link(office, "Pia")

    assert (await office.request("DELETE", "/api/v1/users/pia", headers=mine)).status == 204
    await add(office, "Pia")

    await until(lambda: is_answered(office, pias, "unauthenticated"))
    assert (await sign_in(office, name="Pia", password=OTHER)).code == "sign_in_refused"
    assert (await sign_in(office, link=unused)).code == "sign_in_refused"


async def test_a_name_is_one_of_its_workspace_and_a_link_knows_which(office: Hub) -> None:
    database = office.app[DATABASE]
    await database.write(lambda connection: add_workspace(connection, "acme", "AC", "Acme"))
    there = replace(ALICE, principal=replace(ALICE.principal, workspace="acme"))
    await office.app[TICKETS].create_reference(there, "users", NewUser(name="Olga", role="viewer"))
    new = NewPassword.model_validate({"password": OTHER})
    await office.app[SIGN_IN].set_password(there, "olga", new)
    secret = (await office.app[SIGN_IN].new_link(there, "olga")).secret

    assert (await sign_in(office, name="Olga", password=OTHER)).code == "sign_in_refused"
    assert (await sign_in(office, name="Olga", password=PASSWORD, workspace="acme")).code == "sign_in_refused"
    assert (await sign_in(office, name="Olga", password=OTHER, workspace="nowhere")).code == "sign_in_refused"
    for answer in (
        await sign_in(office, name="Olga", password=OTHER, workspace="acme"),
        await sign_in(office, link=secret),
    ):
        me = await office.get("/api/v1/me", headers=with_cookie(answer))
        assert (me.json["workspace"], me.json["user"]["role"]) == ("acme", "viewer")


async def test_who_tries_too_often_has_to_wait_and_others_have_not(
    office: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def quick(password: str, stored: str | None) -> bool:
        return password == PASSWORD and stored is not None

    monkeypatch.setattr(office.app[SIGN_IN].passwords, "fit", quick)
    await add(office, "Pia")
    await office.app[SIGN_IN].set_password(ALICE, "pia", NewPassword.model_validate({"password": PASSWORD}))
    for _ in range(PER_USER):
        assert (await sign_in(office, name="Olga", password=OTHER)).code == "sign_in_refused"

    answer = await sign_in(office)

    assert (answer.status, answer.code) == (429, "too_many_attempts")
    assert 0 < int(answer.headers["Retry-After"]) <= FAILURES_WITHIN_S
    assert (await sign_in(office, name="Pia", password=PASSWORD)).status == 201
    # What opened something was no failure, and a link is always a way in.
    assert (await sign_in(office, link=await link(office))).status == 201


async def test_nobody_gets_in_while_it_cannot_be_told_who_may(office: Hub) -> None:
    answer = await sign_in(office)
    await office.app[DATABASE].close()

    for refused in (await sign_in(office), await office.get("/api/v1/tickets", headers=with_cookie(answer))):
        assert (refused.status, refused.code) == (503, "storage_busy")


async def test_where_nobody_has_to_sign_in_nobody_can(hub: Hub) -> None:
    answer = await sign_in(hub)
    page = await hub.get("/login", headers={"Accept": "text/html"}, allow_redirects=False)

    assert (answer.status, answer.code) == (409, "nobody_signs_in")
    assert (page.status, page.headers["Location"]) == (303, "/")
    assert (await hub.get(SESSION)).code == "no_session"


async def test_what_people_sign_in_by_and_end_is_in_the_audit_log(office: Hub) -> None:
    mine, first = with_cookie(await sign_in(office)), with_cookie(await sign_in(office))
    second = with_cookie(await sign_in(office, link=await link(office)))
    changed = await office.request("PUT", f"{SESSION}/password", json={"password": OTHER}, headers=second)
    assert changed.status == 204, changed
    assert (await office.get("/api/v1/me", headers=first)).code == "unauthenticated"
    assert (await office.get("/api/v1/me", headers=mine)).code == "unauthenticated"
    assert (await office.request("DELETE", SESSION, headers=second)).status == 204
    third = with_cookie(await sign_in(office, name="Olga", password=OTHER))
    assert (await office.post("/events/tokens", {}, headers=third)).status == 201
    assert (await office.request("DELETE", "/api/v1/sessions", headers=third)).status == 204
    await sign_in(office, name="Olga", password=OTHER)
    assert await office.app[SIGN_IN].sign_out(ALICE, "Olga") == 1

    page = await office.app[AUDIT].page(ALICE, AuditQuery(since="1h", limit=50))
    told = [(entry.action, entry.actor) for entry in reversed(page.entries) if entry.action != "user.added"]
    opened, olga, alice = ("session.opened", "user:olga"), "user:olga", "user:alice"
    assert told == [
        ("password.changed", alice), opened, opened, ("sign_in_link.created", alice), opened,
        ("password.changed", olga), ("session.ended", olga), opened, ("stream_token.created", olga),
        ("session.ended", olga), opened, ("session.ended", alice),
    ]  # fmt: skip
    assert not any(secret in str(page) for secret in (PASSWORD, OTHER, "ths_", "thl_"))


async def test_what_a_user_may_no_longer_do_ends_at_once_and_not_after_a_while(office: Hub) -> None:
    instances, looked = office.app[INSTANCES], []
    look = instances.on_credentials_changed
    assert look is not None

    async def noted() -> None:
        looked.append(True)
        await look()

    instances.on_credentials_changed = noted
    mine = with_cookie(await sign_in(office))
    await add(office, "Pia")
    for method, body in [("PATCH", {"role": "viewer"}), ("PATCH", {"active": False}), ("DELETE", None)]:
        looked.clear()
        answer = await office.request(method, "/api/v1/users/pia", json=body, headers=mine)
        assert answer.status < 300, answer
        assert looked == [True], method
