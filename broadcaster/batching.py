"""Batching: when the events that wait for a stream may go out, and how several become one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from broadcaster.event import Event
from broadcaster.filters import Filter
from broadcaster.frames import Item


@dataclass(frozen=True, slots=True)
class Batching:
    """What a stream asked for. `window_s` 0 is no batching. With `coalesce`, a batch has one event for each ticket."""

    window_s: float = 0.0
    max_events: int = 100
    coalesce: bool = False

    def due(self, now: float, last_flush: float, pending: int) -> float:
        """The time at which `pending` waiting events may go out: leading-edge, so at once after a quiet window."""
        if pending >= self.max_events:
            return now
        return max(now, last_flush + self.window_s)


UNBATCHED: Final = Batching()


@dataclass(frozen=True, slots=True)
class Span:
    """The events that a coalesced one stands for: how many, and the seq of the first."""

    count: int
    first: int


def coalesce(items: Sequence[Item], filter: Filter) -> tuple[list[Item], Mapping[str, Span]]:
    """Keep the newest event for each ticket, in the order of the newest.

    The one that stays carries the newest state, `changes` from the first before to the last after, and a match
    recomputed over that span; a ticket that was outside the filter before and after is dropped. Returns the items, and
    event id → span where it stands for more than one.
    """
    by_ticket: dict[str, list[Item]] = {}
    alone: dict[int, Item] = {}
    last_index: dict[str, int] = {}
    for index, (event, match) in enumerate(items):
        if event.transient or event.subject is None or (event.after is None and event.before is None):
            alone[index] = (event, match)
        else:
            by_ticket.setdefault(event.subject, []).append((event, match))
            last_index[event.subject] = index
    spans: dict[str, Span] = {}
    kept = alone
    for subject, own in by_ticket.items():
        first, last = own[0][0], own[-1][0]
        if len(own) == 1:
            kept[last_index[subject]] = own[0]
            continue
        span_match = filter.transition(first.before, last.after)
        if span_match is None:
            continue
        merged = _merged([event for event, _ in own])
        spans[merged.id] = Span(len(own), first.seq)
        kept[last_index[subject]] = (merged, span_match)
    return [kept[index] for index in sorted(kept)], spans


def _merged(events: Sequence[Event]) -> Event:
    last = events[-1]
    changes: dict[str, list[Any]] = {}
    for event in events:
        for name, (before, after) in event.changes.items():
            changes.setdefault(name, [before, after])[1] = after
    data = dict(last.parsed)
    data["changes"] = {name: change for name, change in changes.items() if change[0] != change[1]}
    return Event(
        workspace=last.workspace,
        epoch=last.epoch,
        seq=last.seq,
        id=last.id,
        time=last.time,
        type=last.type,
        subject=last.subject,
        actor=last.actor,
        origin=last.origin,
        ticket_version=last.ticket_version,
        trace=last.trace,
        data=orjson.dumps(data),
    )
