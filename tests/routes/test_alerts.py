"""The shipped alerts: each fires when what it is about happens to a real server, and ordinary work wakes nobody.

What happens is real, and scraped; that it lasts for minutes is told to promtool, which evaluates the rules.
"""

import asyncio
import re
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from broadcaster.event import Event
from routes.keys import BROADCASTER, LIFECYCLE, METERS
from taskhub.metrics.meters import Meters
from taskhub.processes import Place
from taskhub.scrape import Scrape
from taskhub.tickets.service import TicketService
from tests.routes.collector import RULES, Scraped, firing, promtool, scrape
from tests.routes.conftest import DEADLINE_S, Hub, Start
from tests.taskhub.world import until

CALL = {
    "Accept": "application/json, text/event-stream",
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
}
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def call_tool(hub: Hub, name: str, headers: dict[str, str] | None = None, **arguments: Any) -> Any:
    params = {"name": name, "arguments": arguments, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await hub.post("/mcp", body, headers={**CALL, "Mcp-Name": name, **(headers or {})})
    return answer.json


def test_promtool_accepts_the_rules() -> None:
    status, said = promtool("check", "rules", "--lint-fatal", str(RULES))

    assert status == 0, said


def test_promtool_accepts_the_configuration() -> None:
    status, said = promtool("check", "config", "--lint-fatal", str(RULES.with_name("prometheus.yml")))

    assert status == 0, said


def test_every_alert_has_an_entry_in_the_runbook_and_a_test() -> None:
    runbook = (RULES.parents[1] / "runbook.md").read_text()
    entries = re.findall(r"^## (\w+)$", runbook, re.MULTILINE)
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    alerts = {rule["alert"]: rule for rule in group["rules"]}

    assert set(entries) == set(alerts)
    assert len(entries) == len(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook"] == f"config/runbook.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f'"{name}"' in Path(__file__).read_text()


OF_SPEED = {"TaskHubDeliverySlow", "TaskHubLoopLag"}
"""What a machine under test may be too slow for, whatever happens."""


async def test_ordinary_work_wakes_nobody(start: Start, tmp_path: Path) -> None:
    hub = await start()
    before = await scrape(hub)
    async with hub.stream() as stream:
        await stream.until("ready")
        key = (await hub.create("Printer is on fire"))["key"]
        await stream.until("message")
        await hub.get(f"/api/v1/tickets/{key}")
        assert (await hub.get("/api/v1/tickets/TH-99")).status == 404
        assert not (await call_tool(hub, "get_ticket_list"))["result"]["isError"]
        assert (await call_tool(hub, "get_ticket_detail", ticket_id="TH-99"))["result"]["isError"]
        after = await scrape(hub)

    assert firing(tmp_path, before, after) - OF_SPEED == set()


async def test_a_server_that_does_not_answer(hub: Hub, tmp_path: Path) -> None:
    assert firing(tmp_path, await scrape(hub), None) - OF_SPEED == {"TaskHubDown"}


async def test_a_server_that_is_not_ready(hub: Hub, tmp_path: Path) -> None:
    before = await scrape(hub)
    hub.app[LIFECYCLE].draining = True
    after = await scrape(hub)
    hub.app[LIFECYCLE].draining = False

    assert firing(tmp_path, before, after) - OF_SPEED == {"TaskHubNotReady"}


async def test_a_database_that_is_away(hub: Hub, tmp_path: Path) -> None:
    file = tmp_path / "taskhub.db"
    before = await scrape(hub)
    file.rename(tmp_path / "away.db")
    for _ in range(2):
        await hub.get("/api/v1/tickets")
    after = await scrape(hub)
    (tmp_path / "away.db").rename(file)

    found = firing(tmp_path, before, after) - OF_SPEED
    assert found == {"TaskHubDatabaseErrors", "TaskHubNotReady", "TaskHubRequestsFail"}


async def test_requests_and_tools_that_fail(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    before = await scrape(hub)
    monkeypatch.setattr(TicketService, "list_tickets", fail)
    await hub.get("/api/v1/tickets")
    rest = await scrape(hub)
    assert firing(tmp_path, before, rest) - OF_SPEED == {"TaskHubRequestsFail"}

    await call_tool(hub, "get_ticket_list")
    assert firing(tmp_path, rest, await scrape(hub)) - OF_SPEED == {"TaskHubToolsFail"}


async def test_a_tail_that_stands_still(hub: Hub, tmp_path: Path) -> None:
    before = await scrape(hub)
    async with hub.stream() as stream:
        await stream.until("ready")
        await hub.app[BROADCASTER]._channels["default"].runner.stop()
        await hub.publish()
        after = await scrape(hub)

    assert after("taskhub_tail_lag_events", workspace="default") == 1
    assert firing(tmp_path, before, after) - OF_SPEED == {"TaskHubTailBehind"}


async def test_a_loop_that_is_blocked_and_deliveries_that_wait_for_it(hub: Hub, tmp_path: Path) -> None:
    def block(events: Sequence[Event] | None) -> None:
        time.sleep(1.5)

    before = await scrape(hub)
    async with hub.stream() as stream:
        await stream.until("ready")
        stop = await hub.app[BROADCASTER].watch("default", block)
        await hub.publish()
        await stream.until("message")
        stop()
    # The timer that came too late may be measured after the events were sent.
    await until(lambda: hub.app[METERS].loop_lag.sum > 1)
    lagging = await scrape(hub)

    assert firing(tmp_path, before, lagging) == {"TaskHubDeliverySlow", "TaskHubLoopLag"}


async def test_a_loop_and_deliveries_that_are_a_little_late(tmp_path: Path) -> None:
    meters = Meters()
    before = await told(meters)
    meters.loop_lag.add(0.05, 60)
    late = await told(meters)
    meters.loop_lag.add(0.2, 60)

    assert firing(tmp_path, before, late) == set()
    assert firing(tmp_path, late, await told(meters)) == {"TaskHubLoopLag"}


async def told(meters: Meters, place: Place | None = None) -> Scraped:
    """What a process without a database tells that has counted this."""

    async def ready() -> bool:
        return True

    return Scraped.parse((await Scrape(meters, draining=lambda: False, place=place).text(ready)).decode())


async def test_redis_that_is_away(start: Start, tmp_path: Path) -> None:
    hub = await start(redis_url="redis://127.0.0.1:1/0")

    assert firing(tmp_path, None, await scrape(hub)) - OF_SPEED == {"TaskHubRelayDown"}


async def test_streams_that_must_start_afresh(hub: Hub, tmp_path: Path) -> None:
    await hub.publish()
    before = await scrape(hub)
    async with hub.stream(**{"Last-Event-ID": "zzzz-1"}) as stream:
        await stream.until("reset")

    assert firing(tmp_path, before, await scrape(hub)) - OF_SPEED == {"TaskHubStreamsReset"}


async def test_streams_that_take_nothing(start: Start, tmp_path: Path) -> None:
    hub = await start(sse_write_timeout_s=1)
    before = await scrape(hub)
    with socket.socket() as stalled:
        stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stalled.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stalled, ("127.0.0.1", hub.port))
        request = f"GET /events/stream HTTP/1.1\r\nHost: 127.0.0.1:{hub.port}\r\n\r\n"
        await loop.sock_sendall(stalled, request.encode())
        async with asyncio.timeout(DEADLINE_S):
            while not hub.app[BROADCASTER].counters.ends["overloaded"]:
                await hub.publish(data={"text": "x" * 60_000})
    after = await scrape(hub)

    assert firing(tmp_path, before, after) - OF_SPEED == {"TaskHubStreamsTooSlow"}


async def test_nearly_as_many_streams_as_there_may_be(start: Start, tmp_path: Path) -> None:
    hub = await start(sse_max_streams=10)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(hub.stream()) for _ in range(9)]
        for stream in streams:
            await stream.until("ready")
        enough = await scrape(hub)
        last = await stack.enter_async_context(hub.stream())
        await last.until("ready")
        many = await scrape(hub)

    assert firing(tmp_path, enough, many) - OF_SPEED == {"TaskHubStreamsNearLimit"}


async def test_wrong_credentials_one_after_the_other(start: Start, tmp_path: Path) -> None:
    hub = await start(api_key="k-secret")
    before = await scrape(hub)
    for _ in range(5):
        await hub.get("/api/v1/tickets", headers={"x-api-key": "k-guess"})
    some = await scrape(hub)
    for _ in range(20):
        await hub.get("/api/v1/tickets", headers={"x-api-key": "k-guess"})
    many = await scrape(hub)

    assert firing(tmp_path, before, some) - OF_SPEED == set()
    assert firing(tmp_path, some, many) - OF_SPEED == {"TaskHubAuthFailures"}


async def test_workers_that_tell_nothing(tmp_path: Path) -> None:
    both, one = await told(Meters(), Place(1, 1, "g")), await told(Meters(), Place(1, 2, "g"))

    assert firing(tmp_path, both, one) == {"TaskHubWorkersMissing"}
