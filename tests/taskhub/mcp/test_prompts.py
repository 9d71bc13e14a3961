"""Prompts: who sees them, what they need, and that they say what the tickets say at that moment."""

from collections.abc import AsyncIterator

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, INVALID_REQUEST, PromptReference

from taskhub.fitting import MAX_CHARACTERS
from taskhub.mcp.prompts import Prompts
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools
from tests.taskhub.mcp.live import SCOPES, ByHeader
from tests.taskhub.mcp.world import MODERN, Served, serve_mcp

TOOLS = {
    "triage": ("get_ticket_detail", "get_ticket_list", "update_ticket", "add_ticket_history", "link_tickets"),
    "handover": ("add_ticket_history",),
    "standup": ("get_ticket_detail",),
}


@pytest.fixture
def tools(tickets: TicketService) -> Tools:
    return Tools(tickets)


@pytest.fixture
async def guarded(tickets: TicketService) -> AsyncIterator[Served]:
    async with serve_mcp(tickets, auth=ByHeader()) as serving:
        yield serving


@pytest.fixture(params=["legacy", MODERN])
async def client(request: pytest.FixtureRequest, served: Served) -> Client:
    """Enter it in the test: the SDK's clients are left by the task that entered them."""
    return served.client(request.param)


async def text(client: Client, name: str, **arguments: str) -> str:
    """The one message of a prompt."""
    result = await client.get_prompt(name, arguments)
    (message,) = result.messages
    assert message.role == "user"
    assert message.content.type == "text"
    assert len(message.content.text) <= MAX_CHARACTERS
    return message.content.text


async def test_prompts_are_listed_with_their_arguments(client: Client) -> None:
    async with client:
        listed = {prompt.name: prompt for prompt in (await client.list_prompts()).prompts}

    assert list(listed) == ["triage", "handover", "standup"]
    arguments = {
        name: {argument.name: argument.required for argument in prompt.arguments or []}
        for name, prompt in listed.items()
    }
    assert arguments == {
        "triage": {"account": False},
        "handover": {"ticket": True, "to": False},
        "standup": {"since": False, "person": False},
    }
    assert all(argument.description for prompt in listed.values() for argument in prompt.arguments or [])


async def test_prompts_name_tools_that_exist(client: Client, tools: Tools) -> None:
    await tools.create()
    async with client:
        for name, expected in TOOLS.items():
            told = await text(client, name, **({"ticket": "TH-1"} if name == "handover" else {}))
            assert set(expected) <= {tool.name for tool in tools.registry.tools}
            assert all(tool in told for tool in expected), told


async def test_triage_shows_the_tickets_that_nobody_has_and_what_they_may_become(client: Client, tools: Tools) -> None:
    await tools.create("Of nobody", account="Acme")
    await tools.create("Of another account", account="Globex")
    await tools.create("Of Bob", person_in_charge="bob")
    await tools.create("Begun", status="in_progress")
    async with client:
        everything = await text(client, "triage")
        of_one = await text(client, "triage", account="acme")
        await tools("update_ticket", ticket_id="TH-1", person_in_charge="bob")
        nothing = await text(client, "triage", account="Acme")

    assert "Of nobody" in everything
    assert "Of another account" in everything
    assert "Of Bob" not in everything
    assert "Begun" not in everything
    assert "Incident" in everything
    assert "triage_bot" in everything
    assert "urgent" in everything
    assert "Of nobody" in of_one
    assert "Of another account" not in of_one
    assert "nothing to triage" in nothing


async def test_handover_carries_the_ticket_and_says_how_to_give_it_away(client: Client, tools: Tools) -> None:
    await tools.create("Other")
    key = await tools.create("Printer is out of ink", description="Third floor.")
    await tools("add_ticket_history", ticket_id=key, comment="Ink was ordered.")
    await tools("link_tickets", ticket_id=key, relation="related", other="TH-1")
    version = (await tools.ticket(key))["version"]
    async with client:
        to_bob = await text(client, "handover", ticket=key.lower(), to="Bob")
        to_nobody = await text(client, "handover", ticket=key, to=" ")

    for told in (to_bob, to_nobody):
        for part in ("Printer is out of ink", "Third floor.", "Ink was ordered.", "related TH-1", "ticket.commented"):
            assert part in told
    assert f"person_in_charge=bob and expected_version={version}" in to_bob
    assert "release_ticket" in to_nobody
    assert "person_in_charge=" not in to_nobody


async def test_standup_says_what_changed_since_and_what_is_in_work(client: Client, tools: Tools) -> None:
    await tools.create("Mine", person_in_charge="alice")
    await tools.create("Old", person_in_charge="bob")
    position = (await tools("update_task_status", task_id="TH-2", status="in_progress"))["position"]
    await tools("update_task_status", task_id="TH-1", status="in_progress")
    await tools("add_ticket_history", ticket_id="TH-1", comment="half done")
    await tools("update_ticket", ticket_id="TH-1", priority="high")
    async with client:
        told = await text(client, "standup", since=position)
        of_bob = await text(client, "standup", since=position, person="Bob")
        of_me = await text(client, "standup", person="alice")

    changed, _, in_work = told.partition("In work")
    line = "TH-1 [In Progress, alice] Mine: status from received; priority changed; 1 comment (by user:alice)"
    assert line in changed
    assert "TH-2" not in changed
    assert "TH-1 [In Progress, alice, high] Mine" in in_work
    assert "TH-2 [In Progress, bob] Old" in in_work
    assert "TH-1" not in of_bob
    assert "\nnothing" in of_bob
    assert "TH-2 [In Progress, bob] Old" in of_bob
    assert "TH-1 [In Progress, alice] Mine: created; status from received" in of_me
    assert "TH-2" not in of_me


async def test_a_prompt_over_very_many_tickets_is_short_and_says_what_is_missing(client: Client, tools: Tools) -> None:
    for number in range(120):
        await tools.create(f"{number} {'long ' * 38}", status="in_progress")
    async with client:
        told = await text(client, "standup")
        assert "more tickets" in told
        assert "and more, which get_ticket_list finds" in told


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("retro", {}, "there is no prompt 'retro'; there are triage, handover, standup"),
        ("handover", {}, "handover needs the argument ticket"),
        ("handover", {"ticket": " "}, "handover needs the argument ticket"),
        (
            "handover",
            {"ticket": "TH-1", "from": "bob"},
            "no argument of handover 'from'; there are ticket, to",
        ),
        ("handover", {"ticket": "TH-1", "to": "nobody"}, "there is no person 'nobody'; there are me, alice"),
        ("handover", {"ticket": "TH-99"}, "there is no ticket TH-99"),
        ("standup", {"since": "yesterday"}, "[Mm]ust be earliest, now"),
        ("standup", {"since": "x" * 65}, "64 characters"),
        ("standup", {"person": "x" * 201}, "person has at most 200 characters"),
        ("triage", {"account": "nobody"}, "account: there is no 'nobody'"),
    ],
)
async def test_what_is_wrong_with_a_request_is_said(
    client: Client, tools: Tools, name: str, arguments: dict[str, str], says: str
) -> None:
    await tools.create()
    async with client:
        with pytest.raises(MCPError, match=says) as caught:
            await client.get_prompt(name, arguments)

    assert caught.value.code == INVALID_PARAMS
    assert caught.value.error.data["code"]


async def test_a_prompt_needs_the_scopes_of_what_it_shows(guarded: Served) -> None:
    for scopes, names, missing in (
        ("tickets:read", ["triage", "handover"], "events:read"),
        ("events:read", [], "tickets:read"),
    ):
        async with guarded.client(MODERN, headers={SCOPES: scopes}) as client:
            assert [prompt.name for prompt in (await client.list_prompts()).prompts] == names
            with pytest.raises(MCPError, match=missing) as caught:
                await client.get_prompt("standup")
            assert caught.value.code == INVALID_REQUEST


async def test_every_argument_is_completed(client: Client, tools: Tools) -> None:
    await tools.create()
    async with client:

        async def complete(prompt: str, argument: str, value: str) -> list[str]:
            reference = PromptReference(name=prompt)
            return (await client.complete(reference, {"name": argument, "value": value})).completion.values

        assert await complete("triage", "account", "ac") == ["Acme"]
        assert await complete("handover", "ticket", "TH") == ["TH-1"]
        assert await complete("handover", "to", "b") == ["bob"]
        assert await complete("standup", "since", "2") == ["24h"]
        assert await complete("standup", "person", "m") == ["me"]
        for prompt, arguments in Prompts(tools.tickets).sources.items():
            for argument in arguments:
                assert await complete(prompt, argument, ""), (prompt, argument)
