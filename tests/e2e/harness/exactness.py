"""What a subscriber must have got, found out from the database, and whether it has: once, in order, complete.

The filter is evaluated here a second time, in the plainest way that the documentation allows, over the rows of the log:
nothing of the server's own code judges the server.
"""

import asyncio
import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

STATE_NAMES: Final = ("status", "phase", "assignee", "priority", "label")
UPDATED: Final = ("ticket.updated", "ticket.status_changed", "ticket.assigned")

_LOG: Final = (
    "SELECT seq, id, type, subject, actor, origin, ticket_version, data FROM events"
    " WHERE workspace_id = 'default' ORDER BY seq"
)

Query = Mapping[str, str]
"""Parameters of a stream: filter names with their values as one would write them."""


@dataclass(frozen=True, slots=True)
class Logged:
    """A row of the event log. `data` is decoded."""

    seq: int
    id: str
    type: str
    subject: str | None
    actor: str
    origin: str
    ticket_version: int | None
    data: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Got:
    """An event as a subscriber got it."""

    id: str
    type: str
    match: str | None


class NotExact(AssertionError):
    """A subscriber did not get each event that it asked for once, in order."""


async def read_log(database_url: str) -> list[Logged]:
    """The log of the default workspace, straight from the database."""
    if database_url.startswith("sqlite"):
        rows = await asyncio.to_thread(_sqlite_rows, database_url.partition(":///")[2])
    else:
        connection = await asyncpg.connect(database_url, timeout=30)
        try:
            rows = [tuple(row) for row in await connection.fetch(_LOG)]
        finally:
            await connection.close()
    return [
        Logged(seq, event_id, event_type, subject, actor, origin, version, json.loads(data))
        for seq, event_id, event_type, subject, actor, origin, version, data in rows
    ]


def _sqlite_rows(path: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(_LOG).fetchall()


def due(log: Sequence[Logged], query: Query, after: int) -> list[Got]:
    """What a stream with this filter gets of the events after a place."""
    return [
        Got(event.id, event.type, match or None)
        for event in log
        if event.seq > after and (match := matched(event, query)) is not None
    ]


def check_exact(name: str, query: Query, got: Sequence[Got], expected: Sequence[Got]) -> None:
    """Raise NotExact, saying where it begins, unless the two are equal."""
    if list(got) == list(expected):
        return
    place = next(
        (n for n, pair in enumerate(zip(got, expected, strict=False)) if pair[0] != pair[1]),
        min(len(got), len(expected)),
    )
    ids = [event.id for event in got]
    wanted = {event.id for event in expected}
    faults = {
        "twice": sorted({i for i in ids if ids.count(i) > 1})[:5] if len(ids) < 20_000 else "?",
        "missing": [event.id for event in expected if event.id not in set(ids)][:5],
        "not asked for": [event for event in ids if event not in wanted][:5],
    }
    raise NotExact(
        f"{name} with {dict(query)} got {len(got)} events, due were {len(expected)}; they part at {place}:"
        f" got {got[place : place + 2]}, due {expected[place : place + 2]}; {faults}"
    )


def matched(event: Logged, query: Query) -> str | None:
    """`enter`, `leave`, `update`, or "" without state filters; None for an event that does not pass."""
    if not _passes(query.get("subject"), event.subject):
        return None
    if not _passes(query.get("ticket"), event.subject if event.type.startswith("ticket.") else None):
        return None
    shown = (
        _passes(query.get("type"), event.type)
        and _passes(query.get("actor"), event.actor)
        and _passes(query.get("origin"), event.origin)
        and _any_passes(query.get("changed"), list(event.data.get("changes") or {}))
    )
    state_query = {name: query[name] for name in STATE_NAMES if name in query}
    if not state_query:
        return "" if shown else None
    before, after = _states(event)
    was, is_now = (state is not None and _holds(state_query, state) for state in (before, after))
    if was != is_now:
        return "enter" if is_now else "leave"
    return "update" if was and shown else None


def _states(event: Logged) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    ticket = event.data.get("ticket") if event.type.startswith("ticket.") else None
    if ticket is None:
        return None, None
    after = {name: ticket.get("labels" if name == "label" else name) for name in STATE_NAMES}
    after = {name: value["id"] if isinstance(value, dict) else value for name, value in after.items()}
    before: dict[str, Any] | None = dict(after)
    for name, (old, _) in event.data["changes"].items():
        if (known := "label" if name == "labels" else name) in after:
            assert before is not None
            before[known] = old
    if event.type in ("ticket.created", "ticket.restored"):
        before = None
    return before, None if event.type == "ticket.deleted" else after


def _holds(query: Query, state: Mapping[str, Any]) -> bool:
    return all(
        _any_passes(values, state["label"] or [None]) if name == "label" else _passes(values, state[name])
        for name, values in query.items()
    )


def _passes(values: str | None, value: str | None) -> bool:
    return _any_passes(values, [value])


def _any_passes(values: str | None, found: Sequence[str | None]) -> bool:
    """Whether one of `found` is wanted, if anything is, and none is refused."""
    if values is None:
        return True
    terms = values.split(",")
    refused = [term[1:] for term in terms if term.startswith("!")]
    wanted = [term for term in terms if not term.startswith("!")]
    if any(_is(term, value) for term in refused for value in found):
        return False
    return not wanted or any(_is(term, value) for term in wanted for value in found)


def _is(term: str, value: str | None) -> bool:
    if value is None:
        return term == "none"
    if term.endswith("*"):
        return value.startswith(term[:-1])
    return value in UPDATED if term == "task_updated" else value == term
