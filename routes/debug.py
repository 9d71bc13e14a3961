"""`/events/debug`: what the event engine does, for operators."""

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

from aiohttp import hdrs, web
from pydantic import BaseModel, Field

from broadcaster.errors import InvalidPosition, PositionExpired
from broadcaster.event import Event, EventDraft, Position
from broadcaster.explanation import Explanation
from broadcaster.filters import Clause, Filter
from broadcaster.frames import Format
from broadcaster.log import EventLog
from broadcaster.stream import StreamRequest
from routes.access import caller_with, is_page_of_data
from routes.api import Route
from routes.bodies import NoParameters, json_response, query_model
from routes.dashboard import OPERATOR, page
from routes.errors import RETRY_AFTER_S, Fault, Problem
from routes.keys import AUDIT, BROADCASTER, EVENT_LOG, INSTANCES, PUBLISHER
from taskhub.audit.record import Entry
from taskhub.instances import MAX_STREAMS, NotAllAnswered, Statistics, StreamNotFound
from taskhub.numbers import WHOLE

TEST_TYPE: Final = "debug.test"
TEST_TIMEOUT_S: Final = 5.0


class ExplainParameters(BaseModel):
    event: Annotated[str, Field(min_length=1, max_length=64)]
    stream: Annotated[str, Field(min_length=1, max_length=64)]


class StatisticsParameters(BaseModel):
    streams: Annotated[int, WHOLE] = Field(
        100, ge=0, le=MAX_STREAMS, description="streams of each instance to tell of, the ones furthest behind first"
    )


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A test event: until it was stored, and until a stream had it."""

    event: str
    commit_ms: float
    round_trip_ms: float


async def statistics(request: web.Request) -> web.Response:
    """GET /events/debug → Statistics; for browsers the page that shows them."""
    if is_page_of_data(request):
        response = await page(request, OPERATOR)
    else:
        workspace = caller_with(request, "admin").principal.workspace
        asked = query_model(request, StatisticsParameters)
        response = json_response(await request.app[INSTANCES].statistics(workspace, asked.streams))
    response.headers[hdrs.VARY] = hdrs.ACCEPT
    return response


async def end_stream(request: web.Request) -> web.Response:
    """DELETE /events/debug/streams/{id}: goodbye to one stream. Its client may come back, with its position."""
    caller, stream = caller_with(request, "admin"), request.match_info["id"]
    with _about(stream):
        await request.app[INSTANCES].end_stream(caller.principal.workspace, stream)
    await request.app[AUDIT].record(Entry.by(caller, "stream.ended", stream))
    return web.Response(status=204)


async def test(request: web.Request) -> web.Response:
    """POST /events/debug/test: publish one stored event, and measure until a stream of our own has it."""
    caller = caller_with(request, "admin")
    broadcaster, workspace = request.app[BROADCASTER], caller.principal.workspace
    subject = f"test-{secrets.token_hex(8)}"
    probe = Probe(subject)
    wish = StreamRequest(
        filter=Filter((("subject", Clause(exact=frozenset({subject}))),)),
        format=Format("ndjson"),
        chunked=False,
        principal="system:debug",
    )
    subscriber = await broadcaster.admit(workspace, wish)
    try:
        subscriber.start(probe)
        async with asyncio.timeout(TEST_TIMEOUT_S):
            await probe.ready.wait()
            draft = EventDraft(
                type=TEST_TYPE,
                actor=caller.principal.actor,
                origin="system",
                data=b"{}",
                subject=subject,
                request_id=caller.request_id,
                trace=caller.trace,
            )
            started = time.perf_counter()
            done = await request.app[PUBLISHER].publish(caller, [draft])
            committed = time.perf_counter()
            await probe.arrived.wait()
    except TimeoutError:
        detail = f"the test event did not come back within {TEST_TIMEOUT_S:g} seconds"
        raise Problem("overloaded", detail, members={"retryable": True}) from None
    finally:
        subscriber.disconnected()
    commit_ms, round_trip_ms = (round(1000 * (moment - started), 3) for moment in (committed, probe.arrived_at))
    return json_response(RoundTrip(done.events[0].id, commit_ms, round_trip_ms))


async def explain(request: web.Request) -> web.Response:
    """GET /events/debug/explain?event=&stream=: why that stream did or did not get that event."""
    caller = caller_with(request, "admin")
    asked = query_model(request, ExplainParameters)
    workspace = caller.principal.workspace
    event = await _event(request.app[EVENT_LOG], workspace, asked.event)
    with _about(asked.stream):
        return json_response(await request.app[INSTANCES].explain(workspace, event, asked.stream))


class Probe:
    """An outlet that only looks: for `ready`, then for the event about `subject`."""

    def __init__(self, subject: str) -> None:
        self._mark = subject.encode()
        self.ready = asyncio.Event()
        self.arrived = asyncio.Event()
        self.arrived_at = 0.0

    def write(self, data: bytes) -> int:
        if b'"event":"ready"' in data:
            self.ready.set()
        if b'"event":"message"' in data and self._mark in data:
            self.arrived_at = time.perf_counter()
            self.arrived.set()
        return 0

    def buffered(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


@contextmanager
def _about(stream: str) -> Iterator[None]:
    """What became of a question about a stream, as a problem."""
    try:
        yield
    except StreamNotFound:
        raise Problem("not_found", f"there is no stream {stream[:64]} on any instance") from None
    except NotAllAnswered:
        detail = f"no instance that answered has the stream {stream[:64]}, and not all of them did"
        headers = {"Retry-After": str(RETRY_AFTER_S)}
        raise Problem("not_all_answered", detail, headers=headers, members={"retryable": True}) from None


async def _event(log: EventLog, workspace: str, event_id: str) -> Event:
    try:
        seq = Position.parse(event_id).seq
    except InvalidPosition:
        reason = "must be the id of a stored event, such as k7q2m4xa-1042; transient events are not kept"
        raise Problem.of("bad_parameter", [Fault(reason, parameter="event")]) from None
    try:
        found = await log.read(workspace, seq - 1, 1) if seq > 0 else []
    except PositionExpired:
        found = []
    if not found or found[0].id != event_id:
        raise Problem("not_found", f"there is no event {event_id} in the log")
    return found[0]


ROUTES: Final = (
    Route(
        "GET", "/events/debug", statistics, "get_statistics", "Tell what the event engine does",
        detail="In the caller's workspace, on all instances together and on each. Not all have answered where "
        "`partial` is true. Browsers that ask for `text/html` get the operator page.",
        scope="admin", query=StatisticsParameters, answer=Statistics,
    ),
    Route(
        "GET", "/events/debug/explain", explain, "explain_event", "Tell why a stream did or did not get an event",
        scope="admin", query=ExplainParameters, answer=Explanation,
        problems=("not_found", "not_all_answered"),
    ),
    Route(
        "POST", "/events/debug/test", test, "test_stream", "Publish a test event and measure its way to a stream",
        scope="admin", query=NoParameters, answer=RoundTrip,
        problems=("too_many_streams", "draining", "overloaded"),
    ),
    Route(
        "DELETE", "/events/debug/streams/{id}", end_stream, "end_stream",
        "Say goodbye to a stream; its client may come back",
        scope="admin", media=(), status=204, problems=("not_found", "not_all_answered"),
    ),
)  # fmt: skip
