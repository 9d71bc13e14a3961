"""Lists, the board and snapshots read what they show, and of a narrow snapshot little more than what is in it."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from broadcaster.filters import EVERYTHING, parse_filter
from taskhub.tickets import reads
from taskhub.tickets.inputs import BoardQuery, TicketQuery
from tests.taskhub.world import ALICE, World

FILTERS = (
    {"status": "waiting"}, {"status": "!waiting"}, {"phase": "todo,active"}, {"phase": "!done"}, {"assignee": "alice"},
    {"assignee": "none"}, {"assignee": "alice,none"}, {"assignee": "!alice"}, {"requestor": "bob"}, {"account": "none"},
    {"category": "incident"}, {"channel": "email,none"}, {"priority": "high,none"}, {"label": "a"}, {"label": "a,none"},
    {"label": "none"}, {"label": "!a"}, {"ticket": "TH-3,TH-5"}, {"ticket": "TH-*"}, {"ticket": "XX-1"},
    {"status": "received", "label": "a", "priority": "!high"},
)  # fmt: skip


@pytest.fixture
async def world(world: World) -> World:
    """With twelve tickets that differ."""
    for name in ("Alice", "Bob"):
        await world.add("users", name)
    for number in range(12):
        await world.create(
            f"ticket {number}", description="long", remarks="long", response_details="long",
            status=["received", "in_progress", "waiting", "completed"][number % 4], waiting_reason="w",
            priority=["none", "high", "low"][number % 3], person_in_charge=[None, "alice", "bob"][number % 3],
            requestor=["bob", None][number % 2], category=[None, "incident"][number % 2],
            request_channel=["email", None, "phone"][number % 3], labels=[[], ["a"], ["a", "b"], ["b"]][number % 4],
        )  # fmt: skip
    return world


@pytest.fixture
async def statements() -> AsyncIterator[list[str]]:
    """What is sent to any database."""
    found: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        found.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield found
    event.remove(Engine, "before_cursor_execute", note)


async def test_rows_are_read_without_their_long_texts(world: World, statements: list[str]) -> None:
    await world.tickets.list_tickets(ALICE, TicketQuery())
    await world.tickets.get_board(ALICE, BoardQuery())
    await world.tickets.snapshot("default", EVERYTHING)

    rows = [statement for statement in statements if "tickets.summary" in statement]
    assert len(rows) >= 3
    for column in ("description", "remarks", "response_details"):
        assert not [statement for statement in rows if f"tickets.{column}" in statement]


async def test_a_snapshot_has_the_tickets_that_its_filter_accepts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = await world.tickets.resolver(ALICE)
    every = [parse_filter(wanted.items(), resolver) for wanted in FILTERS]

    narrowed = [await world.tickets.snapshot("default", matches) for matches in every]
    monkeypatch.setattr(reads, "narrowing", lambda *_: [])
    whole = [await world.tickets.snapshot("default", matches) for matches in every]

    for wanted, one, other in zip(FILTERS, narrowed, whole, strict=True):
        assert one == other, wanted


async def test_a_narrow_snapshot_reads_no_more_than_its_tickets(
    world: World, statements: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reads, "_SNAPSHOT_CHUNK", 1)
    matches = parse_filter([("status", "waiting"), ("priority", "low")], await world.tickets.resolver(ALICE))
    statements.clear()

    found = await world.tickets.snapshot("default", matches)

    assert [ticket.key for ticket in found.tickets] == ["TH-3"]
    assert len([statement for statement in statements if "tickets.summary" in statement]) == 2
