"""`/events/debug`: what the event engine does, for operators."""

import asyncio
import secrets
import time
from dataclasses import dataclass, fields
from typing import Annotated, Final, Literal

from aiohttp import web
from pydantic import BaseModel, Field

from broadcaster.engine import Broadcaster
from broadcaster.errors import InvalidPosition, PositionExpired
from broadcaster.event import Event, EventDraft, Position
from broadcaster.filters import Clause, Filter
from broadcaster.frames import Format
from broadcaster.log import EventLog
from broadcaster.report import BroadcastStatistics
from broadcaster.stream import StreamRequest
from broadcaster.subscriber import Subscriber
from routes.access import caller_with
from routes.api import Route
from routes.bodies import NoParameters, json_response, query_model
from routes.errors import Fault, Problem
from routes.keys import BROADCASTER, DATABASE, EVENT_LOG, LIFECYCLE, PUBLISHER
from taskhub import __version__
from taskhub.storage.database import Database
from taskhub.tickets.errors import StorageBusy

TEST_TYPE: Final = "debug.test"
TEST_TIMEOUT_S: Final = 5.0


class ExplainParameters(BaseModel):
    event: Annotated[str, Field(min_length=1, max_length=64)]
    stream: Annotated[str, Field(min_length=1, max_length=64)]


@dataclass(frozen=True, slots=True)
class InstanceStatistics(BroadcastStatistics):
    """Figures of this instance. `partial`: there may be others, whose figures are not in here. Rates are per second,
    latencies milliseconds."""

    instance: str
    version: str
    partial: bool
    draining: bool
    database: str


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A test event: until it was stored, and until a stream had it."""

    event: str
    commit_ms: float
    round_trip_ms: float


@dataclass(frozen=True, slots=True)
class FilterVerdict:
    name: str
    values: list[str]
    passes: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a stream did or did not get an event. `match`: how the event moves its ticket through the state asked for.

    A flip of that state is sent whatever the other names of the filter say: single verdicts may differ from the whole.
    """

    event: str
    stream: str
    verdict: Literal["filtered", "before_start", "pending", "sent"]
    detail: str
    match: str | None
    position: str
    state: str
    filter: list[FilterVerdict]


async def statistics(request: web.Request) -> web.Response:
    """GET /events/debug → InstanceStatistics."""
    caller_with(request, "admin")
    query_model(request, NoParameters)
    figures = request.app[BROADCASTER].statistics()
    answer = InstanceStatistics(
        # Not `asdict`: copying what thousands of streams say would hold the loop, orjson writes it as it stands.
        **{each.name: getattr(figures, each.name) for each in fields(figures)},
        instance=request.app[LIFECYCLE].instance,
        version=__version__,
        partial=figures.relay.state != "local",
        draining=request.app[LIFECYCLE].draining,
        database=await _database_state(request.app[DATABASE]),
    )
    return json_response(answer)


async def end_stream(request: web.Request) -> web.Response:
    """DELETE /events/debug/streams/{id}: goodbye to one stream. Its client may come back, with its position."""
    caller = caller_with(request, "admin")
    subscriber = _find(request.app[BROADCASTER], request.match_info["id"], caller.principal.workspace)
    request.app[BROADCASTER].end(subscriber, "rotate")
    return web.Response(status=204)


async def test(request: web.Request) -> web.Response:
    """POST /events/debug/test: publish one stored event, and measure until a stream of our own has it."""
    caller = caller_with(request, "admin")
    query_model(request, NoParameters)
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
    broadcaster, workspace = request.app[BROADCASTER], caller.principal.workspace
    subscriber = _find(broadcaster, asked.stream, workspace)
    event = await _event(request.app[EVENT_LOG], workspace, asked.event)
    return json_response(explanation(event, subscriber, broadcaster.position_of(subscriber)))


def explanation(event: Event, subscriber: Subscriber, position: Position) -> Explanation:
    """The verdict on one event and one stream, with what it rests on."""
    selected = subscriber.request.filter
    match = selected.match(event)
    verdict: Literal["filtered", "before_start", "pending", "sent"]
    if match is None:
        verdict, detail = "filtered", "the filter does not let it pass"
    elif event.seq <= subscriber.began_at.seq:
        verdict, detail = "before_start", f"the stream began after {subscriber.began_at}"
    elif event.seq > position.seq:
        verdict, detail = "pending", f"it will be sent: the stream is at {position}, {subscriber.state}"
    else:
        verdict, detail = "sent", "it was sent, or its ticket was in the snapshot"
    return Explanation(
        event=event.id,
        stream=subscriber.id,
        verdict=verdict,
        detail=detail,
        match=match or None,
        position=str(position),
        state=subscriber.state,
        filter=[
            FilterVerdict(name, clause.describe(), Filter(((name, clause),)).match(event) is not None)
            for name, clause in selected.clauses
        ],
    )


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


def _find(broadcaster: Broadcaster, stream_id: str, workspace: str) -> Subscriber:
    subscriber = broadcaster.find(stream_id)
    if subscriber is None or subscriber.workspace != workspace:
        raise Problem("not_found", f"there is no stream {stream_id[:64]} on this instance")
    return subscriber


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


async def _database_state(database: Database) -> str:
    try:
        await database.ping()
    except StorageBusy as busy:
        return f"away: {busy}"
    return "up"


ROUTES: Final = (
    Route(
        "GET", "/events/debug", statistics, "get_statistics", "Tell what the event engine does",
        scope="admin", query=NoParameters, answer=InstanceStatistics,
    ),
    Route(
        "GET", "/events/debug/explain", explain, "explain_event", "Tell why a stream did or did not get an event",
        scope="admin", query=ExplainParameters, answer=Explanation, problems=("not_found",),
    ),
    Route(
        "POST", "/events/debug/test", test, "test_stream", "Publish a test event and measure its way to a stream",
        scope="admin", query=NoParameters, answer=RoundTrip,
        problems=("too_many_streams", "draining", "overloaded"),
    ),
    Route(
        "DELETE", "/events/debug/streams/{id}", end_stream, "end_stream",
        "Say goodbye to a stream; its client may come back",
        scope="admin", media=(), status=204, problems=("not_found",),
    ),
)  # fmt: skip
