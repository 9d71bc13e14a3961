"""The MCP Inspector's command line, with which people look at a server: both eras and every transport."""

import json
import sys
from typing import Any, Final

import pytest

from tests.e2e.harness.clients import Api, inspect
from tests.e2e.harness.process import ROOT, TaskHubProcess

pytestmark = pytest.mark.needs("npm packages")

BOARD: Final = ("--method", "resources/read", "--uri", "taskhub://board")


def columns(read: dict[str, Any]) -> list[str]:
    """The statuses of the board that was read."""
    (contents,) = read["contents"]
    return [column["status"] for column in json.loads(contents["text"])["columns"]]


@pytest.mark.parametrize(
    ("era", "listed", "names"),
    [("modern", "resources", {"board", "events"}), ("legacy", "prompts", {"handover", "standup"})],
)
async def test_it_lists_reads_and_prompts(
    hub: TaskHubProcess, rest: Api, era: str, listed: str, names: set[str]
) -> None:
    key = (await rest.create("Seen by the Inspector"))["key"]
    server = (f"{hub.url}/mcp", "--transport", "http", "--protocol-era", era)

    # Fails when a client could stumble over the schema of a tool.
    tools = (await inspect(*server, "--method", "tools/list", "--strict"))["tools"]
    more = (await inspect(*server, "--method", f"{listed}/list"))[listed]
    board = await inspect(*server, *BOARD)
    handover = ("--method", "prompts/get", "--prompt-name", "handover", "--prompt-args", f"ticket={key}")
    prompt = await inspect(*server, *handover)

    assert {"create_ticket", "get_ticket_detail"} <= {tool["name"] for tool in tools}
    assert names <= {each["name"] for each in more}
    assert "Received" in columns(board)
    assert "Seen by the Inspector" in prompt["messages"][0]["content"]["text"]


async def test_it_works_over_the_older_transport_and_a_process_of_its_own(hub: TaskHubProcess) -> None:
    older = await inspect(f"{hub.url}/sse", "--transport", "sse", *BOARD)
    environment = ("-e", f"TASKHUB_DATA_DIR={hub.data_dir}")
    command = (sys.executable, "-m", "taskhub", "stdio")
    own = await inspect(*command, "--transport", "stdio", "--cwd", str(ROOT), *environment, *BOARD)

    assert "Received" in columns(older)
    assert columns(own) == columns(older)
