"""A tool call changes a ticket, and everyone who listens hears it."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import MODERN, Api, api, call, inspect, mcp_http, mcp_sse, mcp_stdio
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import Recorder, record, record_with_curl
from tests.e2e.harness.waiting import until


@pytest.fixture
async def curls(hub: TaskHubProcess) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """Two curl streams that are live: one of everything, one of tickets in progress."""
    async with AsyncExitStack() as stack:
        everything = await stack.enter_async_context(record_with_curl(f"{hub.url}/events/stream"))
        in_progress = await stack.enter_async_context(record_with_curl(f"{hub.url}/events/stream?status=In%20Progress"))
        await everything.wait_ready()
        await in_progress.wait_ready()
        yield everything, in_progress


def told(events: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What a subscriber learned from each event, in short."""
    return [
        (e["type"], e["subject"], e["ticketversion"], e["data"]["changes"].get("status"), e.get("match"))
        for e in events
    ]


@pytest.mark.needs("curl")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_two_curls_hear_exactly_what_they_asked_for_when_tools_change_tickets(
    hub: TaskHubProcess, curls: tuple[Recorder, Recorder], mode: str
) -> None:
    everything, in_progress = curls

    async with mcp_http(hub.url, mode) as client:
        made = await call(client, "create_ticket", summary="The printer is on fire", priority="urgent")
        key = made["key"]
        await call(client, "update_task_status", task_id=key, status="in_progress", comment="looking at it")
        await call(client, "update_ticket", ticket_id=key, remarks="third floor")
        other = await call(client, "create_ticket", summary="Order more paper")
        done = await call(client, "update_task_status", task_id=key, status="COMPLETED")
    heard = await everything.wait_id(done["event_id"])
    filtered = await in_progress.wait_id(done["event_id"])

    assert told(heard) == [
        ("ticket.created", key, 1, None, None),
        ("ticket.status_changed", key, 2, ["received", "in_progress"], None),
        ("ticket.updated", key, 3, None, None),
        ("ticket.created", other["key"], 1, None, None),
        ("ticket.status_changed", key, 4, ["in_progress", "completed"], None),
    ]
    assert told(filtered) == [
        ("ticket.status_changed", key, 2, ["received", "in_progress"], "enter"),
        ("ticket.updated", key, 3, None, "update"),
        ("ticket.status_changed", key, 4, ["in_progress", "completed"], "leave"),
    ]
    assert [e["id"] for e in heard] == [f"{heard[0]['id'].split('-')[0]}-{seq}" for seq in consecutive(heard)]
    assert all(e["origin"] == "mcp_tool" and e["specversion"] == "1.0" for e in heard)
    assert heard[1]["data"]["comment"] == "looking at it"
    assert heard[1]["data"]["changes"]["phase"] == ["todo", "active"]
    assert heard[0]["data"]["ticket"]["priority"] == "urgent"
    assert heard[-1]["data"]["ticket"]["status"] == {"id": "completed", "name": "Completed"}


def consecutive(events: list[dict[str, Any]]) -> range:
    """The seqs that these events have when none is missing between them."""
    first = int(events[0]["id"].split("-")[1])
    return range(first, first + len(events))


@pytest.mark.needs("curl", "npm packages")
@pytest.mark.parametrize("era", ["modern", "legacy"])
async def test_the_inspectors_command_line_creates_and_moves_a_ticket(
    hub: TaskHubProcess, curls: tuple[Recorder, Recorder], era: str
) -> None:
    everything, in_progress = curls
    tool = (f"{hub.url}/mcp", "--transport", "http", "--protocol-era", era, "--method", "tools/call", "--tool-name")

    made = await inspect(*tool, "create_ticket", "--tool-arg", f"summary=From the {era} inspector")
    key = made["structuredContent"]["key"]
    moved = await inspect(*tool, "update_task_status", "--tool-arg", f"task_id={key}", "status=In Progress")
    event_id = moved["structuredContent"]["event_id"]
    heard = await everything.wait_id(event_id)
    filtered = await in_progress.wait_id(event_id)

    assert [e["type"] for e in heard] == ["ticket.created", "ticket.status_changed"]
    assert [(e["type"], e["match"]) for e in filtered] == [("ticket.status_changed", "enter")]


async def test_every_transport_reaches_the_same_tickets(hub: TaskHubProcess, rest: Api) -> None:
    async with record(hub.url) as stream:
        await stream.wait_ready()
        async with mcp_http(hub.url) as http, mcp_sse(hub.url) as sse:
            made = await call(http, "create_ticket", summary="Made over Streamable HTTP")
            key = made["key"]
            await call(sse, "update_task_status", task_id=key, status="verifying")
        remote = {"TASKHUB_API_BASE_URL": hub.url, "TASKHUB_DATA_DIR": str(hub.data_dir.parent / "nothing-here")}
        async with mcp_stdio(environment=remote, error_log=hub.data_dir.parent / "stdio.log") as stdio:
            await call(stdio, "add_ticket_history", ticket_id=key, comment="seen over stdio", kind="note")
            detail = await call(stdio, "get_ticket_detail", ticket_id=key, include=["comments"])
        written = await rest.change(key, priority="high")
        events = await stream.wait_id(written["event_id"])

    assert [e["type"] for e in events] == [
        "ticket.created", "ticket.status_changed", "ticket.commented", "ticket.updated",
    ]  # fmt: skip
    # The tools of a process of their own came through REST, and that is all the server can vouch for.
    assert [e["origin"] for e in events] == ["mcp_tool", "mcp_tool", "rest_api", "rest_api"]
    assert detail["ticket"]["status"]["id"] == "verifying"
    assert [c["body"] for c in detail["comments"]] == ["seen over stdio"]


async def test_a_demo_server_has_example_tickets_that_change_by_themselves(make_hub: MakeHub) -> None:
    demo = await make_hub("--demo").start()

    async with api(demo.url) as client:
        tickets = await until(client.all_tickets, "example tickets")
        assert len(tickets) >= 5
        assert (await client.get("/api/v1/users"))["items"]
        async with record(demo.url, {"type": "ticket.*"}) as stream:
            await stream.wait_ready()
            changed = await stream.wait_events(1)
            assert changed[0]["subject"] in (await client.all_tickets())
