"""Why a stream did or did not get an event."""

from dataclasses import dataclass
from typing import Literal

from broadcaster.event import Event, Position
from broadcaster.filters import Filter
from broadcaster.subscriber import Subscriber


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
