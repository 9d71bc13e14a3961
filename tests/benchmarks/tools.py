"""What a tool's call and a notification cost the server, by each way to serve them, beside the MCP SDK as it comes."""

import contextlib
import functools
import json
import os
import re
import selectors
import socket
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.load import RunFailed
from tests.benchmarks.peers import API_KEY, ROOT, TaskHub, accepts, says_ready
from tests.benchmarks.processes import Server, unused_port
from tests.benchmarks.scenario import Column, Row, Scenario, Variant
from tests.benchmarks.tickets import PROTOCOL, TIMEOUT_S, connect, flood, read_until, whole

OLDER: Final = "2025-11-25"
WARM_UP_CALLS: Final = 300
"""Calls that do not count: the first ones of a server take longer."""
LISTENERS: Final = 200
WAKES: Final = 20


@dataclass(frozen=True, slots=True)
class Client:
    """How requests to one server are written: `session` is that of the older era, None in the 2026 one."""

    session: str | None = None

    def request(self, method: str, params: Mapping[str, Any], number: int | None = 1) -> bytes:
        """A POST; a notification when `number` is None."""
        message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": dict(params)}
        head = ["POST /mcp HTTP/1.1", "Host: 127.0.0.1", f"X-API-Key: {API_KEY}", "Content-Type: application/json",
                "Accept: application/json, text/event-stream"]  # fmt: skip
        if number is not None:
            message["id"] = number
        if self.session is None:
            message["params"]["_meta"] = {
                "io.modelcontextprotocol/protocolVersion": PROTOCOL,
                "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
                "io.modelcontextprotocol/clientCapabilities": {},
            }
            head += [f"MCP-Protocol-Version: {PROTOCOL}", f"Mcp-Method: {method}"]
            head += [f"Mcp-Name: {params['name']}"] if "name" in params else []
        elif self.session:
            head += [f"MCP-Protocol-Version: {OLDER}", f"Mcp-Session-Id: {self.session}"]
        body = json.dumps(message).encode()
        head.append(f"Content-Length: {len(body)}")
        return "\r\n".join(head).encode() + b"\r\n\r\n" + body

    def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> bytes:
        return self.request("tools/call", {"name": tool, "arguments": dict(arguments or {})})


@contextlib.contextmanager
def served(kind: str) -> Iterator[Server]:
    """A server of `tools_server.py` on a database of its own."""
    port = unused_port()
    with tempfile.TemporaryDirectory(prefix="taskhub-bench-") as directory:
        command = [sys.executable, "-m", "tests.benchmarks.tools_server", kind, str(port)]
        environment = {**TaskHub().environment(Path(directory)), "PYTHONPATH": os.fspath(ROOT)}
        ready = says_ready if kind == "taskhub" else accepts
        with Server(command, port, environment=environment, cwd=ROOT, ready=ready) as server:
            yield server


def answer(port: int, request: bytes) -> bytes:
    """The whole answer, with its head. Raises RunFailed."""
    received = b""
    with connect(port) as connection:
        connection.sendall(request)
        while not whole(received):
            if not (piece := connection.recv(65536)):
                raise RunFailed(f"the connection ended: {received[:300]!r}")
            received += piece
    if not received.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 202 ")):
        raise RunFailed(received[:500].decode(errors="replace"))
    return received


def older(port: int) -> Client:
    """A client with a session of the older era."""
    information = {"name": "bench", "version": "1"}
    params = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": information}
    opened = answer(port, Client("").request("initialize", params))
    found = re.search(rb"(?im)^mcp-session-id: *(\S+)", opened)
    if found is None:
        raise RunFailed(f"no session: {opened[:300]!r}")
    client = Client(found[1].decode())
    answer(port, client.request("notifications/initialized", {}, None))
    return client


def new_ticket(port: int, client: Client) -> str:
    """Its key."""
    found = re.search(rb'"key": ?"([A-Z]+-\d+)"', answer(port, client.call("create_ticket", {"summary": "to read"})))
    if found is None:
        raise RunFailed("no ticket was created")
    return found[1].decode()


def calls(kind: str, era: str) -> Row:
    """As many calls as the server takes from a few connections: of a tool that does nothing, then of one that reads."""
    with served(kind) as server:
        client = older(server.port) if era == "older" else Client()
        key = new_ticket(server.port, client)
        noop, detail = client.call("noop"), client.call("get_ticket_detail", {"ticket_id": key})
        for request in (noop, detail):
            for _ in range(WARM_UP_CALLS):
                answer(server.port, request)
        nothing = flood(server, lambda number: noop)
        read = flood(server, lambda number: detail)
    return {
        "noop_us": nothing.cpu_us, "noops_per_s": nothing.per_s, "read_us": read.cpu_us, "reads_per_s": read.per_s,
    }  # fmt: skip


READ_CPU: Final = Column("read_us", "get_ticket_detail CPU µs", ",.0f", "server CPU per call, compact")
CALLS: Final = Scenario(
    "mcp",
    "calls of tools through /mcp in both eras, beside the MCP SDK's own server under uvicorn",
    (
        Column("noop_us", "no-op CPU µs", ",.0f", "server CPU per call of a tool that does nothing: the protocol"),
        Column("noops_per_s", "no-op/s", ",.0f", "calls answered per second by one core, from 16 connections"),
        READ_CPU,
        Column("reads_per_s", "get_ticket_detail/s", ",.0f", "calls answered per second by one core"),
    ),
    [
        Variant(f"{kind}{'' if era == '2026' else ' older'}", functools.partial(calls, kind, era))
        for kind in ("taskhub", "sdk")
        for era in ("2026", "older")
    ],
)


# --- subscriptions ---


def notifications(kind: str) -> Row:
    """Tickets are created while nobody listens, then while many do: what each notification costs on top."""
    with served(kind) as server:
        creating = Creations(server)
        creating.cpu_s_for(WAKES)
        alone = creating.cpu_s_for(WAKES)
        with Listeners(server.port) as listeners:
            creating.cpu_s_for(1, listeners)
            beside = creating.cpu_s_for(WAKES, listeners)
    return {"notification_us": 1e6 * (beside - alone) / (WAKES * LISTENERS), "created_us": 1e6 * alone / WAKES}


class Creations:
    """Tickets made one after the other."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def cpu_s_for(self, count: int, listeners: "Listeners | None" = None) -> float:
        """Server CPU for so many; each is awaited by its listeners. Raises RunFailed."""
        before = self._server.usage().cpu_s
        for _ in range(count):
            new_ticket(self._server.port, Client())
            if listeners is not None:
                listeners.wait_for_one_each()
        return self._server.usage().cpu_s - before


@dataclass(slots=True)
class Listeners:
    """Clients that subscribed to the events, each with one stream."""

    port: int
    _connections: dict[socket.socket, bytes] = field(default_factory=dict)
    _selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def __enter__(self) -> "Listeners":
        params = {"notifications": {"resourceSubscriptions": ["taskhub://events"]}}
        for _ in range(LISTENERS):
            connection = connect(self.port)
            self._connections[connection] = b""
            connection.sendall(Client().request("subscriptions/listen", params))
            read_until(connection, b"notifications/subscriptions/acknowledged")
            self._selector.register(connection, selectors.EVENT_READ)
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        for connection in self._connections:
            connection.close()

    def wait_for_one_each(self) -> None:
        """Raises RunFailed."""
        waiting = set(self._connections)
        deadline = time.monotonic() + TIMEOUT_S
        while waiting:
            if time.monotonic() > deadline:
                raise RunFailed(f"{len(waiting)} of {LISTENERS} were not notified")
            for ready, _ in self._selector.select(1):
                connection: socket.socket = ready.fileobj  # type: ignore[assignment]  # it was given as a socket
                if b"notifications/resources/updated" in connection.recv(65536):
                    waiting.discard(connection)


LISTENING: Final = Scenario(
    "listen",
    f"a ticket is created, {LISTENERS} clients that listen to the events are notified",
    (
        Column("notification_us", "notification CPU µs", ",.1f", "server CPU per notification on a listen stream"),
        Column("created_us", "create_ticket CPU µs", ",.0f", "server CPU per ticket created while nobody listens"),
    ),
    [Variant(kind, functools.partial(notifications, kind)) for kind in ("taskhub", "sdk")],
    files=LISTENERS + 100,
)
