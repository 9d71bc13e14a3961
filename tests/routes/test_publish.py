"""POST /events and /events/batch."""

from typing import Any

import pytest

from tests.routes.conftest import Hub

EVENT = {"type": "build.finished", "data": {"ok": True}}


async def log(hub: Hub) -> list[Any]:
    events: list[Any] = (await hub.get("/api/v1/events?after=earliest&limit=500")).json["events"]
    return events


async def test_an_event_is_stored_as_it_was_sent_with_the_actor_of_the_caller(hub: Hub) -> None:
    answer = await hub.post("/events", {**EVENT, "subject": "repo/main"}, headers={"X-TaskHub-Actor": "service:ci"})
    (event,) = await log(hub)

    assert answer.status == 201
    assert answer.json == {"id": event["id"], "position": event["id"], "replayed": False}
    assert answer.headers["TaskHub-Position"] == event["id"]
    assert (event["type"], event["subject"], event["data"]) == ("build.finished", "repo/main", {"ok": True})
    assert (event["actor"], event["origin"]) == ("service:ci", "rest_api")


async def test_a_batch_has_contiguous_positions_in_the_order_sent(hub: Hub) -> None:
    answer = await hub.post("/events/batch", {"events": [{**EVENT, "subject": f"s{n}"} for n in range(500)]})
    numbers = [int(one.partition("-")[2]) for one in answer.json["ids"]]

    assert answer.status == 201
    assert numbers == list(range(numbers[0], numbers[0] + 500))
    assert answer.json["position"] == answer.json["ids"][-1]
    assert [event["subject"] for event in await log(hub)] == [f"s{n}" for n in range(500)]


async def test_one_wrong_event_keeps_the_whole_batch_out(hub: Hub) -> None:
    wrong = {"type": "ticket.created", "data": {}}
    answer = await hub.post("/events/batch", {"events": [EVENT, wrong, EVENT, {**EVENT, "subject": "a\nb"}]})

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert set(answer.named) == {"/events/1/type", "/events/3/subject"}
    assert await log(hub) == []


async def test_a_wrong_transient_event_keeps_stored_ones_out(hub: Hub) -> None:
    answer = await hub.post("/events/batch", {"events": [EVENT, {"type": "taskhub.x", "data": {}, "transient": True}]})

    assert (answer.status, list(answer.named)) == (422, ["/events/1/type"])
    assert await log(hub) == []


async def test_transient_events_of_a_batch_are_sent_and_not_stored(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        batch = [{**EVENT, "transient": True, "subject": "a"}, {**EVENT, "subject": "b"}]
        answer = await hub.post("/events/batch", {"events": batch})
        got = {(await stream.frame()).data["id"] for _ in batch}

    assert got == set(answer.json["ids"])
    assert [event["id"] for event in await log(hub)] == [answer.json["ids"][1]] == [answer.json["position"]]


async def test_the_same_idempotency_key_publishes_once(hub: Hub) -> None:
    headers = {"Idempotency-Key": "build-17"}
    first = await hub.post("/events", EVENT, headers=headers)
    again = await hub.post("/events", EVENT, headers=headers)
    other = await hub.post("/events", {**EVENT, "data": {"ok": False}}, headers=headers)

    assert again.json == {**first.json, "replayed": True}
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    assert len(await log(hub)) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 201, "é"])
async def test_a_malformed_idempotency_key_is_refused(hub: Hub, key: str) -> None:
    answer = await hub.post("/events", EVENT, headers={"Idempotency-Key": key})

    assert answer.status in (400, 431)
    assert list(answer.named) == ["Idempotency-Key"]
    assert await log(hub) == []


async def test_a_transient_event_cannot_have_an_idempotency_key(hub: Hub) -> None:
    answer = await hub.post("/events", {**EVENT, "transient": True}, headers={"Idempotency-Key": "k"})

    assert (answer.status, answer.code) == (400, "bad_header")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"type": "build.finished\r\nid: 1"}, "/type"),
        ({"type": "build.finished\n"}, "/type"),
        ({"type": "build\x00.finished"}, "/type"),
        ({"type": "Build.Finished"}, "/type"),
        ({"type": "finished"}, "/type"),
        ({"type": "build."}, "/type"),
        ({"type": ""}, "/type"),
        ({"type": "build." + "x" * 59}, "/type"),
        ({"type": "ticket.created"}, "/type"),
        ({"type": "reference.changed"}, "/type"),
        ({"type": "batch.finished"}, "/type"),
        ({"type": "taskhub.test"}, "/type"),
        ({"type": "registry.x"}, "/type"),
        ({"type": "connection.x"}, "/type"),
        ({"type": "execution.x"}, "/type"),
        ({"type": "hello"}, "/type"),
        ({"type": 7}, "/type"),
        ({"type": None}, "/type"),
        ({"subject": "a\rb"}, "/subject"),
        ({"subject": "a\nb"}, "/subject"),
        ({"subject": "a\x00b"}, "/subject"),
        ({"subject": ""}, "/subject"),
        ({"subject": "x" * 257}, "/subject"),
        ({"subject": 7}, "/subject"),
        ({"data": None}, "/data"),
        ({"data": []}, "/data"),
        ({"data": "text"}, "/data"),
        ({"data": {"text": "x" * 65_536}}, "/data"),
        ({"transient": "yes"}, "/transient"),
        ({"id": "mine-1"}, "/id"),
        ({"actor": "user:boss"}, "/actor"),
        ({"origin": "system"}, "/origin"),
        ({"time": "2026-01-01T00:00:00Z"}, "/time"),
        ({"transiant": True}, "/transiant"),
    ],
)
async def test_an_event_that_may_not_be_published_is_refused(hub: Hub, fields: dict[str, Any], pointer: str) -> None:
    answer = await hub.post("/events", {**EVENT, **fields})

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert list(answer.named) == [pointer]
    assert await log(hub) == []


async def test_a_misspelt_field_gets_a_suggestion(hub: Hub) -> None:
    answer = await hub.post("/events", {**EVENT, "transiant": True})

    assert answer.named["/transiant"]["did_you_mean"] == "transient"


@pytest.mark.parametrize("body", [{"events": []}, {"events": [EVENT] * 501}, {"events": EVENT}, {}, {"event": [EVENT]}])
async def test_a_batch_has_one_to_500_events(hub: Hub, body: dict[str, Any]) -> None:
    answer = await hub.post("/events/batch", body)

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert "/events" in answer.named
    assert await log(hub) == []


async def test_a_batch_sent_as_a_list_is_told_its_shape(hub: Hub) -> None:
    answer = await hub.post("/events/batch", [EVENT])
    single = await hub.post("/events", [EVENT])

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert '{"events": […]}' in answer.json["detail"]
    assert '{"type": …, "data": …}' in single.json["detail"]


async def test_data_with_an_integer_that_cannot_be_kept_is_refused(hub: Hub) -> None:
    answer = await hub.post("/events", {**EVENT, "data": {"build": {"id": 2**64}}})
    kept = await hub.post("/events", {**EVENT, "data": {"id": 2**64 - 1}})

    assert (answer.status, list(answer.named)) == (422, ["/data/build/id"])
    assert kept.status == 201
    assert [event["data"] for event in await log(hub)] == [{"id": 2**64 - 1}]


async def test_publishing_takes_no_parameters(hub: Hub) -> None:
    answer = await hub.request("POST", "/events?transient=1", json=EVENT)

    assert (answer.status, list(answer.named)) == (400, ["transient"])
