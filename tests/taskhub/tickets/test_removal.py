"""Deleting tickets and having them back; answers that end a wait."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from taskhub.storage.schema import tickets
from taskhub.tickets.errors import LeaseHeld, LeaseLost, TicketGone, TicketNotFound, VersionConflict
from taskhub.tickets.inputs import NewComment
from tests.taskhub.leasing import hold
from tests.taskhub.world import ALICE, World, caller, rows

BOB = caller("user:bob")


def heard(world: World) -> list[tuple[str, str | None, int | None, dict[str, Any]]]:
    found = [(event.type, event.subject, event.ticket_version, dict(event.changes)) for event in world.heard]
    world.heard.clear()
    return found


@pytest.fixture
async def world(world: World) -> World:
    """TH-1 blocks TH-2."""
    await world.create("one", labels=["a", "b"], description="text")
    await world.create("two", blocked_by=["TH-1"])
    world.heard.clear()
    world.tick()
    return world


async def test_a_deleted_ticket_is_gone_and_what_it_blocked_is_ready(world: World) -> None:
    written = await world.tickets.delete_ticket(ALICE, "th-1")

    assert (written.key, written.version) == ("TH-1", 3)
    assert heard(world) == [
        ("ticket.deleted", "TH-1", 3, {"deleted": [False, True]}),
        ("ticket.unblocked", "TH-2", 2, {"blocked": [True, False]}),
    ]
    with pytest.raises(TicketGone) as gone:
        await world.ticket("TH-1")
    assert gone.value.summary == "one"
    assert await world.keys(show_completed=True) == ["TH-2"]
    assert await world.keys(ready=True) == ["TH-2"]
    stored = await rows(world.database, select(tickets.c.deleted_at).where(tickets.c.no == 1))
    assert stored[0][0] == "2026-11-20T12:00:00.001Z"


async def test_nothing_can_be_done_to_a_deleted_ticket_but_to_restore_it(world: World) -> None:
    await world.tickets.delete_ticket(ALICE, "TH-1")

    with pytest.raises(TicketGone):
        await world.tickets.delete_ticket(ALICE, "TH-1")
    with pytest.raises(TicketGone):
        await world.update("TH-1", remarks="x")
    assert [event.type for event in world.heard] == ["ticket.deleted", "ticket.unblocked"]


async def test_a_restored_ticket_is_as_it_was_and_blocks_again(world: World) -> None:
    before = await world.ticket("TH-1")
    await world.tickets.delete_ticket(ALICE, "TH-1")
    world.heard.clear()
    world.tick()

    written = await world.tickets.restore_ticket(ALICE, "TH-1")

    after = await world.ticket("TH-1")
    assert replace(after, version=before.version, updated_at=before.updated_at) == before
    assert (written.version, after.version) == (4, 4)
    assert heard(world) == [
        ("ticket.restored", "TH-1", 4, {"deleted": [True, False]}),
        ("ticket.updated", "TH-2", 3, {"blocked": [False, True]}),
    ]


async def test_whether_a_restored_ticket_is_blocked_is_found_out_anew(world: World) -> None:
    await world.tickets.delete_ticket(ALICE, "TH-2")
    await world.update("TH-1", status="completed")
    world.heard.clear()

    await world.tickets.restore_ticket(ALICE, "TH-2")

    assert heard(world) == [("ticket.restored", "TH-2", 3, {"deleted": [True, False], "blocked": [True, False]})]
    assert await world.keys(ready=True) == ["TH-2"]


async def test_the_versions_of_a_deleted_ticket_are_those_of_its_events(world: World) -> None:
    await world.tickets.delete_ticket(ALICE, "TH-2")
    await world.update("TH-1", status="completed")
    await world.update("TH-1", status="received")
    await world.tickets.restore_ticket(ALICE, "TH-2")

    assert [event.ticket_version for event in world.heard if event.subject == "TH-2"] == [2, 3]
    assert (await world.ticket("TH-2")).version == 3
    assert (await world.ticket("TH-2")).blocked


async def test_restoring_what_is_there_is_a_noop(world: World) -> None:
    answer = await world.tickets.restore_ticket(ALICE, "TH-1")

    assert (answer.noop, answer.version, world.heard) == (True, 2, [])
    with pytest.raises(TicketNotFound):
        await world.tickets.restore_ticket(ALICE, "TH-9")


async def test_only_the_version_that_was_deleted_is_restored(world: World) -> None:
    first = await world.tickets.delete_ticket(ALICE, "TH-1")
    await world.tickets.restore_ticket(BOB, "TH-1", expected_version=first.version)
    await world.tickets.delete_ticket(BOB, "TH-1")

    with pytest.raises(VersionConflict) as conflict:
        await world.tickets.restore_ticket(ALICE, "TH-1", expected_version=first.version)
    assert (conflict.value.current, conflict.value.actors) == (5, ["user:bob"])
    restored = await world.tickets.restore_ticket(ALICE, "TH-1", expected_version=5, idempotency_key="k")
    again = await world.tickets.restore_ticket(ALICE, "TH-1", expected_version=6, idempotency_key="k")

    assert (restored.version, again.version, again.replayed) == (6, 6, True)


async def test_only_the_version_that_was_read_is_deleted(world: World) -> None:
    await world.update("TH-1", by=BOB, priority="high")

    with pytest.raises(VersionConflict) as conflict:
        await world.tickets.delete_ticket(ALICE, "TH-1", expected_version=2)
    await world.tickets.delete_ticket(ALICE, "TH-1", expected_version=3)

    assert (conflict.value.changed, conflict.value.actors) == ({"priority": ["none", "high"]}, ["user:bob"])


async def test_a_ticket_that_somebody_holds_is_deleted_by_its_holder_alone(world: World) -> None:
    token = await hold(world, 1, "agent:bot")

    with pytest.raises(LeaseHeld, match=r"claimed by agent:bot until .*: to delete it takes its lease_token"):
        await world.tickets.delete_ticket(ALICE, "TH-1")
    with pytest.raises(LeaseLost):
        await world.tickets.delete_ticket(ALICE, "TH-1", lease_token=token + 1)
    await world.tickets.delete_ticket(ALICE, "TH-1", lease_token=token)
    await world.tickets.restore_ticket(ALICE, "TH-1")

    assert (await world.ticket("TH-1")).lease is None


async def test_a_repeat_under_one_key_deletes_and_restores_once(world: World) -> None:
    await world.tickets.delete_ticket(ALICE, "TH-1", idempotency_key="k")
    again = await world.tickets.delete_ticket(ALICE, "TH-1", idempotency_key="k")
    await world.tickets.restore_ticket(ALICE, "TH-1", idempotency_key="k")
    await world.tickets.delete_ticket(ALICE, "TH-1")
    restored = await world.tickets.restore_ticket(ALICE, "TH-1", idempotency_key="k")

    assert (again.replayed, again.version, restored.replayed, restored.version) == (True, 3, True, 4)
    with pytest.raises(TicketGone):
        await world.ticket("TH-1")


# ── answers ──


async def answer(world: World, key: str = "TH-1", kind: str = "answer") -> Any:
    new = NewComment.model_validate({"comment": "the blue one", "kind": kind})
    return await world.tickets.add_comment(BOB, key, new)


async def test_an_answer_lets_a_ticket_wait_no_longer(world: World) -> None:
    await world.add("users", "Alice")
    await world.update("TH-1", status="waiting", waiting_reason="which colour?", person_in_charge="alice")
    world.heard.clear()

    written = await answer(world)

    [event] = world.heard
    assert (event.type, event.ticket_version, dict(event.changes)) == (
        "ticket.status_changed", 4,
        {"status": ["waiting", "received"], "phase": ["waiting", "todo"], "waiting_reason": ["which colour?", None]},
    )  # fmt: skip
    assert (event.parsed["comment"], event.parsed["kind"]) == ("the blue one", "answer")
    assert event.parsed["comment_id"] == written.comment_id
    ticket = await world.ticket("TH-1")
    assert (ticket.version, ticket.status.id, ticket.waiting_reason) == (4, "received", None)
    assert ticket.person_in_charge is not None
    assert await world.keys(ready=True) == ["TH-1"]


@pytest.mark.parametrize(("status", "kind"), [("waiting", "note"), ("waiting", "question"), ("received", "answer")])
async def test_any_other_comment_changes_no_field(world: World, status: str, kind: str) -> None:
    await world.update("TH-1", status=status, comment="because")
    version = (await world.ticket("TH-1")).version
    world.heard.clear()

    await answer(world, kind=kind)

    assert [event.type for event in world.heard] == ["ticket.commented"]
    assert (await world.ticket("TH-1")).version == version
    assert (await world.ticket("TH-1")).status.id == status
