"""Resources: what is listed, what a read answers, who may read it, and what a wrong address is told."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PromptReference,
    ReadResourceResult,
    ResourceTemplateReference,
    TextResourceContents,
)

from taskhub.fitting import MAX_CHARACTERS
from taskhub.mcp.uris import BOARD, EVENTS, EVENTS_TEMPLATE, TICKET_TEMPLATE, address_of
from taskhub.tickets.inputs import NewComment
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools
from tests.taskhub.mcp.live import SCOPES, ByHeader
from tests.taskhub.mcp.world import ALICE, MODERN, Served, serve_mcp
from tests.taskhub.test_remote import elsewhere_at

OLDER_NOT_FOUND = -32002


@pytest.fixture
def tools(tickets: TicketService) -> Tools:
    return Tools(tickets)


@pytest.fixture(params=["legacy", MODERN])
async def era(request: pytest.FixtureRequest) -> str:
    mode: str = request.param
    return mode


@pytest.fixture
async def guarded(tickets: TicketService) -> AsyncIterator[Served]:
    async with serve_mcp(tickets, auth=ByHeader()) as serving:
        yield serving


def json_of(read: ReadResourceResult) -> dict[str, Any]:
    (content,) = read.contents
    assert isinstance(content, TextResourceContents)
    assert content.mime_type == "application/json"
    assert len(content.text) <= MAX_CHARACTERS
    found: dict[str, Any] = orjson.loads(content.text)
    return found


async def failure(client: Client, uri: str) -> MCPError:
    with pytest.raises(MCPError) as caught:
        await client.read_resource(uri)
    return caught.value


async def test_the_board_and_the_events_are_listed_and_tickets_are_a_template(
    served: Served, tools: Tools, era: str
) -> None:
    await tools.create()
    async with served.client(era) as client:
        listed = await client.list_resources()
        templates = await client.list_resource_templates()

    assert [resource.uri for resource in listed.resources] == [BOARD, EVENTS]
    assert [template.uri_template for template in templates.resource_templates] == [TICKET_TEMPLATE, EVENTS_TEMPLATE]
    descriptions = [item.description for item in listed.resources]
    assert all(descriptions + [item.description for item in templates.resource_templates])
    if era == MODERN:
        assert listed.ttl_ms
        assert listed.cache_scope == "private"


async def test_a_ticket_is_read_with_its_parts(served: Served, tools: Tools, era: str) -> None:
    key = await tools.create("Printer is out of ink", priority="high")
    await tools("add_ticket_history", ticket_id=key, comment="Ordered.")

    async with served.client(era) as client:
        read = await client.read_resource("taskhub://tickets/th-1")

    assert read.contents[0].uri == "taskhub://tickets/th-1"
    found = json_of(read)
    assert (found["ticket"]["key"], found["ticket"]["priority"]) == (key, "high")
    assert [comment["body"] for comment in found["comments"]] == ["Ordered."]
    assert found["history"]
    assert found["relations"] == []
    assert found["attachments"] == []


async def test_the_board_is_what_the_tool_shows(served: Served, tools: Tools, era: str) -> None:
    await tools.create()
    async with served.client(era) as client:
        assert json_of(await client.read_resource(BOARD)) == await tools("get_board")


async def test_events_are_read_after_a_position_and_without_one_those_of_the_last_hour(
    served: Served, tools: Tools, era: str
) -> None:
    first = (await tools("create_ticket", summary="first"))["position"]
    await tools.create("second")

    async with served.client(era) as client:
        recent = json_of(await client.read_resource(EVENTS))
        later = json_of(await client.read_resource(f"{EVENTS}?after={first}"))
        nothing = json_of(await client.read_resource(f"{EVENTS}?after={later['position']}"))

    assert [event["ticket"] for event in recent["events"]] == ["TH-1", "TH-2"]
    assert [event["ticket"] for event in later["events"]] == ["TH-2"]
    assert nothing == {"events": [], "position": later["position"], "more": False}


async def test_a_long_ticket_is_cut_and_says_how_to_get_the_rest(served: Served, tools: Tools) -> None:
    key = await tools.create(description="長" * 60_000)
    for _ in range(5):
        await tools("add_ticket_history", ticket_id=key, comment="long " * 3_000)

    async with served.client(MODERN) as client:
        found = json_of(await client.read_resource(f"taskhub://tickets/{key}"))

    assert found["truncated"] is True
    assert f"/api/v1/tickets/{key}" in found["hint"]


@pytest.mark.parametrize(
    "uri",
    [
        "taskhub://tickets/",
        "taskhub://tickets/TH-1/comments",
        "taskhub://tickets/TH-1?x=1",
        "taskhub://boards",
        "taskhub://board?as_of=1",
        "taskhub://events?before=x",
        "taskhub://events?after=",
        "https://tickets/TH-1",
        "taskhub://[",
        "taskhub://board#top",
    ],
)
async def test_an_address_of_nothing_is_told_what_there_is(served: Served, tools: Tools, uri: str) -> None:
    await tools.create()
    async with served.client("legacy") as older, served.client(MODERN) as client:
        error = await failure(client, uri)
        assert (error.code, (await failure(older, uri)).code) == (INVALID_PARAMS, OLDER_NOT_FOUND)

    assert error.error.data["code"] == "not_found"
    assert TICKET_TEMPLATE in error.error.data["hint"]


async def test_a_ticket_that_is_not_there_is_a_resource_not_found(served: Served, tools: Tools) -> None:
    gone = await tools.create()
    await tools("delete_ticket", ticket_id=gone, confirm=True)
    async with served.client("legacy") as older, served.client(MODERN) as client:
        for uri, code in (("taskhub://tickets/TH-99", "not_found"), (f"taskhub://tickets/{gone}", "deleted")):
            error = await failure(client, uri)
            assert (error.code, (await failure(older, uri)).code) == (INVALID_PARAMS, OLDER_NOT_FOUND)
            assert (error.error.data["code"], error.error.data["uri"]) == (code, uri)
            assert error.error.data["hint"]


async def test_a_position_that_is_none_is_bad_input(served: Served, era: str) -> None:
    async with served.client(era) as client:
        for after in ("yesterday", "x" * 65):
            error = await failure(client, f"{EVENTS}?after={after}")
            assert error.code == INVALID_PARAMS
            assert error.error.data["problems"][0]["parameter"] == "after"


async def test_each_caller_sees_and_reads_what_its_scopes_allow(guarded: Served, tools: Tools, era: str) -> None:
    await tools.create()
    for scope, uris, other in (
        ("tickets:read", [BOARD], EVENTS),
        ("events:read", [EVENTS], "taskhub://tickets/TH-1"),
        ("events:publish", [], BOARD),
    ):
        async with guarded.client(era, headers={SCOPES: scope}) as client:
            assert [resource.uri for resource in (await client.list_resources()).resources] == uris
            assert len((await client.list_resource_templates()).resource_templates) == len(uris)
            for uri in uris:
                assert json_of(await client.read_resource(uri))
            error = await failure(client, other)
            assert (error.code, error.error.data["code"]) == (INVALID_REQUEST, "forbidden")
            assert error.error.data["scope"] in str(error)


async def test_keys_are_completed_by_their_beginning_the_last_changed_first(
    served: Served, tools: Tools, era: str
) -> None:
    for number in range(12):
        await tools.create(str(number))
    await tools("update_ticket", ticket_id="TH-1", remarks="changed last")
    template = ResourceTemplateReference(uri=TICKET_TEMPLATE)

    async with served.client(era) as client:

        async def complete(typed: str) -> list[str]:
            return (await client.complete(template, {"name": "key", "value": typed})).completion.values

        assert await complete("TH-1") == ["TH-1", "TH-12", "TH-11", "TH-10"]
        assert await complete("12") == ["TH-12"]
        assert await complete("th-2") == ["TH-2"]
        assert await complete("XX") == []
        assert (await complete(""))[:2] == ["TH-1", "TH-12"]


async def test_a_key_of_an_old_ticket_completes_when_it_is_whole(served: Served, tools: Tools) -> None:
    for number in range(102):
        await tools.create(str(number))

    async with served.client(MODERN) as client:
        template = ResourceTemplateReference(uri=TICKET_TEMPLATE)
        found = (await client.complete(template, {"name": "key", "value": "TH-1"})).completion

    assert found.values[:2] == ["TH-1", "TH-102"]


async def test_what_cannot_be_completed_is_told_what_can(served: Served, guarded: Served) -> None:
    async with served.client(MODERN) as client:
        for reference, argument, allowed in (
            (ResourceTemplateReference(uri="taskhub://x"), "key", TICKET_TEMPLATE),
            (ResourceTemplateReference(uri=TICKET_TEMPLATE), "no", "key"),
            (PromptReference(name="nothing"), "x", "standup"),
            (PromptReference(name="handover"), "from", "ticket"),
        ):
            with pytest.raises(MCPError, match="there is no") as caught:
                await client.complete(reference, {"name": argument, "value": ""})
            assert allowed in caught.value.error.data["allowed"]
    async with guarded.client(MODERN, headers={SCOPES: "events:read"}) as client:
        with pytest.raises(MCPError, match="tickets:read"):
            await client.complete(ResourceTemplateReference(uri=TICKET_TEMPLATE), {"name": "key", "value": ""})


def test_spellings_of_one_ticket_are_one_topic() -> None:
    spellings = ("taskhub://tickets/TH-12", "taskhub://tickets/th-12", "taskhub://tickets/TH-0012")

    assert {address.topic for uri in spellings if (address := address_of(uri))} == {"taskhub://tickets/TH-12"}


async def test_lists_have_one_page(served: Served, era: str) -> None:
    async with served.client(era) as client:
        for ask in (client.list_resources, client.list_resource_templates, client.list_prompts, client.list_tools):
            with pytest.raises(MCPError, match="one page"):
                await ask(cursor="x")


async def test_a_read_that_fails_for_reasons_of_our_own_tells_where_to_look(
    served: Served, tickets: TicketService, monkeypatch: pytest.MonkeyPatch, era: str
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(tickets, "get_board", broken)
    async with served.client(era) as client:
        error = await failure(client, BOARD)

    assert "a secret" not in str(error)
    assert error.error.data["correlation_id"] == "request-1"


async def test_in_front_of_another_taskhub_resources_and_prompts_are_read_there(tmp_path: Path, era: str) -> None:
    async with elsewhere_at(tmp_path) as elsewhere, elsewhere.remote() as remote, serve_mcp(remote) as front:
        tools = Tools(elsewhere.local)
        await tools.create("Kept elsewhere", person_in_charge=None)
        async with front.client(era) as client:
            assert (
                json_of(await client.read_resource("taskhub://tickets/TH-1"))["ticket"]["summary"] == "Kept elsewhere"
            )
            assert json_of(await client.read_resource(BOARD)) == await tools("get_board")
            assert len(json_of(await client.read_resource(EVENTS))["events"]) == 1
            assert (await failure(client, "taskhub://tickets/TH-9")).error.data["code"] == "not_found"
            template = ResourceTemplateReference(uri=TICKET_TEMPLATE)
            completed = await client.complete(template, {"name": "key", "value": "TH"})
            assert completed.completion.values == ["TH-1"]
            for prompt in ("triage", "standup"):
                content = (await client.get_prompt(prompt)).messages[0].content
                assert content.type == "text"
                assert "Kept elsewhere" in content.text


async def test_what_changes_between_two_reads_is_in_the_second(served: Served, tickets: TicketService) -> None:
    async with served.client(MODERN) as client:
        await Tools(tickets).create()
        assert json_of(await client.read_resource("taskhub://tickets/TH-1"))["comments"] == []
        await tickets.add_comment(ALICE, "TH-1", NewComment(comment="new"))
        assert len(json_of(await client.read_resource("taskhub://tickets/TH-1"))["comments"]) == 1
