"""`/events/stream`: the live stream, as SSE or NDJSON."""

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal
from urllib.parse import urlencode

import orjson
import structlog
from aiohttp import HttpVersion11, hdrs, web
from pydantic import BaseModel, Field

from broadcaster.batching import Batching
from broadcaster.errors import InvalidFilter, LogUnavailable
from broadcaster.event import Position
from broadcaster.filters import EVERYTHING, FILTER_NAMES, RESOLVED_NAMES, Filter, Resolver, parse_filter
from broadcaster.frames import SSE, Format
from broadcaster.stream import Snapshot, Start, StreamRefused, StreamRequest
from broadcaster.subscriber import Subscriber
from routes import outlet
from routes.access import caller_with, client_address
from routes.api import Route
from routes.bodies import parse_query
from routes.errors import RETRY_AFTER_S, Fault, Problem, parameter_faults, refusal
from routes.keys import BROADCASTER, SETTINGS, TICKETS
from routes.middlewares import GATE
from routes.positions import parse_start, printable, resume_start
from taskhub.auth.principal import Caller
from taskhub.headers import POSITION_HEADER
from taskhub.tickets.errors import StorageBusy
from taskhub.tickets.reference import UnknownFilterValue
from taskhub.tickets.service import TicketService

SNAPSHOT_PAGE: Final = 200
MAX_LIMIT: Final = 1_000_000
MAX_TIMEOUT_S: Final = 86_400

# A state filter's name → the parameter of the ticket list that asks the same.
_LIST_PARAMETERS: Final = {
    "status": "status", "phase": "phase", "assignee": "person_in_charge", "account": "account",
    "category": "category", "priority": "priority", "label": "label",
}  # fmt: skip

log = structlog.get_logger("taskhub.stream")
Media = Literal["sse", "ndjson"]


class StreamParameters(BaseModel):
    """The parameters of a stream that are not filters. Absent ones take the server's defaults."""

    since: str | None = Field(None, description="where to begin: earliest, now, an event id, 15m, or an RFC 3339 time")
    last_event_id: str | None = Field(None, description="the same as the header Last-Event-ID, which goes before it")
    snapshot: bool = Field(False, description="first the matching tickets, then every change after them")
    batch: int = Field(0, ge=0, le=2000, description="milliseconds for which events are collected into one frame")
    batch_max: int = Field(100, ge=1, le=500, description="events in a frame")
    coalesce: Literal["ticket"] | None = Field(None, description="of a batch only the newest event of each ticket")
    heartbeat: Annotated[float, Field(ge=5, le=60)] | None = Field(None, description="seconds between signs of life")
    names: bool = Field(False, description="SSE events are named after their types, not all `message`")
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT)] | None = Field(None, description="end after so many events")
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S)] | None = Field(
        None, description="end after so many seconds"
    )
    errors: Literal["stream", "status"] = Field(
        "stream", description="how to be told that there is no room: by a stream that is only a goodbye, or by a status"
    )


async def stream(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /events/stream."""
    caller = caller_with(request, "events:read")
    media = accepted_media(",".join(request.headers.getall(hdrs.ACCEPT, [])))
    if media is None:
        raise Problem("not_acceptable", f"a stream is {outlet.SSE_TYPE} or {outlet.NDJSON_TYPE}")
    in_stream = media == "sse" and request.method == hdrs.METH_GET and _errors_in_stream(request)
    broadcaster = request.app[BROADCASTER]
    try:
        wish = await read_wish(request, caller, media)
        if request.method == hdrs.METH_HEAD:
            broadcaster.check_room()
            position = await broadcaster.position(caller.principal.workspace)
            return _head_only(media, position)
        subscriber = await broadcaster.admit(caller.principal.workspace, wish)
    except (StreamRefused, StorageBusy, LogUnavailable) as error:
        refused = _as_refusal(error)
        if not in_stream:
            raise refusal(refused) from error
        return _goodbye(refused)
    return await _serve(request, subscriber, caller)


async def _serve(request: web.Request, subscriber: Subscriber, caller: Caller) -> web.StreamResponse:
    settings = request.app[SETTINGS]
    headers = {
        "TaskHub-Stream": subscriber.id,
        POSITION_HEADER: str(subscriber.began_at),
    }
    kind = outlet.EventStream if subscriber.request.format.kind == "sse" else outlet.LineStream
    response: outlet.Head = kind(headers)
    log.info(
        "stream opened",
        stream=subscriber.id,
        actor=caller.principal.actor,
        address=subscriber.request.address,
        filter=subscriber.request.filter.describe(),
        resume=subscriber.resume_outcome,
    )
    await outlet.run(request, response, subscriber, _closed, write_timeout_s=settings.sse_write_timeout_s)
    return response


def _closed(subscriber: Subscriber) -> None:
    log.info(
        "stream closed",
        stream=subscriber.id,
        actor=subscriber.request.principal,
        address=subscriber.request.address,
        reason=subscriber.end_reason,
        events=subscriber.events_sent,
        bytes=subscriber.bytes_sent,
        duration_s=round(time.monotonic() - subscriber.connected_at, 3),
    )


async def read_wish(request: web.Request, caller: Caller, media: Media) -> StreamRequest:
    """What the client asks for. Raises Problem with everything that is wrong with it, StorageBusy."""
    tickets = request.app[TICKETS]
    items = list(request.query.items())
    given, faults = parse_query(items, StreamParameters, also=FILTER_NAMES)
    since = request.query.get("since")
    start: Start = "now"
    if since is not None:
        parsed = parse_start(since, "since", datetime.now(UTC))
        if isinstance(parsed, Fault):
            faults.append(parsed)
        else:
            start = parsed
    if given is not None and given.snapshot and not (start == "now" or isinstance(start, Position)):
        reason = "a snapshot shows the tickets as they are now: leave out since, or give an id to resume from"
        faults.append(Fault(reason, parameter="since", did_you_mean="now"))
    selected = await read_filter(tickets, caller, items, faults)
    if given is None or faults:
        raise Problem.of("bad_parameter", faults)
    if given.snapshot:
        caller_with(request, "tickets:read")
    last_seen = request.headers.get("Last-Event-ID") or given.last_event_id
    if last_seen:
        start = resume_start(last_seen)
    requested = last_seen or since
    workspace = caller.principal.workspace
    heartbeat_s = given.heartbeat if given.heartbeat is not None else request.app[SETTINGS].sse_heartbeat_s
    return StreamRequest(
        filter=selected,
        format=Format(media, names=given.names),
        chunked=request.version >= HttpVersion11,
        start=start,
        requested=printable(requested) if requested else None,
        snapshot=_snapshot_reader(tickets, workspace, selected) if given.snapshot else None,
        snapshot_url=_snapshot_url(selected),
        batching=Batching(given.batch / 1000, given.batch_max, given.coalesce is not None),
        heartbeat_s=heartbeat_s,
        limit=given.limit,
        timeout_s=given.timeout,
        principal=caller.principal.actor,
        address=client_address(request, request.app[GATE].trusted) or "",
        credential=caller.principal.credential,
    )


async def read_filter(
    tickets: TicketService, caller: Caller, items: Sequence[tuple[str, str]], faults: list[Fault]
) -> Filter:
    """The filter among the parameters; what is wrong with it is added to `faults`. Raises StorageBusy."""
    chosen = [(name, text) for name, text in items if name in FILTER_NAMES]
    if not chosen:  # nothing to resolve, so nothing to read
        return EVERYTHING
    # Most ask for subjects, tickets or types: those need no read of the reference data for each stream.
    known = await tickets.resolver(caller) if any(name in RESOLVED_NAMES for name, _ in chosen) else None
    try:
        return parse_filter(chosen, _Naming(known, faults))
    except InvalidFilter as error:
        faults.extend(parameter_faults(error.problems))
        return Filter()


class _Naming:
    """A resolver that notes what it does not know as a fault, with the names that would be right, and lets the parser
    go on to whatever else is wrong. The filter counts only when no fault was noted."""

    def __init__(self, resolver: Resolver | None, faults: list[Fault]) -> None:
        self._resolver = resolver
        self._faults = faults

    def resolve(self, field: str, value: str) -> str:
        if self._resolver is None:
            raise RuntimeError(f"{field} is resolved and not among RESOLVED_NAMES")
        try:
            return self._resolver.resolve(field, value)
        except UnknownFilterValue as unknown:
            reason = f"there is no {field} {value[:80]!r}"
            fault = Fault(reason, parameter=field, did_you_mean=unknown.did_you_mean, allowed=unknown.allowed)
            self._faults.append(fault)
            return value


def accepted_media(accept: str) -> Media | None:
    """The better of the two formats for an Accept header (RFC 9110, section 12.5.1), SSE on a tie; None for neither."""
    if not accept.strip():
        return "sse"
    best: dict[str, tuple[int, float]] = {"sse": (-1, 0.0), "ndjson": (-1, 0.0)}
    types = {"sse": outlet.SSE_TYPE, "ndjson": outlet.NDJSON_TYPE}
    for element in accept.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        for media, full in types.items():
            # The most specific range that names a type decides its weight.
            ranges = ("*/*", full.partition("/")[0] + "/*", full)
            if name in ranges and ranges.index(name) > best[media][0]:
                best[media] = (ranges.index(name), weight)
    sse, ndjson = best["sse"][1], best["ndjson"][1]
    if ndjson > sse:
        return "ndjson"
    return "sse" if sse > 0 else None


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0


def _errors_in_stream(request: web.Request) -> bool:
    """`errors=status` asks for statuses; any other value than the two is an error of its own, told as a status."""
    return request.query.get("errors", "stream") == "stream"


def _as_refusal(error: StreamRefused | StorageBusy | LogUnavailable) -> StreamRefused:
    if isinstance(error, StreamRefused):
        return error
    return StreamRefused("overloaded", "the database does not answer", 1000 * RETRY_AFTER_S)


def _goodbye(refused: StreamRefused) -> web.Response:
    """A stream that ends at once. A status would make a browser's EventSource give up for good."""
    data = {"reason": refused.reason, "reconnect": True, "retry_ms": refused.retry_ms, "detail": refused.detail}
    return web.Response(
        body=SSE.control("goodbye", data, retry_ms=refused.retry_ms),
        headers={**outlet.STREAM_HEADERS, hdrs.CONTENT_TYPE: outlet.SSE_TYPE},
    )


def _head_only(media: Media, position: Position) -> web.StreamResponse:
    content_type = outlet.SSE_TYPE if media == "sse" else outlet.NDJSON_TYPE
    headers = {**outlet.STREAM_HEADERS, hdrs.CONTENT_TYPE: content_type, POSITION_HEADER: str(position)}
    return web.StreamResponse(headers=headers)


def _snapshot_reader(tickets: TicketService, workspace: str, selected: Filter) -> Callable[[], Awaitable[Snapshot]]:
    async def read() -> Snapshot:
        try:
            table = await tickets.snapshot(workspace, selected)
        except StorageBusy as error:
            raise LogUnavailable(str(error)) from error
        pages = [
            orjson.dumps(table.tickets[start : start + SNAPSHOT_PAGE])
            for start in range(0, len(table.tickets), SNAPSHOT_PAGE)
        ]
        return Snapshot(Position(table.epoch, table.seq), pages)

    return read


def _snapshot_url(selected: Filter) -> str:
    """Where a client that was reset finds the tickets by itself: the list, as narrow as its parameters can say."""
    parameters = [("show_completed", "true")]
    for name, clause in selected.clauses:
        # A list cannot say prefixes or negations; it then holds more than the filter, never less.
        if name in _LIST_PARAMETERS and clause.exact and not clause.prefixes:
            values = sorted("none" if value is None else value for value in clause.exact)
            if name == "assignee" or None not in clause.exact:
                parameters.append((_LIST_PARAMETERS[name], ",".join(values)))
    return f"/api/v1/tickets?{urlencode(parameters)}"


ROUTES: Final = (
    Route(
        "GET", "/events/stream", stream, "watch_events", "Watch events as they happen",
        detail="Server-Sent Events, or a line of JSON each with `Accept: application/x-ndjson`. HEAD answers the "
        "headers alone, with the position of the log. Frames, positions and delivery are described in the README.",
        scope="events:read", query=StreamParameters, filters=True, media=(outlet.SSE_TYPE, outlet.NDJSON_TYPE),
        takes=("Last-Event-ID",), sends=("TaskHub-Stream", POSITION_HEADER),
        problems=("not_acceptable", "too_many_streams", "draining", "overloaded"),
    ),
)  # fmt: skip
