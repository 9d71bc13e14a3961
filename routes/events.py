"""`/api/v1/events`: the same log as the stream, by polling or long polling."""

from datetime import UTC, datetime
from typing import Annotated, Any, Final

from aiohttp import web
from pydantic import BaseModel, Field

from broadcaster.filters import FILTER_NAMES, Match
from broadcaster.polling import MAX_WAIT_S, Poller
from routes.access import caller_with
from routes.api import Route
from routes.bodies import json_response, parse_query
from routes.errors import Fault, Problem
from routes.keys import BROADCASTER, EVENT_LOG, LIFECYCLE, TICKETS
from routes.positions import parse_start
from routes.stream import read_filter
from taskhub.headers import POSITION_HEADER
from taskhub.numbers import NUMBER, WHOLE


class PollParameters(BaseModel):
    """The parameters of a poll that are not filters."""

    after: str = Field("now", description="the position of the answer before; or earliest, now, 15m, an RFC 3339 time")
    limit: Annotated[int, Field(ge=1, le=500), WHOLE] = 100
    wait: Annotated[float, NUMBER] = Field(
        0, ge=0, le=MAX_WAIT_S, description="seconds to wait for an event when there is none"
    )


class CloudEvent(BaseModel):
    """An event as it was encoded when it happened (CloudEvents 1.0). `subject` and `ticketversion` are there where they
    apply, `match` where the filter asks for a ticket's state. `data` of an event about a ticket has `ticket`, its state
    after the event, and `changes`, field → [before, after]."""

    specversion: str
    id: str
    source: str
    type: str
    subject: str = ""
    time: str
    workspace: str
    actor: str
    origin: str
    ticketversion: int = 0
    data: dict[str, Any]
    match: Match = ""


class EventPage(BaseModel):
    """Events after a position. Go on with `after=<position>`, at once when there is `more`."""

    events: list[CloudEvent]
    position: str
    more: bool


async def poll(request: web.Request) -> web.Response:
    """GET /api/v1/events → EventPage."""
    caller = caller_with(request, "events:read")
    items = list(request.query.items())
    given, faults = parse_query(items, PollParameters, also=FILTER_NAMES)
    start = parse_start(request.query.get("after", "now"), "after", datetime.now(UTC))
    if isinstance(start, Fault):
        faults.append(start)
    selected = await read_filter(request.app[TICKETS], caller, items, faults)
    if given is None or isinstance(start, Fault) or faults:
        raise Problem.of("bad_parameter", faults)
    lifecycle = request.app[LIFECYCLE]
    poller = Poller(request.app[EVENT_LOG], request.app[BROADCASTER].wait_beyond, lambda: lifecycle.draining)
    found = await poller.poll(caller.principal.workspace, start, selected, limit=given.limit, wait_s=given.wait)
    position, more = str(found.position), b"true" if found.more else b"false"
    body = b'{"events":[' + b",".join(found.events) + b'],"position":"' + position.encode() + b'","more":' + more + b"}"
    return json_response(body, headers={POSITION_HEADER: position})


ROUTES: Final = (
    Route(
        "GET", "/api/v1/events", poll, "list_events", "Read the event log, by polling or long polling",
        scope="events:read", query=PollParameters, filters=True, answer=EventPage, sends=(POSITION_HEADER,),
        problems=("position_expired",),
        head=False,  # it would wait for events that it cannot show
    ),
)  # fmt: skip
