"""Behind nginx, what belongs to one request is found by its id and its trace: in the logs of the proxy and the server,
in the event, and in the spans."""

import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import MODERN, Answer, Api, api
from tests.e2e.harness.nginx import Nginx
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer, RedisServer

pytestmark = pytest.mark.needs("nginx")

KEY: Final = {"X-API-Key": "e2e-key-" + "k" * 24}
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN: Final = "00f067aa0ba902b7"
TRACED: Final = {"traceparent": f"00-{TRACE}-{SPAN}-01"}

# What `opentelemetry-instrument` does, and spans as lines in a file.
SERVER: Final = """
import json, os, sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

def line(span):
    context, parent = span.context, span.parent
    told = {"name": span.name, "trace": f"{context.trace_id:032x}", "id": f"{context.span_id:016x}",
            "parent": parent and f"{parent.span_id:016x}"}
    return json.dumps(told) + "\\n"

provider = TracerProvider()
spans = open(os.environ["SPANS"], "a", encoding="utf-8")
provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=spans, formatter=line)))
trace.set_tracer_provider(provider)

from taskhub.__main__ import main

sys.argv = ["taskhub", *sys.argv[1:]]
sys.exit(main())
"""


class Server:
    """A server with an OpenTelemetry SDK, and what it tells."""

    def __init__(self, hub: TaskHubProcess, spans: Path) -> None:
        self.hub = hub
        self._spans = spans

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The log lines that say this."""
        told = [json.loads(line) for line in self.hub.log.splitlines() if line.startswith("{")]
        return [line for line in told if line["message"] == message]

    def spans(self, name: str) -> list[dict[str, Any]]:
        """Those of this name."""
        told = [json.loads(line) for line in self._spans.read_text().splitlines()]
        return [span for span in told if span["name"] == name]


@pytest.fixture
async def servers(make_hub: MakeHub, tmp_path: Path, postgres: PostgresServer, redis: RedisServer) -> list[Server]:
    """Two on one PostgreSQL and one Redis, as operators deploy them behind nginx."""
    made = []
    database = postgres.create_migrated()
    for name in ("first", "second"):
        environment = {
            "TASKHUB_DATABASE_URL": database,
            "TASKHUB_REDIS_URL": redis.url,
            "TASKHUB_API_KEY": KEY["X-API-Key"],
            "TASKHUB_MCP_TRANSPORTS": "http",
            "TASKHUB_TRUSTED_PROXIES": "127.0.0.1",
            "TASKHUB_LOG_FORMAT": "json",
            "SPANS": str(tmp_path / f"{name}.spans"),
        }
        command = [sys.executable, "-c", SERVER, "serve", "--port", "0", "--no-reload"]
        hub = make_hub(name=name, environment=environment, command=command)
        made.append(Server(await hub.start(), tmp_path / f"{name}.spans"))
    return made


@pytest.fixture
def nginx(tmp_path: Path, servers: list[Server]) -> Iterator[Nginx]:
    server = Nginx(tmp_path / "nginx", [each.hub.port for each in servers])
    yield server
    server.stop()


@pytest.fixture
async def through_nginx(nginx: Nginx) -> AsyncIterator[Api]:
    await nginx.start()
    async with api(nginx.url, KEY) as client:
        yield client


async def create(client: Api, **headers: str) -> Answer:
    answer = await client.request("POST", "/api/v1/tickets", json={"summary": "x"}, headers=headers)
    assert answer.status == 201, answer
    return answer


async def call_create(client: Api, **headers: str) -> Answer:
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": "create_ticket", "arguments": {"summary": "x"}, "_meta": meta}
    named = {"MCP-Protocol-Version": MODERN, "Mcp-Method": "tools/call", "Mcp-Name": "create_ticket"}
    accept = {"Accept": "application/json, text/event-stream"}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    answer = await client.request("POST", "/mcp", json=message, headers=named | accept | headers)
    assert answer.status == 200, answer
    return answer


async def test_a_request_is_found_by_its_id_and_its_trace_everywhere(
    servers: list[Server], nginx: Nginx, through_nginx: Api
) -> None:
    def of(answer: Answer) -> tuple[Server, dict[str, Any]]:
        """The server that answered it and what that logged of it; nginx has logged the same."""
        request_id = answer.headers["X-Request-ID"]
        found = [(each, line) for each in servers for line in each.lines("request") if line["request_id"] == request_id]
        ((server, line),) = found
        (proxied,) = [line for line in nginx.requests if line["request_id"] == request_id]
        assert proxied["instance"] == f"127.0.0.1:{server.hub.port}"
        assert (proxied["status"], proxied["client"], proxied["path"]) == (answer.status, "127.0.0.1", line["route"])
        assert proxied["traceparent"] == answer.headers.get("traceparent", "")
        return server, line

    # One of them on each instance, for nginx gives a request to the one that has the fewest.
    async with (
        record(nginx.url, {"type": "ticket.*"}, headers={**KEY, **TRACED, "X-Request-ID": "one"}, http="1.0") as one,
        record(nginx.url, {"type": "ticket.*"}, headers={**KEY, "X-Request-ID": "other"}, http="1.0") as other,
    ):
        await one.wait_ready()
        await other.wait_ready()
        by_rest = await create(through_nginx, **TRACED, **{"X-Request-ID": "client:1"})
        by_tool = await call_create(through_nginx, **TRACED)
        untraced = await create(through_nginx, **{"X-Request-ID": 'what? a "name"'})
        for stream in (one, other):
            await stream.wait_events(3)
    # nginx writes of a stream when it has ended.
    await until(lambda: len(nginx.requests) == 5, "a line each", explain=lambda: str(nginx.requests))

    assert one.events == other.events
    for answer, name, event in zip((by_rest, by_tool), ("POST /api/v1/tickets", "POST /mcp"), one.events, strict=False):
        server, line = of(answer)
        _, trace, span, _ = answer.headers["traceparent"].split("-")
        (own,) = [each for each in server.spans(name) if each["id"] == span]
        assert (trace, own["parent"]) == (TRACE, SPAN)
        assert (line["trace_id"], line["span_id"]) == (trace, span)
        assert event["traceparent"] == answer.headers["traceparent"]
        assert [each for each in server.spans("database write") if each["trace"] == TRACE]
    assert by_rest.headers["X-Request-ID"] == "client:1"
    assert of(by_tool)[1]["tool"] == "create_ticket"
    # A name that TaskHub would not take is replaced by nginx, which is first to write of it.
    assert re.fullmatch("[0-9a-f]{32}", untraced.headers["X-Request-ID"])
    # Who brings no trace gets one of the SDK's.
    assert one.events[2]["traceparent"] == untraced.headers["traceparent"]
    assert of(untraced)[1]["trace_id"] == untraced.headers["traceparent"].split("-")[1] != TRACE
    # Streams, too: each on an instance of its own.
    opened = {line["request_id"]: each for each in servers for line in each.lines("stream opened")}
    proxied = {line["request_id"]: line for line in nginx.requests if line["path"] == "/events/stream"}
    assert opened.keys() == proxied.keys() == {"one", "other"}
    assert opened["one"] is not opened["other"]
    for name, server in opened.items():
        assert proxied[name]["instance"] == f"127.0.0.1:{server.hub.port}"
    assert proxied["one"]["traceparent"].split("-")[1] == TRACE
    # What servers do by themselves all the time is told to nobody.
    assert not [span for each in servers for span in each.spans("database read") if span["parent"] is None]
