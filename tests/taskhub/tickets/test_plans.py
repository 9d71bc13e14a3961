"""How SQLite finds what a narrow list, board or check asks for: in an index, without looking at every ticket."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from taskhub.tickets.inputs import BoardQuery, TicketQuery
from tests.taskhub.world import ALICE, World

Read = Callable[[World], Awaitable[object]]


@pytest.fixture
def url(sqlite_url: str) -> str:
    """Of SQLite alone: PostgreSQL plans by the number of rows, which is small here."""
    return sqlite_url


@pytest.mark.parametrize(
    ("column", "read"),
    [
        (
            "account",
            lambda world: world.tickets.list_tickets(ALICE, TicketQuery(account=["acme"], show_completed=True)),
        ),
        ("category", lambda world: world.tickets.list_tickets(ALICE, TicketQuery(category=["incident"]))),
        ("account", lambda world: world.tickets.get_board(ALICE, BoardQuery(account=["acme"]))),
        ("category", lambda world: world.tickets.get_board(ALICE, BoardQuery(category=["incident"]))),
        ("account", lambda world: world.tickets.remove_reference(ALICE, "accounts", "acme")),
        ("assignee", lambda world: world.tickets.list_tickets(ALICE, TicketQuery(person_in_charge=["me"]))),
        ("assignee", lambda world: world.tickets.list_tickets(ALICE, TicketQuery(unassigned=True))),
    ],
    ids=[
        "list of an account", "list of a category", "board of an account", "board of a category", "removal",
        "list of a person", "list of nobody's",
    ],
)  # fmt: skip
async def test_the_tickets_of_an_account_a_category_or_a_person_are_found_by_their_index(
    world: World, column: str, read: Read
) -> None:
    await world.add("accounts", "Acme")
    await world.add("users", "Alice")
    await world.create(category="incident")
    plans = await plans_of(world, read, rf"tickets\.{column}_id (IN|=|IS) ")
    assert plans
    for plan in plans:
        assert f"ix_tickets_{column} (workspace_id=? AND {column}_id=?" in plan


async def test_tickets_that_a_search_has_found_are_looked_up_by_their_numbers(world: World) -> None:
    for n in range(3):
        await world.create(f"needle {n}")

    plans = await plans_of(
        world, lambda world: world.tickets.list_tickets(ALICE, TicketQuery(query="needle")), r"tickets\.no IN "
    )
    assert plans
    for plan in plans:
        assert "(workspace_id=? AND no=?)" in plan


async def plans_of(world: World, read: Read, about: str) -> list[str]:
    """How SQLite answers those questions of `read` that say this."""
    asked: list[tuple[str, Any]] = []

    def note(connection: object, cursor: object, statement: str, parameters: Any, *_: object) -> None:
        if statement.startswith("SELECT") and re.search(about, statement):
            asked.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        await read(world)
    finally:
        event.remove(Engine, "before_cursor_execute", note)

    def explain(connection: Connection) -> list[str]:
        return [
            " ".join(str(row[3]) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters))
            for statement, parameters in asked
        ]

    return await world.database.read(explain)
