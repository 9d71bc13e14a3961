"""A trace goes through a request into its answer, its log lines, its events, and the requests that follow from it."""

import json
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from io import StringIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from routes.keys import API_KEYS, TICKETS
from taskhub import logs
from taskhub.keys.model import NewKey
from taskhub.tickets.reference_inputs import NewUser
from tests.e2e.harness.waiting import until
from tests.routes.conftest import Hub, Start
from tests.routes.test_alerts import CALL, META, call_tool
from tests.taskhub.mcp.wire import Wire, in_session
from tests.taskhub.world import ALICE

ROOT = Path(__file__).resolve().parents[2]
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD = f"00-{TRACE}-00f067aa0ba902b7-01"


class Written(StringIO):
    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log lines that say this."""
        return [line for line in map(json.loads, self.getvalue().splitlines()) if line["message"] == message]


@pytest.fixture
def written() -> Iterator[Written]:
    """What is logged, as JSON; at the end the test runner has its own logging back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    output = Written()
    logs.configure(level="info", json=True, stream=output)
    yield output
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


async def test_a_trace_is_in_the_answer_the_log_and_the_event(hub: Hub, written: Written) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        answer = await hub.post("/api/v1/tickets", {"summary": "x"}, headers={"traceparent": GOOD})
        event = (await stream.until("message")).data
    async with hub.stream("since=earliest") as again:
        replayed = (await again.until("message")).data
    polled = (await hub.get("/api/v1/events?after=earliest")).json["events"][0]
    _, trace, span, flags = answer.headers["traceparent"].split("-")
    (line,) = [line for line in written.lines("request") if line["method"] == "POST"]

    assert (trace, flags) == (TRACE, "01")
    assert span != "00f067aa0ba902b7"
    assert event["traceparent"] == answer.headers["traceparent"]
    assert replayed == event
    assert polled == event
    assert (line["trace_id"], line["span_id"]) == (trace, span)
    assert line["request_id"] == answer.headers["X-Request-ID"]


async def test_every_line_of_a_request_says_what_it_was(hub: Hub, written: Written) -> None:
    await hub.get("/api/v1/tickets/TH-9", headers={"X-TaskHub-Actor": "user:alice", "X-Request-ID": "r-1"})
    await call_tool(hub, "get_ticket_list")
    await call_tool(hub, "made_up")
    of_rest, of_tool, of_no_tool = written.lines("request")

    assert {"time", "severity", "message", "request_id", "actor", "route", "status", "duration_ms"} <= set(of_rest)
    assert (of_rest["request_id"], of_rest["actor"], of_rest["status"]) == ("r-1", "user:alice", 404)
    assert of_rest["route"] == "/api/v1/tickets/{key}"
    assert (of_tool["route"], of_tool["tool"]) == ("/mcp", "get_ticket_list")
    assert of_no_tool["tool"] == "other"
    assert "trace_id" not in of_rest


async def test_a_stream_has_a_line_when_it_opens_and_one_when_it_ends(hub: Hub, written: Written) -> None:
    async with hub.stream("limit=1", traceparent=GOOD) as stream:
        await stream.until("ready")
        await hub.publish()
        await stream.rest()
    (opened,), (closed,) = written.lines("stream opened"), written.lines("stream closed")

    assert opened["stream"] == closed["stream"]
    assert opened["trace_id"] == TRACE
    assert closed["reason"] == "done"


@asynccontextmanager
async def listening(hub: Hub, kind: str, **headers: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream of an MCP client, of this kind, that has begun."""
    if kind == "listen":
        params = {"notifications": {"resourceSubscriptions": ["taskhub://board"]}, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": params}
        request = hub.session.post(
            f"{hub.url}/mcp", json=body, headers={**CALL, "Mcp-Method": "subscriptions/listen", **headers}
        )
    else:
        path, accept = "/sse", {"Accept": "text/event-stream", **headers}
        if kind == "session":
            session = await Wire(hub.session, f"{hub.url}/mcp").open("wire", None, **headers)
            path, accept = "/mcp", {**accept, **in_session(session)}
        request = hub.session.get(f"{hub.url}{path}", headers=accept)
    async with request as response:
        assert response.status == 200, await response.text()
        yield response


@pytest.mark.parametrize("kind", ["sse", "session", "listen"])
async def test_a_stream_of_an_mcp_client_has_a_line_when_it_opens_and_one_when_it_ends(
    start: Start, written: Written, kind: str
) -> None:
    hub = await start(api_key="k-bootstrap")
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    key = await hub.app[API_KEYS].create(ALICE, NewKey(user="carol", name="laptop"))
    async with listening(hub, kind, **{"x-api-key": "k-bootstrap"}):
        await until(lambda: written.lines("MCP stream opened"), "a line")
    await until(lambda: written.lines("MCP stream closed"), "a line")
    async with listening(hub, kind, **{"x-api-key": key.secret}) as response:
        await hub.app[API_KEYS].revoke(ALICE, key.key.id)
        await response.read()
    await until(lambda: len(written.lines("MCP stream closed")) == 2, "a line")
    left, revoked = written.lines("MCP stream closed")

    assert [line["actor"] for line in written.lines("MCP stream opened")] == ["user:operator", "user:carol"]
    assert [line["request_id"] for line in written.lines("MCP stream opened")] == [
        left["request_id"],
        revoked["request_id"],
    ]
    assert (left["kind"], left["reason"], left["address"]) == (kind, "disconnected", "127.0.0.1")
    assert (revoked["kind"], revoked["reason"]) == (kind, "revoked")


async def test_answers_that_come_in_parts_have_their_line_too(hub: Hub, written: Written) -> None:
    wire = Wire(hub.session, f"{hub.url}/mcp")
    session = await wire.open()
    await wire.call("get_ticket_list", {}, **in_session(session))
    await hub.get("/api/v1/export?format=csv")
    *_, of_tool, of_export = written.lines("request")

    assert (of_tool["tool"], of_tool["status"]) == ("get_ticket_list", 200)
    assert (of_export["route"], of_export["status"]) == ("/api/v1/export", 200)


@pytest.mark.parametrize("header", ["garbage", GOOD.replace(TRACE, "0" * 32)])
async def test_a_wrong_trace_is_passed_over(hub: Hub, written: Written, header: str) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        answer = await hub.post("/events", {"type": "a.b", "data": {}}, headers={"traceparent": header})
        event = (await stream.until("message")).data

    assert answer.status == 201
    assert "traceparent" not in answer.headers
    assert "traceparent" not in event


async def test_a_transient_event_has_its_trace_too(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        body = {"type": "a.b", "data": {}, "transient": True}
        answer = await hub.post("/events", body, headers={"traceparent": GOOD})
        event = (await stream.until("message")).data

    assert event["traceparent"] == answer.headers["traceparent"]


async def test_a_trace_goes_on_to_the_server_behind(hub: Hub, start: Start, written: Written) -> None:
    front = await start(api_base_url=hub.url)
    async with hub.stream() as stream:
        await stream.until("ready")
        await call_tool(front, "create_ticket", headers={"traceparent": GOOD, "tracestate": "a=1"}, summary="x")
        event = (await stream.until("message")).data
    behind = [line for line in written.lines("request") if line["route"] == "/api/v1/tickets"]
    before = [line for line in written.lines("request") if line["route"] == "/mcp"]

    assert event["traceparent"].split("-")[1] == TRACE
    assert [line["trace_id"] for line in (*behind, *before)] == [TRACE, TRACE]
    assert len({line["span_id"] for line in (*behind, *before)}) == 2
    assert behind[0]["request_id"] == before[0]["request_id"]


PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

kept = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(kept))
trace.set_tracer_provider(provider)

from aiohttp.test_utils import TestClient, TestServer
from taskhub.app import create_app
from taskhub.settings.model import Settings
from tests.routes.test_alerts import CALL, META

async def main():
    app = create_app(Settings(data_dir=Path(sys.argv[1])))
    async with TestClient(TestServer(app)) as client:
        stream = await client.get("/events/stream?limit=1")
        params = {"name": "create_ticket", "arguments": {"summary": "x"}, "_meta": META}
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {**CALL, "Mcp-Name": "create_ticket", "traceparent": sys.argv[2]}
        answer = await client.post("/mcp", json=body, headers=headers)
        assert answer.status == 200, await answer.text()
        text = await stream.text()
        event = json.loads(next(line[6:] for line in text.splitlines() if line.startswith("data: {\\"specversion")))
    spans = [
        {
            "name": span.name,
            "trace": f"{span.context.trace_id:032x}",
            "id": f"{span.context.span_id:016x}",
            "parent": span.parent and f"{span.parent.span_id:016x}",
            "attributes": dict(span.attributes),
        }
        for span in kept.get_finished_spans()
    ]
    print(json.dumps({"event": event["traceparent"], "spans": spans}))

asyncio.run(main())
"""


def test_an_sdk_is_given_spans_of_requests_tools_transactions_and_flushes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), GOOD]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    by_name = {span["name"]: span for span in found["spans"] if span["name"] != "database read"}
    request, tool = by_name["POST /mcp"], by_name["create_ticket"]
    writes = [span for span in found["spans"] if span["name"] == "database write" and span["parent"] == tool["id"]]

    assert (request["trace"], request["parent"]) == (TRACE, "00f067aa0ba902b7")
    assert request["attributes"]["http.response.status_code"] == 200
    assert (tool["trace"], tool["parent"]) == (TRACE, request["id"])
    assert writes
    assert found["event"].split("-")[1:3] == [TRACE, request["id"]]
    assert by_name["flush"]["attributes"] == {"events": 1, "subscribers": 1}
    assert by_name["flush"]["parent"] is None


def test_a_start_reads_nothing_that_a_server_may_never_need() -> None:
    seldom = {"alembic", "asyncpg", "jwt", "mcp", "opentelemetry", "redis", "taskhub.remote"}
    program = "import sys, taskhub.app, taskhub.cli.parser, taskhub.cli.serve, taskhub.serve; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert seldom.isdisjoint(done.stdout.split())
