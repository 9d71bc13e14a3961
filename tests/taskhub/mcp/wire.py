"""MCP as bytes: JSON-RPC requests as a client of the older era or the 2026 one would send them."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp

from taskhub.mcp.headers import SESSION_HEADER, VERSION_HEADER
from tests.taskhub.mcp.world import MODERN

OLDER: Final = "2025-06-18"
ACCEPT: Final = "application/json, text/event-stream"


class Answer:
    """An HTTP answer with the one JSON-RPC message it carries, if any."""

    def __init__(self, status: int, headers: Mapping[str, str], body: str) -> None:
        self.status = status
        self.headers = headers
        text = next((line[5:] for line in body.splitlines() if line.startswith("data:")), body)
        self.message: Any = json.loads(text) if text.strip() else None

    @property
    def session(self) -> str:
        return self.headers[SESSION_HEADER]

    @property
    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = self.message["result"]
        return result

    @property
    def data(self) -> dict[str, Any]:
        """The structured content of a tool's result."""
        data: dict[str, Any] = self.result["structuredContent"]
        return data


class Wire:
    """A client of one server."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url

    async def send(
        self, method: str, params: Mapping[str, Any] | None = None, number: int | None = 1, /, **headers: str
    ) -> Answer:
        """POST a request (a notification when `number` is None). Names of headers are written with `_` for `-`."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method} | ({} if number is None else {"id": number})
        if params is not None:
            message["params"] = dict(params)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.url, json=message, headers={"Accept": ACCEPT, **named}) as response:
            return Answer(response.status, response.headers, await response.text())

    async def initialize(
        self, name: str = "wire client", capabilities: Mapping[str, Any] | None = None, /, **headers: str
    ) -> Answer:
        params = {
            "protocolVersion": OLDER, "capabilities": capabilities or {}, "clientInfo": {"name": name, "version": "1"}
        }  # fmt: skip
        return await self.send("initialize", params, **headers)

    async def open(
        self, name: str = "wire client", capabilities: Mapping[str, Any] | None = None, /, **headers: str
    ) -> str:
        """Open a session of the older era; its id."""
        session = (await self.initialize(name, capabilities, **headers)).session
        await self.send("notifications/initialized", None, None, **in_session(session), **headers)
        return session

    async def answer(self, number: int | str, result: Mapping[str, Any], /, **headers: str) -> int:
        """POST what a request of the server is answered with; the status."""
        message = {"jsonrpc": "2.0", "id": number, "result": dict(result)}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.url, json=message, headers={"Accept": ACCEPT, **named}) as response:
            return response.status

    @asynccontextmanager
    async def calling(
        self, tool: str, arguments: Mapping[str, Any], /, **headers: str
    ) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
        """Call a tool in a session, and read the messages of its stream one by one as they come."""
        params = {"name": tool, "arguments": dict(arguments), "_meta": {"progressToken": 1}}
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(self.url, json=body, headers={"Accept": ACCEPT, **named}) as response:

            async def message() -> Any:
                while not (line := await response.content.readline()).startswith(b"data: {"):
                    assert line, "the stream ended"
                return json.loads(line[5:])

            yield message

    async def call(self, tool: str, arguments: Mapping[str, Any], /, **headers: str) -> Answer:
        return await self.send("tools/call", {"name": tool, "arguments": dict(arguments)}, **headers)

    async def modern(self, method: str, params: Mapping[str, Any] | None = None, /, **headers: str) -> Answer:
        """A request of the 2026 era."""
        meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
        named = {"Mcp_Method": method} | ({"Mcp_Name": params["name"]} if params and "name" in params else {})
        routed = {VERSION_HEADER: MODERN, **named, **headers}
        return await self.send(method, {**(params or {}), "_meta": meta}, **routed)


def in_session(session: str) -> dict[str, str]:
    return {SESSION_HEADER: session, VERSION_HEADER: OLDER}
