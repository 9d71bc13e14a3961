"""Tickets: a tool's call on its way to a subscriber, calls per second, and reading among a hundred thousand.

Importing a hundred thousand takes minutes. Where the environment variable BENCH_TICKETS names a file, they are kept in
it as a backup, and restored from it the next time.
"""

import contextlib
import json
import os
import random
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.benchmarks.fanout import OTHER_FILES
from tests.benchmarks.hub import Hub
from tests.benchmarks.latency import get, quantile_ms, read_answer
from tests.benchmarks.load import Load, RunFailed, run
from tests.benchmarks.peers import API_KEY, ROOT, TaskHub
from tests.benchmarks.processes import NotHere, Server
from tests.benchmarks.scenario import Column, Row, Scenario, Variant
from tests.servers import PostgresServer

PROTOCOL: Final = "2026-07-28"
TIMEOUT_S: Final = 30.0


@contextlib.contextmanager
def embedded() -> Iterator[dict[str, str]]:
    """The settings of a server on a database of its own: nothing, for it makes one."""
    yield {}


@contextlib.contextmanager
def postgresql() -> Iterator[dict[str, str]]:
    """As above; the database server has the client's core. Raises NotHere."""
    try:
        postgres = PostgresServer()
    except FileNotFoundError as error:
        raise NotHere(str(error)) from error
    with contextlib.closing(postgres):
        postgres.start()
        yield {"TASKHUB_DATABASE_URL": postgres.create_database()}


Settings = Callable[[], contextlib.AbstractContextManager[dict[str, str]]]


def on_both(measure: Callable[[Settings], Row]) -> list[Variant]:
    """The variants of a scenario: the embedded database, and PostgreSQL."""
    return [Variant("sqlite", lambda: measure(embedded)), Variant("postgresql", lambda: measure(postgresql))]


# --- tools ---

CALL_EVERY_S: Final = 0.02
WARM_UP: Final = 10
"""Calls that do not count: the first ones of a server take longer."""
LATENCY_S: Final = 5.0
RATE_S: Final = 4.0
CONNECTIONS: Final = 16
AUDIENCE: Final = Load(1000, publishes=False, rate=1, warmup=0, seconds=LATENCY_S + 1)


def tools(settings: Settings) -> Row:
    """A ticket made through /mcp, until a subscriber has it: on a quiet server, then beside 1000 other subscribers.

    Then as many calls as the server takes from 16 connections, of a tool that writes and of one that reads.
    """
    with settings() as given, TaskHub(settings=given).serve() as server:
        key = Hub(server.port).create_ticket()
        quiet = Way(server.port)
        quiet.go_for(LATENCY_S)
        crowded = Way(server.port)
        run(TaskHub(), server, AUDIENCE, on_connected=crowded.start, on_measured=crowded.stop)
        read = flood(server, lambda number: tool_call("get_ticket_detail", {"ticket_id": key}))
        write = flood(server, lambda number: tool_call("create_ticket", {"summary": f"flood {number}"}))
    return {
        "idle_p50_ms": quiet.quantile_ms(0.5),
        "idle_p99_ms": quiet.quantile_ms(0.99),
        "crowd_p50_ms": crowded.quantile_ms(0.5),
        "crowd_p99_ms": crowded.quantile_ms(0.99),
        "reads_per_s": read.per_s,
        "read_us": read.cpu_us,
        "writes_per_s": write.per_s,
        "write_us": write.cpu_us,
    }


TO_SOCKET: Final = "from the call of create_ticket sent to the event's bytes on a subscriber's socket"
TOOLS: Final = Scenario(
    "tools",
    "tools called through /mcp: until a subscriber has the event, and calls per second",
    (
        Column("idle_p50_ms", "1 subscriber: p50 ms", ",.2f", TO_SOCKET),
        Column("idle_p99_ms", "p99 ms", ",.2f", TO_SOCKET),
        Column("crowd_p50_ms", "1001: p50 ms", ",.2f", f"{TO_SOCKET}, beside 1000 others"),
        Column("crowd_p99_ms", "p99 ms", ",.2f", f"{TO_SOCKET}, beside 1000 others"),
        Column("reads_per_s", "get_ticket_detail/s", ",.0f", "calls answered per second, from 16 connections"),
        Column("read_us", "CPU µs", ",.0f", "server CPU per call"),
        Column("writes_per_s", "create_ticket/s", ",.0f", "calls answered per second, from 16 connections"),
        Column("write_us", "CPU µs", ",.0f", "server CPU per call"),
    ),
    on_both(tools),
    files=AUDIENCE.subscribers + OTHER_FILES,
)


def tool_call(name: str, arguments: dict[str, Any]) -> bytes:
    """The request of one call, by a client without a session."""
    meta = {"io.modelcontextprotocol/protocolVersion": PROTOCOL, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"name": name, "arguments": arguments, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
    head = (
        "POST /mcp HTTP/1.1", "Host: 127.0.0.1", f"X-API-Key: {API_KEY}", "Content-Type: application/json",
        "Accept: application/json, text/event-stream", f"MCP-Protocol-Version: {PROTOCOL}",
        "Mcp-Method: tools/call", f"Mcp-Name: {name}", f"Content-Length: {len(body)}",
    )  # fmt: skip
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@dataclass(slots=True)
class Way:
    """Makes tickets through /mcp, one after the other; how long until a stream of its own had the event of each."""

    port: int
    latencies: list[float] = field(default_factory=list)
    _failure: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def go_for(self, seconds: float) -> None:
        """Raises RunFailed."""
        self.start()
        self._stop.wait(seconds)
        self.stop()

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Raises RunFailed when a call has failed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise RunFailed(f"a call failed: {self._failure}")

    def quantile_ms(self, share: float) -> float:
        return quantile_ms(self.latencies, share)

    def _run(self) -> None:
        try:
            with connect(self.port) as caller, connect(self.port) as stream:
                stream.sendall(get("/events/stream"))
                read_until(stream, b"event: ready")
                number = 0
                while not self._stop.wait(CALL_EVERY_S):
                    number += 1
                    mark = f"ticket no. {number:06}"
                    started = time.perf_counter()
                    caller.sendall(tool_call("create_ticket", {"summary": mark}))
                    read_until(stream, mark.encode())
                    if number > WARM_UP:
                        self.latencies.append(time.perf_counter() - started)
                    if not read_answer(caller):
                        raise OSError("it was not answered with 200")
        except OSError as error:
            self._failure = str(error)


@dataclass(frozen=True, slots=True)
class Flood:
    per_s: float
    cpu_us: float


def flood(server: Server, request: Callable[[int], bytes]) -> Flood:
    """As many requests as are answered on so many connections, each with one under way. Raises RunFailed."""
    requests = [request(number) for number in range(500)]
    answered = 0
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        waiting: dict[socket.socket, bytes] = {}
        for number in range(CONNECTIONS):
            connection = stack.enter_context(connect(server.port))
            selector.register(connection, selectors.EVENT_READ)
            waiting[connection] = b""
            connection.sendall(requests[number])
        before = server.usage()
        while time.monotonic() < before.at + RATE_S:
            for ready, _ in selector.select(TIMEOUT_S):
                connection = ready.fileobj  # type: ignore[assignment]  # it was given as a socket
                waiting[connection] += connection.recv(65536)
                if whole(waiting[connection]):
                    if b" 200 " not in waiting[connection][:20] or b'"isError":true' in waiting[connection]:
                        raise RunFailed(waiting[connection][:300].decode(errors="replace"))
                    waiting[connection] = b""
                    answered += 1
                    connection.sendall(requests[answered % len(requests)])
        after = server.usage()
    if not answered:
        raise RunFailed("no call was answered")
    return Flood(answered / (after.at - before.at), 1e6 * (after.cpu_s - before.cpu_s) / answered)


def whole(received: bytes) -> bool:
    """Whether an answer, which has a Content-Length or comes in chunks, has come to its end."""
    head, found, body = received.partition(b"\r\n\r\n")
    if not found:
        return False
    if b"transfer-encoding: chunked" in head.lower():
        return body.endswith(b"0\r\n\r\n")
    lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    if not lengths:
        raise RunFailed(f"an answer without a length: {head[:300]!r}")
    return len(body) >= int(lengths[0].split(b":")[1])


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_until(connection: socket.socket, mark: bytes) -> None:
    """Raises OSError when the connection ends, or says nothing for too long."""
    received = b""
    while mark not in received:
        # What a mark could begin in is kept, and no more: a stream is long.
        received = received[-len(mark) :] + (piece := connection.recv(65536))
        if not piece:
            raise OSError("the connection has ended")


# --- a hundred thousand tickets ---

TICKETS: Final = 100_000
KEPT: Final = os.environ.get("BENCH_TICKETS")
ASKED: Final = 300
"""How often each question is asked."""
WORDS: Final = (
    "printer", "invoice", "login", "export", "report", "customer", "address", "payment", "server", "slow", "error",
    "password", "reset", "month", "contract", "delivery", "screen", "button", "mobile", "network",
)  # fmt: skip
JAPANESE: Final = ("検索", "印刷", "請求書", "顧客", "住所", "支払い", "遅い", "エラー", "画面", "契約")
STATUSES: Final = ("Received", "In Progress", "Verifying", "Completed", "Completed", "Completed", "Waiting")
QUESTIONS: Final = {
    "list": ["/api/v1/tickets", "/api/v1/tickets?status=in_progress&limit=100", "/api/v1/tickets?priority=urgent"],
    "due": ["/api/v1/tickets?sort_by=due&sort_order=asc", "/api/v1/tickets?sort_by=due&sort_order=desc&limit=100"],
    "search": ["/api/v1/tickets?query=" + urllib.parse.quote(text) for text in ("invoice", "請求書", "TH-481")],
    "narrow": [
        "/api/v1/tickets?query=" + urllib.parse.quote(text)
        for text in ("invoice printer slow", "顧客 エラー", "needle-77777", "password reset mobile network")
    ]
    + [f"/api/v1/tickets?query=invoice&{filtered}" for filtered in ("person_in_charge=me", "status=waiting&label=ux")],
    "board": ["/api/v1/board"],
    "detail": ["/api/v1/tickets/TH-50000", "/api/v1/tickets/TH-481?include=history,comments"],
}


def many_tickets(settings: Settings) -> Row:
    """Tickets are imported from a file by the command, then a server is asked, one request after the other."""
    with tempfile.TemporaryDirectory(prefix="taskhub-bench-") as name, settings() as given:
        directory = Path(name)
        peer = TaskHub(settings=given, data_dir=directory)
        imported: Row = {}
        if KEPT is not None and Path(KEPT).exists():
            command(peer, directory, "restore", KEPT)
        else:
            file = directory / "tickets.jsonl"
            with file.open("w") as lines:
                lines.writelines(json.dumps(row) + "\n" for row in rows())
            began = time.monotonic()
            command(peer, directory, "import", str(file))
            imported["imported_per_s"] = TICKETS / (time.monotonic() - began)
            if KEPT is not None:
                command(peer, directory, "backup", KEPT)
        with peer.serve() as server:
            asked = {name: ask(server.port, paths) for name, paths in QUESTIONS.items()}
    return {
        **imported,
        **{f"{name}_p50_ms": quantile_ms(latencies, 0.5) for name, latencies in asked.items()},
        **{f"{name}_p99_ms": quantile_ms(latencies, 0.99) for name, latencies in asked.items()},
    }


def command(peer: TaskHub, directory: Path, *arguments: str) -> None:
    """Run `taskhub` on the database of a peer that does not run. Raises RunFailed."""
    done = subprocess.run(
        [sys.executable, "-m", "taskhub", *arguments],
        cwd=ROOT, env=peer.environment(directory), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RunFailed(f"taskhub {arguments[0]} failed: {(done.stdout + done.stderr)[-500:]}")


LIST_P99: Final = Column("list_p99_ms", "list p99 ms", ",.1f", "newest first; by status, 100; by priority")
DUE_P99: Final = Column("due_p99_ms", "by due date p99 ms", ",.1f", "the first 20, the last 100")
SEARCH_P99: Final = Column("search_p99_ms", "search p99 ms", ",.1f", "words of every fifth ticket, and a key")
NARROW_P99: Final = Column(
    "narrow_p99_ms", "narrow search p99 ms", ",.1f", "several words, one of one ticket, or filters"
)
BOARD_P99: Final = Column("board_p99_ms", "board p99 ms", ",.1f", "the board as it is")
HUNDRED_THOUSAND: Final = Scenario(
    "tickets100k",
    f"{TICKETS:,} tickets: one request after the other".replace(",", " "),
    (
        Column("imported_per_s", "imported/s", ",.0f", "tickets per second, by `taskhub import`"),
        Column("list_p50_ms", "list p50 ms", ",.1f", LIST_P99.meaning),
        LIST_P99,
        Column("due_p50_ms", "by due date p50 ms", ",.1f", DUE_P99.meaning),
        DUE_P99,
        Column("search_p50_ms", "search p50 ms", ",.1f", SEARCH_P99.meaning),
        SEARCH_P99,
        Column("narrow_p50_ms", "narrow search p50 ms", ",.1f", NARROW_P99.meaning),
        NARROW_P99,
        Column("board_p50_ms", "board p50 ms", ",.1f", BOARD_P99.meaning),
        BOARD_P99,
        Column("detail_p99_ms", "detail p99 ms", ",.1f", "one ticket, with history and comments too"),
    ),
    on_both(many_tickets),
    opt_in=True,
    most_rounds=1,
)


def rows() -> Iterator[dict[str, Any]]:
    """Tickets as an import takes them, the same in each run."""
    dice = random.Random(7)
    for number in range(TICKETS):
        some = [*dice.sample(WORDS, 4), dice.choice(JAPANESE)]
        row: dict[str, Any] = {
            "external_ticket_id": f"old-{number}",
            "summary": f"{' '.join(some)} {number}",
            "description": " ".join(dice.choices(WORDS + JAPANESE, k=30)) + f" needle-{number}",
            "status": dice.choice(STATUSES),
            "priority": dice.choice(("none", "low", "medium", "high", "urgent")),
        }
        if row["status"] == "Waiting":
            row["waiting_reason"] = "an answer is missing"
        if number % 3:
            row["scheduled_completion_date"] = f"2026-{dice.randint(1, 12):02}-{dice.randint(1, 28):02}"
        yield row


def ask(port: int, paths: Sequence[str]) -> list[float]:
    """The latencies, in seconds. Raises RunFailed."""
    latencies = []
    try:
        with connect(port) as connection:
            for number in range(ASKED):
                started = time.perf_counter()
                connection.sendall(get(paths[number % len(paths)]))
                if not read_answer(connection):
                    raise RunFailed(f"{paths[number % len(paths)]} was not answered with 200")
                latencies.append(time.perf_counter() - started)
    except OSError as error:
        raise RunFailed(str(error)) from error
    return latencies
