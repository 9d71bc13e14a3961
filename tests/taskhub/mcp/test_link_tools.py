"""The tools that relate tickets, delete them and have them back."""

import pytest

from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools


@pytest.fixture
async def tools(tickets: TicketService) -> Tools:
    """With two tickets."""
    tools = Tools(tickets)
    await tools.create("Printer is on fire")
    await tools.create("Toner")
    return tools


async def test_a_link_answers_the_version_and_says_when_it_was_there(tools: Tools) -> None:
    made = await tools("link_tickets", ticket_id="TH-1", relation="blocks", other="TH-2")
    again = await tools("link_tickets", ticket_id="TH-2", relation="blocked_by", other="TH-1")

    assert (made["key"], made["version"], "noop" in made) == ("TH-1", 2, False)
    assert (again["key"], again["version"], again["noop"]) == ("TH-2", 2, True)
    assert await tools.keys(ready=True) == ["TH-1"]


async def test_a_circle_is_refused_with_its_path(tools: Tools) -> None:
    await tools("link_tickets", ticket_id="TH-1", relation="blocks", other="TH-2")

    error = await tools.error("link_tickets", ticket_id="TH-2", relation="blocks", other="TH-1")

    assert (error["code"], error["retryable"], error["path"]) == ("cycle", False, ["TH-2", "TH-1", "TH-2"])
    assert "TH-2 → TH-1 → TH-2" in error["message"]


async def test_an_unknown_relation_is_answered_with_those_there_are(tools: Tools) -> None:
    error = await tools.error("link_tickets", ticket_id="TH-1", relation="block", other="TH-2")

    assert error["allowed"] == ["blocks", "blocked_by", "related", "duplicates", "duplicated_by"]
    assert error["problems"][0]["did_you_mean"] == "blocks"


async def test_deleting_asks_for_a_persons_word(tools: Tools) -> None:
    for asked in ({}, {"confirm": False}):
        error = await tools.error("delete_ticket", ticket_id="th-1", **asked)

        assert (error["code"], error["retryable"]) == ("confirmation_required", False)
        assert error["message"].startswith("Delete TH-1 “Printer is on fire”?")
        assert "confirm: true" in error["hint"]
    assert len(await tools.keys()) == 2

    await tools("delete_ticket", ticket_id="TH-1", confirm=True)

    assert await tools.keys() == ["TH-2"]
    assert (await tools.error("delete_ticket", ticket_id="TH-1"))["code"] == "deleted"


async def test_restoring_asks_for_a_persons_word_too(tools: Tools) -> None:
    await tools("delete_ticket", ticket_id="TH-1", confirm=True)

    error = await tools.error("restore_ticket", ticket_id="th-1")
    assert error["code"] == "confirmation_required"
    assert error["message"].startswith("Restore TH-1 “Printer is on fire”?")
    assert await tools.keys() == ["TH-2"]

    await tools("restore_ticket", ticket_id="TH-1", confirm=True)

    assert len(await tools.keys()) == 2
    assert (await tools("restore_ticket", ticket_id="TH-1"))["noop"] is True


@pytest.mark.parametrize("tool", ["delete_ticket", "restore_ticket"])
async def test_nobody_is_asked_about_a_ticket_that_never_was(tools: Tools, tool: str) -> None:
    assert (await tools.error(tool, ticket_id="TH-9"))["code"] == "not_found"


async def test_an_answer_sends_a_waiting_ticket_back(tools: Tools) -> None:
    await tools("update_task_status", task_id="TH-1", status="waiting", comment="which one?")

    answer = await tools("add_ticket_history", ticket_id="TH-1", comment="that one", kind="answer")

    ticket = await tools.ticket("TH-1")
    assert (ticket["status"]["id"], ticket["waiting_reason"], ticket["version"]) == ("received", None, 3)
    assert answer["version"] == 3
