"""The MCP conformance suite: what each revision of the protocol requires of a server."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.harness.process import TaskHubProcess, run_command
from tests.e2e.harness.tools import NODE_MODULES, node

pytestmark = pytest.mark.needs("npm packages")

SUITE: Final = NODE_MODULES / "@modelcontextprotocol/conformance/dist/index.js"
ATTEMPTS: Final = 3
"""The suite gives a server half a second for some answers, which a machine that is busy with other tests may exceed."""
NOT_OFFERED: Final = "tasks-"
"""Scenarios of an extension that no revision requires and TaskHub does not offer."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    """The server as it is shipped, with the suite's fixtures beside its own tools; not started yet."""
    command = (sys.executable, "-m", "tests.e2e.conformance")
    hub = TaskHubProcess(tmp_path_factory.mktemp("conformance") / "taskhub", command=command, name="conformance")
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest.fixture
async def url(server: TaskHubProcess) -> str:
    return (server if server.running else await server.start()).url


@pytest.mark.parametrize("revision", ["2026-07-28", "2025-11-25"])
async def test_the_server_conforms_to_each_era(url: str, revision: str, tmp_path: Path) -> None:
    command = (str(node()), str(SUITE), "server", "--url", f"{url}/mcp", "--requirements", revision)
    for left in reversed(range(ATTEMPTS)):
        try:
            output = await run_command(*command, cwd=tmp_path)  # which fails unless all that is required passed
            break
        except AssertionError:
            if not left:
                raise

    summary = output.partition("=== SUMMARY ===")[2]
    passed, failed = (set(re.findall(rf"^{mark} (\S+):", summary, re.MULTILINE)) for mark in "✓✗")
    assert {"tools-call-simple-text", "resources-read-text", "prompts-get-simple"} <= passed, output
    assert {name for name in failed if not name.startswith(NOT_OFFERED)} == set(), summary
