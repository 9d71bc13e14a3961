"""A fresh clone, `make run`, and there is a server with example tickets."""

import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api, call, mcp_http
from tests.e2e.harness.process import ROOT, run_command
from tests.e2e.harness.streams import record_with_curl
from tests.e2e.harness.waiting import until

INSTALL_DEADLINE_S = 900.0
"""A second or two per package where nothing is cached."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.needs("curl")
async def test_make_run_in_a_fresh_clone_serves_example_tickets(make_hub: MakeHub, tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("this checkout is no git clone")
    clone = tmp_path / "clone"
    await run_command("git", "clone", "--quiet", str(ROOT), str(clone))
    make = ("make", "run", f"PYTHON={sys.executable}", "ARGS=--port 0")
    quicker = {"PIP_NO_COMPILE": "1"}
    hub = make_hub(command=make, checkout=clone, environment=quicker, name="clone-data")
    await hub.start(INSTALL_DEADLINE_S)

    async with api(hub.url) as client, record_with_curl(f"{hub.url}/events/stream") as stream:
        await stream.wait_ready()
        tickets = await until(client.all_tickets, "example tickets")
        async with mcp_http(hub.url) as mcp:
            made = await call(mcp, "create_ticket", summary="From a fresh clone")
        await stream.wait_id(made["event_id"])
    await hub.stop()

    assert len(tickets) >= 5
    for told in (f"{hub.url}/mcp", f'curl -N "{hub.url}/events/stream"', "mcpServers"):
        assert told in hub.log
    assert not (hub.data_dir / "server.json").exists(), "the server did not end in good order"
