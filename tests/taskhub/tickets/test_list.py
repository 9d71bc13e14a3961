"""Lists: which tickets, in which order, page by page."""

import random
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from taskhub.auth.errors import Forbidden
from taskhub.tickets.errors import InvalidInput
from taskhub.tickets.inputs import NewComment, TicketQuery
from tests.taskhub.world import ALICE, World, caller


async def walk(world: World, limit: int = 2, **query: Any) -> list[str]:
    """All pages."""
    keys: list[str] = []
    cursor = None
    while True:
        page = await world.tickets.list_tickets(ALICE, TicketQuery(limit=limit, cursor=cursor, **query))
        assert len(page.tickets) <= limit
        keys += [ticket.key for ticket in page.tickets]
        cursor = page.next_cursor
        if cursor is None:
            return keys


async def test_an_empty_workspace_has_one_empty_page(world: World) -> None:
    page = await world.tickets.list_tickets(ALICE, TicketQuery())

    assert (page.tickets, page.next_cursor) == ([], None)
    assert page.position.endswith("-0")


async def test_the_newest_changes_come_first_and_finished_tickets_not_at_all(world: World) -> None:
    for status in ("received", "completed", "cancelled", "in_progress"):
        await world.create(status, status=status)
        world.tick()
    await world.update("TH-1", remarks="touched")

    assert await world.keys() == ["TH-1", "TH-4"]
    assert await world.keys(show_completed=True) == ["TH-1", "TH-4", "TH-3", "TH-2"]
    assert await world.keys(status=["completed"]) == ["TH-2"]
    assert await world.keys(phase=["cancelled", "done"]) == ["TH-3", "TH-2"]


async def test_the_position_was_true_of_the_rows(world: World) -> None:
    written = await world.create()
    page = await world.tickets.list_tickets(ALICE, TicketQuery())

    assert page.position == written.position
    assert page.tickets[0].key == "TH-1"


@pytest.fixture
async def board(world: World) -> World:
    """Seven tickets: a bit of everything."""
    await world.add("users", "Alice")
    await world.add("users", "Bob")
    await world.add("accounts", "Aozora")
    rows: list[dict[str, Any]] = [
        {"person_in_charge": "alice", "priority": "low", "labels": ["ux"], "account": "aozora"},
        {"person_in_charge": "bob", "priority": "urgent", "scheduled_completion_date": date(2026, 12, 1)},
        {"priority": "high", "scheduled_completion_date": date(2026, 11, 25), "category": "incident"},
        {"status": "in_progress", "person_in_charge": "alice", "labels": ["ux", "vip"], "category": "inquiry"},
        {"status": "waiting", "waiting_reason": "x", "scheduled_completion_date": date(2026, 12, 1)},
        {"blocked_by": ["TH-4"], "priority": "medium", "description": "全角テキスト と Ｌｏｇ_100%"},
        {"blocked_by": ["TH-8"], "labels": ["ux%"]},
    ]
    await world.create("ticket 1", **rows[0])
    for n, row in enumerate(rows[1:6], start=2):
        world.tick()
        await world.create(f"ticket {n}", **row)
    world.tick()
    await world.create("ticket 7", status="completed")
    world.tick()
    await world.create("ticket 8", **rows[6] | {"blocked_by": ["TH-7"]})
    return world


NARROWED: list[tuple[dict[str, Any], list[int]]] = [
    ({"person_in_charge": ["ALICE"]}, [1, 4]),
    ({"person_in_charge": ["me"]}, [1, 4]),
    ({"person_in_charge": ["none", "bob"]}, [2, 3, 5, 6, 8]),
    ({"unassigned": True}, [3, 5, 6, 8]),
    ({"unassigned": False}, [1, 2, 4]),
    ({"account": ["Aozora"]}, [1]),
    ({"account": ["none"]}, [2, 3, 4, 5, 6, 8]),
    ({"status": ["In Progress", "waiting"]}, [4, 5]),
    ({"phase": ["todo"]}, [1, 2, 3, 6, 8]),
    ({"category": ["incident", "inquiry"]}, [3, 4]),
    ({"label": ["vip"]}, [4]),
    ({"label": ["ux", "nothing"]}, [1, 4]),
    ({"priority": ["urgent", "low"]}, [1, 2]),
    ({"scheduled_completion_date_from": date(2026, 11, 26)}, [2, 5]),
    ({"scheduled_completion_date_to": date(2026, 11, 25)}, [3]),
    ({"ready": True}, [1, 2, 3, 8]),
    ({"ready": False}, [4, 5, 6]),
    ({"query": "ticket 3"}, [3]),
    ({"query": "TH-4"}, [4]),
    ({"query": "テキスト"}, [6]),
    ({"query": "LOG_100%"}, [6]),
    ({"query": "log5100%"}, []),
    ({"query": "%"}, []),
    ({"query": "100%"}, [6]),
    ({"query": "ticket -nothing"}, []),
    ({"updated_since": datetime(2026, 11, 20, 12, 0, 0, 4000, tzinfo=UTC)}, [4, 5, 6, 8]),
    ({"updated_since": datetime(2026, 11, 20, 21, 0, 0, 5000, tzinfo=timezone(timedelta(hours=9)))}, [4, 6, 8]),
    ({"person_in_charge": ["alice"], "label": ["ux"], "phase": ["active"]}, [4]),
    ({"show_completed": True}, [1, 2, 3, 4, 5, 6, 7, 8]),
]


async def test_each_parameter_narrows_the_list(board: World) -> None:
    for query, numbers in NARROWED:
        assert await board.keys(sort_by="key", sort_order="asc", **query) == [f"TH-{n}" for n in numbers], query


async def test_comments_are_searched_too(board: World) -> None:
    await board.tickets.add_comment(ALICE, "TH-2", NewComment(comment="A Special Remark"))

    assert await board.keys(query="special ticket") == ["TH-2"]


async def test_a_ticket_is_ready_when_its_last_open_blocker_is_done(board: World) -> None:
    assert "TH-6" not in await board.keys(ready=True)
    await board.update("TH-4", status="completed")

    assert "TH-6" in await board.keys(ready=True)


ORDERS = [
    ("key", [1, 2, 3, 4, 5, 6, 7, 8]),
    ("created", [1, 2, 3, 4, 5, 6, 7, 8]),
    ("updated", [2, 3, 5, 4, 6, 7, 8, 1]),
    ("priority", [4, 5, 7, 8, 1, 6, 3, 2]),
]


async def test_pages_in_either_order_make_the_whole_list(board: World) -> None:
    board.tick()
    await board.update("TH-1", remarks="touched")
    for sort_by, ascending in ORDERS:
        for limit in (1, 3, 100):
            up = await walk(board, limit, sort_by=sort_by, sort_order="asc", show_completed=True)
            down = await walk(board, limit, sort_by=sort_by, sort_order="desc", show_completed=True)

            assert up == [f"TH-{n}" for n in ascending]
            assert down == up[::-1]


async def test_tickets_without_a_date_come_last_in_either_order(board: World) -> None:
    for limit in [1, 2, 3, 100]:
        up = await walk(board, limit, sort_by="due", sort_order="asc", show_completed=True)
        down = await walk(board, limit, sort_by="due", sort_order="desc", show_completed=True)

        assert up == [f"TH-{n}" for n in (3, 2, 5, 1, 4, 6, 7, 8)]
        assert down == [f"TH-{n}" for n in (5, 2, 3, 8, 7, 6, 4, 1)]


@pytest.mark.parametrize("sort_by", ["updated", "created", "due", "priority", "key"])
@pytest.mark.parametrize("sort_order", ["asc", "desc"])
async def test_a_walk_while_tickets_are_created_repeats_and_misses_none(
    world: World, sort_by: Any, sort_order: Any
) -> None:
    dice = random.Random(f"{sort_by} {sort_order}")

    async def create_some(count: int) -> None:
        for _ in range(count):
            due = dice.choice([None, date(2026, 12, dice.randint(1, 3))])
            priority = dice.choice(["none", "low", "high"])
            await world.create(scheduled_completion_date=due, priority=priority)
            if dice.random() < 0.5:
                world.tick()

    await create_some(9)
    there_from_the_start = set(await world.keys(limit=100))
    walked: list[str] = []
    cursor = None
    while True:
        query = TicketQuery(sort_by=sort_by, sort_order=sort_order, limit=2, cursor=cursor)
        page = await world.tickets.list_tickets(ALICE, query)
        walked += [ticket.key for ticket in page.tickets]
        cursor = page.next_cursor
        if cursor is None:
            break
        if len(walked) < 30:
            await create_some(1)

    assert len(set(walked)) == len(walked)
    assert there_from_the_start <= set(walked)


async def test_a_cursor_is_bound_to_its_query(board: World) -> None:
    page = await board.tickets.list_tickets(ALICE, TicketQuery(limit=1))
    cursor = page.next_cursor
    assert cursor is not None

    other_limit = await board.tickets.list_tickets(ALICE, TicketQuery(limit=3, cursor=cursor))
    assert len(other_limit.tickets) == 3
    for other in ({"sort_by": "key"}, {"sort_order": "asc"}, {"label": ["ux"]}, {"query": "x"}, {"ready": True}):
        with pytest.raises(InvalidInput) as refused:
            await board.tickets.list_tickets(ALICE, TicketQuery(cursor=cursor, **other))
        assert [problem.pointer for problem in refused.value.problems] == ["/cursor"]


async def test_a_cursor_that_was_changed_anywhere_is_refused(board: World) -> None:
    cursor = (await board.tickets.list_tickets(ALICE, TicketQuery(limit=1))).next_cursor
    assert cursor is not None
    changed = [cursor[:i] + ("A" if cursor[i] != "A" else "B") + cursor[i + 1 :] for i in range(len(cursor))]

    for bad in (*changed, "", "x", "é", cursor + "=", cursor + "AAAA", cursor[:-1], cursor * 5):
        with pytest.raises(InvalidInput) as refused:
            await board.tickets.list_tickets(ALICE, TicketQuery(limit=1, cursor=bad))
        assert [problem.pointer for problem in refused.value.problems] == ["/cursor"]


async def test_unknown_values_are_named_with_what_is_allowed(board: World) -> None:
    with pytest.raises(InvalidInput) as refused:
        await board.tickets.list_tickets(
            ALICE, TicketQuery(status=["completd"], person_in_charge=["zoe"], account=["x"], category=["none", "y"])
        )

    problems = {problem.pointer: problem for problem in refused.value.problems}
    assert set(problems) == {"/status", "/person_in_charge", "/account", "/category"}
    assert problems["/status"].did_you_mean == "Completed"
    assert problems["/person_in_charge"].allowed == ("Alice", "Bob")


UNSTORABLE: list[dict[str, Any]] = [
    {"query": "a\0"},
    {"label": ["\0"]},
    {"updated_since": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9)))},
]


async def test_values_that_no_database_takes_are_refused(world: World) -> None:
    for query in UNSTORABLE:
        with pytest.raises(InvalidInput) as refused:
            await world.keys(**query)

        assert [problem.pointer for problem in refused.value.problems] == [f"/{name}" for name in query]


async def test_reading_needs_its_scope(world: World) -> None:
    nobody = caller(scopes=["tickets:write"])
    with pytest.raises(Forbidden, match="tickets:read"):
        await world.keys(by=nobody)
    with pytest.raises(Forbidden):
        await world.tickets.get_ticket(nobody, "TH-1")
    with pytest.raises(Forbidden):
        await world.tickets.statuses(nobody)
    with pytest.raises(Forbidden, match="events:read"):
        await world.tickets.resolver(nobody)
