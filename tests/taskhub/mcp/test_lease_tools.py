"""What the tools for leases answer, over the real ticket service."""

import pytest

from taskhub.auth.principal import Caller, Principal
from taskhub.fitting import MAX_CHARACTERS, size_of
from taskhub.tickets.inputs import NewComment
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools
from tests.taskhub.mcp.world import ALICE

BOT = Caller(Principal("agent:bot", "default", ALICE.principal.scopes, authenticated=False), "mcp_tool")


@pytest.fixture
def tools(tickets: TicketService) -> Tools:
    return Tools(tickets, BOT)


async def test_a_claim_tells_the_token_in_words_and_as_data(tools: Tools) -> None:
    await tools.create("Printer")
    await tools.create("Copier")
    text = await tools.text("claim_ticket")
    data = await tools("claim_ticket")

    assert text.startswith("TH-1 is yours (version 2). Your lease_token is 1; the lease ends at 20")
    assert data.keys() == {"key", "version", "event_id", "position", "lease_token", "lease_expires_at"}


async def test_a_failed_claim_says_what_to_do_instead(tools: Tools) -> None:
    await tools.create()
    await tools.create(blocked_by=["TH-1"])
    await tools("claim_ticket")
    held = await tools.error("claim_ticket", ticket_id="TH-1")
    blocked = await tools.error("claim_ticket", ticket_id="TH-2")
    nothing = await tools.error("claim_ticket")

    assert (held["code"], held["holder"], held["retryable"]) == ("lease_held", "agent:bot", False)
    assert "another ticket" in held["hint"]
    assert (blocked["code"], blocked["blockers"]) == ("blocked", ["TH-1"])
    assert (nothing["code"], nothing["retryable"]) == ("nothing_ready", True)


async def test_lists_show_who_holds_a_ticket_and_what_is_blocked(tools: Tools) -> None:
    await tools.create()
    await tools.create(blocked_by=["TH-1"])
    await tools("claim_ticket")
    rows = (await tools("get_ticket_list", fields=["blocked", "lease"], sort_by="key", sort_order="asc"))["tickets"]
    full = (await tools("get_ticket_list", format="full", sort_by="key", sort_order="asc"))["tickets"]

    assert rows == [
        {"key": "TH-1", "blocked": False, "lease": "agent:bot"}, {"key": "TH-2", "blocked": True, "lease": None},
    ]  # fmt: skip
    assert full[0]["lease"].keys() == {"holder", "acquired_at", "expires_at"}
    assert "Claimed by agent:bot until" in await tools.text("get_ticket_detail", ticket_id="TH-1")


async def test_a_report_hands_over_what_others_said(tools: Tools, tickets: TicketService) -> None:
    await tools.create()
    token = (await tools("claim_ticket"))["lease_token"]
    await tickets.add_comment(ALICE, "TH-1", NewComment(comment="stop at noon", kind="decision"))
    text = await tools.text("report_progress", ticket_id="TH-1", percent=10, lease_token=token)
    await tickets.add_comment(ALICE, "TH-1", NewComment(comment="or later", kind="question"))
    data = await tools("report_progress", ticket_id="TH-1", percent=20, lease_token=token)

    assert "user:alice (decision): stop at noon" in text
    assert [(comment["author"], comment["body"]) for comment in data["comments"]] == [("user:alice", "or later")]
    assert data["lease_expires_at"]


async def test_a_report_stays_within_the_cap_however_much_was_said(tools: Tools, tickets: TicketService) -> None:
    await tools.create()
    token = (await tools("claim_ticket"))["lease_token"]
    for _ in range(20):
        await tickets.add_comment(ALICE, "TH-1", NewComment(comment="x" * 60_000))
    data = await tools("report_progress", ticket_id="TH-1", percent=10, lease_token=token)

    assert size_of(data) <= MAX_CHARACTERS
    assert data["truncated"] is True
    assert len(data["comments"]) == 20


async def test_a_report_says_when_there_are_more_comments_than_it_tells(tools: Tools) -> None:
    key = await tools.create()
    token = (await tools("claim_ticket", ticket_id=key))["lease_token"]
    for n in range(41):
        await tools("add_ticket_history", ticket_id=key, comment=f"{n}")
    given = {"ticket_id": key, "percent": 10, "lease_token": token}

    text = await tools.text("report_progress", **given)
    second = await tools("report_progress", **given)
    third = await tools("report_progress", **given)

    assert text.endswith("There are more comments: call report_progress again for the next ones.")
    assert [comment["body"] for comment in second["comments"]] == [f"{n}" for n in range(20, 40)]
    assert (second["more"], "more" in third) == (True, False)
    assert [comment["body"] for comment in third["comments"]] == ["40"]


async def test_a_claim_while_the_server_stops_is_worth_another_try(tools: Tools, tickets: TicketService) -> None:
    await tools.create()
    tickets._ending = lambda: True
    for arguments in ({}, {"ticket_id": "TH-1"}):
        refused = await tools.error("claim_ticket", **arguments)

        assert (refused["code"], refused["retryable"]) == ("draining", True)
        assert "try again" in refused["hint"]
