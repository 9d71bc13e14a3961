"""Streams that stay open: kept alive, ended at their age and at shutdown, and never in the middle of a call."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping

import aiohttp
import pytest
from sse_starlette import EventSourceResponse

from taskhub.auth.principal import Caller
from taskhub.mcp.headers import VERSION_HEADER
from taskhub.mcp.registry import ToolResult
from tests.clock import LoopClock
from tests.taskhub.mcp.gate import Gate, Nothing, gated
from tests.taskhub.mcp.wire import ACCEPT, OLDER, Wire, in_session
from tests.taskhub.mcp.world import DEADLINE_S, Served, until

STREAM = {"Accept": "text/event-stream"}


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


class OlderStream:
    """The older transport as bytes: its stream, and messages posted to it."""

    def __init__(self, http: aiohttp.ClientSession, served: Served, stream: aiohttp.ClientResponse) -> None:
        self._http = http
        self._url = served.url
        self._stream = stream
        self._endpoint = ""

    async def event(self) -> str:
        """The data of the next event, comments skipped. Raises StopAsyncIteration at the end of the stream."""
        async with asyncio.timeout(DEADLINE_S):
            while line := await self._stream.content.readline():
                if line.startswith(b"data: "):
                    return line[6:].decode().strip()
        raise StopAsyncIteration

    async def open(self) -> None:
        self._endpoint = await self.event()

    async def initialize(self) -> None:
        await self.open()
        client = {"name": "wire", "version": "1"}
        await self.post("initialize", {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": client})
        await self.event()

    async def post_and_leave(self, method: str, params: object) -> None:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        await post_and_leave(self._url, self._endpoint, message)

    async def post(self, method: str, params: object) -> None:
        message = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
        async with self._http.post(self._url + self._endpoint, json=message) as response:
            assert response.status == 202


async def post_and_leave(url: str, path: str, message: object, headers: Mapping[str, str] | None = None) -> None:
    """Break the connection off in the moment in which the answer to the POST begins."""
    body = json.dumps(message).encode()
    address = url.removeprefix("http://")
    sent = {"Host": address, "Content-Type": "application/json", "Accept": ACCEPT, "Content-Length": len(body)}
    lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (sent | dict(headers or {})).items())]
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    assert b" 202 " in await reader.readline()
    writer.transport.abort()


async def test_both_long_streams_are_kept_alive_by_a_bare_comment(
    served: Served, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert EventSourceResponse.DEFAULT_PING_INTERVAL == 15
    monkeypatch.setattr(EventSourceResponse, "DEFAULT_PING_INTERVAL", 0.01)
    session = await Wire(http, f"{served.url}/mcp").open()

    for path, headers in (("/mcp", {**STREAM, **in_session(session)}), ("/sse", STREAM)):
        async with http.get(served.url + path, headers=headers) as stream:
            if path == "/sse":
                await stream.content.readuntil(b"\r\n\r\n")
            for _ in range(3):
                assert await stream.content.readline() == b":\n"


async def test_the_stream_of_a_session_ends_at_its_age_and_the_session_goes_on(
    gate: Gate, http: aiohttp.ClientSession
) -> None:
    async with gated(gate, max_age_s=0.05) as served:
        wire = Wire(http, f"{served.url}/mcp")
        session = await wire.open()

        async with http.get(wire.url, headers={**STREAM, **in_session(session)}) as stream:
            assert await asyncio.wait_for(stream.read(), DEADLINE_S) == b""

        assert (await wire.send("tools/list", **in_session(session))).result["tools"]


async def test_an_older_stream_past_its_age_ends_after_the_call_that_runs(
    gate: Gate, http: aiohttp.ClientSession
) -> None:
    clock = LoopClock()
    async with gated(gate, max_age_s=100) as served, http.get(f"{served.url}/sse") as stream:
        older = OlderStream(http, served, stream)
        await older.initialize()
        await older.post("tools/call", {"name": "wait", "arguments": {}})
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)
        async with http.get(f"{served.url}/sse") as idle:
            clock.advance(120)
            # The other stream, opened later and without a call, ends by its age: so the first one's has passed, too.
            await asyncio.wait_for(idle.read(), DEADLINE_S)

        gate.open.set()

        assert json.loads(await older.event())["result"]["structuredContent"] == {"done": True}
        with pytest.raises(StopAsyncIteration):
            await older.event()


@pytest.mark.parametrize("path", ["/sse", "/mcp"])
async def test_on_the_next_older_stream_a_client_goes_on_where_it_was(
    gate: Gate, http: aiohttp.ClientSession, path: str
) -> None:
    gate.open.set()
    async with gated(gate) as served, http.get(f"{served.url}{path}", headers=STREAM) as first:
        await OlderStream(http, served, first).initialize()
        first.close()

        async with http.get(f"{served.url}{path}", headers={**STREAM, VERSION_HEADER: OLDER}) as second:
            older = OlderStream(http, served, second)
            await older.open()
            await older.post("tools/call", {"name": "wait", "arguments": {}})

            assert json.loads(await older.event())["result"]["structuredContent"] == {"done": True}


async def test_stopping_ends_streams_and_lets_running_calls_finish(gate: Gate, http: aiohttp.ClientSession) -> None:
    async with gated(gate) as served:
        wire = Wire(http, f"{served.url}/mcp")
        session = await wire.open()
        async with http.get(wire.url, headers={**STREAM, **in_session(session)}) as stream:
            call = asyncio.create_task(wire.call("wait", {}, **in_session(session)))
            await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)

            stopping = asyncio.create_task(served.host.stop(2 * DEADLINE_S))

            assert await asyncio.wait_for(stream.read(), DEADLINE_S) == b""
            assert not call.done()
            async with http.get(wire.url, headers={**STREAM, **in_session(session)}) as late:
                assert late.status == 503
            gate.open.set()
            assert (await call).data == {"done": True}
            await stopping


async def test_stopping_lets_a_call_on_an_older_stream_finish_before_the_stream_ends(
    gate: Gate, http: aiohttp.ClientSession
) -> None:
    async with gated(gate) as served, http.get(f"{served.url}/sse") as stream:
        older = OlderStream(http, served, stream)
        await older.initialize()
        await older.post("tools/call", {"name": "wait", "arguments": {}})
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)

        stopping = asyncio.create_task(served.host.stop(2 * DEADLINE_S))
        await until(lambda: served.host.draining)
        gate.open.set()

        assert json.loads(await older.event())["result"]["structuredContent"] == {"done": True}
        with pytest.raises(StopAsyncIteration):
            await older.event()
        await stopping


async def test_a_call_that_does_not_finish_holds_up_the_stop_for_the_grace_alone(
    gate: Gate, http: aiohttp.ClientSession
) -> None:
    async with gated(gate) as served:
        wire = Wire(http, f"{served.url}/mcp")
        call = asyncio.create_task(wire.call("wait", {}, **in_session(await wire.open())))
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)

        await served.host.stop(0.05)

        await asyncio.wait_for(gate.cancelled.wait(), DEADLINE_S)
        call.cancel()


async def test_a_client_that_leaves_its_older_stream_cancels_the_call_on_it(
    gate: Gate, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventSourceResponse, "DEFAULT_PING_INTERVAL", 1000)  # it is not a ping that finds nobody there
    async with gated(gate) as served:
        stream = await http.get(f"{served.url}/sse")
        older = OlderStream(http, served, stream)
        await older.initialize()
        await older.post("tools/call", {"name": "wait", "arguments": {}})
        await asyncio.wait_for(gate.entered.wait(), DEADLINE_S)

        stream.close()

        await asyncio.wait_for(gate.cancelled.wait(), DEADLINE_S)


async def test_a_message_counts_though_its_sender_leaves_as_soon_as_it_is_accepted(
    served: Served, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{served.url}/sse") as stream:
        older = OlderStream(http, served, stream)
        await older.initialize()
        for _ in range(4):
            await asyncio.gather(*(older.post_and_leave("tools/list", {}) for _ in range(10)))

            for _ in range(10):
                assert json.loads(await older.event())["result"]["tools"]


class CountingGate(Gate):
    """Counts the calls that came in and those that were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.cancelled_calls = 0

    async def run(self, caller: Caller, arguments: Nothing) -> ToolResult:
        self.calls += 1
        try:
            return await super().run(caller, arguments)
        except asyncio.CancelledError:
            self.cancelled_calls += 1
            raise


async def test_a_cancellation_counts_though_its_sender_leaves_as_soon_as_it_is_accepted(
    http: aiohttp.ClientSession,
) -> None:
    gate, count = CountingGate(), 10
    async with gated(gate) as served:
        wire = Wire(http, f"{served.url}/mcp")
        session = in_session(await wire.open())
        params = {"name": "wait", "arguments": {}}
        calls = [
            asyncio.create_task(wire.send("tools/call", params, number, **session)) for number in range(1, count + 1)
        ]
        await until(lambda: gate.calls == count)

        cancellations = [
            {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}
            for number in range(1, count + 1)
        ]
        await asyncio.gather(*(post_and_leave(served.url, "/mcp", message, session) for message in cancellations))

        await until(lambda: gate.cancelled_calls == count)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
