"""Cookies and sessions of MCP as an attacker presents them: of others, of before, of other places, many at once."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest

from routes.keys import API_KEYS, DATABASE, SIGN_IN, TICKETS
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.auth.secret import SESSION_PREFIX, new_secret
from taskhub.keys.model import NewKey
from taskhub.tickets.reference_inputs import NewUser
from taskhub.workspaces import WorkspaceStore
from tests.routes.conftest import DEADLINE_S, Answer, Hub, Start

ROOT: Final = {"x-api-key": "root-of-the-town"}
OURS: Final = {"Sec-Fetch-Site": "same-origin"}
HANDSHAKE: Final = "2025-11-25"
BOTH: Final = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": HANDSHAKE}
PROMPT: Final = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
INITIALIZE: Final = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"},
    },
}  # fmt: skip


@dataclass
class Town:
    """A hub with somebody in each of two workspaces, who has a session in the first and keys in both."""

    hub: Hub
    cookie: str
    """`name=secret`."""
    keys: dict[str, tuple[str, dict[str, str]]]
    """Whose → the id of a key, and the headers that it comes in."""

    async def me(self, headers: Mapping[str, str]) -> Answer:
        return await self.hub.get("/api/v1/me", headers=headers)

    async def open_session(self, of: str) -> str:
        """The id of a session of MCP that somebody has opened."""
        answer = await self.hub.post("/mcp", INITIALIZE, headers={**BOTH, **self.keys[of][1]})
        session: str = answer.headers["Mcp-Session-Id"]
        return session

    async def ping(self, session: str, headers: Mapping[str, str], method: str = "POST") -> int:
        """What is answered in a session."""
        said = {**BOTH, **headers, "Mcp-Session-Id": session}
        async with (
            asyncio.timeout(DEADLINE_S),
            self.hub.session.request(
                method, f"{self.hub.url}/mcp", json=PROMPT if method == "POST" else None, headers=said
            ) as answer,
        ):
            return answer.status


@pytest.fixture
async def town(start: Start) -> Town:
    hub = await start(api_key=ROOT["x-api-key"], auth_failures_per_min=0)
    await WorkspaceStore(hub.app[DATABASE]).create(_operator("default"), "other", "OT", "Other")
    keys: dict[str, tuple[str, dict[str, str]]] = {}
    for whose, workspace in (("olga", "default"), ("vera", "default"), ("olga elsewhere", "other")):
        operator, user = _operator(workspace), whose.partition(" ")[0]
        await hub.app[TICKETS].create_reference(operator, "users", NewUser(name=user, role="viewer"))
        key = NewKey(user=user, name="of a test", scopes=None, expires_at=None)
        issued = await hub.app[API_KEYS].create(operator, key)
        keys[whose] = issued.key.id, {"x-api-key": issued.secret}
    link = await hub.app[SIGN_IN].new_link(_operator("default"), "olga")
    answer = await hub.post("/api/v1/session", {"link": link.secret}, headers=OURS)
    hub.session.cookie_jar.clear()
    return Town(hub, answer.headers["Set-Cookie"].partition(";")[0], keys)


def _operator(workspace: str) -> Caller:
    return Caller(Principal("user:root", workspace, ALL_SCOPES, authenticated=True), "system")


async def test_a_cookie_counts_under_its_own_name_and_where_no_other_credential_is(town: Town) -> None:
    name, _, secret = town.cookie.partition("=")
    made_up = new_secret(SESSION_PREFIX)
    key = town.keys["vera"][1]
    lets_in: list[tuple[str, str, dict[str, str]]] = [
        ("user:olga", town.cookie, {}),
        ("user:olga", f"a=b; {town.cookie}; c={'d' * 8000}", {}),
        # The last of two counts, which is that of the whole site when a browser has another one for a part of it.
        ("user:olga", f"{name}={made_up}; {town.cookie}", {}),
        ("user:vera", town.cookie, key),
        ("user:vera", f"{name}={made_up}", key),
    ]
    keeps_out: list[tuple[str, dict[str, str]]] = [
        (f"{town.cookie}; {name}={made_up}", {}),
        (f"{town.cookie}; {name}=", {}),
        (f"{name}={made_up}", {}),
        (f"{name}={key['x-api-key']}", {}),
        (f"{name.upper()}={secret}", {}),
        (f"{name}0={secret}", {}),
        (f"__Host-taskhub_session={secret}", {}),
        (f"__Host-taskhub_session={secret}", {"X-Forwarded-Proto": "https"}),
        (f"__Host-taskhub_session={secret}", {"Forwarded": "proto=https"}),
        (town.cookie, {"x-api-key": "another"}),
        (town.cookie, {"x-api-key": ""}),
        (town.cookie, {"Authorization": "Basic x"}),
        ("", {"x-api-key": secret}),
        ("", {"Authorization": f"Bearer {secret}"}),
    ]
    who = [(await town.me({"Cookie": cookie, **OURS, **more})).json["actor"] for _, cookie, more in lets_in]
    out = [(await town.me({"Cookie": cookie, **OURS, **more})).status for cookie, more in keeps_out]

    assert who == [expected for expected, _, _ in lets_in]
    assert out == [401] * len(keeps_out)


async def test_what_a_session_may_write_is_judged_by_each_word_on_where_it_comes_from(town: Town) -> None:
    own = [("Cookie", town.cookie)]
    origin = ("Origin", town.hub.url)
    for said, expected in (
        ([origin], 204),
        ([origin, ("Origin", "http://localhost:1")], 403),
        ([("Origin", "http://localhost:1"), origin], 403),
        ([origin, ("Origin", "null")], 403),
        ([("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Site", "cross-site")], 400),
        ([("Sec-Fetch-Site", "same-origin"), ("Origin", "http://127.0.0.1:1")], 403),
    ):
        session = await town.hub.get("/api/v1/session", headers={"Cookie": town.cookie, **OURS})
        assert session.status == 200
        if expected != 204:
            answer = await town.hub.request("DELETE", "/api/v1/session", headers=[*own, *said])
            assert answer.status == expected, (said, answer)
    assert (await town.hub.request("DELETE", "/api/v1/session", headers=[*own, origin])).status == 204
    assert (await town.me({"Cookie": town.cookie, **OURS})).status == 401


async def test_a_session_of_mcp_is_worth_something_to_who_opened_it_alone(town: Town) -> None:
    session = await town.open_session("olga")
    own = town.keys["olga"][1]
    others: dict[str, dict[str, Any]] = {
        "of the same workspace": town.keys["vera"][1],
        "of that name in another": town.keys["olga elsewhere"][1],
        "behind the same key": {**own, "X-TaskHub-Actor": "agent:another"},
    }
    tampered = [session[:-1] + ("A" if session[-1] != "A" else "B"), session.replace(".", "..", 1), session[1:]]

    assert await town.ping(session, own) == 200
    for method in ("POST", "GET", "DELETE"):
        assert {who: await town.ping(session, headers, method) for who, headers in others.items()} == dict.fromkeys(
            others, 404
        )
    assert [await town.ping(each, own) for each in tampered] == [404] * 3
    assert await town.ping(session, {}) == 401
    assert await town.ping(session, {"Cookie": town.cookie, **OURS}) == 401
    assert await town.ping(session, own) == 200


async def test_a_session_of_mcp_opens_nothing_when_it_is_over_or_its_key_is(town: Town) -> None:
    ended, kept = await town.open_session("vera"), await town.open_session("olga")
    assert await town.ping(ended, town.keys["vera"][1], "DELETE") == 200
    revoked = await town.hub.request("DELETE", f"/api/v1/keys/{town.keys['olga'][0]}", headers=ROOT)
    assert revoked.status == 204

    assert await town.ping(ended, town.keys["vera"][1]) == 404
    assert await town.ping(kept, town.keys["olga"][1]) == 401
    assert await town.ping(kept, town.keys["vera"][1]) == 404
    another = await town.hub.app[API_KEYS].create(
        _operator("default"), NewKey(user="olga", name="another", scopes=None, expires_at=None)
    )
    # The session is the person's, not the key's: who has a good one goes on.
    assert await town.ping(kept, {"x-api-key": another.secret}) == 200


async def test_two_requests_of_one_id_in_a_session_are_not_under_way_together(town: Town) -> None:
    session, own = await town.open_session("olga"), town.keys["olga"][1]
    said = {**BOTH, **own, "Mcp-Session-Id": session}
    waiting = {"name": "get_events", "arguments": {"after": "now", "wait_seconds": 30}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": waiting}
    both = {asyncio.create_task(town.hub.post("/mcp", call, headers=said)) for _ in range(2)}
    (refused,), (served,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
    while not served.done():  # the first of them may come before it listens
        await town.hub.post("/events", {"type": "a.b", "data": {}}, headers=ROOT)
        await asyncio.wait({served}, timeout=0.2)
    answer = await served

    assert (await refused).status == 400
    assert answer.status == 200
    assert b"a.b" in answer.body
    assert await town.ping(session, own) == 200


async def test_an_id_may_be_taken_again_as_soon_as_its_answer_is_read(town: Town) -> None:
    session, own = await town.open_session("olga"), town.keys["olga"][1]
    said = {**BOTH, **own, "Mcp-Session-Id": session}
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "get_ticket_list", "arguments": {}}}
    for _ in range(20):
        async with town.hub.session.post(f"{town.hub.url}/mcp", json=call, headers=said) as response:
            assert response.status == 200
            async for line in response.content:
                if line.startswith(b"data: {"):
                    break  # and leave before the response ends
