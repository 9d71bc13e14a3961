"""Changing many tickets together over HTTP, and taking it back."""

from typing import Any

import pytest

from tests.routes.conftest import Hub

BULK = "/api/v1/tickets/bulk"


@pytest.fixture
async def hub(hub: Hub) -> Hub:
    """With two tickets."""
    await hub.create("one")
    await hub.create("two")
    return hub


async def priority(hub: Hub, key: str = "TH-1") -> Any:
    return (await hub.get(f"/api/v1/tickets/{key}")).json["ticket"]["priority"]


def items(*keys: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"ticket_id": key, **(fields or {"priority": "high"})} for key in keys]


async def test_tickets_are_changed_together_and_changed_back(hub: Hub) -> None:
    made = await hub.post(BULK, {"items": items("TH-1", "TH-2")})

    assert made.status == 200
    assert (made.json["applied"], [item["version"] for item in made.json["results"]]) == (True, [2, 2])
    assert made.headers["TaskHub-Position"] == made.json["position"]
    assert await priority(hub) == "high"
    batch = f"/api/v1/batches/{made.json['batch_id']}"
    assert [change["key"] for change in (await hub.get(batch)).json["changes"]] == ["TH-1", "TH-2"]

    undone = await hub.post(f"{batch}/undo")

    assert (undone.status, undone.json["undoes"]) == (200, made.json["batch_id"])
    assert await priority(hub) == "none"
    again = await hub.post(f"{batch}/undo", {})
    assert (again.status, again.code, again.json["undone_by"]) == (409, "already_undone", undone.json["batch_id"])
    assert (await hub.get(batch)).json["undone_by"] == undone.json["batch_id"]


async def test_a_stream_hears_the_batch_end(hub: Hub) -> None:
    async with hub.stream("type=batch.finished") as stream:
        await stream.caught_up()
        made = await hub.post(BULK, {"items": items("TH-1")})
        event = (await stream.until("message")).data

    assert (event["type"], event["subject"]) == ("batch.finished", made.json["batch_id"])
    assert event["data"] == {
        "batch_id": made.json["batch_id"], "updated": 1, "failed": 0, "unchanged": 0, "undoes": None,
    }  # fmt: skip


async def test_a_batch_that_fails_is_a_problem_that_tells_of_each_item(hub: Hub) -> None:
    failed = await hub.post(BULK, {"items": items("TH-1", "TH-9")})

    assert (failed.status, failed.code) == (409, "batch_failed")
    result = failed.json["result"]
    assert (result["applied"], [item["ok"] for item in result["results"]]) == (False, [True, False])
    assert result["results"][1]["error"] == {"code": "not_found", "message": "there is no ticket TH-9"}
    assert await priority(hub) == "none"


async def test_a_dry_run_changes_nothing(hub: Hub) -> None:
    answer = await hub.post(BULK, {"items": items("TH-1"), "dry_run": True}, headers={"Idempotency-Key": "k"})

    assert (answer.status, answer.json["applied"]) == (200, False)
    assert answer.json["results"][0]["changes"] == {"priority": ["none", "high"]}
    assert await priority(hub) == "none"


async def test_a_repeat_under_one_key_has_one_effect(hub: Hub) -> None:
    headers = {"Idempotency-Key": "k"}
    made = [await hub.post(BULK, {"items": items("TH-1")}, headers=headers) for _ in range(2)]
    url = f"/api/v1/batches/{made[0].json['batch_id']}/undo"
    undone = [await hub.post(url, headers=headers) for _ in range(2)]

    for first, second in (made, undone):
        assert second.json == {**first.json, "replayed": True}


async def test_what_was_changed_since_is_named_and_the_rest_undone_on_request(hub: Hub) -> None:
    made = await hub.post(BULK, {"items": items("TH-1", "TH-2")})
    await hub.request("PATCH", "/api/v1/tickets/TH-1", json={"priority": "low"})
    url = f"/api/v1/batches/{made.json['batch_id']}/undo"

    refused = await hub.post(url)
    partly = await hub.post(url, {"atomic": False})

    assert (refused.status, refused.code) == (409, "undo_conflict")
    [conflict] = refused.json["conflicts"]
    assert (conflict["ticket"], conflict["field"]) == ("TH-1", "priority")
    assert conflict["actor"] in conflict["reason"]
    assert conflict["time"] in conflict["reason"]
    assert [item["ok"] for item in partly.json["results"]] == [True, False]
    assert (await priority(hub), await priority(hub, "TH-2")) == ("low", "none")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/items"),
        ({"items": []}, "/items"),
        ({"items": items(*(f"TH-{n}" for n in range(51)))}, "/items"),
        ({"items": [{"priority": "high"}]}, "/items/0/ticket_id"),
        ({"items": items("TH-1", prio="high")}, "/items/0/prio"),
        ({"items": items("TH-1", priority="hihg")}, "/items/0/priority"),
        ({"items": items("TH-1", expected_version=0)}, "/items/0/expected_version"),
        ({"items": items("TH-1", "TH-2", "th-1")}, "/items/2/ticket_id"),
        ({"items": items("TH-1"), "dryrun": True}, "/dryrun"),
    ],
)
async def test_what_is_wrong_with_a_batch_is_named(hub: Hub, body: Any, pointer: str) -> None:
    refused = await hub.post(BULK, body)

    assert (refused.status, refused.code, list(refused.named)) == (422, "invalid_input", [pointer])


async def test_a_batch_that_is_not_there_is_said_to_be_so(hub: Hub) -> None:
    for answer in (await hub.get("/api/v1/batches/b-x"), await hub.post("/api/v1/batches/b-x/undo")):
        assert (answer.status, answer.code) == (404, "no_such_batch")
    assert (await hub.get(BULK)).code == "not_found"  # no ticket has such a key, nor is there anything to read
