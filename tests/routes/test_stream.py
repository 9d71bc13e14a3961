"""/events/stream: what it accepts, what it answers, and how it ends."""

import asyncio
import socket
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import aiohttp
import pytest

from broadcaster.event import Position
from routes.keys import BROADCASTER, DATABASE
from routes.positions import parse_start, resume_start
from routes.refusals import accepted_media
from tests.routes.conftest import DEADLINE_S, Frame, Hub, Start, Stream

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


def keys(frames: list[Frame]) -> list[str]:
    """What the frames are about: subjects of events, names of the rest."""
    return [frame.data.get("subject", frame.event) if frame.event == "message" else frame.event for frame in frames]


async def stream_count(hub: Hub, count: int) -> None:
    """Wait until so many streams are open."""
    async with asyncio.timeout(DEADLINE_S):
        while hub.app[BROADCASTER].statistics().connected_clients != count:
            await asyncio.sleep(0.005)


# What it answers


async def test_the_head_says_what_it_is_and_where_it_begins(hub: Hub) -> None:
    await hub.publish()
    async with hub.stream() as stream:
        hello = await stream.frame()
        headers = stream.response.headers

    assert headers["Content-Type"] == "text/event-stream"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert headers["X-Accel-Buffering"] == "no"
    assert headers["TaskHub-Stream"] == hello.data["stream"]
    assert headers["TaskHub-Position"] == hello.data["position"] == hello.id
    assert hello.data["position"].endswith("-1")
    assert 1000 <= (hello.retry or 0) <= 3000
    assert "Content-Length" not in headers


async def test_an_event_comes_as_one_frame_in_the_order_of_the_log(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        sent = [await hub.publish(subject=f"repo/{n}", data={"n": n}) for n in range(3)]
        frames = [await stream.frame() for _ in sent]

    assert [frame.event for frame in frames] == ["message"] * 3
    assert [frame.id for frame in frames] == [event["id"] for event in sent]
    assert [frame.data["data"] for frame in frames] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert frames[0].data["specversion"] == "1.0"


async def test_a_transient_event_is_live_and_has_no_place_in_the_log(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        sent = await hub.publish(transient=True)
        frame = await stream.frame()

    assert sent["position"] is None
    assert frame.id is None
    assert frame.data["id"] == sent["id"]


async def test_with_names_events_are_named_by_their_type(hub: Hub) -> None:
    async with hub.stream("names=1") as stream:
        await stream.until("ready")
        await hub.publish("build.finished")

        assert (await stream.frame()).event == "build.finished"


async def test_a_state_filter_tells_who_enters_and_leaves(hub: Hub) -> None:
    async with hub.stream("status=in_progress") as stream:
        await stream.until("ready")
        ticket = await hub.create("One")
        path = f"/api/v1/tickets/{ticket['key']}"
        for change in ({"status": "In Progress"}, {"priority": "high"}, {"status": "completed"}):
            assert (await hub.request("PATCH", path, json=change)).status == 200
        frames = [await stream.frame() for _ in range(3)]

    assert [frame.data["match"] for frame in frames] == ["enter", "update", "leave"]


async def test_ndjson_carries_the_same_one_line_each(hub: Hub) -> None:
    async with hub.stream(Accept="application/x-ndjson") as stream:
        first = [await stream.line(), await stream.line()]
        sent = await hub.publish()
        line = await stream.line()
        headers = stream.response.headers

    assert headers["Content-Type"] == "application/x-ndjson"
    assert headers["Cache-Control"] == "no-store, no-transform"
    assert [one["event"] for one in first] == ["hello", "ready"]
    assert (line["event"], line["id"], line["data"]["id"]) == ("message", sent["id"], sent["id"])


async def test_head_answers_the_headers_alone(hub: Hub) -> None:
    sent = await hub.publish()
    answer = await hub.request("HEAD", "/events/stream")
    lines = await hub.request("HEAD", "/events/stream", headers={"Accept": "application/x-ndjson"})

    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, "text/event-stream", b"")
    assert answer.headers["TaskHub-Position"] == sent["position"]
    assert lines.headers["Content-Type"] == "application/x-ndjson"
    assert hub.app[BROADCASTER].statistics().streams_opened == 0


async def test_head_refuses_what_get_refuses(hub: Hub) -> None:
    assert (await hub.request("HEAD", "/events/stream?statuss=x")).status == 400
    assert (await hub.request("HEAD", "/events/stream", headers={"Accept": "image/png"})).status == 406


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_other_methods_are_not_available(hub: Hub, method: str) -> None:
    answer = await hub.request(method, "/events/stream")

    assert (answer.status, answer.code, answer.headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD")


async def test_http_1_0_gets_a_body_without_chunks(hub: Hub) -> None:
    status, headers, body = await hub.raw(b"GET /events/stream?timeout=0.2 HTTP/1.0\r\nHost: localhost\r\n\r\n")

    assert status == 200
    assert "transfer-encoding" not in headers
    assert body.startswith(b"retry: ")
    assert b"\nevent: goodbye\n" in body
    assert body.endswith(b"}\n\n")


async def test_chunks_and_the_end_of_the_body_are_well_formed_in_http_1_1(hub: Hub) -> None:
    _, headers, body = await hub.raw(b"GET /events/stream?timeout=0.2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text += body[: int(size, 16)]
        assert body[int(size, 16) :][:2] == b"\r\n"
        body = body[int(size, 16) + 2 :]

    assert headers["transfer-encoding"] == "chunked"
    assert text.endswith(b"}\n\n")
    assert int(size, 16) == 0


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("text/*;q=0.5", "sse"),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("Application/X-NDJSON ; q=0.9", "ndjson"),
        ("application/*", "ndjson"),
        ("application/x-ndjson, */*;q=0.1", "ndjson"),
        ("application/x-ndjson;q=0.1, text/event-stream", "sse"),
        ("text/event-stream;q=0, */*", "ndjson"),
        ("image/png", None),
        ("text/event-stream;q=0", None),
        ("application/json", None),
        ("text/event-stream;q=nonsense", None),
    ],
)
def test_the_better_of_two_formats_is_taken(accept: str, media: str | None) -> None:
    assert accepted_media(accept) == media


# Where it begins


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", "earliest"),
        ("now", "now"),
        ("k7q2m4xa-1042", Position("k7q2m4xa", 1042)),
        ("15m", NOW - timedelta(minutes=15)),
        ("2h", NOW - timedelta(hours=2)),
        ("999999d", datetime(1970, 1, 1, tzinfo=UTC)),
        ("2026-11-20T08:00:00Z", NOW - timedelta(hours=1)),
        ("2026-11-20T17:00:00.5+09:00", NOW - timedelta(hours=1) + timedelta(seconds=0.5)),
        ("2026-11-20T17:00:00 09:00", NOW - timedelta(hours=1)),
    ],
)
def test_a_start_has_five_forms(text: str, start: object) -> None:
    assert parse_start(text, "since", NOW) == start


@pytest.mark.parametrize(
    "text",
    ["", "yesterday", "15", "-15m", "15 m", "2026-11-20", "2026-11-20T08:00:00", "2026-13-20T08:00:00Z",
     "0001-01-01T00:00:00+14:00", "abc", "abc-01", "ABC-1", "abc-1234567890123456789", "abc-1\n"],
)  # fmt: skip
async def test_any_other_start_is_named_as_wrong(hub: Hub, text: str) -> None:
    answer = await hub.get("/events/stream", params={"since": text})

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert list(answer.named) == ["since"]


async def test_the_header_wins_over_the_parameter_and_both_over_since(hub: Hub) -> None:
    ids = [(await hub.publish(subject=f"s{n}"))["id"] for n in range(4)]
    query = f"since=earliest&last_event_id={ids[1]}&limit=9"
    async with hub.stream(query, **{"Last-Event-ID": ids[2]}) as stream:
        by_header = keys(await stream.caught_up())
    async with hub.stream(query) as stream:
        by_parameter = keys(await stream.caught_up())
    async with hub.stream("since=earliest") as stream:
        by_since = keys(await stream.caught_up())

    assert by_header == ["hello", "s3", "ready"]
    assert by_parameter == ["hello", "s2", "s3", "ready"]
    assert by_since == ["hello", "s0", "s1", "s2", "s3", "ready"]


async def test_a_stream_since_a_while_ago_begins_there(hub: Hub) -> None:
    await hub.publish(subject="then")
    async with hub.stream("since=1h") as stream:
        frames = await stream.caught_up()

    assert keys(frames) == ["hello", "then", "ready"]
    assert frames[0].data["resume"] == "complete"


@pytest.mark.parametrize("seen", ["nonsense", "k7q2m4xa", "x" * 200, "k7q2m4xa-1\u00e9"])
async def test_a_last_event_id_that_is_none_gets_a_reset_and_not_a_status(hub: Hub, seen: str) -> None:
    sent = await hub.publish()
    async with hub.stream(**{"Last-Event-ID": seen}) as stream:
        hello, reset = await stream.frame(), await stream.frame()

    assert hello.data["resume"] == "reset"
    assert (reset.event, reset.data["reason"], reset.id) == ("reset", "invalid", sent["position"])
    assert reset.data["position"] == sent["position"]
    assert len(reset.data["requested"]) <= 64


async def test_bytes_that_are_no_text_in_a_last_event_id_get_a_reset(hub: Hub) -> None:
    head = b"GET /events/stream HTTP/1.0\r\nHost: localhost\r\nLast-Event-ID: \xff\xfe\r\n\r\n"
    status, _, body = await hub.raw(head, until=b"event: ready\n")

    assert status == 200
    assert b'"reason":"invalid","requested":"??"' in body


async def test_a_position_of_another_log_or_ahead_of_it_gets_a_reset(hub: Hub) -> None:
    sent = await hub.publish()
    epoch = sent["id"].partition("-")[0]
    reasons = []
    for seen in ("otherlog-1", f"{epoch}-99"):
        async with hub.stream(**{"Last-Event-ID": seen}) as stream:
            reasons.append((await stream.until("reset")).data["reason"])

    assert reasons == ["epoch_changed", "ahead"]


async def test_a_reset_names_where_the_tickets_of_the_filter_are(hub: Hub) -> None:
    query = "status=in_progress,received&assignee=none&label=!vip&type=ticket.*"
    async with hub.stream(query, **{"Last-Event-ID": "nonsense"}) as stream:
        url = (await stream.until("reset")).data["snapshot"]

    assert url == "/api/v1/tickets?show_completed=true&status=in_progress%2Creceived&person_in_charge=none"
    assert (await hub.get(url)).status == 200


def test_an_empty_or_unreadable_last_event_id_is_told_apart() -> None:
    assert resume_start("k7q2m4xa-7") == Position("k7q2m4xa", 7)
    assert resume_start("") == "invalid"


# Snapshots


async def test_a_snapshot_is_the_matching_tickets_and_then_everything_after_it(hub: Hub) -> None:
    await hub.create("Mine", labels=["mine"])
    await hub.create("Not mine")
    async with hub.stream("snapshot=1&label=mine") as stream:
        hello, snapshot, ready = await stream.frame(), await stream.frame(), await stream.frame()
        await hub.create("Mine too", labels=["mine"])
        entered = await stream.frame()

    assert [hello.id, hello.data["resume"]] == [None, "none"]
    assert [ticket["summary"] for ticket in snapshot.data["tickets"]] == ["Mine"]
    assert snapshot.data["more"] is False
    assert snapshot.id == ready.id
    assert (entered.data["match"], entered.data["data"]["ticket"]["summary"]) == ("enter", "Mine too")


async def test_a_large_snapshot_comes_in_pages_of_which_only_the_last_has_a_position(hub: Hub) -> None:
    for number in range(205):
        await hub.create(f"Ticket {number}")
    async with hub.stream("snapshot=1") as stream:
        frames = [frame for frame in await stream.caught_up() if frame.event == "snapshot"]

    assert [len(frame.data["tickets"]) for frame in frames] == [200, 5]
    assert [frame.data["more"] for frame in frames] == [True, False]
    assert [frame.id is None for frame in frames] == [True, False]


@pytest.mark.parametrize("since", ["earliest", "15m", "2026-11-20T09:12:03Z"])
async def test_a_snapshot_of_the_past_is_refused_instead_of_left_out(hub: Hub, since: str) -> None:
    answer = await hub.get(f"/events/stream?snapshot=1&since={since}")

    assert (answer.status, answer.named["since"]["did_you_mean"]) == (400, "now")


async def test_an_empty_snapshot_is_one_empty_page(hub: Hub) -> None:
    async with hub.stream("snapshot=true&status=completed") as stream:
        snapshot = await stream.until("snapshot")

    assert snapshot.data == {"tickets": [], "more": False}


# What is wrong


BAD: list[tuple[str, str, str | None]] = [
    ("statuss=received", "statuss", "status"),
    ("heartbeet=20", "heartbeet", "heartbeat"),
    ("person_in_charge=alice", "person_in_charge", None),
    ("status=recieved", "status", "Received"),
    ("status=!recieved", "status", "Received"),
    ("status=done", "status", "Completed"),
    ("phase=finished", "phase", None),
    ("priority=hihg", "priority", "high"),
    ("person_in_charge=alice", "person_in_charge", "assignee"),
    ("request_channel=email", "request_channel", "channel"),
    ("after=earliest", "after", "since"),
    ("type=ticket.creatd", "type", "ticket.created"),
    ("batch=2001", "batch", None),
    ("batch=-1", "batch", None),
    ("batch=", "batch", None),
    ("batch_max=0", "batch_max", None),
    ("batch_max=501", "batch_max", None),
    ("coalesce=tickets", "coalesce", "ticket"),
    ("heartbeat=4.9", "heartbeat", None),
    ("heartbeat=61", "heartbeat", None),
    ("heartbeat=nan", "heartbeat", None),
    ("names=perhaps", "names", None),
    ("snapshot=2", "snapshot", None),
    ("limit=0", "limit", None),
    ("limit=1e9", "limit", None),
    ("limit=1000000000", "limit", None),
    ("timeout=0", "timeout", None),
    ("timeout=inf", "timeout", None),
    ("errors=statuses", "errors", "status"),
    ("limit=1&limit=2", "limit", None),
    ("type=a%0d%0ab.c", "type", None),
    ("subject=a%00b", "subject", None),
]


@pytest.mark.parametrize(("query", "parameter", "instead"), BAD)
async def test_a_wrong_parameter_is_named_with_the_nearest_right_one(
    hub: Hub, query: str, parameter: str, instead: str | None
) -> None:
    answer = await hub.get(f"/events/stream?{query}")

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert list(answer.named) == [parameter]
    if instead is not None:
        assert answer.named[parameter]["did_you_mean"] == instead


async def test_a_value_that_does_not_exist_is_told_with_the_names_that_do(hub: Hub) -> None:
    answer = await hub.get("/events/stream?status=in_progress,opne&origin=web")

    assert answer.named["status"]["allowed"] == [
        "Received", "In Progress", "Verifying", "Completed", "Waiting", "Cancelled",
    ]  # fmt: skip
    assert "status: there is no status 'opne'; allowed are Received, In Progress" in answer.json["detail"]
    assert "mcp_tool" in answer.named["origin"]["allowed"]


async def test_everything_that_is_wrong_is_told_at_once(hub: Hub) -> None:
    answer = await hub.get("/events/stream?statuss=x&status=nonsense&batch=9999&since=never&coalesce=x&limit=1&limit=2")

    assert set(answer.named) == {"statuss", "status", "batch", "since", "coalesce", "limit"}


async def test_wrong_input_is_a_status_even_where_refusals_are_told_in_the_stream(hub: Hub) -> None:
    assert (await hub.get("/events/stream?errors=stream&status=nonsense")).status == 400
    assert (await hub.get("/events/stream", headers={"Accept": "image/png"})).code == "not_acceptable"


# Refusals


async def test_over_the_limit_a_stream_says_goodbye_and_a_retry_instead_of_a_status(start: Start) -> None:
    hub = await start(sse_max_streams=1)
    async with hub.stream() as first:
        await first.until("ready")
        async with hub.stream() as second:
            (goodbye,) = await second.rest()
            headers = second.response.headers

    assert headers["Content-Type"] == "text/event-stream"
    assert goodbye.event == "goodbye"
    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("limit", True)
    assert goodbye.retry == goodbye.data["retry_ms"] > 0


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("GET", {"params": {"errors": "status"}}),
        ("GET", {"headers": {"Accept": "application/x-ndjson"}}),
        ("GET", {"headers": {"Accept": "application/x-ndjson"}, "params": {"errors": "stream"}}),
    ],
)
async def test_over_the_limit_a_script_gets_a_status(start: Start, method: str, options: dict[str, Any]) -> None:
    hub = await start(sse_max_streams=1)
    async with hub.stream() as first:
        await first.until("ready")
        answer = await hub.request(method, "/events/stream", **options)
        head = await hub.request("HEAD", "/events/stream")

    assert head.status == 429
    assert (answer.status, answer.code) == (429, "too_many_streams")
    assert int(answer.headers["Retry-After"]) >= 1


async def test_without_a_database_a_stream_is_put_off_and_not_refused_for_good(hub: Hub) -> None:
    await hub.app[DATABASE].close()
    async with hub.stream("status=received") as stream:
        (goodbye,) = await stream.rest()
    answer = await hub.get("/events/stream?errors=status")
    head = await hub.request("HEAD", "/events/stream")

    assert goodbye.data["reason"] == "overloaded"
    assert goodbye.retry
    assert answer.status == 503
    assert int(answer.headers["Retry-After"]) >= 1
    assert head.status == 503


async def test_a_draining_process_sends_streams_elsewhere(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        await hub.app[BROADCASTER].drain(1)
        goodbye = await stream.until("goodbye")
        assert await stream.rest() == []
    async with hub.stream() as late:
        (refused,) = await late.rest()
    answer = await hub.get("/events/stream?errors=status")
    head = await hub.request("HEAD", "/events/stream")

    assert head.status == 503
    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("shutdown", True)
    assert refused.data["reason"] == "shutdown"
    assert (answer.status, answer.code) == (503, "draining")


# Ends


async def test_a_limit_ends_a_stream_with_done(hub: Hub) -> None:
    for number in range(3):
        await hub.publish(subject=f"s{number}")
    async with hub.stream("since=earliest&limit=2") as stream:
        frames = await stream.rest()

    assert keys(frames) == ["hello", "s0", "s1", "goodbye"]
    assert (frames[-1].data["reason"], frames[-1].data["reconnect"]) == ("done", False)


async def test_a_client_that_leaves_is_forgotten_at_once(start: Start) -> None:
    hub = await start(sse_heartbeat_s=60)  # it is not a heartbeat that finds nobody there
    async with hub.stream() as stream:
        await stream.until("ready")
        assert hub.app[BROADCASTER].statistics().connected_clients == 1

    await stream_count(hub, 0)


async def test_a_client_that_resets_its_connection_is_forgotten_at_once(start: Start) -> None:
    hub = await start(sse_heartbeat_s=60)
    with socket.create_connection(("127.0.0.1", hub.port)) as connection:
        connection.sendall(b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await stream_count(hub, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")

    await stream_count(hub, 0)


async def test_a_client_that_reads_slowly_gets_everything_in_order(start: Start) -> None:
    hub = await start(sse_buffer_bytes=4096, sse_write_timeout_s=600)
    reader, writer = await asyncio.open_connection("127.0.0.1", hub.port, limit=2**20)
    transport = cast(asyncio.Transport, writer.transport)
    subjects: list[int] = []
    try:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        transport.pause_reading()
        writer.write(b"GET /events/stream?type=big.one HTTP/1.0\r\nHost: localhost\r\n\r\n")
        await stream_count(hub, 1)
        data, count = {"text": "x" * 60_000}, 200
        for first in range(0, count, 10):
            batch = [{"type": "big.one", "subject": str(first + n), "data": data} for n in range(10)]
            assert (await hub.post("/events/batch", {"events": batch})).status == 201
        (slow,) = hub.app[BROADCASTER].statistics().streams
        transport.resume_reading()
        async with asyncio.timeout(DEADLINE_S):
            while len(subjects) < count:
                line = await reader.readline()
                if line.startswith(b'data: {"specversion"'):
                    subjects.append(int(line.partition(b'"subject":"')[2].partition(b'"')[0]))
    finally:
        writer.close()

    assert slow.events_sent < count
    assert slow.buffered_bytes < 200_000
    assert subjects == list(range(count))


async def test_many_streams_of_equal_and_different_filters_get_what_they_asked_for(hub: Hub) -> None:
    async with aiohttp.ClientSession() as session:
        queries = ["subject=a,z", "subject=a,z", "subject=b,z", "type=build.*", "subject=a,b,z", "subject=!a"]
        responses = [await session.get(f"{hub.url}/events/stream?{query}") for query in queries]
        streams = [Stream(response) for response in responses]
        for stream in streams:
            await stream.until("ready")
        for subject in ("a", "b", "c", "a", "z"):
            await hub.publish(subject=subject)
        got = ["" for _ in streams]
        for number, stream in enumerate(streams):
            while not got[number].endswith("z"):
                got[number] += (await stream.frame()).data["subject"]
            stream.response.close()

    assert got == ["aaz", "aaz", "bz", "abcaz", "abaz", "bcz"]
