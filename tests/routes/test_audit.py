"""`/api/v1/audit`, and what of HTTP is in it."""

from typing import Any

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import ResourceTemplateReference

from routes.keys import REFUSALS, TICKETS
from taskhub.mcp.uris import TICKET_TEMPLATE
from taskhub.tickets.reference_inputs import NewUser
from tests.routes.conftest import DEADLINE_S, Hub, Start
from tests.taskhub.world import ALICE, until

ROOT = {"x-api-key": "k-bootstrap"}
AUDIT = "/api/v1/audit"


@pytest.fixture
async def locked(start: Start) -> Hub:
    """A hub that asks for keys, with Carol, who is a viewer, and a key that was set at the start."""
    hub = await start(api_key="k-bootstrap")
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="viewer"))
    return hub


async def entries(hub: Hub, action: str) -> list[Any]:
    answer = await hub.get(f"{AUDIT}?action={action}", headers=ROOT)
    assert answer.status == 200, answer
    found: list[Any] = answer.json["entries"]
    return found


async def recorded(hub: Hub, action: str) -> Any:
    """The newest entry of an action, once there is one."""

    async def found() -> bool:
        return bool(await entries(hub, action))

    await until(found)
    return (await entries(hub, action))[0]


async def viewer(hub: Hub) -> tuple[str, dict[str, str]]:
    made = (await hub.post("/api/v1/keys", {"user": "carol", "name": "laptop"}, headers=ROOT)).json
    return made["key"]["id"], {"Authorization": f"Bearer {made['secret']}"}


async def test_a_key_that_is_made_is_recorded_with_who_asked_and_from_where(locked: Hub) -> None:
    headers = {**ROOT, "X-Request-ID": "asked-1", "X-TaskHub-Actor": "agent:triage"}
    made = (await locked.post("/api/v1/keys", {"user": "carol", "name": "laptop"}, headers=headers)).json
    (entry,) = await entries(locked, "key.created")

    assert (entry["actor"], entry["address"], entry["request_id"]) == ("agent:triage", "127.0.0.1", "asked-1")
    assert (entry["target"], entry["credential"], entry["outcome"]) == (made["key"]["id"], None, "success")
    assert entry["details"]["owner"] == "user:operator"
    assert made["secret"] not in repr(entry)


async def test_who_is_not_let_in_is_counted(locked: Hub) -> None:
    guess = "thk_" + "g" * 48
    for _ in range(3):
        assert (await locked.get("/api/v1/tickets", headers={"x-api-key": guess})).status == 401
    entry = await recorded(locked, "authentication.failed")

    assert (entry["actor"], entry["address"], entry["outcome"]) == (None, "127.0.0.1", "denied")
    assert entry["details"]["reason"] == "a credential that is not good"
    assert entry["details"]["count"] >= 1
    assert guess not in repr(entry)


async def test_who_cannot_sign_in_is_counted(locked: Hub) -> None:
    attempt = {"name": "carol", "password": "a password that is wrong"}
    assert (await locked.post("/api/v1/session", attempt, headers={"Sec-Fetch-Site": "same-origin"})).status == 401
    entry = await recorded(locked, "authentication.failed")

    assert (entry["address"], entry["details"]["reason"]) == ("127.0.0.1", "sign-in refused")
    assert attempt["password"] not in repr(entry)


async def test_what_somebody_may_not_is_counted_as_theirs(locked: Hub) -> None:
    key, headers = await viewer(locked)
    assert (await locked.post("/events", {"type": "a.b", "data": {}}, headers=headers)).code == "forbidden"
    entry = await recorded(locked, "access.denied")

    assert (entry["actor"], entry["credential"]) == ("user:carol", key)
    assert entry["details"]["reason"] == "needs events:publish"


@pytest.mark.parametrize("version", ["legacy", "2026-07-28"])
async def test_a_tool_that_is_not_allowed_is_recorded_as_a_request_is(locked: Hub, version: str) -> None:
    key_id, headers = await viewer(locked)
    async with (
        httpx2.AsyncClient(headers=headers, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(f"http://127.0.0.1:{locked.port}/mcp", http_client=http), mode=version) as client,
    ):
        refused = await client.call_tool("create_ticket", {"summary": "Not to be made"})
    entry = await recorded(locked, "access.denied")

    assert refused.is_error
    assert (entry["actor"], entry["credential"]) == ("agent:carol.mcp", key_id)
    assert (entry["details"]["reason"], entry["details"]["count"]) == ("needs tickets:write", 1)


@pytest.mark.parametrize("version", ["legacy", "2026-07-28"])
async def test_resources_prompts_and_completions_that_are_not_allowed_are_recorded_as_tools_are(
    locked: Hub, version: str
) -> None:
    body = {"user": "carol", "name": "of streams alone", "scopes": ["events:read"]}
    made = (await locked.post("/api/v1/keys", body, headers=ROOT)).json
    async with (
        httpx2.AsyncClient(headers={"x-api-key": made["secret"]}, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(f"http://127.0.0.1:{locked.port}/mcp", http_client=http), mode=version) as client,
    ):
        with pytest.raises(MCPError):
            await client.read_resource("taskhub://board")
        with pytest.raises(MCPError):
            await client.get_prompt("triage")
        with pytest.raises(MCPError):
            await client.complete(ResourceTemplateReference(uri=TICKET_TEMPLATE), {"name": "key", "value": "T"})
        assert (await client.call_tool("get_board", {})).is_error
    await locked.app[REFUSALS].write(all=True)
    found = await entries(locked, "access.denied")

    assert sum(entry["details"]["count"] for entry in found) == 4
    assert {(entry["actor"], entry["credential"]) for entry in found} == {("agent:carol.mcp", made["key"]["id"])}
    assert {entry["details"]["reason"] for entry in found} == {"needs tickets:read"}


async def test_a_stream_that_an_operator_ends_is_recorded(locked: Hub) -> None:
    async with locked.stream(**ROOT) as stream:
        hello = await stream.until("hello")
        ended = await locked.request("DELETE", f"/events/debug/streams/{hello.data['stream']}", headers=ROOT)

        assert ended.status == 204
        await stream.until("goodbye")
    (entry,) = await entries(locked, "stream.ended")
    assert (entry["target"], entry["actor"]) == (hello.data["stream"], "user:operator")


async def test_an_export_that_is_refused_is_not_recorded(locked: Hub) -> None:
    assert (await locked.get("/api/v1/export?person_in_charge=nobody", headers=ROOT)).status == 400
    assert await entries(locked, "tickets.exported") == []

    assert (await locked.get("/api/v1/export?label=red", headers=ROOT)).status == 200
    (entry,) = await entries(locked, "tickets.exported")
    assert entry["details"]["query"] == {"label": ["red"]}


async def test_the_log_is_read_page_by_page_and_by_operators_alone(locked: Hub) -> None:
    _, headers = await viewer(locked)
    await viewer(locked)
    first = (await locked.get(f"{AUDIT}?limit=2", headers=ROOT)).json
    second = (await locked.get(f"{AUDIT}?limit=2&cursor={first['next_cursor']}", headers=ROOT)).json
    found = [entry["action"] for entry in first["entries"] + second["entries"]]

    assert found == ["key.created", "key.created", "user.added"]
    assert second["next_cursor"] is None
    assert (await locked.get(AUDIT, headers=headers)).code == "forbidden"
    for wrong in ("since=soon", "action=nothing", "cursor=AAAA", "limit=0", "nothing=1"):
        assert (await locked.get(f"{AUDIT}?{wrong}", headers=ROOT)).code == "bad_parameter"
