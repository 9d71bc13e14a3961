"""How long things take on a server that does little, and how long other requests take beside a big fan-out."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tests.benchmarks.fanout import OTHER_FILES
from tests.benchmarks.hub import Hub
from tests.benchmarks.load import Load, RunFailed, run
from tests.benchmarks.peers import API_KEY, TaskHub
from tests.benchmarks.processes import CLIENT_CORE
from tests.benchmarks.scenario import EXACTNESS, Column, Row, Scenario, each, inexactness, row_of

# --- from the commit to the socket ---

ADDED: Final = Column("added_ms", "added p50 ms", ",.2f", "the former less the latter: what comes on top of the commit")
QUIET: Final = Load(1, rate=50, seconds=5, pipeline=1)


def commit(peer: TaskHub) -> Row:
    """One subscriber, events with pauses between: when it has the event, and when the publisher has its answer."""
    with peer.serve() as server:
        figures = run(peer, server, QUIET)
    return row_of(figures) | {"added_ms": figures.ms("delivery_p50") - figures.ms("answer_p50")}


COMMIT: Final = Scenario(
    "commit",
    "an idle server: 50 events/s to one subscriber",
    (
        Column("delivery_p50_ms", "received p50 ms", ",.2f", "from POST sent to event received"),
        Column(
            "answer_p50_ms", "answered p50 ms", ",.2f", "from POST sent to POST answered, which is after the commit"
        ),
        ADDED,
        Column("delivery_p99_ms", "received p99 ms", ",.2f", "from POST sent to event received"),
        *EXACTNESS,
    ),
    each(commit),
)


# --- other requests beside a fan-out ---

WIDE: Final = Load(10_000, rate=2, seconds=6)
IDLE_PROBE_S: Final = 2.0
HEALTH: Final = 0
TICKET: Final = 1
BUSY_P99: Final = Column("health_p99_ms", "healthz p99 ms", ",.1f", "of GET /healthz, while events go out")
BUSY_TICKET_P99: Final = Column("ticket_p99_ms", "ticket p99 ms", ",.1f", "of reading a ticket, while events go out")


def busy(peer: TaskHub) -> Row:
    """Two requests a hundred times a second each: first while 10 000 streams are silent, then while they get events."""
    with peer.serve() as server:
        key = Hub(server.port).create_ticket()
        idle = Prober(server.port, (get("/healthz"), get(f"/api/v1/tickets/{key}")))
        beside = Prober(server.port, idle.requests)

        def connected() -> None:
            with idle:
                time.sleep(IDLE_PROBE_S)
            beside.start()

        try:
            # Stopped before the client goes, because 10 000 farewells are another matter.
            figures = run(peer, server, WIDE, on_connected=connected, on_measured=beside.stop)
        finally:
            beside.stop()
    return inexactness(figures) | {
        "idle_p99_ms": idle.quantile_ms(HEALTH, 0.99),
        "health_p50_ms": beside.quantile_ms(HEALTH, 0.5),
        "health_p99_ms": beside.quantile_ms(HEALTH, 0.99),
        "health_max_ms": beside.quantile_ms(HEALTH, 1),
        "ticket_p99_ms": beside.quantile_ms(TICKET, 0.99),
        "ticket_max_ms": beside.quantile_ms(TICKET, 1),
        "event_p99_ms": figures.ms("delivery_p99"),
    }


BUSY: Final = Scenario(
    "busy",
    "2 events/s to 10 000 subscribers, and other requests meanwhile",
    (
        Column("idle_p99_ms", "before: healthz p99 ms", ",.1f", "while the streams are silent"),
        Column("health_p50_ms", "healthz p50 ms", ",.1f", BUSY_P99.meaning),
        BUSY_P99,
        Column("health_max_ms", "max ms", ",.1f", BUSY_P99.meaning),
        BUSY_TICKET_P99,
        Column("ticket_max_ms", "max ms", ",.1f", BUSY_TICKET_P99.meaning),
        Column("event_p99_ms", "event p99 ms", ",.1f", "until the last of the 10 000 has an event"),
        *EXACTNESS,
    ),
    each(busy),
    files=WIDE.subscribers + OTHER_FILES,
)


@dataclass(slots=True)
class Prober:
    """Asks the server something every few milliseconds, on a thread and connection of its own.

    A request is due at a time, and its latency counts from then: one that had to wait for the answer to the one before
    has waited, too. Where that is allowed, the thread goes before the load client, which shares its core.
    """

    port: int
    requests: tuple[bytes, ...]
    every_s: float = 0.005
    latencies: list[list[float]] = field(default_factory=list)
    _failure: str | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        self.latencies = [[] for _ in self.requests]
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Raises RunFailed when a request has failed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._failure is not None:
            raise RunFailed(f"a request beside the load failed: {self._failure}")

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def quantile_ms(self, request: int, share: float) -> float:
        return quantile_ms(self.latencies[request], share)

    def _run(self) -> None:
        os.sched_setaffinity(0, {CLIENT_CORE})  # which, like the next, is about this thread alone
        with contextlib.suppress(PermissionError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        try:
            self._ask()
        except OSError as error:
            self._failure = str(error)

    def _ask(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            number = 0
            due = time.monotonic()
            while not self._stop.is_set():
                time.sleep(max(0.0, due - time.monotonic()))
                kind = number % len(self.requests)
                connection.sendall(self.requests[kind])
                if not read_answer(connection):
                    self._failure = "it was refused"
                    return
                self.latencies[kind].append(time.monotonic() - due)
                number += 1
                due += self.every_s


def quantile_ms(latencies: Iterable[float], share: float) -> float:
    """Of latencies in seconds; 0.0 of none."""
    values = sorted(latencies)
    return 1000 * values[min(len(values) - 1, int(share * len(values)))] if values else 0.0


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {API_KEY}\r\n\r\n".encode()


def post(path: str, body: object) -> bytes:
    encoded = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {API_KEY}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(encoded)}\r\n\r\n".encode() + encoded


def read_answer(connection: socket.socket) -> bool:
    """Read one answer that has a Content-Length; whether its status is 200 or 201."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += (piece := connection.recv(65536))
        if not piece:
            return False
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += (piece := connection.recv(65536))
        if not piece:
            return False
    return head.split(b" ", 2)[1] in (b"200", b"201")
