"""`taskhub watch`: reading SSE, following a stream over lost connections, and telling what was missed."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from taskhub.app import create_app
from taskhub.cli.sse import Frame, FrameReader
from taskhub.cli.watch import Refused, Watcher, print_json, print_line
from taskhub.settings.loading import load
from tests.e2e.harness.process import ROOT, clean_environment
from tests.taskhub.world import DEADLINE_S

UNREACHABLE = "http://127.0.0.1:1"

STREAM = (
    ": comment\n:\nretry: 1500\nid: e-1\nevent: hello\ndata: {}\n\n"
    "id: e-2\nevent: message\ndata: line one\ndata: line two\n\n"
    "event: without data\n\nid: e-3\n\n"
    "data: 佐藤\r\n\r\ndata:no space\nunknown: field\n\nevent: message\ndata: unfinished"
).encode()
FRAMES = [
    Frame("hello", "{}", "e-1"),
    Frame("message", "line one\nline two", "e-2"),
    Frame("message", "佐藤", "e-3"),
    Frame("message", "no space", "e-3"),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=20))
def test_frames_are_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    reader = FrameReader()
    places = [0, *sorted(cuts), len(STREAM)]

    frames = [frame for start, end in pairwise(places) for frame in reader.feed(STREAM[start:end])]

    assert frames == FRAMES
    assert (reader.retry_ms, reader.last_id) == (1500, "e-3")


def test_what_a_lost_connection_left_unfinished_is_dropped_but_the_position_is_kept() -> None:
    reader = FrameReader()
    reader.feed(b"id: e-1\ndata: one\n\ndata: half a li")

    reader.start()

    assert reader.feed(b"data: two\n\n") == [Frame("message", "two", "e-1")]


def frame(event: str, data: dict[str, Any], id: str | None = None, retry: int = 1) -> bytes:
    head = f"id: {id}\n" if id else ""
    return f"retry: {retry}\n{head}event: {event}\ndata: {json.dumps(data)}\n\n".encode()


def ticket_event(seq: int) -> dict[str, Any]:
    return {"specversion": "1.0", "id": f"e-{seq}", "type": "ticket.created", "subject": f"TH-{seq}", "data": {}}


HELLO = frame("hello", {"position": "e-0"}, "e-0")
DONE = frame("goodbye", {"reason": "done", "reconnect": False})

Connections = list[bytes | web.Response]


class Followed:
    """What a watcher showed and said, and what the server saw of it."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self.said: list[str] = []
        self.requests: list[web.BaseRequest] = []


async def follow(connections: Connections, parameters: list[tuple[str, str]] | None = None) -> Followed:
    """Follow a server that answers each connection with the next of `connections`."""
    followed = Followed()

    async def handler(request: web.Request) -> web.StreamResponse:
        followed.requests.append(request)
        answer = connections[len(followed.requests) - 1]
        if isinstance(answer, web.Response):
            return answer
        return web.Response(body=answer, content_type="text/event-stream")

    app = web.Application()
    app.router.add_get("/events/stream", handler)
    async with TestServer(app) as server:
        watcher = Watcher(
            lambda: str(server.make_url("")).rstrip("/"),
            "nowhere",
            parameters or [],
            {"x-api-key": "key"},
            lambda event: followed.shown.append(event["id"]),
            followed.said.append,
        )
        assert await watcher.follow() == 0
    return followed


async def test_a_lost_connection_is_taken_up_where_it_broke_off() -> None:
    followed = await follow(
        [
            HELLO + frame("message", ticket_event(1), "e-1") + b"id: e-2\ndata: {cut",
            web.Response(status=503),
            HELLO + frame("message", ticket_event(2), "e-2") + DONE,
        ],
        [("status", "in_progress"), ("actor", "!me")],
    )

    assert followed.shown == ["e-1", "e-2"]
    assert [request.headers.get("Last-Event-ID") for request in followed.requests] == [None, "e-1", "e-1"]
    assert all(request.query_string == "status=in_progress&actor=!me" for request in followed.requests)
    assert all(request.headers["x-api-key"] == "key" for request in followed.requests)


async def test_events_in_a_batch_are_shown_one_by_one() -> None:
    batch = frame("batch_update", {"events": [ticket_event(1), ticket_event(2)], "timestamp": ""}, "e-2")

    followed = await follow([HELLO + batch + frame("heartbeat", {"position": "e-9"}, "e-9") + DONE])

    assert followed.shown == ["e-1", "e-2"]


async def test_events_under_their_own_names_are_shown_too() -> None:
    followed = await follow([HELLO + frame("ticket.created", ticket_event(1), "e-1") + DONE])

    assert followed.shown == ["e-1"]


async def test_a_reset_is_reported_with_what_was_not_received() -> None:
    reset = {"reason": "expired", "requested": "e-10", "oldest": "e-100", "position": "e-250", "snapshot": "/x"}

    followed = await follow([HELLO + frame("reset", reset, "e-250") + DONE])

    assert (
        "not received: the events after e-10 (240 of all kinds), because they are no longer kept; going on from e-250"
    ) in followed.said


async def test_a_refusal_that_repeating_cannot_cure_ends_it() -> None:
    problem = {"title": "A query parameter is wrong", "detail": "statuss: there is no such parameter"}

    with pytest.raises(Refused, match="400 A query parameter is wrong: statuss: there is no such parameter"):
        await follow([web.json_response(problem, status=400)])


async def test_a_filter_that_is_almost_right_is_refused_with_what_was_meant(tmp_path: Path) -> None:
    async with TestServer(create_app(load({"data_dir": tmp_path}).settings)) as server:
        url = str(server.make_url("")).rstrip("/")
        watcher = Watcher(lambda: url, "", [("statuss", "received")], {}, lambda _: None, lambda _: None)

        with pytest.raises(Refused, match=r"did you mean status\?"):
            await watcher.follow()


EVENT = {
    "type": "ticket.status_changed",
    "subject": "TH-7",
    "time": "2026-11-20T09:12:03.123Z",
    "actor": "user:alice",
    "match": "enter",
    "data": {
        "ticket": {"summary": "Red\x1b[31m and\nlong " + "x" * 200},
        "changes": {"status": ["received", "in_progress"], "phase": ["todo", "active"], "labels": [[], ["a", "b"]]},
        "comment": "on it",
    },
}


def test_an_event_is_one_line_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    print_line(EVENT)

    line = capsys.readouterr().out
    assert " user:alice TH-7 Red [31m and long xxx" in line
    assert line.endswith("… · status_changed [enter] status: received → in_progress labels:  → a, b “on it”\n")
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert len(line) < 250


def test_a_ticket_of_a_snapshot_shows_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    ticket = {"key": "TH-7", "summary": "Printer is on fire", "status": "in_progress", "assignee": None}

    print_line({"type": "snapshot", "subject": "TH-7", "data": {"ticket": ticket}})

    assert "TH-7 Printer is on fire · snapshot status: in_progress assignee: -\n" in capsys.readouterr().out


def test_progress_is_shown_in_percent_with_its_note(capsys: pytest.CaptureFixture[str]) -> None:
    data = {"ticket": {"summary": "Printer"}, "changes": {"progress": [None, {"percent": 40, "note": "half"}]}}

    print_line({"type": "ticket.progress", "subject": "TH-7", "data": data})

    assert "TH-7 Printer · progress progress: - → 40 % half\n" in capsys.readouterr().out


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(EVENT)

    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert json.loads(line) == EVENT


async def test_a_server_that_comes_back_at_another_address_is_found_and_its_absence_said_once() -> None:
    followed = Followed()
    seen: list[str | None] = []

    def address(*servers: str) -> Callable[[], str | None]:
        places = [None, servers[0], UNREACHABLE, UNREACHABLE, None, None, servers[1]]

        def answer() -> str | None:
            seen.append(places[len(seen)])
            return seen[-1]

        return answer

    async def first(_: web.Request) -> web.Response:
        return web.Response(body=HELLO + frame("message", ticket_event(1), "e-1"), content_type="text/event-stream")

    async def second(request: web.Request) -> web.Response:
        followed.requests.append(request)
        return web.Response(body=HELLO + DONE, content_type="text/event-stream")

    apps = [web.Application(), web.Application()]
    for app, handler in zip(apps, (first, second), strict=True):
        app.router.add_get("/events/stream", handler)
    async with TestServer(apps[0]) as one, TestServer(apps[1]) as two:
        urls = [str(server.make_url("")).rstrip("/") for server in (one, two)]
        watcher = Watcher(address(*urls), "nowhere", [], {}, lambda _: None, followed.said.append)
        assert await watcher.follow() == 0

    assert followed.said == [
        "nowhere",
        f"connected to {urls[0]}, from e-0",
        f"not connected to {UNREACHABLE} (Connection refused); trying again",
        "nowhere",
        f"connected to {urls[1]}, from e-0",
        "goodbye: done",
    ]
    assert followed.requests[0].headers["Last-Event-ID"] == "e-1"


@pytest.mark.parametrize("form", ["", "--json"])
async def test_watch_ends_when_nobody_reads_what_it_prints(tmp_path: Path, form: str) -> None:
    environment = clean_environment({"TASKHUB_DATA_DIR": str(tmp_path / "none")})
    async with TestServer(create_app(load({"data_dir": tmp_path}).settings)) as server:
        url = str(server.make_url("")).rstrip("/")
        async with aiohttp.ClientSession() as session:
            await session.post(f"{url}/api/v1/tickets", json={"summary": "One"})
        # Nothing more happens after the one event: the end must be noticed without writing.
        watch = f"{sys.executable} -m taskhub watch --url {url} --since=earliest {form}"
        script = f"{watch} | head -n 1; exit ${{PIPESTATUS[0]}}"
        process = await asyncio.create_subprocess_exec(
            "bash",
            "-c",
            script,
            env=environment,
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            out, err = await asyncio.wait_for(process.communicate(), DEADLINE_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with what bash started

    assert process.returncode == 0
    assert out.count(b"\n") == 1
    assert [line for line in err.decode().splitlines() if not line.startswith("# connected to ")] == []


async def test_watch_without_a_server_says_how_to_start_one(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "taskhub", "watch",
        env=clean_environment({"TASKHUB_DATA_DIR": str(tmp_path)}), cwd=ROOT, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = await asyncio.wait_for(process.stderr.readline(), DEADLINE_S)
    finally:
        process.kill()
        await process.wait()

    assert said.decode() == f"# no server runs on {tmp_path}; `taskhub serve` starts one; waiting\n"
