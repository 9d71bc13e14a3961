"""/events/debug: what operators see and can do."""

from typing import Any

import pytest

from routes.keys import DATABASE
from tests.routes.conftest import Hub


async def debug(hub: Hub) -> Any:
    answer = await hub.get("/events/debug")
    assert answer.status == 200
    return answer.json


async def explain(hub: Hub, event: str, stream: str) -> Any:
    answer = await hub.get(f"/events/debug/explain?event={event}&stream={stream}")
    assert answer.status == 200, answer
    return answer.json


async def test_the_three_keys_exist_before_anything_happened(hub: Hub) -> None:
    figures = await debug(hub)

    assert (figures["connected_clients"], figures["events_sent"], figures["last_event_time"]) == (0, 0, None)
    (instance,) = figures["instances"]
    assert (figures["partial"], instance["database"], instance["relay"]["state"]) == (False, "up", "local")


async def test_streams_and_channels_are_described(hub: Hub) -> None:
    async with hub.stream("status=in_progress", **{"X-TaskHub-Actor": "alice"}) as stream:
        ready = await stream.until("ready")
        await hub.publish()
        figures = await debug(hub)
    (instance,) = figures["instances"]
    (described,) = instance["streams"]
    (channel,) = instance["channels"]

    assert figures["connected_clients"] == instance["connected_clients"] == 1
    assert instance["streams_left_out"] == 0
    assert described["id"] == stream.seen[0].data["stream"]
    assert described["filter"] == {"status": ["in_progress"]}
    assert (described["principal"], described["address"]) == ("agent:alice", "127.0.0.1")
    assert described["state"] == "live"
    assert described["bytes_sent"] > 0
    assert channel["workspace"] == "default"
    assert ready.data["position"].startswith(channel["head"].partition("-")[0])


async def test_the_largest_event_can_be_explained(hub: Hub) -> None:
    key = (await hub.create("long", description="a" * 65_536, remarks="b" * 65_536))["key"]
    async with hub.stream() as stream:
        stream_id = (await stream.frame()).data["stream"]
        change = {"description": "c" * 65_536, "remarks": "d" * 65_536, "comment": "e" * 65_536}
        assert (await hub.request("PATCH", f"/api/v1/tickets/{key}", json=change)).status == 200
        event = await stream.until("message")

        assert (await explain(hub, event.data["id"], stream_id))["verdict"] == "sent"


@pytest.mark.parametrize(("told", "left_out"), [(0, 3), (2, 1), (3, 0)])
async def test_only_so_many_streams_are_described_as_were_asked_for(hub: Hub, told: int, left_out: int) -> None:
    async with hub.stream(), hub.stream(), hub.stream():
        answer = await hub.get(f"/events/debug?streams={told}")
    (instance,) = answer.json["instances"]

    assert answer.json["connected_clients"] == 3
    assert (len(instance["streams"]), instance["streams_left_out"]) == (told, left_out)


@pytest.mark.parametrize("streams", ["-1", "1001", "all"])
async def test_so_many_streams_cannot_be_described(hub: Hub, streams: str) -> None:
    answer = await hub.get(f"/events/debug?streams={streams}")

    assert (answer.code, list(answer.named)) == ("bad_parameter", ["streams"])


async def test_without_a_database_the_page_still_answers(hub: Hub) -> None:
    await hub.app[DATABASE].close()

    assert (await debug(hub))["instances"][0]["database"].startswith("away")


async def test_a_stream_can_be_sent_away(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        answer = await hub.request("DELETE", f"/events/debug/streams/{stream.seen[0].data['stream']}")
        goodbye = await stream.until("goodbye")
        assert await stream.rest() == []

    assert answer.status == 204
    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("rotate", True)


async def test_a_stream_that_is_not_there_cannot_be_ended_or_explained(hub: Hub) -> None:
    sent = await hub.publish()
    ended = await hub.request("DELETE", "/events/debug/streams/st_none")
    explained = await hub.get(f"/events/debug/explain?event={sent['id']}&stream=st_none")

    assert [ended.code, explained.code] == ["not_found"] * 2


async def test_a_test_event_makes_the_round_trip(hub: Hub) -> None:
    answer = await hub.post("/events/debug/test")
    figures = await debug(hub)
    (event,) = (await hub.get("/api/v1/events?after=earliest")).json["events"]

    assert answer.status == 200
    assert answer.json["round_trip_ms"] > 0
    assert answer.json["commit_ms"] > 0
    assert (event["id"], event["type"]) == (answer.json["event"], "debug.test")
    assert figures["connected_clients"] == 0


async def test_it_is_explained_why_a_stream_did_or_did_not_get_an_event(hub: Hub) -> None:
    before = await hub.publish(subject="a")
    async with hub.stream("subject=a&type=build.*") as stream:
        await stream.until("ready")
        stream_id = stream.seen[0].data["stream"]
        shown = await hub.publish(subject="a")
        hidden = await hub.publish(subject="b")
        await stream.frame()
        verdicts = [await explain(hub, event["id"], stream_id) for event in (before, shown, hidden)]

    assert [verdict["verdict"] for verdict in verdicts] == ["before_start", "sent", "filtered"]
    assert {part["name"]: part["passes"] for part in verdicts[2]["filter"]} == {"type": True, "subject": False}
    assert verdicts[1]["stream"] == stream_id


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("event=x&stream=s", 400),
        ("event=k7q2m4xa-1", 400),
        ("stream=s", 400),
        ("event=k7q2m4xa-1&stream=s&why=1", 400),
    ],
)
async def test_explaining_needs_an_event_and_a_stream(hub: Hub, query: str, status: int) -> None:
    assert (await hub.get(f"/events/debug/explain?{query}")).status == status


@pytest.mark.parametrize("event", ["nonsense", "otherlog-1", "00000000-0000-4000-8000-000000000000"])
async def test_an_event_that_is_not_in_the_log_cannot_be_explained(hub: Hub, event: str) -> None:
    await hub.publish()
    async with hub.stream() as stream:
        stream_id = (await stream.frame()).data["stream"]
        answer = await hub.get(f"/events/debug/explain?event={event}&stream={stream_id}")

    assert answer.status in (400, 404)
