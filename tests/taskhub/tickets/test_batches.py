"""Changing many tickets together, trying it without a trace, and taking it back."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import Row, select

from taskhub.storage.database import Database
from taskhub.storage.schema import METADATA, batches, idempotency_keys
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    IdempotencyMismatch,
    InvalidInput,
    UndoConflict,
)
from taskhub.tickets.inputs import BulkUpdate, UndoBatch
from taskhub.tickets.model import BatchResult, ReferenceKind
from taskhub.tickets.record import RECORDS, TicketRecord, record_of
from tests.examples import EXAMPLES
from tests.taskhub.leasing import hold
from tests.taskhub.world import ALICE, World, caller, rows

BOB = caller("user:bob")


@pytest.fixture
async def world(world: World) -> World:
    """With Alice, Bob and three tickets, of which TH-1 blocks TH-2."""
    await world.add("users", "Alice")
    await world.add("users", "Bob")
    await world.create("one", labels=["a"])
    await world.create("two", blocked_by=["TH-1"])
    await world.create("three", priority="low")
    world.heard.clear()
    world.tick()
    return world


async def bulk(world: World, *items: dict[str, Any], key: str | None = None, **how: Any) -> BatchResult:
    asked = BulkUpdate.model_validate({"items": items, **how})
    return await world.tickets.update_tickets(ALICE, asked, idempotency_key=key)


async def undo(world: World, batch_id: str | None, *, key: str | None = None, **how: Any) -> BatchResult:
    assert batch_id is not None
    return await world.tickets.undo_batch(ALICE, batch_id, UndoBatch(**how), idempotency_key=key)


async def everything(database: Database) -> dict[str, Sequence[Row[Any]]]:
    """All rows of all tables."""
    return {
        table.name: await rows(database, select(table).order_by(*table.primary_key.columns))
        for table in METADATA.sorted_tables
    }


async def records(database: Database, above: int = 0) -> list[TicketRecord]:
    """The tickets, without what every write raises."""
    found = map(record_of, await rows(database, RECORDS))
    return sorted(
        (replace(record, version=0, updated_at="") for record in found if record.no > above),
        key=lambda record: record.no,
    )


def outcome(result: BatchResult) -> dict[str, Any]:
    """Ticket → its new version, `noop`, or the code of its error."""
    return {
        item.key: item.error.code if item.error else "noop" if item.noop else item.version for item in result.results
    }


async def test_a_bulk_update_changes_all_its_tickets_and_closes_with_an_event(world: World) -> None:
    result = await bulk(
        world, {"ticket_id": "th-1", "priority": "high"}, {"ticket_id": "TH-3", "priority": "low"},
        {"ticket_id": "TH-2", "status": "in_progress", "person_in_charge": "bob", "comment": "go"},
    )  # fmt: skip

    assert result.batch_id is not None
    assert re.fullmatch("b-[a-z2-7]{12}", result.batch_id)
    assert (result.applied, result.dry_run, result.atomic) == (True, False, True)
    assert outcome(result) == {"TH-1": 3, "TH-3": "noop", "TH-2": 2}
    assert [item.changes for item in result.results] == [
        {"priority": ["none", "high"]}, {},
        {"status": ["received", "in_progress"], "phase": ["todo", "active"], "assignee": [None, "bob"]},
    ]  # fmt: skip
    assert [(event.type, event.subject) for event in world.heard] == [
        ("ticket.updated", "TH-1"), ("ticket.status_changed", "TH-2"), ("batch.finished", result.batch_id),
    ]  # fmt: skip
    assert [item.event_id for item in result.results] == [world.heard[0].id, None, world.heard[1].id]
    finished = world.heard[-1]
    assert finished.parsed == {
        "batch_id": result.batch_id, "updated": 2, "failed": 0, "unchanged": 1, "undoes": None,
    }  # fmt: skip
    assert result.position == finished.position
    stored = (await everything(world.database))["events"]
    assert {row.batch_id for row in stored[-3:]} == {result.batch_id}


async def test_a_version_in_the_answer_is_the_one_that_the_ticket_has_in_the_end(world: World) -> None:
    result = await bulk(world, {"ticket_id": "TH-2", "remarks": "x"}, {"ticket_id": "TH-1", "status": "completed"})

    assert outcome(result) == {"TH-2": 3, "TH-1": 3}
    assert (await world.ticket("TH-2")).version == 3


async def test_an_expected_version_is_the_one_before_the_batch(world: World) -> None:
    result = await bulk(
        world, {"ticket_id": "TH-1", "status": "completed"},
        {"ticket_id": "TH-2", "remarks": "x", "expected_version": 1},
    )  # fmt: skip

    assert outcome(result) == {"TH-1": 3, "TH-2": 3}


async def test_one_failing_item_undoes_all_and_every_item_says_how_it_went(world: World) -> None:
    await world.update("TH-3", by=BOB, remarks="x")
    before = await everything(world.database)
    world.heard.clear()

    with pytest.raises(BatchFailed) as failed:
        await bulk(
            world, {"ticket_id": "TH-1", "priority": "high", "person_in_charge": "me"},
            {"ticket_id": "TH-9", "priority": "high"}, {"ticket_id": "TH-2", "status": "no such"},
            {"ticket_id": "TH-3", "priority": "high", "expected_version": 1}, key="k",
        )  # fmt: skip

    result = failed.value.result
    assert outcome(result) == {
        "TH-1": 2, "TH-9": "not_found", "TH-2": "invalid_input", "TH-3": "version_conflict",
    }  # fmt: skip
    assert (result.applied, result.batch_id, result.results[0].event_id) == (False, None, None)
    assert result.results[0].changes == {"priority": ["none", "high"], "assignee": [None, "alice"]}
    assert result.results[3].error is not None
    assert "remarks by user:bob" in result.results[3].error.message
    assert "3 of 4 failed: TH-9: there is no ticket TH-9; TH-2: status: there is no 'no such'" in str(failed.value)
    assert await everything(world.database) == before
    assert world.heard == []


async def test_without_atomic_the_others_are_changed(world: World) -> None:
    result = await bulk(
        world, {"ticket_id": "TH-1", "status": "no such"}, {"ticket_id": "TH-9"},
        {"ticket_id": "TH-3", "priority": "high"}, atomic=False,
    )  # fmt: skip

    assert outcome(result) == {"TH-1": "invalid_input", "TH-9": "not_found", "TH-3": 2}
    assert result.applied
    assert world.heard[-1].parsed["failed"] == 2
    assert (await world.ticket("TH-1")).version == 2


async def test_an_item_that_fails_takes_nothing_of_the_others_along(world: World) -> None:
    """A caller who becomes a user in a failing item is none in the next one, until it becomes one there."""
    new = caller("agent:newcomer")
    items = [
        {"ticket_id": "TH-1", "person_in_charge": "me", "status": "no such"},
        {"ticket_id": "TH-2", "person_in_charge": "newcomer"},
        {"ticket_id": "TH-3", "person_in_charge": "me"},
    ]

    result = await world.tickets.update_tickets(new, BulkUpdate.model_validate({"items": items, "atomic": False}))

    assert outcome(result) == {"TH-1": "invalid_input", "TH-2": "invalid_input", "TH-3": 2}
    assert [user.id for user in await world.tickets.users(ALICE)] == ["alice", "bob", "newcomer"]


async def test_a_ticket_that_somebody_holds_needs_its_token(world: World) -> None:
    token = await hold(world, 1, "agent:bot")
    change = {"ticket_id": "TH-1", "status": "in_progress"}

    with pytest.raises(BatchFailed) as failed:
        await bulk(world, change)
    with pytest.raises(BatchFailed) as lost:
        await bulk(world, {**change, "lease_token": token + 1})
    made = await bulk(world, {**change, "lease_token": token})

    assert [outcome(error.value.result) for error in (failed, lost)] == [{"TH-1": "lease_held"}, {"TH-1": "lease_lost"}]
    assert outcome(made) == {"TH-1": 3}


async def test_when_every_item_fails_the_batch_has(world: World) -> None:
    with pytest.raises(BatchFailed):
        await bulk(world, {"ticket_id": "TH-8"}, {"ticket_id": "TH-9"}, atomic=False)


async def test_a_batch_that_changes_nothing_is_none(world: World) -> None:
    before = await everything(world.database)

    result = await bulk(world, {"ticket_id": "TH-3", "priority": "low"}, {"ticket_id": "TH-1"})

    assert (result.batch_id, result.applied, outcome(result)) == (None, True, {"TH-3": "noop", "TH-1": "noop"})
    assert await everything(world.database) == before


async def test_a_ticket_is_named_once(world: World) -> None:
    with pytest.raises(InvalidInput, match="TH-1 is in items/0 already") as refused:
        await bulk(world, {"ticket_id": "TH-1"}, {"ticket_id": "TH-2"}, {"ticket_id": " th-1 "}, atomic=False)

    assert [problem.pointer for problem in refused.value.problems] == ["/items/2/ticket_id"]


@pytest.mark.parametrize(
    "items", [[], [{"ticket_id": f"TH-{n}"} for n in range(51)], [{}], [{"ticket_id": "x", "y": 1}]]
)
def test_what_is_no_batch_is_refused(items: list[Any]) -> None:
    with pytest.raises(ValidationError):
        BulkUpdate.model_validate({"items": items})


@pytest.mark.parametrize("atomic", [True, False])
async def test_a_dry_run_says_what_would_change_and_leaves_no_trace(world: World, atomic: bool) -> None:
    before = await everything(world.database)
    items: list[dict[str, Any]] = [
        {"ticket_id": "TH-1", "status": "completed", "comment": "done", "person_in_charge": "me"},
        {"ticket_id": "TH-2", "expected_version": 1, "remarks": "x"}, {"ticket_id": "TH-9"},
    ]  # fmt: skip

    result = await bulk(world, *items, atomic=atomic, dry_run=True, key="k")

    assert (result.applied, result.dry_run, result.batch_id) == (False, True, None)
    assert outcome(result) == {"TH-1": 2, "TH-2": 1, "TH-9": "not_found"}
    assert result.results[0].changes == {
        "status": ["received", "completed"], "phase": ["todo", "done"], "assignee": [None, "alice"],
        "completion_date": [None, "2026-11-20"],
    }  # fmt: skip
    assert [item.event_id for item in result.results] == [None, None, None]
    assert await everything(world.database) == before
    assert world.heard == []


async def test_a_dry_run_does_not_use_up_its_idempotency_key(world: World) -> None:
    item = {"ticket_id": "TH-1", "priority": "high"}
    tried = await bulk(world, item, dry_run=True, key="k")
    made = await bulk(world, item, key="k")
    tried_again = await bulk(world, item, dry_run=True, key="k")

    assert (tried.replayed, made.replayed, made.applied, tried_again.applied) == (False, False, True, False)
    assert outcome(tried) == {"TH-1": 2}
    assert outcome(made) == {"TH-1": 3}


async def test_a_repeat_under_one_key_has_one_effect(world: World) -> None:
    item = {"ticket_id": "TH-1", "priority": "high"}
    first = await bulk(world, item, key="k")
    again = await bulk(world, {**item, "expected_version": 3}, key="k")

    assert again == replace(first, replayed=True)
    assert (await world.ticket("TH-1")).version == 3
    with pytest.raises(IdempotencyMismatch):
        await bulk(world, {"ticket_id": "TH-1", "priority": "low"}, key="k")


async def test_a_failed_batch_does_not_use_up_its_idempotency_key(world: World) -> None:
    with pytest.raises(BatchFailed):
        await bulk(world, {"ticket_id": "TH-4", "priority": "high"}, key="k")
    await world.create("four")

    result = await bulk(world, {"ticket_id": "TH-4", "priority": "high"}, key="k")

    assert (result.replayed, outcome(result)) == (False, {"TH-4": 2})
    assert len(await rows(world.database, select(idempotency_keys))) == 1


async def test_a_batch_can_be_looked_at(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-1", "status": "completed"}, {"ticket_id": "TH-3", "comment": "hm"})

    found = await world.tickets.batch(ALICE, made.batch_id or "")

    assert (found.id, found.actor, found.undoes, found.undone_by) == (made.batch_id, "user:alice", None, None)
    assert [(change.key, change.type, change.version) for change in found.changes] == [
        ("TH-1", "ticket.status_changed", 3), ("TH-2", "ticket.unblocked", 2), ("TH-3", "ticket.commented", 1),
    ]  # fmt: skip
    with pytest.raises(BatchNotFound):
        await world.tickets.batch(ALICE, "b-aaaaaaaaaaaa")


# ── undo ──


async def test_an_undone_batch_was_never_there_but_for_history(world: World) -> None:
    before = await records(world.database)
    made = await bulk(
        world, {"ticket_id": "TH-1", "status": "completed", "labels": ["b", "c"], "parent": "TH-3"},
        {"ticket_id": "TH-2", "status": "waiting", "waiting_reason": "why", "person_in_charge": "bob"},
        {"ticket_id": "TH-3", "summary": "drei", "actual_effort_hours": 1.5, "category_detail": "outage"},
    )  # fmt: skip
    world.heard.clear()
    world.tick()

    undone = await undo(world, made.batch_id)

    assert await records(world.database) == before
    assert undone.undoes == made.batch_id
    assert outcome(undone) == {"TH-3": 3, "TH-2": 5, "TH-1": 4}
    assert [(event.type, event.subject) for event in world.heard] == [
        ("ticket.updated", "TH-3"), ("ticket.status_changed", "TH-2"), ("ticket.status_changed", "TH-1"),
        ("ticket.updated", "TH-2"), ("batch.finished", undone.batch_id),
    ]  # fmt: skip
    assert dict(world.heard[2].changes) == {
        "status": ["completed", "received"], "phase": ["done", "todo"], "completion_date": ["2026-11-20", None],
        "labels": [["b", "c"], ["a"]], "parent": ["TH-3", None],
    }  # fmt: skip
    assert world.heard[-1].parsed["undoes"] == made.batch_id
    assert await world.keys(ready=True, sort_by="key") == ["TH-3", "TH-1"]


async def test_an_undo_can_be_undone(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-1", "status": "completed"}, {"ticket_id": "TH-3", "priority": "high"})
    after = await records(world.database)
    undone = await undo(world, made.batch_id)
    redone = await undo(world, undone.batch_id)

    assert await records(world.database) == after
    stored = {row.id: (row.undoes, row.undone_by) for row in await rows(world.database, select(batches))}
    assert stored == {
        made.batch_id: (None, undone.batch_id), undone.batch_id: (made.batch_id, redone.batch_id),
        redone.batch_id: (undone.batch_id, None),
    }  # fmt: skip


async def test_a_batch_is_undone_once(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-1", "priority": "high"})
    undone = await undo(world, made.batch_id, key="k")

    assert await undo(world, made.batch_id, key="k") == replace(undone, replayed=True)
    with pytest.raises(AlreadyUndone, match=f"undone already, by {undone.batch_id}"):
        await undo(world, made.batch_id)
    with pytest.raises(BatchNotFound):
        await undo(world, "b-aaaaaaaaaaaa")
    assert (await world.ticket("TH-1")).version == 4


async def test_what_somebody_changed_since_is_a_conflict_that_says_who_and_when(world: World) -> None:
    made = await bulk(
        world, {"ticket_id": "TH-1", "priority": "high", "remarks": "x"}, {"ticket_id": "TH-3", "remarks": "x"}
    )
    world.tick(minutes=1)
    await world.update("TH-1", by=BOB, priority="urgent", description="other fields do not matter")
    before = await everything(world.database)

    with pytest.raises(UndoConflict) as refused:
        await undo(world, made.batch_id)

    [conflict] = refused.value.conflicts
    assert (conflict.ticket, conflict.field, conflict.actor) == ("TH-1", "priority", "user:bob")
    assert conflict.time == "2026-11-20T12:01:00.001Z"
    assert "priority of TH-1 was changed by user:bob at 2026-11-20T12:01:00.001Z" in str(refused.value)
    assert await everything(world.database) == before


async def test_without_atomic_the_other_tickets_are_undone(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-1", "priority": "high"}, {"ticket_id": "TH-3", "remarks": "x"})
    await world.update("TH-1", by=BOB, priority="urgent")

    undone = await undo(world, made.batch_id, atomic=False)

    assert outcome(undone) == {"TH-3": 3, "TH-1": "undo_conflict"}
    assert undone.results[1].error is not None
    assert undone.results[1].error.message.startswith("priority of TH-1 was changed by user:bob at ")
    assert (await world.ticket("TH-1")).priority == "urgent"
    assert (await world.ticket("TH-3")).remarks is None
    with pytest.raises(AlreadyUndone):
        await undo(world, made.batch_id)


async def test_what_was_set_again_to_the_same_is_a_conflict_too(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-1", "priority": "high"})
    await world.update("TH-1", by=BOB, priority="low")
    await world.update("TH-1", by=BOB, priority="high")

    with pytest.raises(UndoConflict, match="changed by user:bob"):
        await undo(world, made.batch_id)


async def test_what_has_its_former_value_again_needs_no_undoing(world: World) -> None:
    await world.update("TH-1", parent="TH-3")
    made = await bulk(world, {"ticket_id": "TH-1", "priority": "high", "labels": ["b"], "parent": None})
    await world.update("TH-1", by=BOB, priority="none", labels=["a"], parent="TH-3")
    world.heard.clear()

    result = await undo(world, made.batch_id)

    assert (outcome(result), result.batch_id, world.heard) == ({"TH-1": "noop"}, None, [])


async def test_a_deleted_ticket_is_a_conflict_until_it_is_restored(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-3", "priority": "high"})
    await world.tickets.delete_ticket(BOB, "TH-3")

    with pytest.raises(UndoConflict, match="TH-3 was deleted by user:bob at") as refused:
        await undo(world, made.batch_id)
    await world.tickets.restore_ticket(BOB, "TH-3")
    await undo(world, made.batch_id)

    assert [conflict.field for conflict in refused.value.conflicts] == ["deleted"]
    assert (await world.ticket("TH-3")).priority == "low"


@pytest.mark.parametrize("holder", ["agent:bot", "user:alice"])
async def test_a_ticket_that_somebody_holds_is_a_conflict_for_whom_does_not_show_its_token(
    world: World, holder: str
) -> None:
    """Under one API key the holder is the same actor as who undoes the batch."""
    made = await bulk(world, *({"ticket_id": f"TH-{no}", "actual_effort_hours": 2} for no in (1, 2, 3)))
    tokens = {f"TH-{no}": await hold(world, no, holder) for no in (2, 3)}
    world.heard.clear()

    with pytest.raises(UndoConflict, match=f"TH-3 is claimed by {holder} until") as held:
        await undo(world, made.batch_id, lease_tokens={"th-2": tokens["TH-2"]})
    with pytest.raises(UndoConflict, match="counts no more") as lost:
        await undo(world, made.batch_id, lease_tokens={**tokens, "TH-3": 9})
    assert world.heard == []
    undone = await undo(world, made.batch_id, lease_tokens=tokens)

    for refused in (held, lost):
        assert [(each.ticket, each.field, each.actor) for each in refused.value.conflicts] == [
            ("TH-3", "lease", holder)
        ]
    assert outcome(undone) == {"TH-3": 3, "TH-2": 3, "TH-1": 4}
    assert [await hours(world, key) for key in ("TH-1", "TH-2", "TH-3")] == [None, None, None]


async def test_without_atomic_the_tickets_that_others_hold_are_left_as_they_are(world: World) -> None:
    made = await bulk(world, *({"ticket_id": f"TH-{no}", "actual_effort_hours": 2} for no in (1, 3)))
    await hold(world, 3, "user:alice")

    undone = await undo(world, made.batch_id, atomic=False)

    assert outcome(undone) == {"TH-3": "undo_conflict", "TH-1": 4}
    assert [await hours(world, key) for key in ("TH-1", "TH-3")] == [None, 2]


async def test_what_everybody_may_change_of_a_held_ticket_is_undone_by_everybody(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-3", "priority": "high"})
    await hold(world, 3, "agent:bot")
    await undo(world, made.batch_id)

    assert (await world.ticket("TH-3")).priority == "low"


async def test_a_lease_that_has_run_out_holds_no_undo_up(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-3", "actual_effort_hours": 2})
    await hold(world, 3, "agent:bot", minutes=0)
    await undo(world, made.batch_id)

    assert await hours(world, "TH-3") is None


async def test_a_token_in_an_undo_renews_its_lease(world: World) -> None:
    await world.update("TH-3", status="in_progress")
    made = await bulk(world, {"ticket_id": "TH-3", "priority": "high"})
    token = await hold(world, 3, "agent:bot", minutes=1)
    world.tick(seconds=59)
    await undo(world, made.batch_id, lease_tokens={"TH-3": token})
    world.tick(minutes=29)

    assert (await world.ticket("TH-3")).lease is not None
    assert await world.tickets.expire_leases() == 0


async def test_a_token_of_a_ticket_that_the_batch_did_not_change_is_refused(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-3", "priority": "high"})
    with pytest.raises(InvalidInput, match="lease_tokens: the batch changed no ticket TH-1"):
        await undo(world, made.batch_id, lease_tokens={"TH-1": 1, "TH-3": 1})

    assert (await world.ticket("TH-3")).priority == "high"


async def hours(world: World, key: str) -> float | None:
    return (await world.ticket(key)).actual_effort_hours


async def test_a_detail_of_the_category_that_came_with_the_batch_is_a_conflict(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-3", "category": "incident"})
    await world.update("TH-3", by=BOB, category_detail="outage")

    with pytest.raises(UndoConflict, match="category_detail of TH-3 was changed by user:bob"):
        await undo(world, made.batch_id)


async def test_a_parent_that_is_below_the_ticket_now_is_a_conflict(world: World) -> None:
    await world.update("TH-2", parent="TH-1")
    made = await bulk(world, {"ticket_id": "TH-2", "parent": None})
    await world.update("TH-1", parent="TH-2")

    with pytest.raises(UndoConflict, match="TH-1, the former parent of TH-2, is below it now"):
        await undo(world, made.batch_id)


async def test_a_parent_that_was_deleted_is_a_conflict(world: World) -> None:
    await world.update("TH-2", parent="TH-1")
    made = await bulk(world, {"ticket_id": "TH-2", "parent": None})
    await world.tickets.delete_ticket(ALICE, "TH-1")

    with pytest.raises(UndoConflict, match="TH-1, the former parent of TH-2, was deleted"):
        await undo(world, made.batch_id)


REFERRING = (
    ("accounts", "account"), ("users", "person_in_charge"), ("request_channels", "request_channel"),
    ("response_categories", "response_category"), ("statuses", "status"),
)  # fmt: skip


@pytest.mark.parametrize(("kind", "field"), REFERRING)
async def test_a_former_value_that_was_removed_is_a_conflict_of_its_ticket_alone(
    world: World, kind: ReferenceKind, field: str
) -> None:
    more = {"phase": "todo", "is_default": False} if kind == "statuses" else {}
    old, new = await world.add(kind, "Old", **more), await world.add(kind, "New", **more)
    await world.update("TH-3", ALICE, **{field: old})
    made = await bulk(world, {"ticket_id": "TH-3", field: new}, {"ticket_id": "TH-1", "priority": "high"})
    await world.tickets.remove_reference(ALICE, kind, old)

    with pytest.raises(UndoConflict, match=r"the former .* of TH-3, was removed"):
        await undo(world, made.batch_id)
    undone = await undo(world, made.batch_id, atomic=False)

    assert outcome(undone) == {"TH-1": 4, "TH-3": "undo_conflict"}


async def test_a_former_detail_that_was_removed_is_a_conflict(world: World) -> None:
    detail = await world.add("category_details", "Old", category_id="incident")
    await world.update("TH-3", category="incident", category_detail=detail)
    made = await bulk(world, {"ticket_id": "TH-3", "category": "inquiry"})
    await world.tickets.remove_reference(ALICE, "category_details", detail)

    with pytest.raises(UndoConflict, match="was removed"):
        await undo(world, made.batch_id)


async def test_a_former_status_that_means_done_now_is_a_conflict(world: World) -> None:
    status = await world.add("statuses", "Parked", phase="review", is_default=False)
    await world.update("TH-3", status=status)
    made = await bulk(world, {"ticket_id": "TH-3", "status": "in_progress"})
    await world.change_reference("statuses", status, phase="done")

    with pytest.raises(UndoConflict, match="one of done tickets now"):
        await undo(world, made.batch_id)


async def test_parents_that_changed_places_change_back(world: World) -> None:
    await world.update("TH-2", parent="TH-1")
    before = await records(world.database)
    made = await bulk(world, {"ticket_id": "TH-2", "parent": None}, {"ticket_id": "TH-1", "parent": "TH-2"})

    await undo(world, made.batch_id)

    assert await records(world.database) == before


async def test_a_batch_of_comments_has_nothing_to_take_back(world: World) -> None:
    made = await bulk(world, {"ticket_id": "TH-1", "comment": "hm"})

    result = await undo(world, made.batch_id)

    assert (result.results, result.batch_id) == ([], None)


STATUSES = ["received", "in_progress", "verifying", "completed", "waiting", "cancelled"]
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(STATUSES),
        "waiting_reason": st.sampled_from(["why", "what"]),
        "priority": st.sampled_from(["none", "low", "urgent", None]),
        "summary": st.sampled_from(["x", "ログイン"]),
        "description": st.sampled_from(["long", None, ""]),
        "person_in_charge": st.sampled_from(["alice", "bob", None]),
        "labels": st.sampled_from([["a"], ["b", "a"], [], None]),
        "category": st.sampled_from(["incident", "inquiry", None]),
        "category_detail": st.sampled_from(["outage", None]),
        "parent": st.sampled_from([1, 2, 3, 4, None]),
        "scheduled_completion_date": st.sampled_from([date(2026, 1, 2), None]),
        "completion_date": st.sampled_from([date(2026, 1, 3), None]),
        "actual_effort_hours": st.sampled_from([0, 1.5, None]),
        "has_defect": st.sampled_from([True, False, None]),
    },
)
CHANGES = st.dictionaries(st.sampled_from([1, 2, 3, 4]), FIELDS, min_size=1)


@settings(max_examples=EXAMPLES // 12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(prepared=CHANGES, changed=CHANGES)
async def test_undo_gives_back_every_row_as_it_was(
    database: Database, prepared: dict[int, dict[str, Any]], changed: dict[int, dict[str, Any]]
) -> None:
    world = World(database)
    if not await world.tickets.users(ALICE):
        await world.add("users", "Alice")
        await world.add("users", "Bob")
    first = int((await world.create("1")).key.removeprefix("TH-"))
    for number in range(1, 4):
        await world.create(str(number), blocked_by=[f"TH-{first + number - 1}"])

    def items(changes: dict[int, dict[str, Any]]) -> BulkUpdate:
        found = []
        for number, fields in changes.items():
            parent = {"parent": f"TH-{first + fields['parent'] - 1}"} if fields.get("parent") else {}
            found.append({"ticket_id": f"TH-{first + number - 1}", **fields, **parent})
        return BulkUpdate.model_validate({"items": found, "atomic": False})

    async def batch(changes: dict[int, dict[str, Any]]) -> str | None:
        try:
            return (await world.tickets.update_tickets(ALICE, items(changes))).batch_id
        except BatchFailed:  # some of what is drawn is against the rules, such as waiting without a reason
            return None

    await batch(prepared)
    before = await records(database, above=first - 1)
    made = await batch(changed)
    after = await records(database, above=first - 1)
    if made is not None:
        undone = await undo(world, made)
        assert await records(database, above=first - 1) == before
        if undone.batch_id is not None:
            await undo(world, undone.batch_id)
            assert await records(database, above=first - 1) == after
    await world.writer.close()
