"""/api/v1/board, and tickets as they were."""

import gzip

import orjson

from tests.routes.conftest import Hub


async def test_the_board_has_a_column_for_each_status_and_a_position(hub: Hub) -> None:
    for summary, status in (("One", "received"), ("Two", "completed"), ("Three", "received")):
        await hub.create(summary, status=status)
    answer = await hub.get("/api/v1/board?limit=1")

    assert answer.headers["TaskHub-Position"] == answer.json["position"]
    received, *_, completed = [column for column in answer.json["columns"] if column["count"]]
    assert (received["status"], received["phase"], received["count"]) == (
        {"id": "received", "name": "Received"}, "todo", 2,
    )  # fmt: skip
    assert [ticket["summary"] for ticket in received["tickets"]] == ["Three"]
    assert [ticket["summary"] for ticket in completed["tickets"]] == ["Two"]


async def test_as_of_an_event_or_a_time_everything_is_as_it_was(hub: Hub) -> None:
    created = (await hub.post("/api/v1/tickets", {"summary": "Before", "description": "old"})).json
    written = await hub.get("/api/v1/tickets/TH-1")
    time = written.json["ticket"]["updated_at"]
    await hub.request("PATCH", "/api/v1/tickets/TH-1", json={"summary": "After", "description": None})

    then = await hub.get(f"/api/v1/tickets/TH-1?as_of={created['event_id']}&include=history")
    assert then.json["ticket"] == written.json["ticket"]
    assert then.headers["ETag"] == '"1"'
    assert [entry["type"] for entry in then.json["history"]] == ["ticket.created"]
    board = await hub.get(f"/api/v1/board?as_of={created['event_id']}")
    assert board.headers["TaskHub-Position"] == created["event_id"]
    assert board.json["columns"][0]["tickets"][0]["summary"] == "Before"
    no_earlier = await hub.get(f"/api/v1/board?as_of={time.replace('Z', '+00:00')}")  # the + becomes a space
    assert no_earlier.status == 200


async def test_what_is_wrong_is_named_by_its_parameter(hub: Hub) -> None:
    wrong = await hub.get("/api/v1/board?as_of=yesterday&priority=high")
    future = await hub.get("/api/v1/tickets/TH-1?as_of=2999-01-01T00:00:00Z")
    unknown = await hub.get("/api/v1/board?assignee=alice")

    assert (wrong.status, wrong.code, set(wrong.named)) == (400, "bad_parameter", {"as_of"})
    assert (future.code, set(future.named)) == ("bad_parameter", {"as_of"})
    assert unknown.named["assignee"]["did_you_mean"] == "person_in_charge"


async def test_a_board_comes_packed_to_who_can_unpack_it(hub: Hub) -> None:
    for n in range(20):
        await hub.create(f"Much like the others {n}")
    packed = await hub.get("/api/v1/board", headers={"Accept-Encoding": "gzip"}, auto_decompress=False)
    plain = await hub.get("/api/v1/board", headers={"Accept-Encoding": "identity"})

    assert packed.headers["Content-Encoding"] == "gzip"
    assert orjson.loads(gzip.decompress(packed.body)) == plain.json
    assert len(packed.body) * 3 < len(plain.body)
