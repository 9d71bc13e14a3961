"""`/events/stream`: the live stream, as SSE or NDJSON."""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
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
from broadcaster.frames import Format
from broadcaster.stream import Snapshot, Start, StreamRequest
from broadcaster.subscriber import Subscriber
from routes import outlet
from routes.access import STREAM, TOKEN, client_address, failure_address
from routes.api import Route
from routes.bodies import parse_query
from routes.errors import Fault, Problem, parameter_faults
from routes.keys import BROADCASTER, CALLER, LIMITS, REQUEST_ID, SETTINGS, STREAM_ACCESS, TICKETS
from routes.middlewares import GATE
from routes.positions import parse_start, printable, resume_start
from routes.refusals import Media, asked_media
from taskhub import logs
from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import Caller
from taskhub.auth.providers import ACTOR_HEADER
from taskhub.headers import POSITION_HEADER
from taskhub.numbers import NUMBER, WHOLE
from taskhub.stream_tokens.model import StreamToken
from taskhub.tickets.errors import StorageBusy
from taskhub.tickets.reference import UnknownFilterValue
from taskhub.tickets.requests import require
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
_BESIDE_A_KEY: Final = ("X-API-Key", hdrs.AUTHORIZATION, ACTOR_HEADER)
"""Headers that say who calls, which a token does, too."""
_BESIDE_A_TOKEN: Final = frozenset({TOKEN, "last_event_id", "errors"})


class StreamParameters(BaseModel):
    """The parameters of a stream that are not filters. Absent ones take the server's defaults."""

    since: str | None = Field(None, description="where to begin: earliest, now, an event id, 15m, or an RFC 3339 time")
    last_event_id: str | None = Field(None, description="the same as the header Last-Event-ID, which goes before it")
    snapshot: bool = Field(False, description="first the matching tickets, then every change after them")
    batch: Annotated[int, WHOLE] = Field(
        0, ge=0, le=2000, description="milliseconds for which events are collected into one frame"
    )
    batch_max: Annotated[int, WHOLE] = Field(100, ge=1, le=500, description="events in a frame")
    coalesce: Literal["ticket"] | None = Field(None, description="of a batch only the newest event of each ticket")
    heartbeat: Annotated[float, Field(ge=5, le=60), NUMBER] | None = Field(
        None, description="seconds between signs of life"
    )
    names: bool = Field(False, description="SSE events are named after their types, not all `message`")
    limit: Annotated[int, Field(ge=1, le=MAX_LIMIT), WHOLE] | None = Field(None, description="end after so many events")
    timeout: Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S), NUMBER] | None = Field(
        None, description="end after so many seconds"
    )
    errors: Literal["stream", "status"] = Field(
        "stream", description="how to be told that there is no room: by a stream that is only a goodbye, or by a status"
    )


async def stream(request: web.Request) -> web.StreamResponse:
    """GET and HEAD /events/stream."""
    media = asked_media(request)
    if media is None:
        raise Problem("not_acceptable", f"a stream is {outlet.SSE_TYPE} or {outlet.NDJSON_TYPE}")
    opening = await _opening(request)
    require(opening.caller, "events:read")
    return await _open(request, opening, media)


@dataclass(frozen=True, slots=True)
class _Opening:
    """Who wants a stream, and what kind: by the query, or by a token."""

    caller: Caller
    items: Sequence[tuple[str, str]]
    token: StreamToken | None = None


async def _opening(request: web.Request) -> _Opening:
    """Raises Unauthenticated, and Problem for a token beside something that it does not go with."""
    items = list(request.query.items())
    if TOKEN not in request.query:
        return _Opening(request[CALLER], items)
    faults = [
        Fault("has no effect beside a token: leave it out", header=name)
        for name in _BESIDE_A_KEY
        if name in request.headers
    ]
    if faults:
        raise Problem.of("bad_header", faults)
    faults = [
        Fault("belongs to what the token was made for: send it with POST /events/tokens", parameter=name)
        for name in dict.fromkeys(request.query)
        if name not in _BESIDE_A_TOKEN
    ]
    if len(request.query.getall(TOKEN)) > 1:
        faults.append(Fault("is there more than once", parameter=TOKEN))
    if faults:
        raise Problem.of("bad_parameter", faults)
    token = await _token(request, request.query[TOKEN])
    address = client_address(request, request.app[GATE].trusted)
    request[CALLER] = caller = Caller(token.principal, "rest_api", request[REQUEST_ID], address)
    here = [(name, text) for name, text in items if name != TOKEN]
    given = {name for name, _ in here}
    return _Opening(caller, [*here, *((name, text) for name, text in token.parameters if name not in given)], token)


async def _token(request: web.Request, secret: str) -> StreamToken:
    """Raises Unauthenticated, StorageBusy, and what is told to those who come too often."""
    limits, sender = request.app[LIMITS], failure_address(request, request.app[GATE].trusted)
    limits.check_failures(sender, secret)
    limits.check_new_stream()
    try:
        token = await request.app[STREAM_ACCESS].find(secret)
    except Unauthenticated:
        limits.failed(sender)
        raise
    limits.succeeded(secret)
    return token


async def _open(request: web.Request, opening: _Opening, media: Media) -> web.StreamResponse:
    """Raises StreamRefused, StorageBusy and LogUnavailable, beside what is wrong with the request."""
    broadcaster, access, token = request.app[BROADCASTER], request.app[STREAM_ACCESS], opening.token
    workspace = opening.caller.principal.workspace
    if request.method == hdrs.METH_HEAD:
        await read_wish(request, opening.caller, media, opening.items)
        broadcaster.check_room()
        return _head_only(media, await broadcaster.position(workspace))
    if token is not None:
        access.replace_here(token)
    address = client_address(request, request.app[GATE].trusted)
    place = request.app[LIMITS].stream(opening.caller.principal, address)
    try:
        wish = await read_wish(request, opening.caller, media, opening.items)
        subscriber = await broadcaster.admit(workspace, wish)
        if token is not None:
            try:
                await access.opened(token, subscriber)
            except BaseException:
                subscriber.disconnected()
                raise
    except BaseException:
        place.leave()
        raise

    def closed(subscriber: Subscriber) -> None:
        place.leave()
        if token is not None:
            access.closed(token, subscriber)
        _closed(subscriber)

    return await _serve(request, subscriber, opening.caller, closed)


async def _serve(
    request: web.Request, subscriber: Subscriber, caller: Caller, closed: Callable[[Subscriber], None]
) -> web.StreamResponse:
    settings = request.app[SETTINGS]
    headers = {
        "TaskHub-Stream": subscriber.id,
        POSITION_HEADER: str(subscriber.began_at),
    }
    kind = outlet.EventStream if subscriber.request.format.kind == "sse" else outlet.LineStream
    response: outlet.Head = kind(headers)
    logs.note(stream=True)
    log.info(
        "stream opened",
        stream=subscriber.id,
        actor=caller.principal.actor,
        address=subscriber.request.address,
        filter=subscriber.request.filter.describe(),
        resume=subscriber.resume_outcome,
    )
    await outlet.run(request, response, subscriber, closed, write_timeout_s=settings.sse_write_timeout_s)
    return response


def _closed(subscriber: Subscriber) -> None:
    log.info(
        "stream closed",
        stream=subscriber.id,
        actor=subscriber.request.principal,
        address=subscriber.request.address,
        reason=subscriber.end_reason or "disconnected",
        events=subscriber.events_sent,
        bytes=subscriber.bytes_sent,
        duration_s=round(time.monotonic() - subscriber.connected_at, 3),
    )


class StreamAddress(StreamParameters):
    """Those, and what may stand for all of them."""

    token: str | None = Field(None, description="of POST /events/tokens: it says who asks, and for what")


@dataclass(frozen=True, slots=True)
class _Read:
    """The parameters of a stream, understood."""

    given: StreamParameters
    start: Start
    selected: Filter


async def read_parameters(
    tickets: TicketService, caller: Caller, items: Sequence[tuple[str, str]]
) -> tuple[_Read | None, list[Fault]]:
    """What a stream is asked for, and everything that is wrong with it. Raises StorageBusy, and Forbidden for more than
    the caller may see."""
    given, faults = parse_query(items, StreamParameters, also=FILTER_NAMES)
    since = dict(reversed(items)).get("since")
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
        return None, faults
    if given.snapshot:
        require(caller, "tickets:read")
    return _Read(given, start, selected), []


async def read_wish(
    request: web.Request, caller: Caller, media: Media, items: Sequence[tuple[str, str]]
) -> StreamRequest:
    """What the client asks for. Raises Problem with everything that is wrong with it, Forbidden, StorageBusy."""
    tickets = request.app[TICKETS]
    understood, faults = await read_parameters(tickets, caller, items)
    if understood is None:
        raise Problem.of("bad_parameter", faults)
    given, start, selected = understood.given, understood.start, understood.selected
    last_seen = request.headers.get("Last-Event-ID") or given.last_event_id
    if last_seen:
        start = resume_start(last_seen)
    requested = last_seen or given.since
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
        "GET", STREAM, stream, "watch_events", "Watch events as they happen",
        detail="Server-Sent Events, or a line of JSON each with `Accept: application/x-ndjson`. HEAD answers the "
        "headers alone, with the position of the log. Frames, positions and delivery are described in the README.",
        scope="events:read", query=StreamAddress, filters=True, media=(outlet.SSE_TYPE, outlet.NDJSON_TYPE),
        takes=("Last-Event-ID",), sends=("TaskHub-Stream", POSITION_HEADER),
        problems=("not_acceptable", "too_many_streams", "draining", "overloaded"),
    ),
)  # fmt: skip
