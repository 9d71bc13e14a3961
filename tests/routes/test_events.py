"""/api/v1/events: the log by polling and long polling."""

import asyncio

import pytest
from sqlalchemy import update

from broadcaster.filters import EVERYTHING
from broadcaster.polling import LogReplaced, Scan
from routes.keys import DATABASE, EVENT_LOG, LIFECYCLE
from taskhub.storage.database import Database
from taskhub.storage.schema import workspaces
from tests.broadcaster.streams import WORKSPACE, World, settle
from tests.routes.conftest import Hub
from tests.taskhub.world import execute


def subjects(answer: object) -> list[str]:
    return [event["subject"] for event in answer.json["events"]]  # type: ignore[attr-defined]


async def expire(hub: Hub, oldest: int) -> None:
    """Move the log's oldest event, as retention does."""
    database: Database = hub.app[DATABASE]
    await execute(database, update(workspaces).values(oldest_seq=oldest))


async def test_polling_from_position_to_position_gives_the_log_once(hub: Hub) -> None:
    sent = [(await hub.publish(subject=f"s{n}"))["id"] for n in range(5)]
    first = await hub.get("/api/v1/events?after=earliest&limit=2")
    second = await hub.get(f"/api/v1/events?after={first.json['position']}&limit=2")
    third = await hub.get(f"/api/v1/events?after={second.json['position']}&limit=2")

    assert [subjects(first), subjects(second), subjects(third)] == [["s0", "s1"], ["s2", "s3"], ["s4"]]
    assert [first.json["more"], second.json["more"], third.json["more"]] == [True, True, False]
    assert third.json["position"] == third.headers["TaskHub-Position"] == sent[4]
    assert first.json["events"][0]["specversion"] == "1.0"


async def test_without_after_a_poll_tells_where_the_log_stands(hub: Hub) -> None:
    sent = await hub.publish()
    answer = await hub.get("/api/v1/events")

    assert answer.json == {"events": [], "position": sent["id"], "more": False}


async def test_a_filter_narrows_and_the_position_moves_past_what_it_hides(hub: Hub) -> None:
    await hub.publish(subject="mine")
    last = await hub.publish(subject="other")
    answer = await hub.get("/api/v1/events?after=earliest&subject=mine")

    assert subjects(answer) == ["mine"]
    assert answer.json["position"] == last["id"]


async def test_a_state_filter_tells_who_enters(hub: Hub) -> None:
    await hub.create("One", labels=["urgent"])
    answer = await hub.get("/api/v1/events?after=1h&label=urgent")

    assert [event["match"] for event in answer.json["events"]] == ["enter"]


async def test_a_long_poll_waits_on_while_nothing_matches(hub: Hub) -> None:
    start = await hub.publish(subject="start")
    waiting = asyncio.create_task(hub.get(f"/api/v1/events?after={start['id']}&wait=50&subject=mine"))
    for _ in range(3):
        await hub.publish(subject="other")
    assert not waiting.done()
    mine = await hub.publish(subject="mine")
    answer = await waiting

    assert subjects(answer) == ["mine"]
    assert (answer.json["position"], answer.json["more"]) == (mine["id"], False)


async def test_a_long_poll_that_began_before_an_event_gets_it(hub: Hub) -> None:
    sent = await hub.publish(subject="before")
    waiting = asyncio.create_task(hub.get(f"/api/v1/events?after={sent['id']}&wait=50"))
    await hub.publish(subject="after")

    assert subjects(await waiting) == ["after"]


async def test_a_long_poll_ends_empty_when_its_time_is_up(hub: Hub) -> None:
    sent = await hub.publish()
    answer = await hub.get("/api/v1/events?wait=0.1")

    assert answer.json == {"events": [], "position": sent["id"], "more": False}


async def test_a_draining_process_answers_its_long_polls(hub: Hub) -> None:
    waiting = asyncio.create_task(hub.get("/api/v1/events?wait=50"))
    hub.app[LIFECYCLE].draining = True

    assert (await waiting).json["events"] == []


async def test_a_narrow_filter_looks_at_a_bounded_part_of_the_log_at_once(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broadcaster.polling.PAGE", 5)
    monkeypatch.setattr("broadcaster.polling.MAX_SCANNED", 10)
    batch = [{"type": "a.b", "subject": f"s{n}", "data": {}} for n in range(23)]
    await hub.post("/events/batch", {"events": batch})
    pages, after = [], "earliest"
    for _ in range(3):
        answer = await hub.get(f"/api/v1/events?after={after}&subject=s22")
        after = answer.json["position"]
        pages.append((subjects(answer), answer.json["more"]))

    assert pages == [([], True), ([], True), (["s22"], False)]


async def test_an_expired_position_is_gone_and_says_how_to_go_on(hub: Hub) -> None:
    sent = [(await hub.publish(subject=f"s{n}"))["id"] for n in range(4)]
    await expire(hub, 3)
    gone = await hub.get(f"/api/v1/events?after={sent[0]}")
    on = await hub.get(f"/api/v1/events?after={gone.json['oldest']}")
    still = await hub.get(f"/api/v1/events?after={sent[1]}")

    assert (gone.status, gone.code, gone.json["reason"]) == (410, "position_expired", "expired")
    assert gone.json["requested"] == sent[0]
    assert gone.json["position"] == sent[3]
    assert (await hub.get(gone.json["snapshot"])).status == 200
    assert subjects(on) == subjects(still) == ["s2", "s3"]
    assert subjects(await hub.get("/api/v1/events?after=earliest")) == ["s2", "s3"]


async def test_a_position_of_another_log_or_ahead_of_it_is_gone(hub: Hub) -> None:
    epoch = (await hub.publish())["id"].partition("-")[0]
    foreign = await hub.get("/api/v1/events?after=otherlog-1")
    ahead = await hub.get(f"/api/v1/events?after={epoch}-2")

    assert [foreign.code, ahead.code] == ["position_expired"] * 2
    assert [foreign.json["reason"], ahead.json["reason"]] == ["epoch_changed", "ahead"]


@pytest.mark.parametrize(
    ("query", "parameter", "instead"),
    [
        ("after=nonsense", "after", None),
        ("after=", "after", None),
        ("limit=0", "limit", None),
        ("limit=501", "limit", None),
        ("wait=50.1", "wait", None),
        ("wait=-1", "wait", None),
        ("wait=nan", "wait", None),
        ("since=now", "since", None),
        ("limt=3", "limt", "limit"),
        ("status=recieved", "status", "Received"),
        ("request_channel=email", "request_channel", "channel"),
        ("batch=5", "batch", None),
    ],
)
async def test_a_wrong_parameter_is_named(hub: Hub, query: str, parameter: str, instead: str | None) -> None:
    answer = await hub.get(f"/api/v1/events?{query}")

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert answer.named[parameter].get("did_you_mean") == instead or instead is None


async def test_without_a_database_a_poll_says_to_come_back(hub: Hub) -> None:
    assert hub.app[EVENT_LOG] is not None
    await hub.app[DATABASE].close()
    answer = await hub.get("/api/v1/events?after=earliest")

    assert (answer.status, answer.code) == (503, "storage_busy")
    assert answer.headers["Retry-After"]


async def test_a_head_is_not_available(hub: Hub) -> None:
    assert (await hub.request("HEAD", "/api/v1/events?wait=50")).status == 405


async def test_a_poll_during_which_the_log_is_replaced_gets_no_event_of_the_new_one() -> None:
    world = await World.open()
    epoch = (await world.broadcaster.position(WORKSPACE)).epoch
    scan = Scan(world.log, world.broadcaster.wait_beyond, lambda: False, WORKSPACE, epoch, EVERYTHING)
    polling = asyncio.create_task(scan.run(0, limit=10, wait_s=10))
    await settle()

    world.log.new_epoch(WORKSPACE)
    world.commit(*world.numbered(1))
    with pytest.raises(LogReplaced):
        await polling

    assert scan.found == []
    await world.broadcaster.stop()
