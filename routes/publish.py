"""`POST /events` and `/events/batch`: events of a caller's own."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from broadcaster.errors import InvalidEvent
from broadcaster.event import Event, EventDraft
from routes.access import caller_with
from routes.api import Route
from routes.bodies import (
    MAX_BATCH_BYTES,
    MAX_BODY_BYTES,
    NoParameters,
    idempotency_key,
    json_response,
    read_model,
)
from routes.errors import Fault, Problem, event_faults
from routes.keys import BROADCASTER, PUBLISHER
from taskhub.auth.principal import Caller
from taskhub.headers import IDEMPOTENCY_HEADER, POSITION_HEADER


class PublishedEvent(BaseModel):
    """An event as a client sends it. The engine checks type, subject and size."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: str
    subject: str | None = None
    data: dict[str, Any]
    transient: bool = False


class PublishedBatch(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    events: Annotated[list[PublishedEvent], Field(min_length=1, max_length=500)]


@dataclass(frozen=True, slots=True)
class Published:
    """An event was taken. `position`: after it in the log; a transient event has none. `replayed`: the stored answer of
    an earlier call with the same idempotency key."""

    id: str
    position: str | None
    replayed: bool


@dataclass(frozen=True, slots=True)
class PublishedAll:
    """A batch was taken. `ids` in the order sent; `position`: after the last event that is stored."""

    ids: list[str]
    position: str | None
    replayed: bool


async def publish(request: web.Request) -> web.Response:
    """POST /events → 201 Published."""
    caller = caller_with(request, "events:publish")
    event = await read_model(request, PublishedEvent, MAX_BODY_BYTES)
    ids, position, replayed = await _publish(request, caller, [event], prefix="")
    return _created(Published(ids[0], position, replayed))


async def publish_batch(request: web.Request) -> web.Response:
    """POST /events/batch → 201 PublishedAll: all or nothing, with contiguous positions."""
    caller = caller_with(request, "events:publish")
    batch = await read_model(request, PublishedBatch, MAX_BATCH_BYTES)
    ids, position, replayed = await _publish(request, caller, batch.events, prefix="/events/{}")
    return _created(PublishedAll(ids, position, replayed))


async def _publish(
    request: web.Request, caller: Caller, events: Sequence[PublishedEvent], *, prefix: str
) -> tuple[list[str], str | None, bool]:
    """Ids in the order sent, the position of the last stored event, and whether all this happened before.

    Stored events commit first, together; transient ones are sent only when that worked. Raises Problem.
    """
    drafts = _drafts(caller, events, prefix)
    stored = [draft for draft in drafts if not draft.transient]
    key = idempotency_key(request)
    if key is not None and len(stored) != len(drafts):
        # A transient event leaves nothing behind by which a repeat could be told from a new one.
        raise Problem.of("bad_header", [Fault("cannot be used with transient events", header=IDEMPOTENCY_HEADER)])
    events_stored: Iterator[Event] = iter(())
    position: str | None = None
    replayed = False
    if stored:
        done = await request.app[PUBLISHER].publish(caller, stored, key)
        events_stored, position, replayed = iter(done.events), done.position, done.replayed
    events_sent: Iterator[Event] = iter(())
    if len(stored) != len(drafts):
        transient = [draft for draft in drafts if draft.transient]
        events_sent = iter(request.app[BROADCASTER].publish_transient(caller.principal.workspace, transient))
    ids = [next(events_sent if draft.transient else events_stored).id for draft in drafts]
    return ids, position, replayed


def _drafts(caller: Caller, events: Sequence[PublishedEvent], prefix: str) -> list[EventDraft]:
    drafts: list[EventDraft] = []
    faults: list[Fault] = []
    for number, event in enumerate(events):
        draft = EventDraft(
            type=event.type,
            actor=caller.principal.actor,
            origin=caller.origin,
            data=orjson.dumps(event.data),
            subject=event.subject,
            transient=event.transient,
            request_id=caller.request_id,
            trace=caller.trace,
        )
        try:
            draft.check_publishable()
        except InvalidEvent as error:
            faults += event_faults(error.problems, prefix.format(number))
        drafts.append(draft)
    if faults:
        raise Problem.of("invalid_input", faults)
    return drafts


def _created(answer: Published | PublishedAll) -> web.Response:
    stamp = None if answer.position is None else {POSITION_HEADER: answer.position}
    return json_response(answer, status=201, headers=stamp)


ROUTES: Final = (
    Route(
        "POST", "/events", publish, "publish_event", "Publish an event of your own",
        scope="events:publish", query=NoParameters, body=PublishedEvent,
        example={"type": "build.finished", "subject": "repo/main", "data": {"ok": True}},
        answer=Published, status=201, takes=(IDEMPOTENCY_HEADER,), sends=(POSITION_HEADER,),
    ),
    Route(
        "POST", "/events/batch", publish_batch, "publish_events", "Publish several events: all of them or none",
        scope="events:publish", query=NoParameters, body=PublishedBatch,
        example={"events": [{"type": "build.started", "data": {}}, {"type": "build.finished", "data": {}}]},
        answer=PublishedAll, status=201, takes=(IDEMPOTENCY_HEADER,), sends=(POSITION_HEADER,),
    ),
)  # fmt: skip
