"""A ticket's history, reference data, the resolver of filters, and snapshots."""

import asyncio
from typing import Any

import orjson
import pytest

from broadcaster.event import EventDraft, state_of
from broadcaster.filters import EVERYTHING, UnknownValue, parse_filter
from taskhub.publishing import EventPublisher
from taskhub.tickets.errors import InvalidInput
from taskhub.tickets.inputs import NewComment
from taskhub.tickets.views import filterable
from tests.taskhub.world import ALICE, World, caller, until


async def test_parts_that_were_not_asked_for_are_null(world: World) -> None:
    await world.create()

    detail = await world.tickets.get_ticket(ALICE, "TH-1")
    assert (detail.history, detail.comments, detail.relations, detail.attachments) == (None,) * 4
    full = await world.tickets.get_ticket(ALICE, "TH-1", include=["history", "comments", "relations", "attachments"])
    assert full.history is not None
    assert len(full.history) == 1
    assert (full.comments, full.relations, full.attachments) == ([], [], [])


async def test_history_is_newest_first_and_limited(world: World) -> None:
    await world.create()
    await world.create("another")
    for n in range(5):
        await world.update("TH-1", remarks=str(n))
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="done"))

    history = (await world.tickets.get_ticket(ALICE, "TH-1", include=["history"], history_limit=3)).history
    assert history is not None
    assert [(entry.type, entry.version, entry.changes, entry.comment) for entry in history] == [
        ("ticket.commented", 6, {}, "done"),
        ("ticket.updated", 6, {"remarks": ["3", "4"]}, None),
        ("ticket.updated", 5, {"remarks": ["2", "3"]}, None),
    ]
    assert (history[0].actor, history[0].origin) == ("user:alice", "rest_api")


async def test_published_events_with_a_tickets_key_are_not_its_history(world: World) -> None:
    await world.create()
    draft = EventDraft("build.finished", "user:mallory", "rest_api", b'{"changes":{"status":[1,2]}}', subject="TH-1")
    await EventPublisher(world.writer).publish(ALICE, [draft])

    history = (await world.tickets.get_ticket(ALICE, "TH-1", include=["history"])).history
    assert history is not None
    assert [entry.type for entry in history] == ["ticket.created"]


async def test_a_new_database_has_the_reference_data_to_begin_with(world: World) -> None:
    statuses = await world.tickets.statuses(ALICE)
    assert [(status.id, status.phase, status.is_default) for status in statuses] == [
        ("received", "todo", True), ("in_progress", "active", False), ("verifying", "review", False),
        ("completed", "done", False), ("waiting", "waiting", False), ("cancelled", "cancelled", False),
    ]  # fmt: skip
    channels = await world.tickets.request_channels(ALICE)
    assert [channel.name for channel in channels] == ["Email", "Phone", "Teams", "Chat/LLM", "Web Form"]
    categories = await world.tickets.categories(ALICE)
    assert [category.id for category in categories] == [
        "inquiry", "data_correction", "incident", "ux_improvement", "feature_request",
    ]  # fmt: skip
    for category in categories:
        details = await world.tickets.category_details(ALICE, category=category.name.upper())
        assert len(details) >= 3
        assert {detail.category.id for detail in details} == {category.id}
    assert len(await world.tickets.category_details(ALICE)) > 10
    with pytest.raises(InvalidInput):
        await world.tickets.category_details(ALICE, category="nonsense")
    assert await world.tickets.users(ALICE) == []
    assert await world.tickets.accounts(ALICE) == []
    assert await world.tickets.response_categories(ALICE) == []


async def test_users_are_sorted_by_name_and_narrowed_by_role(world: World) -> None:
    await world.add("users", "bob", role="manager", email="bob@example.com")
    await world.add("users", "Alice", role="agent")

    assert [user.id for user in await world.tickets.users(ALICE)] == ["alice", "bob"]
    assert [user.email for user in await world.tickets.users(ALICE, role="manager")] == ["bob@example.com"]
    with pytest.raises(InvalidInput) as refused:
        await world.tickets.users(ALICE, role="boss")
    assert "manager" in refused.value.problems[0].allowed


async def test_what_is_out_of_use_is_listed_as_such(world: World) -> None:
    await world.change_reference("statuses", "verifying", active=False)
    await world.change_reference("categories", "incident", active=False)

    assert [status.id for status in await world.tickets.statuses(ALICE) if not status.active] == ["verifying"]
    assert [category.id for category in await world.tickets.categories(ALICE) if not category.active] == ["incident"]


async def test_a_resolver_turns_what_people_write_into_ids(world: World) -> None:
    await world.add("users", "Bob Suzuki")
    await world.add("users", "Alice")
    await world.add("accounts", "Closed Shop", active=False)
    resolver = await world.tickets.resolver(ALICE)

    asked = {
        ("status", "In Progress"): "in_progress", ("status", "completed"): "completed", ("assignee", "me"): "alice",
        ("requestor", "BOB-SUZUKI"): "bob_suzuki", ("account", "closed shop"): "closed_shop",
        ("category", "incident"): "incident", ("channel", "chat/llm"): "chat_llm",
        ("label", "VIP customer"): "VIP customer",
        ("priority", "Urgent"): "urgent", ("phase", "Todo"): "todo", ("actor", "me"): "user:alice",
        ("actor", "user:bob"): "user:bob",
    }  # fmt: skip
    for (field, value), expected in asked.items():
        assert resolver.resolve(field, value) == expected
    with pytest.raises(UnknownValue) as unknown:
        resolver.resolve("status", "nonsense")
    assert "In Progress" in unknown.value.allowed
    with pytest.raises(UnknownValue):
        resolver.resolve("priority", "asap")
    stranger = await world.tickets.resolver(caller("agent:triage-bot"))
    assert stranger.resolve("assignee", "me") == "triage_bot"


async def test_what_filters_see_of_a_ticket_is_what_its_event_says(world: World) -> None:
    await world.add("users", "Alice")
    await world.create(person_in_charge="me", labels=["a"], request_channel="email", category="incident")
    [ticket] = (await world.tickets.snapshot("default", EVERYTHING)).tickets

    assert world.heard[-1].after == state_of(orjson.loads(orjson.dumps(ticket)))
    assert {**filterable(ticket), "label": list(filterable(ticket)["label"])} == world.heard[-1].after


async def test_a_snapshot_has_every_ticket_that_matches_and_the_position(world: World) -> None:
    for n in range(6):
        await world.create(f"ticket {n}", status=["received", "completed"][n % 2], labels=["odd"] * (n % 2))
    resolver = await world.tickets.resolver(ALICE)
    everything = await world.tickets.snapshot("default", EVERYTHING)
    odd = await world.tickets.snapshot("default", parse_filter([("label", "odd")], resolver))
    open_ones = await world.tickets.snapshot("default", parse_filter([("phase", "!done")], resolver))

    bounds = await world.log.bounds("default")
    assert (everything.epoch, everything.seq) == (bounds.epoch, bounds.head)
    assert [ticket.key for ticket in everything.tickets] == [f"TH-{n}" for n in range(1, 7)]
    assert [ticket.key for ticket in odd.tickets] == ["TH-2", "TH-4", "TH-6"]
    assert [ticket.key for ticket in open_ones.tickets] == ["TH-1", "TH-3", "TH-5"]


async def test_a_snapshot_taken_while_tickets_change_fits_its_position(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskhub.tickets.reads._SNAPSHOT_CHUNK", 3)
    for n in range(10):
        await world.create(f"ticket {n}")
    go_on = True

    async def keep_changing() -> None:
        n = 0
        while go_on:
            n += 1
            await world.update(f"TH-{1 + n % 10}", remarks=str(n))
            if n % 4 == 0:
                await world.create()

    changing = asyncio.create_task(keep_changing())
    for _ in range(5):
        before = len(world.heard)
        await until(lambda before=before: len(world.heard) > before + 2)  # type: ignore[misc]  # bound to this turn
        snapshot = await world.tickets.snapshot("default", EVERYTHING)
        replayed: dict[str, Any] = {}
        for event in await world.log.read("default", 0, snapshot.seq):
            replayed[event.parsed["ticket"]["key"]] = event.parsed["ticket"]
        assert {ticket.key: orjson.loads(orjson.dumps(ticket)) for ticket in snapshot.tickets} == replayed
    go_on = False
    await changing
