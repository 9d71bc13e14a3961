"""Walking a list while others write: nobody is met twice, and nobody who was there all the time is missed."""

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer

SORTS: Final = list(itertools.product(("updated", "created", "due", "priority", "key"), ("asc", "desc")))
FIXED: Final = ("created", "key")
"""What no write changes: in these orders a ticket keeps its place whatever is done to it."""
SEEDED: Final = 36
PAGE: Final = 4
BUSY_PAGES: Final = 8
"""So many pages of each walk have writes between them. Then the writer rests, or some walks would never end."""


@pytest.fixture(params=["sqlite", "postgresql"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    if request.param == "sqlite":
        return {}
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return {"TASKHUB_DATABASE_URL": postgres.create_migrated()}


@dataclass(eq=False)
class Writer:
    """Somebody who adds tickets, and changes every third one of those that were there: its place in three orders."""

    client: Api
    dice: random.Random
    writes: int = 0
    seeded: list[str] = field(default_factory=list)
    changed: set[str] = field(default_factory=set)

    def fields(self) -> dict[str, Any]:
        due = self.dice.choice([None, f"2026-12-0{self.dice.randint(1, 5)}"])
        return {"scheduled_completion_date": due, "priority": self.dice.choice(["none", "low", "high"])}

    async def seed(self) -> None:
        for number in range(SEEDED):
            self.seeded.append((await self.client.create(f"Seeded {number}", **self.fields()))["key"])

    async def written_again(self) -> None:
        before = self.writes
        await until(lambda: self.writes > before, "write between two pages")

    async def write(self, resting: Callable[[], bool]) -> None:
        while not resting():
            await self.client.create("Added", **self.fields())
            key = self.dice.choice(self.seeded[::3])
            self.changed.add(key)
            await self.client.change(key, summary=f"Changed {self.writes}", **self.fields())
            self.writes += 1


@dataclass(eq=False)
class Walk:
    """A list read to its end, page by page, in one order."""

    client: Api
    sort_by: str
    sort_order: str
    met: list[dict[str, Any]] = field(default_factory=list)
    busy: bool = True

    async def run(self, writer: Writer) -> None:
        query = {"sort_by": self.sort_by, "sort_order": self.sort_order, "limit": str(PAGE)}
        for number in itertools.count(1):
            page = await self.client.get("/api/v1/tickets", params=query)
            self.met += page["tickets"]
            self.busy = number < BUSY_PAGES and page["next_cursor"] is not None
            if page["next_cursor"] is None:
                return
            query["cursor"] = page["next_cursor"]
            if self.busy:
                await writer.written_again()

    def place(self, ticket: dict[str, Any]) -> Any:
        """What the order compares, ties left out."""
        rank = ("none", "low", "medium", "high", "urgent").index(ticket["priority"])
        known = {"updated": ticket["updated_at"], "priority": rank, "key": int(ticket["key"].partition("-")[2])}
        return known[self.sort_by]


async def test_a_walk_in_any_order_misses_none_and_repeats_none_while_others_write(
    make_hub: MakeHub, environment: dict[str, str]
) -> None:
    hub = await make_hub(environment=environment).start()
    async with api(hub.url) as client:
        writer = Writer(client, random.Random(26))
        await writer.seed()
        walks = [Walk(client, *sort) for sort in SORTS]
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.write(lambda: not any(walk.busy for walk in walks)))
            for walk in walks:
                group.create_task(walk.run(writer))

    assert writer.changed
    for walk in walks:
        order = f"sort_by={walk.sort_by}&sort_order={walk.sort_order}"
        moved = set() if walk.sort_by in FIXED else writer.changed
        met = Counter(ticket["key"] for ticket in walk.met)
        assert {key: count for key, count in met.items() if count > 1 and key not in moved} == {}, order
        assert set(writer.seeded) - moved - set(met) == set(), order
        if walk.sort_by in ("updated", "priority", "key"):
            places = [walk.place(ticket) for ticket in walk.met if ticket["key"] not in moved]
            assert places == sorted(places, reverse=walk.sort_order == "desc"), order
