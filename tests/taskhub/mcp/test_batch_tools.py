"""The tools that change many tickets together, and take that back."""

from typing import Any

import pytest

from taskhub.fitting import MAX_CHARACTERS, size_of
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools


@pytest.fixture
async def tools(tickets: TicketService) -> Tools:
    """With two tickets."""
    tools = Tools(tickets)
    await tools.create("one")
    await tools.create("two")
    return tools


def items(*keys: str, **fields: Any) -> list[dict[str, Any]]:
    return [{"ticket_id": key, **(fields or {"priority": "high"})} for key in keys]


async def test_a_bulk_update_answers_what_became_of_each_and_how_to_undo_it(tools: Tools) -> None:
    made = await tools("bulk_update_tickets", items=[*items("TH-1"), *items("TH-2", priority="none")])

    assert (made["applied"], made["dry_run"]) == (True, False)
    first, second = made["results"]
    assert first.pop("event_id")
    assert first == {"key": "TH-1", "ok": True, "version": 2, "changes": {"priority": ["none", "high"]}}
    assert second == {"key": "TH-2", "ok": True, "version": 1, "noop": True}

    undone = await tools("undo_batch", batch_id=made["batch_id"])

    assert undone["undoes"] == made["batch_id"]
    assert (await tools.ticket("TH-1"))["priority"] == "none"


async def test_the_text_is_short_and_names_the_batch(tools: Tools) -> None:
    text = await tools.text("bulk_update_tickets", items=items("TH-1", "TH-9"), atomic=False)

    assert text.startswith("1 of 2 changed. Batch b-")
    assert "TH-9: there is no ticket TH-9" in text


async def test_a_dry_run_says_that_it_was_one(tools: Tools) -> None:
    text = await tools.text("bulk_update_tickets", items=items("TH-1"), dry_run=True)

    assert text == "1 of 1 would change."
    assert (await tools.ticket("TH-1"))["version"] == 1


async def test_a_batch_that_fails_is_an_error_that_tells_of_each_item(tools: Tools) -> None:
    error = await tools.error("bulk_update_tickets", items=items("TH-1", "TH-9"))

    assert (error["code"], error["retryable"]) == ("batch_failed", False)
    assert error["results"] == [
        {"key": "TH-1", "ok": True},
        {"key": "TH-9", "ok": False, "code": "not_found", "message": "there is no ticket TH-9"},
    ]
    assert "atomic: false" in error["hint"]


async def test_fifty_failures_fit_into_an_answer(tools: Tools) -> None:
    error = await tools.error("bulk_update_tickets", items=items(*(f"TH-{n}" for n in range(1, 51)), status="x"))

    assert len(error["results"]) == 50
    assert size_of(error) <= MAX_CHARACTERS


async def test_fifty_long_changes_fit_into_an_answer(tools: Tools) -> None:
    for _ in range(48):
        await tools.create()

    made = await tools(
        "bulk_update_tickets", items=items(*(f"TH-{n}" for n in range(1, 51)), description="long " * 5000), confirm=True
    )

    assert made["truncated"] is True
    assert size_of(made) <= MAX_CHARACTERS


async def test_a_misspelt_field_of_an_item_is_answered_with_what_it_may_have(tools: Tools) -> None:
    error = await tools.error("bulk_update_tickets", items=items("TH-1", assignee="alice"))

    [problem] = error["problems"]
    assert (problem["parameter"], problem["did_you_mean"]) == ("items/0/assignee", "person_in_charge")
    assert "items" not in problem["allowed"]


async def test_a_conflict_says_who_changed_what(tools: Tools) -> None:
    made = await tools("bulk_update_tickets", items=items("TH-1"))
    await tools("update_ticket", ticket_id="TH-1", priority="low")

    error = await tools.error("undo_batch", batch_id=made["batch_id"])

    assert error["code"] == "undo_conflict"
    [conflict] = error["conflicts"]
    assert (conflict["ticket"], conflict["field"], conflict["actor"]) == ("TH-1", "priority", "user:alice")
    assert conflict["reason"] in error["message"]


async def test_a_batch_is_undone_once(tools: Tools) -> None:
    made = await tools("bulk_update_tickets", items=items("TH-1"))
    undone = await tools("undo_batch", batch_id=made["batch_id"])

    error = await tools.error("undo_batch", batch_id=made["batch_id"])

    assert (error["code"], error["undone_by"]) == ("already_undone", undone["batch_id"])
    assert (await tools.error("undo_batch", batch_id="b-x"))["code"] == "no_such_batch"
