"""`/api/v1/me`: who the caller is."""

import pytest

from routes.keys import AUTH, DATABASE
from taskhub.auth.principal import ALL_SCOPES, Principal
from taskhub.storage.schema import METADATA
from tests.routes.conftest import Hub, Start
from tests.taskhub.world import execute


async def test_without_a_key_the_caller_is_the_local_operator(hub: Hub) -> None:
    assert (await hub.get("/api/v1/me")).json == {
        "actor": "user:local",
        "kind": "user",
        "workspace": "default",
        "scopes": sorted(ALL_SCOPES),
        "authenticated": False,
        "user": None,
    }


async def test_a_caller_is_who_it_says_it_is(hub: Hub) -> None:
    answer = (await hub.get("/api/v1/me", headers={"X-TaskHub-Actor": "Triage-Bot"})).json

    assert (answer["actor"], answer["kind"]) == ("agent:triage_bot", "agent")


async def test_a_key_vouches_for_its_caller(start: Start) -> None:
    hub = await start(api_key="k-secret")
    answer = await hub.get("/api/v1/me", headers={"X-API-Key": "k-secret"})

    assert (answer.json["actor"], answer.json["authenticated"]) == ("user:operator", True)
    assert (await hub.get("/api/v1/me")).code == "unauthenticated"


async def test_a_caller_sees_its_row_among_the_users(hub: Hub) -> None:
    columns = {"workspace_id": "default", "created_at": "", "updated_at": "", "active": True}
    row = {"id": "alice", "name": "Alice", "email": "alice@example.org", "kind": "human", "role": "manager"}
    users = METADATA.tables["users"]
    await execute(hub.app[DATABASE], users.delete(), users.insert().values({**columns, **row}))
    answer = (await hub.get("/api/v1/me", headers={"X-TaskHub-Actor": "user:alice"})).json

    assert answer["user"] == {**row, "active": True}


async def test_whoever_gets_in_may_ask_even_without_a_scope(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nobody(*_: object) -> Principal:
        return Principal("service:lamp", "default", frozenset(), authenticated=True)

    monkeypatch.setattr(hub.app[AUTH], "authenticate", nobody)
    answer = await hub.get("/api/v1/me")

    assert (answer.status, answer.json["scopes"]) == (200, [])
    assert (await hub.get("/api/v1/tickets")).code == "forbidden"


async def test_a_parameter_is_refused(hub: Hub) -> None:
    assert (await hub.get("/api/v1/me?as=alice")).code == "bad_parameter"
