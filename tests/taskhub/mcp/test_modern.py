"""Requests of the 2026 era get from TaskHub what the SDK's own application answers, whatever they are."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import httpx2
import pytest
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.transport_security import TransportSecuritySettings
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    METHOD_NOT_FOUND,
    Annotations,
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ImageContent,
    InputRequiredResult,
    RequestParams,
    TextContent,
)
from pydantic import TypeAdapter

from taskhub.mcp import modern
from taskhub.mcp.context import CURRENT, CallContext
from taskhub.mcp.uris import EVENTS
from taskhub.tickets.service import TicketService
from tests.clock import LoopClock
from tests.taskhub.mcp.gate import Gate, Nothing, gated
from tests.taskhub.mcp.live import open_live
from tests.taskhub.mcp.wire import ACCEPT, Wire
from tests.taskhub.mcp.world import ALICE, DEADLINE_S, MODERN, Served, serve_mcp, until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

Headers = Sequence[tuple[str, str | bytes]]
Context = ServerRequestContext[Any, Any]

VERSION: Final = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES: Final = "io.modelcontextprotocol/clientCapabilities"
CLIENT: Final = "io.modelcontextprotocol/clientInfo"
ENVELOPE: Final = {VERSION: MODERN, CAPABILITIES: {}, CLIENT: {"name": "test", "version": "1"}}
COMPARED: Final = ("content-type", "allow", "cache-control", "x-accel-buffering", "mcp-session-id", "retry-after")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as it is sent."""

    name: str
    body: bytes
    headers: Headers
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Answered:
    """What matters of a response: `messages` are the JSON-RPC ones, of a stream or alone; else the text."""

    status: int
    headers: Mapping[str, str]
    messages: list[Any]
    text: str


def asked(
    name: str,
    method: str = "tools/call",
    params: Any = None,
    *,
    meta: Any = ENVELOPE,
    headers: Mapping[str, str | None] | None = None,
    also: Headers = (),
    http: str = "POST",
    body: bytes | None = None,
    **message: Any,
) -> Asked:
    """A good request but for what is said: headers that are None are left out, `also` come besides."""
    given = {"name": "echo", "arguments": {"text": "hello"}} if params is None and method == "tools/call" else params
    if meta is not None and isinstance(given, dict | None):
        given = {**(given or {}), "_meta": meta}
    whole = {"jsonrpc": "2.0", "id": 1, "method": method, "params": given} | message
    whole = {key: value for key, value in whole.items() if value is not ...}
    sent: dict[str, str | None] = {
        "Content-Type": "application/json", "Accept": ACCEPT, "MCP-Protocol-Version": MODERN, "Mcp-Method": method,
    }  # fmt: skip
    if isinstance(given, dict) and isinstance(named := given.get("name", given.get("uri")), str):
        sent["Mcp-Name"] = named
    sent |= headers or {}
    lines = [(key, value) for key, value in sent.items() if value is not None]
    return Asked(name, json.dumps(whole).encode() if body is None else body, [*lines, *also], http)


def any_of(*values: Any) -> tuple[Any, ...]:
    return values


def encoded(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


HEADERS: Final = [
    asked("good"),
    *(asked(f"without {name}", headers={name: None}) for name in ("Content-Type", "Accept", "Mcp-Method", "Mcp-Name")),
    *(asked(f"accept {value}", headers={"Accept": value}) for value in any_of(
        "*/*", "application/json", "text/event-stream", "application/*;q=0.5, text/*", "APPLICATION/JSON,*/*", "x", "",
    )),
    *(asked(f"type {value}", headers={"Content-Type": value}) for value in any_of(
        "text/plain", "application/json; charset=utf-8", "APPLICATION/JSON", "application/jsonx", "",
    )),
    *(asked(f"version {value}", headers={"MCP-Protocol-Version": value}) for value in any_of(
        "2099-01-01", "", "2026-7-28", "é",
    )),
    asked("unknown version, told twice", meta={**ENVELOPE, VERSION: "2099-01-01"},
          headers={"MCP-Protocol-Version": "2099-01-01"}),
    *(asked(f"method {value}", headers={"Mcp-Method": value}) for value in ("tools/list", "TOOLS/CALL", "")),
    *(asked(f"name {value}", headers={"Mcp-Name": value}) for value in any_of(
        "other", "ECHO", "", encoded("echo"), encoded("other"), "=?base64?***?=", "=?base64?ZWNob===?=",
    )),
    *(asked(f"twice {name}", also=[(name, value)]) for name, value in (
        ("MCP-Protocol-Version", MODERN), ("mcp-method", "tools/call"), ("Mcp-Name", "echo"), ("Accept", "text/html"),
    )),
    asked("a name beyond ASCII", params={"name": "écho"}, headers={"Mcp-Name": None},
          also=[("Mcp-Name", "écho".encode())]),
    asked("a name beyond ASCII, encoded", params={"name": "écho"}, headers={"Mcp-Name": encoded("écho")}),
    asked("another host", headers={"Host": "evil.example"}),
    asked("another host that begins like ours", headers={"Host": "127.0.0.1.evil.example"}),
    asked("a host with a port", headers={"Host": "127.0.0.1:1"}),
    asked("another origin", headers={"Origin": "https://evil.example"}),
    asked("an allowed origin", headers={"Origin": "https://board.example"}),
    asked("an allowed origin with a port", headers={"Origin": "http://localhost:3000"}),
    asked("an empty origin", headers={"Origin": ""}),
    asked("GET", http="GET"),
    asked("DELETE", http="DELETE"),
]  # fmt: skip

BODIES: Final = [
    *(asked(f"body {body[:20]!r}", body=body) for body in (
        b"", b"{", b"[]", b"null", b"1", b'"x"', b"\xff", b"[" * 100_000, b'{"jsonrpc":"2.0","id":1}', b"{}",
        b'{"jsonrpc":"2.0","id":1,"result":{}}', b'{"jsonrpc":"2.0","method":"tools/call"}',
        b'[{"jsonrpc":"2.0","id":1,"method":"tools/call"}]', b'{"jsonrpc":"2.0","id":1,"method":"x","params":NaN}',
    )),
    *(asked(f"id {value!r}"[:40], id=value) for value in any_of(
        None, True, 1.5, 1.0, "x", "", 0, -1, 2**53, 2**63, 2**64, 2**100, [], {}, ...,
    )),
    *(asked(f"jsonrpc {value!r}", jsonrpc=value) for value in any_of("1.0", 2, None, ...)),
    *(asked(f"method {value!r}", headers={"Mcp-Method": "tools/call"}, method="tools/call") for value in ("again",)),
    *(asked(f"params {value!r}", params=value, headers={"Mcp-Name": "echo"}) for value in any_of([], "x", 1, True)),
    asked("no params", params=..., meta=None),
    asked("params null", params=None, meta=None, method="tools/list"),
    asked("more than a request has", extra=1, result={}, error={}),
    asked("in UTF-16", body=json.dumps(json.loads(asked("x").body)).encode("utf-16")),
    asked("with a byte order mark", body=b"\xef\xbb\xbf" + asked("x").body),
    asked("half a character", params={"name": "echo", "arguments": {"text": "\ud800"}}),
    asked("characters", params={"name": "echo", "arguments": {"text": "\u0000\u2028é😀\x7f"}}),
    asked("a notification", id=..., method="notifications/cancelled", params={"requestId": 1}),
    asked("a notification at another version", id=..., headers={"MCP-Protocol-Version": "2099-01-01"}),
    asked("a name twice", body=asked("x").body.replace(b'"id": 1', b'"id": 1, "id": 2')),
]  # fmt: skip

ENVELOPES: Final = [
    asked("without _meta", meta=None),
    *(asked(f"_meta {value!r}", meta=value) for value in any_of([], "x", {}, {VERSION: MODERN}, {CAPABILITIES: {}})),
    *(asked(f"version {value!r}", meta={**ENVELOPE, VERSION: value}) for value in any_of(
        None, 1, "2025-11-25", "2099-01-01",
    )),
    *(asked(f"capabilities {value!r}", meta={**ENVELOPE, CAPABILITIES: value}) for value in any_of(
        None, [], "x", {"roots": 1}, {"elicitation": {}}, {"unknown": {"x": 1}},
    )),
    *(asked(f"client {value!r}", meta={**ENVELOPE, CLIENT: value}) for value in any_of(
        None, [], "x", {}, {"name": 1}, {"name": "a", "version": "1", "more": 2},
    )),
    asked("without client", meta={VERSION: MODERN, CAPABILITIES: {}}),
    *(asked(f"progress token {value!r}", meta={**ENVELOPE, "progressToken": value}) for value in any_of(
        [], True, 1.5, "t",
    )),
    asked("an unknown level", meta={**ENVELOPE, "io.modelcontextprotocol/logLevel": "loud"}),
]  # fmt: skip

METHODS: Final = [
    asked("tools/list", "tools/list"),
    asked("tools/list at a cursor", "tools/list", {"cursor": "2"}),
    asked("discover", "server/discover"),
    asked("resources", "resources/list"),
    asked("templates", "resources/templates/list"),
    asked("a resource", "resources/read", {"uri": "taskhub://board"}),
    asked("no resource", "resources/read", {"uri": "taskhub://nothing"}),
    asked("a resource by another name", "resources/read", {"uri": "taskhub://board"}, headers={"Mcp-Name": "x"}),
    asked("prompts", "prompts/list"),
    asked("no prompt", "prompts/get", {"name": "nothing"}),
    asked("a completion", "completion/complete", {"ref": {"type": "ref/prompt", "name": "x"}, "argument": {}}),
    asked("subscriptions of no server", "subscriptions/listen", {"notifications": {}}),
    *(asked(method, method) for method in (
        "ping", "initialize", "logging/setLevel", "resources/subscribe", "dance", "custom/echo", "custom/nothing", "",
    )),
]  # fmt: skip


def tool(name: str, arguments: Any = None, *, meta: Any = ENVELOPE, **more: Any) -> Asked:
    params = {"name": name} if arguments is None else {"name": name, "arguments": arguments}
    return asked(f"{name} {arguments!r} {list(more.values())}"[:80], params=params, meta=meta, **more)


TOKEN: Final = {**ENVELOPE, "progressToken": "t"}
LOGGING: Final = {**ENVELOPE, "io.modelcontextprotocol/logLevel": "info"}
CALLS: Final = [
    tool("get_users", {}),
    tool("get_users"),
    tool("get_users", {"more": 1}),
    tool("get_ticket_detail", {"ticket_id": "TH-99"}),
    tool("get_ticket_detail", {"history_limit": 10**30, "ticket_id": "TH-1"}),
    tool("get_ticket_list", {"limit": "many", "phase": ["x"]}),
    tool("dance", {}),
    tool("", {}),
    *(tool("echo", arguments) for arguments in any_of([], "x", 1)),
    asked("no name", params={"arguments": {}}),
    asked("a number as name", params={"name": 7}),
    asked("a null as name", params={"name": None}),
    asked("null as arguments", params={"name": "echo", "arguments": None}),
    *(tool(f"answer {kind}") for kind in (
        "image", "annotated", "meta", "no data", "nulls", "big", "half", "error", "asks", "wrong", "none", "nothing",
        "not found", "internal", "own code", "told more", "value error", "validation error",
    )),
    tool("report", meta=TOKEN),
    tool("report"),
    tool("report and fail", meta=TOKEN),
    tool("log", meta=LOGGING),
    tool("log"),
    tool("request"),
    tool("headed", {"region": "eu", "count": 42}, headers={"Mcp-Param-Region": "eu", "Mcp-Param-Count": "42.0"}),
    tool("headed", {"region": "eu"}, headers={"Mcp-Param-Region": "us"}),
    tool("headed", {"region": "eu"}),
    tool("headed", {}, headers={"Mcp-Param-Region": "eu"}),
    tool("headed", {"region": "é"}, headers={"Mcp-Param-Region": encoded("é")}),
    tool("headed", {"region": "é"}, also=[("Mcp-Param-Region", "é".encode())]),
    tool("headed", {"region": "eu"}, also=[("Mcp-Param-Region", "eu"), ("mcp-param-region", "eu")]),
    tool("headed", {"region": None}),
    tool("echo", {"text": "x"}, headers={"Mcp-Param-Region": "eu"}),
]  # fmt: skip

HEADED_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
    },
}


async def answers(context: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult | Any:
    """Tools that answer in every way in which a handler can."""
    text = [TextContent(text="text")]
    match params.name.removeprefix("answer "):
        case "echo" | "écho" | "headed":
            return CallToolResult(
                content=[TextContent(text=str(params.arguments))], structured_content=params.arguments
            )
        case "image":
            return CallToolResult(content=[ImageContent(data="AAAA", mime_type="image/png"), *text])
        case "annotated":
            return CallToolResult(content=[TextContent(text="x", annotations=Annotations(audience=["user"]))])
        case "meta":
            return CallToolResult(content=text, _meta={"mine": 1, "io.modelcontextprotocol/serverInfo": None})
        case "no data":
            return CallToolResult(content=[])
        case "nulls":
            return CallToolResult(content=text, structured_content={"a": None, "b": [None, {"c": None}], "é": "😀"})
        case "big":
            return CallToolResult(content=text, structured_content={"n": 2**70, "f": 1.5, "e": 1e300})
        case "half":
            return CallToolResult(content=[TextContent(text="\ud800")])
        case "error":
            return CallToolResult(content=text, is_error=True)
        case "asks":
            form = ElicitRequestFormParams(message="Sure?", requested_schema={"type": "object", "properties": {}})
            return InputRequiredResult(input_requests={"a": ElicitRequest(params=form)})
        case "wrong":
            return CallToolResult.model_construct(content=7)  # type: ignore[arg-type]  # on purpose
        case "none":
            return None
        case "nothing":
            return RequestParams()
        case "not found":
            raise MCPError(METHOD_NOT_FOUND, "not here")
        case "internal":
            raise MCPError(INTERNAL_ERROR, "broken")
        case "own code":
            raise MCPError(7, "mine")
        case "told more":
            raise MCPError(7, "mine", {"why": [1, None]})
        case "value error":
            raise ValueError("a secret")
        case "validation error":
            TypeAdapter(int).validate_python("x")
        case "report" | "report and fail" as kind:
            for step in (1, 2):
                await context.session.report_progress(step, 2, f"step {step}")
            if kind != "report":
                raise MCPError(METHOD_NOT_FOUND, "not here")
            return CallToolResult(content=text)
        case "log":
            await context.session.send_log_message("warning", "a message", related_request_id=context.request_id)
            return CallToolResult(content=text)
        case "request":
            await context.session.send_ping()
    raise AssertionError(params.name)


OWN: Final = ("answer ", "report", "log", "request", "headed", "echo", "écho")


class Both:
    """One server of the SDK's, behind TaskHub's host and behind the SDK's own application."""

    def __init__(self, served: Served, ours: httpx2.AsyncClient, theirs: httpx2.AsyncClient) -> None:
        self.served = served
        self._ours = ours
        self._theirs = theirs

    async def ours(self, request: Asked) -> Answered:
        """TaskHub's answer."""
        return await self._send(self._ours, request)

    async def differences(self, corpus: Sequence[Asked]) -> dict[str, tuple[Answered, Answered]]:
        """Request → our answer and the SDK's, where they differ."""
        found = {}
        for request in corpus:
            both = await self.ours(request), await self._send(self._theirs, request)
            if both[0] != both[1]:
                found[request.name] = both
        return found

    async def _send(self, client: httpx2.AsyncClient, request: Asked) -> Answered:
        lines = [
            (key.encode(), value if isinstance(value, bytes) else value.encode()) for key, value in request.headers
        ]
        answer = await client.request(request.method, "/mcp", content=request.body, headers=lines)
        headers = {name: answer.headers[name] for name in COMPARED if name in answer.headers}
        kind = answer.headers.get("content-type", "")
        if kind == "application/octet-stream":  # aiohttp says so where the SDK leaves it out
            del headers["content-type"]
        if kind.startswith("text/event-stream"):
            parts = [line[5:] for line in answer.text.splitlines() if line.startswith("data:")]
            return Answered(answer.status_code, headers, [json.loads(part) for part in parts], "")
        if kind.startswith("application/json"):
            return Answered(answer.status_code, headers, [json.loads(answer.text)], "")
        return Answered(answer.status_code, headers, [], answer.text)


@asynccontextmanager
async def serving_both(tickets: TicketService) -> AsyncIterator[Both]:
    origins = ("https://board.example", "http://localhost:*")
    async with serve_mcp(tickets, allowed_origins=origins) as served:
        server = served.host.server
        usual = server.get_request_handler("tools/call")
        assert usual is not None

        async def call(context: Context, params: CallToolRequestParams) -> Any:
            return await (answers if params.name.startswith(OWN) else usual.handler)(context, params)

        async def custom(context: Context, params: RequestParams) -> dict[str, Any]:
            return {"version": context.protocol_version}

        schema = served.host.registry.input_schema
        server.add_request_handler("tools/call", CallToolRequestParams, call)
        server.add_request_handler("custom/echo", RequestParams, custom)
        server.get_tool_input_schema = lambda name: HEADED_SCHEMA if name == "headed" else schema(name)
        security = TransportSecuritySettings(
            allowed_hosts=["127.0.0.1", "127.0.0.1:*"],
            allowed_origins=["https://board.example", "http://localhost:*"],
        )
        application = server.streamable_http_app(transport_security=security)

        async def named(scope: Any, receive: Any, send: Any) -> None:
            CURRENT.set(CallContext(ALICE))
            await application(scope, receive, send)

        transport = httpx2.ASGITransport(app=named)
        async with (
            server.session_manager.run(),
            httpx2.AsyncClient(base_url=served.url, timeout=DEADLINE_S) as ours,
            httpx2.AsyncClient(base_url=served.url, timeout=DEADLINE_S, transport=transport) as theirs,
        ):
            for client in (ours, theirs):
                client.headers.clear()
            yield Both(served, ours, theirs)


@pytest.mark.parametrize(
    "corpus", [HEADERS, BODIES, ENVELOPES, METHODS, CALLS], ids=["headers", "bodies", "envelopes", "methods", "calls"]
)
async def test_every_request_is_answered_as_the_sdk_answers_it(tickets: TicketService, corpus: Sequence[Asked]) -> None:
    async with serving_both(tickets) as both:
        differences = await both.differences(corpus)

    assert differences == {}


class Upper:
    """Middleware of the SDK's that changes what is asked, and what is answered."""

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        arguments = (ctx.params or {}).get("arguments") or {}
        if arguments.get("text") == "refuse":
            raise MCPError(METHOD_NOT_FOUND, "not for you")
        if arguments.get("text") == "instead":
            return CallToolResult(content=[], structured_content={"answered": "instead"})
        params = {**(ctx.params or {}), "arguments": {"text": str(arguments.get("text")).upper()}}
        answered = await call_next(replace(ctx, params=params))
        assert isinstance(answered, dict)
        return {**answered, "structuredContent": {"changed": answered["structuredContent"]}}


async def test_middleware_of_the_server_is_passed_as_with_the_sdk(tickets: TicketService) -> None:
    texts = ("hello", "refuse", "instead")
    async with serving_both(tickets) as both:
        both.served.host.server.middleware.append(Upper())
        differences = await both.differences([tool("echo", {"text": text}) for text in texts])

        answer = await both.ours(tool("echo", {"text": "hello"}))

    assert differences == {}
    assert answer.messages[0]["result"]["structuredContent"] == {"changed": {"text": "HELLO"}}


async def test_an_ordinary_request_is_not_served_by_the_sdks_endpoint(
    tickets: TicketService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("mcp.server.streamable_http_manager.handle_modern_request")
    by_host = [
        asked("good"), asked("tools/list", "tools/list"), tool("dance", {}), tool("report", meta=TOKEN),
        tool("headed", {"region": "eu"}, headers={"Mcp-Param-Region": "eu"}), tool("answer not found"),
        asked("custom", "custom/echo"), asked("an origin", headers={"Origin": "https://board.example"}),
    ]  # fmt: skip
    async with serving_both(tickets) as both:
        for request in by_host:
            assert (await both.ours(request)).messages, request.name


# Streams


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class Steps:
    """A handler of calls: it reports one step each time it is told to go on, and ends at the second."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.context: Context | None = None

    async def __call__(self, context: Context, params: CallToolRequestParams) -> CallToolResult:
        self.context = context
        try:
            for step in (1, 2):
                await self.go_on.wait()
                self.go_on.clear()
                await context.session.report_progress(step)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return CallToolResult(content=[TextContent(text="done")])


@asynccontextmanager
async def stepping(tickets: TicketService, http: aiohttp.ClientSession) -> AsyncIterator[tuple[Served, Steps, Any]]:
    """A server whose calls go by steps, and what opens the response to one that wants to know of its progress."""
    async with serve_mcp(tickets) as served:
        steps = Steps()
        served.host.server.add_request_handler("tools/call", CallToolRequestParams, steps)
        request = tool("report", meta=TOKEN)

        def call() -> Any:
            headers = {name: str(value) for name, value in request.headers}
            return http.post(f"{served.url}/mcp", data=request.body, headers=headers)

        yield served, steps, call


async def test_progress_is_told_while_the_call_goes_on(tickets: TicketService, http: aiohttp.ClientSession) -> None:
    async with stepping(tickets, http) as (_, steps, call):
        steps.go_on.set()
        async with call() as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            first = await message_of(response)
            steps.go_on.set()
            second, result = await message_of(response), await message_of(response)
            assert await response.read() == b"\r\n"

    assert (first["params"]["progress"], second["params"]["progress"]) == (1, 2)
    assert result["result"]["content"][0]["text"] == "done"


async def message_of(response: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next message on a stream."""
    async with asyncio.timeout(DEADLINE_S):
        while not (line := await response.content.readline()).startswith(b"data:"):
            assert line, "the stream has ended"
    found: dict[str, Any] = json.loads(line[5:])
    return found


async def test_a_call_that_says_nothing_for_long_says_that_it_is_still_there(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    clock = LoopClock()
    async with stepping(tickets, http) as (_, steps, call):
        opening = asyncio.create_task(call().__aenter__())
        await until(lambda: steps.context is not None)
        clock.advance(modern.KEEP_ALIVE_S + 1)
        response = await asyncio.wait_for(opening, DEADLINE_S)
        async with response:
            for _ in range(3):
                assert await asyncio.wait_for(response.content.readline(), DEADLINE_S) == b":\n"
                clock.advance(modern.KEEP_ALIVE_S + 1)
            steps.go_on.set()
            await message_of(response)
            steps.go_on.set()
            await message_of(response)
            assert (await message_of(response))["result"]["content"][0]["text"] == "done"


async def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_its_call(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with stepping(tickets, http) as (_, steps, call):
        steps.go_on.set()
        async with call() as response:
            await message_of(response)
            response.close()
            await asyncio.wait_for(steps.cancelled.wait(), DEADLINE_S)


async def test_stopping_waits_for_a_call_and_takes_no_further_ones(gate: Gate, http: aiohttp.ClientSession) -> None:
    async with gated(gate) as served:
        wire = Wire(http, f"{served.url}/mcp")
        call = asyncio.create_task(wire.modern("tools/call", {"name": "wait"}))
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)

        stopping = asyncio.create_task(served.host.stop(2 * DEADLINE_S))
        await until(lambda: served.host.draining)
        assert not stopping.done()
        gate.open.set()

        assert (await call).data == {"done": True}
        await stopping
        late = await wire.modern("tools/call", {"name": "wait"})
        assert (late.status, late.headers["Retry-After"]) == (503, "2")


async def test_what_a_call_says_after_its_answer_reaches_nobody(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets) as served:
        sessions = []

        async def answer(context: Context, params: CallToolRequestParams) -> CallToolResult:
            sessions.append(context.session)
            return CallToolResult(content=[])

        served.host.server.add_request_handler("tools/call", CallToolRequestParams, answer)
        wire = Wire(http, f"{served.url}/mcp")
        await wire.modern("tools/call", {"name": "x", "_meta": {}})
        await sessions[0].send_progress_notification("t", 1, related_request_id="1")

        assert (await wire.modern("tools/call", {"name": "x"})).status == 200


async def test_a_listen_stream_is_kept_alive(database_file: Path, http: aiohttp.ClientSession) -> None:
    clock = LoopClock()
    request = asked("listen", "subscriptions/listen", {"notifications": {"resourceSubscriptions": [EVENTS]}})
    headers = {name: str(value) for name, value in request.headers}
    async with (
        open_live(database_file) as live,
        http.post(f"{live.served.url}/mcp", data=request.body, headers=headers) as response,
    ):
        assert (await message_of(response))["method"] == "notifications/subscriptions/acknowledged"
        await response.content.readline()  # the end of that event
        for _ in range(2):
            clock.advance(modern.KEEP_ALIVE_S + 1)
            assert await asyncio.wait_for(response.content.readline(), DEADLINE_S) == b":\n"


async def test_a_listen_stream_that_does_not_end_by_itself_is_ended_when_the_host_stops(
    tickets: TicketService, http: aiohttp.ClientSession, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskhub.mcp.host.CLOSING_S", 0.05)

    async def listen(context: Context, params: RequestParams) -> RequestParams:
        await context.session.send_progress_notification("t", 1, related_request_id="1")
        await gate.run(ALICE, Nothing())
        return RequestParams()

    async with gated(gate) as served:
        served.host.server.add_request_handler("subscriptions/listen", RequestParams, listen)
        request = asked("listen", "subscriptions/listen", {"notifications": {}})
        headers = {name: str(value) for name, value in request.headers}
        async with http.post(f"{served.url}/mcp", data=request.body, headers=headers) as response:
            await message_of(response)
            await served.host.stop(0)

            assert await asyncio.wait_for(response.read(), DEADLINE_S) == b"\r\n"
        assert gate.cancelled.is_set()
