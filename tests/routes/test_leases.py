"""Claiming over HTTP. The rules of leases are tested with the service; here it is their HTTP."""

from datetime import datetime
from typing import Any

import pytest

from routes.keys import LIFECYCLE
from tests.routes.conftest import Answer, Hub, Start

LEASE = "/api/v1/tickets/TH-1/lease"
PROGRESS = "/api/v1/tickets/TH-1/progress"


def as_(actor: str, token: int | None = None, **headers: str) -> dict[str, str]:
    held = {} if token is None else {"TaskHub-Lease-Token": str(token)}
    return {"X-TaskHub-Actor": actor, **held, **headers}


async def claim(hub: Hub, by: str = "agent:bot", **body: Any) -> Answer:
    return await hub.request("PUT", LEASE, json=body, headers=as_(by))


async def test_a_claim_answers_the_token_and_where_to_listen_on(hub: Hub) -> None:
    await hub.create("Printer")
    answer = await claim(hub, lease_seconds=600)
    read = await hub.get("/api/v1/tickets/TH-1?include=lease")

    assert (answer.status, answer.headers["ETag"]) == (200, '"2"')
    assert answer.headers["TaskHub-Position"] == answer.json["event_id"]
    assert answer.json["lease_token"] == 1
    assert read.json["lease"] == {
        "holder": "agent:bot", "acquired_at": read.json["ticket"]["lease"]["acquired_at"],
        "expires_at": answer.json["lease_expires_at"], "expiries": 0,
    }  # fmt: skip


async def test_a_claim_needs_no_body(hub: Hub) -> None:
    await hub.create("Printer")
    await hub.create("Copier")

    assert (await hub.request("PUT", LEASE)).json["lease_token"] == 1
    assert (await hub.request("POST", "/api/v1/tickets/claim-next")).json["key"] == "TH-2"


async def test_how_long_a_claim_lasts_that_does_not_say_so_is_a_setting(start: Start) -> None:
    hub = await start(lease_default_s=60)
    await hub.create("Printer")
    await claim(hub)
    lease = (await hub.get("/api/v1/tickets/TH-1?include=lease")).json["lease"]

    lasts = datetime.fromisoformat(lease["expires_at"]) - datetime.fromisoformat(lease["acquired_at"])
    assert lasts.total_seconds() == 60


async def test_the_next_ready_ticket_is_claimed_under_a_filter(hub: Hub) -> None:
    await hub.create("Printer")
    await hub.create("Copier", labels=["auth"], priority="low")
    first = await hub.post("/api/v1/tickets/claim-next", {"label": ["auth"], "lease_seconds": 60})
    none = await hub.post("/api/v1/tickets/claim-next", {"label": ["auth"]})

    assert (first.status, first.json["key"]) == (200, "TH-2")
    assert (none.status, none.code, none.json["retryable"]) == (409, "nothing_ready", True)


async def test_a_held_ticket_says_by_whom_and_until_when(hub: Hub) -> None:
    await hub.create("Printer")
    claimed = await claim(hub)
    again = await claim(hub)
    write = await hub.request("PATCH", "/api/v1/tickets/TH-1", json={"status": "completed"})

    for refused in (again, write):
        assert (refused.status, refused.code) == (409, "lease_held")
        assert refused.json["holder"] == "agent:bot"
        assert refused.json["expires_at"] == claimed.json["lease_expires_at"]
    assert write.json["changing"] == ["status", "completion_date"]


async def test_a_person_takes_over_and_an_agent_does_not(hub: Hub) -> None:
    await hub.create("Printer")
    await claim(hub)
    agent = await claim(hub, by="agent:other", take_over=True)
    person = await claim(hub, by="user:alice", take_over=True)

    assert (agent.status, agent.code) == (403, "take_over_refused")
    assert (person.status, person.json["lease_token"]) == (200, 2)


async def test_agents_that_share_a_key_do_not_take_over_from_each_other(start: Start) -> None:
    hub = await start(api_key="k-secret")
    key = {"X-API-Key": "k-secret"}
    await hub.post("/api/v1/tickets", {"summary": "Printer"}, headers=key)
    first = await hub.request("PUT", LEASE, headers=key | as_("agent:bot"))
    refused = await hub.request("PUT", LEASE, json={"take_over": True}, headers=key | as_("agent:other"))
    holder = (await hub.get("/api/v1/tickets/TH-1?include=lease", headers=key)).json["lease"]["holder"]
    person = await hub.request("PUT", LEASE, json={"take_over": True}, headers=key)

    assert (first.status, holder) == (200, "agent:bot")
    assert (refused.status, refused.code, refused.json["actor"]) == (403, "take_over_refused", "agent:other")
    assert (person.status, person.json["lease_token"]) == (200, 2)


async def test_what_cannot_be_claimed_says_why(hub: Hub) -> None:
    await hub.create("Printer", status="completed")
    await hub.create("Before")
    await hub.create("After", blocked_by=["TH-2"])
    done = await claim(hub)
    blocked = await hub.request("PUT", "/api/v1/tickets/TH-3/lease")

    assert (done.status, done.code, done.json["ticket_status"]) == (409, "not_claimable", "Completed")
    assert (blocked.status, blocked.code, blocked.json["blockers"]) == (409, "blocked", ["TH-2"])


async def test_the_token_travels_in_a_header(hub: Hub) -> None:
    await hub.create("Printer")
    token = (await claim(hub)).json["lease_token"]
    held = as_("agent:bot", token)
    changed = await hub.request("PATCH", "/api/v1/tickets/TH-1", json={"has_defect": True}, headers=held)
    commented = await hub.post("/api/v1/tickets/TH-1/comments", {"comment": "x"}, headers=held)
    reported = await hub.post(PROGRESS, {"percent": 40, "note": "half"}, headers=held)
    renewed = await hub.request("PATCH", LEASE, json={"lease_seconds": 60}, headers=held)
    released = await hub.request("DELETE", LEASE, headers=held)

    assert [a.status for a in (changed, commented, reported, renewed, released)] == [200, 201, 200, 200, 200]
    assert (reported.json["comments"], reported.json["version"]) == ([], 4)
    assert (renewed.json["version"], renewed.json["event_id"], renewed.json["lease_token"]) == (4, None, 1)
    assert released.json["version"] == 5


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PATCH", "/api/v1/tickets/TH-1", {"remarks": "x"}),
        ("POST", "/api/v1/tickets/TH-1/comments", {"comment": "x"}),
        ("POST", PROGRESS, {"percent": 1}),
        ("PATCH", LEASE, {}),
        ("DELETE", LEASE, None),
    ],
)
async def test_a_token_that_counts_no_more_is_refused_everywhere(
    hub: Hub, method: str, path: str, body: dict[str, Any] | None
) -> None:
    await hub.create("Printer")
    await claim(hub)
    await claim(hub, by="user:alice", take_over=True)
    lost = await hub.request(method, path, json=body, headers=as_("agent:bot", 1))

    assert (lost.status, lost.code, lost.json["holder"]) == (409, "lease_lost", "user:alice")
    for wrong in ("zero", "0", "-1", "1.5", ""):
        refused = await hub.request(method, path, json=body, headers={"TaskHub-Lease-Token": wrong})
        assert (refused.status, refused.code, list(refused.named)) == (400, "bad_header", ["TaskHub-Lease-Token"])


@pytest.mark.parametrize("way", ["body", "query"])
async def test_a_release_says_what_comes_next_in_its_body_or_its_query(hub: Hub, way: str) -> None:
    await hub.create("Printer")
    held = as_("agent:bot", (await claim(hub)).json["lease_token"])
    said = {"status": "waiting", "note": "for parts"}
    options: dict[str, Any] = {"json": said} if way == "body" else {"params": said}
    unknown: dict[str, Any] = {"json": {"statuss": "x"}} if way == "body" else {"params": {"statuss": "x"}}
    refused = await hub.request("DELETE", LEASE, headers=held, **unknown)
    answer = await hub.request("DELETE", LEASE, headers=held, **options)
    ticket = (await hub.get("/api/v1/tickets/TH-1?include=comments")).json

    assert refused.code == ("invalid_input" if way == "body" else "bad_parameter")
    assert answer.status == 200
    assert (ticket["ticket"]["status"]["id"], ticket["ticket"]["waiting_reason"]) == ("waiting", "for parts")
    assert [comment["body"] for comment in ticket["comments"]] == ["for parts"]


async def test_every_write_of_a_lease_is_repeated_under_its_key_without_effect(hub: Hub) -> None:
    await hub.create("Printer")

    async def twice(method: str, path: str, body: Any, token: int | None = None) -> Any:
        headers = as_("agent:bot", token, **{"Idempotency-Key": "k"})
        first = await hub.request(method, path, json=body, headers=headers)
        second = await hub.request(method, path, json=body, headers=headers)
        assert first.status == second.status == 200, first
        assert second.json == {**first.json, "replayed": True}
        return first.json

    assert (await twice("PUT", LEASE, {}))["lease_token"] == 1
    await twice("PATCH", LEASE, {}, 1)
    await twice("POST", PROGRESS, {"percent": 40}, 1)
    await twice("DELETE", LEASE, {}, 1)
    assert (await twice("POST", "/api/v1/tickets/claim-next", {}))["lease_token"] == 2


async def test_who_listens_sees_the_lease_come_run_on_and_go(hub: Hub) -> None:
    await hub.create("Printer")
    async with hub.stream("ticket=TH-1") as stream:
        await stream.until("ready")
        held = as_("agent:bot", (await claim(hub)).json["lease_token"])
        await hub.request("PATCH", LEASE, headers=held)
        await hub.request("DELETE", LEASE, headers=held)
        frames = [await stream.until("message") for _ in range(3)]

    assert [frame.data["type"] for frame in frames] == [
        "ticket.claimed", "ticket.lease_renewed", "ticket.released",
    ]  # fmt: skip
    assert [frame.id is None for frame in frames] == [False, True, False]
    assert [frame.data["data"]["ticket"]["lease"] is None for frame in frames] == [False, False, True]


async def test_bad_input_is_named(hub: Hub) -> None:
    await hub.create("Printer")
    short = await claim(hub, lease_seconds=59)
    unknown = await hub.post("/api/v1/tickets/claim-next", {"labels": ["x"]})
    over = await hub.post(PROGRESS, {"percent": 101})
    parameter = await hub.request("PUT", f"{LEASE}?lease_seconds=60")

    assert (short.status, list(short.named)) == (422, ["/lease_seconds"])
    assert unknown.named["/labels"]["did_you_mean"] == "label"
    assert list(over.named) == ["/percent"]
    assert (parameter.status, list(parameter.named)) == (400, ["lease_seconds"])


async def test_a_server_that_drains_refuses_new_claims_and_nothing_else(hub: Hub) -> None:
    for summary in ("Held", "Free"):
        await hub.create(summary)
    headers = as_("agent:bot") | {"Idempotency-Key": "k"}
    held = await hub.request("PUT", LEASE, headers=headers)
    hub.app[LIFECYCLE].draining = True
    refused = [
        await hub.request("PUT", "/api/v1/tickets/TH-2/lease", headers=as_("agent:bot")),
        await hub.post("/api/v1/tickets/claim-next", headers=as_("agent:bot")),
    ]
    again = await hub.request("PUT", LEASE, headers=headers)
    reported = await hub.post(PROGRESS, {"percent": 50}, headers=as_("agent:bot", 1))
    renewed = await hub.request("PATCH", LEASE, headers=as_("agent:bot", 1))
    released = await hub.request("DELETE", LEASE, headers=as_("agent:bot", 1))
    created = await hub.post("/api/v1/tickets", {"summary": "New"})
    free = (await hub.get("/api/v1/tickets/TH-2?include=lease")).json
    hub.app[LIFECYCLE].draining = False

    assert [(each.status, each.code, each.json["retryable"]) for each in refused] == [(503, "draining", True)] * 2
    assert all(int(each.headers["Retry-After"]) > 0 for each in refused)
    assert again.json["lease_token"] == held.json["lease_token"]
    assert [each.status for each in (again, reported, renewed, released, created)] == [200, 200, 200, 200, 201]
    assert free["lease"]["holder"] is None
