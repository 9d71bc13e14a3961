"""MCP as bytes: JSON-RPC requests as a client of the older era or the 2026 one would send them."""

import json
from collections.abc import Mapping
from typing import Any, Final

import aiohttp

from taskhub.mcp.host import SESSION_HEADER, VERSION_HEADER
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

    async def initialize(self, name: str = "wire client", /, **headers: str) -> Answer:
        params = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": {"name": name, "version": "1"}}
        return await self.send("initialize", params, **headers)

    async def open(self, name: str = "wire client", /, **headers: str) -> str:
        """Open a session of the older era; its id."""
        session = (await self.initialize(name, **headers)).session
        await self.send("notifications/initialized", None, None, **in_session(session), **headers)
        return session

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
