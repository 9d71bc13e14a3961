"""`taskhub stdio` as a real process: on its own database, and its manners at the end."""

import asyncio
import json
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import Implementation, ResourceUpdatedNotification

from taskhub.app import create_app
from taskhub.cli.parser import build_parser
from taskhub.mcp.tools import tool_registry
from taskhub.remote import RemoteTickets
from taskhub.settings.model import Settings
from taskhub.stdio import MAX_LINE_BYTES, _lines_of
from tests.forked import PipedPython, piped
from tests.taskhub.mcp.calling import Tools
from tests.taskhub.mcp.test_confirmation import Somebody
from tests.taskhub.mcp.world import DEADLINE_S, MODERN, data_of, open_tickets, until

ROOT: Final = Path(__file__).resolve().parents[3]
COMMAND: Final = ("-P", "-m", "taskhub", "stdio")
INITIALIZE: Final = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "wire", "version": "1"}},
}
INITIALIZED: Final = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def environment(data_dir: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKHUB_", "MCP_"))}
    return {**kept, "TASKHUB_DATA_DIR": str(data_dir), "PYTHONPATH": str(ROOT)}


def call(number: int, tool: str, **arguments: Any) -> dict[str, Any]:
    params = {"name": tool, "arguments": arguments}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def running(data_dir: Path, *arguments: str) -> AbstractAsyncContextManager[PipedPython]:
    """The process; killed where the test did not end it."""
    return piped("-m", "taskhub", "stdio", *arguments, environment=environment(data_dir))


async def say(process: PipedPython, *messages: dict[str, Any]) -> None:
    process.stdin.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    await process.stdin.drain()


async def hear(process: PipedPython) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(await asyncio.wait_for(process.stdout.readline(), DEADLINE_S))
    return message


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_a_client_of_either_era_works_on_the_embedded_database(
    database_file: Path, tmp_path: Path, mode: str
) -> None:
    server = StdioServerParameters(command=sys.executable, args=[*COMMAND], env=environment(tmp_path))
    agent = Implementation(name="My Agent", version="1")
    person = Somebody()
    async with Client(server, mode=mode, client_info=agent, elicitation_callback=person) as client:
        listed = await client.list_tools()
        await client.call_tool("create_ticket", {"summary": "over stdio"})
        found = data_of(await client.call_tool("get_ticket_detail", {"ticket_id": "TH-1", "include": ["history"]}))
        deleted = data_of(await client.call_tool("delete_ticket", {"ticket_id": "TH-1"}))

    assert {"get_ticket_list", "update_ticket", "claim_ticket"} <= {tool.name for tool in listed.tools}
    assert found["ticket"]["summary"] == "over stdio"
    assert found["history"][0]["actor"] == "agent:my_agent"
    assert person.asked[0].startswith("Delete TH-1 “over stdio”?")
    assert deleted["version"] == 2


async def test_arguments_narrow_the_tools_as_headers_do(database_file: Path, tmp_path: Path) -> None:
    narrowed = [*COMMAND, "--read-only", "--toolsets", "tickets, Events"]
    server = StdioServerParameters(command=sys.executable, args=narrowed, env=environment(tmp_path))
    async with Client(server, mode=MODERN) as client:
        listed = await client.list_tools()
        refused = data_of(await client.call_tool("create_ticket", {"summary": "x"}))

    assert [tool.name for tool in listed.tools] == ["get_ticket_list", "get_ticket_detail", "get_board", "get_events"]
    assert refused["code"] == "read_only"


def test_a_toolset_that_does_not_exist_is_named_with_those_that_do(capsys: pytest.CaptureFixture[str]) -> None:
    registry = tool_registry(RemoteTickets("http://127.0.0.1:9", None))
    with pytest.raises(SystemExit, match="2"):
        build_parser().parse_args(["stdio", "--toolsets", "tickets,admin"])

    assert f"there is no toolset 'admin'; there are {', '.join(registry.toolsets)}" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_a_client_of_either_era_reads_and_watches_what_another_process_changes(
    database_file: Path, tmp_path: Path, mode: str
) -> None:
    woken: list[str] = []

    async def hear_update(message: object) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            woken.append(message.params.uri)

    server = StdioServerParameters(command=sys.executable, args=[*COMMAND], env=environment(tmp_path))
    ticket = "taskhub://tickets/TH-1"
    async with Client(server, mode=mode, message_handler=hear_update) as client, AsyncExitStack() as stack:
        await client.call_tool("create_ticket", {"summary": "over stdio"})
        if mode == MODERN:
            listening = await stack.enter_async_context(client.listen(resource_subscriptions=[ticket]))
        else:
            await client.subscribe_resource(ticket)
        async with open_tickets(database_file) as elsewhere:
            await Tools(elsewhere)("update_ticket", ticket_id="TH-1", summary="changed elsewhere")

        if mode == MODERN:
            woken.append((await asyncio.wait_for(anext(listening), DEADLINE_S)).uri)  # type: ignore[union-attr]  # it is one
        await until(lambda: ticket in woken)
        (read,) = (await client.read_resource(ticket)).contents
        assert json.loads(read.text)["ticket"]["summary"] == "changed elsewhere"  # type: ignore[union-attr]  # it is text
        prompt = (await client.get_prompt("handover", {"ticket": "TH-1"})).messages[0].content
        assert "changed elsewhere" in prompt.text  # type: ignore[union-attr]  # it is text


async def test_calls_in_flight_are_answered_when_the_input_ends(database_file: Path, tmp_path: Path) -> None:
    async with running(tmp_path, "--actor", "user:alice") as process:
        calls = [call(number, "create_ticket", summary=f"number {number}") for number in range(2, 12)]
        await say(process, INITIALIZE, INITIALIZED, *calls)
        process.stdin.close()
        output, errors = await asyncio.wait_for(process.communicate(), DEADLINE_S)

    answers = {answer["id"]: answer["result"] for answer in map(json.loads, output.splitlines())}
    assert process.returncode == 0, errors.decode()
    assert sorted(answers) == list(range(1, 12))
    keys = {answers[number]["structuredContent"]["key"] for number in range(2, 12)}
    assert len(keys) == 10
    async with open_tickets(database_file) as tickets:
        history = (await Tools(tickets)("get_ticket_detail", ticket_id="TH-1", include="history"))["history"]
    assert history[0]["actor"] == "user:alice"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_in_good_order_while_the_input_is_open(
    database_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    async with running(tmp_path) as process:
        await say(process, INITIALIZE)
        assert (await hear(process))["id"] == 1

        process.send_signal(number)
        assert await asyncio.wait_for(process.wait(), DEADLINE_S) == 0


async def test_what_is_no_message_does_not_end_it(database_file: Path, tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        process.stdin.write(b"\n{\n\xff\xfe\n" + b"[" * 10_000 + b"\n")
        await say(process, INITIALIZE)

        assert (await hear(process))["id"] == 1


async def test_an_input_that_is_closed_at_once_ends_it(database_file: Path, tmp_path: Path) -> None:
    async with running(tmp_path) as process:
        process.stdin.close()
        output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_S)

    assert (process.returncode, output) == (0, b"")


async def test_the_tools_work_through_the_api_of_a_running_server(tmp_path: Path) -> None:
    runner = web.AppRunner(create_app(Settings(data_dir=tmp_path / "server")), handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        arguments = [*COMMAND, "--api-base-url", url, "--actor", "agent:night-shift"]
        server = StdioServerParameters(command=sys.executable, args=arguments, env=environment(tmp_path / "client"))
        async with Client(server, mode="legacy", elicitation_callback=Somebody()) as client:
            await client.call_tool("create_ticket", {"summary": "over stdio and HTTP"})
            detail = {"ticket_id": "TH-1", "include": ["history"]}
            found = data_of(await client.call_tool("get_ticket_detail", detail))
            await client.call_tool("delete_ticket", {"ticket_id": "TH-1", "idempotency_key": "k"})
            again = data_of(await client.call_tool("delete_ticket", {"ticket_id": "TH-1", "idempotency_key": "k"}))
    finally:
        await runner.cleanup()

    assert found["ticket"]["summary"] == "over stdio and HTTP"
    assert found["history"][0]["actor"] == "agent:night-shift"
    assert (again["version"], again["replayed"]) == (2, True)


def test_a_line_that_is_too_long_is_dropped_and_the_next_one_is_read() -> None:
    reading, writing = os.pipe()
    with open(writing, "wb") as pipe, ThreadPoolExecutor(1) as pool:
        lines = pool.submit(list, _lines_of(reading))
        pipe.write(b"first\n\n" + b"x" * (MAX_LINE_BYTES + 200_000) + b"\nlast")
        pipe.close()

        assert lines.result(DEADLINE_S) == [b"first", b"last"]
    os.close(reading)
