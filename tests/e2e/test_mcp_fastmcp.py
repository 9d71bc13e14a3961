"""FastMCP's client, over every transport and in both eras."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest
from fastmcp import Client
from fastmcp.client.transports import ClientTransport, SSETransport, StdioTransport, StreamableHttpTransport
from fastmcp.exceptions import ToolError
from mcp.shared.exceptions import MCPError

from tests.e2e.harness.clients import MODERN
from tests.e2e.harness.process import ROOT, TaskHubProcess, clean_environment

Reach = Callable[[TaskHubProcess, Path], ClientTransport]


def over_http(hub: TaskHubProcess, log: Path) -> ClientTransport:
    return StreamableHttpTransport(f"{hub.url}/mcp")


def over_sse(hub: TaskHubProcess, log: Path) -> ClientTransport:
    return SSETransport(f"{hub.url}/sse")


def over_stdio(hub: TaskHubProcess, log: Path) -> ClientTransport:
    environment = clean_environment({"TASKHUB_DATA_DIR": str(hub.data_dir)})
    arguments = ["-m", "taskhub", "stdio"]
    return StdioTransport(sys.executable, arguments, env=environment, cwd=str(ROOT), keep_alive=False, log_file=log)


WAYS: Final = [
    pytest.param(over_http, MODERN, id="modern-http"),
    pytest.param(over_http, "legacy", id="legacy-http"),
    pytest.param(over_sse, "legacy", id="legacy-sse"),
    pytest.param(over_stdio, MODERN, id="modern-stdio"),
    pytest.param(over_stdio, "legacy", id="legacy-stdio"),
]


@pytest.mark.parametrize(("reach", "mode"), WAYS)
async def test_it_lists_calls_reads_and_prompts_and_is_told_what_is_wrong(
    hub: TaskHubProcess, tmp_path: Path, reach: Reach, mode: Any
) -> None:
    async with Client(reach(hub, tmp_path / "stdio.log"), mode=mode) as client:
        tools = await client.list_tools()
        made = await client.call_tool("create_ticket", {"summary": "Made with FastMCP"})
        key = made.structured_content["key"]
        resources = await client.list_resources()
        templates = await client.list_resource_templates()
        (read,) = await client.read_resource(f"taskhub://tickets/{key}")
        prompts = await client.list_prompts()
        prompt = await client.get_prompt("handover", {"ticket": key})
        with pytest.raises(ToolError, match="TH-99999"):
            await client.call_tool("get_ticket_detail", {"ticket_id": "TH-99999"})
        with pytest.raises(MCPError, match="TH-99999"):
            await client.read_resource("taskhub://tickets/TH-99999")
        found = await client.call_tool("get_ticket_detail", {"ticket_id": key})

    assert {"create_ticket", "get_ticket_detail"} <= {tool.name for tool in tools}
    assert {str(resource.uri) for resource in resources} == {"taskhub://board", "taskhub://events"}
    assert "taskhub://tickets/{key}" in {template.uri_template for template in templates}
    assert json.loads(read.text)["ticket"]["summary"] == "Made with FastMCP"
    assert {"handover", "standup"} <= {prompt.name for prompt in prompts}
    assert "Made with FastMCP" in prompt.messages[0].content.text
    assert found.structured_content["ticket"]["summary"] == "Made with FastMCP"
