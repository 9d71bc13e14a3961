"""Streams that come and go: all at once, after a restart, and for a long time."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.benchmarks.fanout import OTHER_FILES, without
from tests.benchmarks.hub import Hub
from tests.benchmarks.load import Load, RunFailed, run
from tests.benchmarks.peers import Peer, TaskHub
from tests.benchmarks.scenario import CONNECTS, CPU_CONNECT, Column, Row, Scenario, Variant, each, row_of

BROKEN: Final = Column("failed", "failed", ",.0f", "streams that were refused or broke off", "worst")

# --- all at once ---

BURST_LOAD: Final = Load(5000, concurrency=5000, publishes=False, seconds=0)


def burst(peer: Peer) -> Callable[[], Row]:
    """Everybody connects at the same moment."""

    def measure() -> Row:
        with peer.serve() as server:
            figures = run(peer, server, BURST_LOAD, tolerant=True)
        return row_of(figures) | {"failed": figures.client["refused"] + figures.client["broken"]}

    return measure


BURST: Final = Scenario(
    "burst",
    "5000 streams opened as fast as the server lets them",
    (
        CONNECTS,
        CPU_CONNECT,
        Column("ready_p50_ms", "p50 ms", ",.0f", "from connect() until the stream is live"),
        Column("ready_p99_ms", "p99 ms", ",.0f", "from connect() until the stream is live"),
        BROKEN,
    ),
    [Variant(peer.name, burst(peer)) for peer in without("taskhub stored")],
    files=BURST_LOAD.subscribers + OTHER_FILES,
)

# --- after a restart ---

RETURNING: Final = 1000
MISSED: Final = 200


def storm(peer: TaskHub) -> Row:
    """Events are stored, the server starts anew, and everybody comes back at once with the position before them."""
    with tempfile.TemporaryDirectory(prefix="taskhub-bench-") as directory:
        peer = TaskHub(stored=True, data_dir=Path(directory))
        with peer.serve() as server:
            position = Hub(server.port).publish(1)
            Hub(server.port).publish(MISSED)
            server.stop()
            server.start()
            load = Load(
                RETURNING, concurrency=RETURNING, stream_headers=f"Last-Event-ID: {position}\r\n", backlog=MISSED,
                publishes=False, seconds=1, warmup=0,
            )  # fmt: skip
            figures = run(peer, server, load, tolerant=True)
    client = figures.client
    replayed = MISSED * client["connected"]
    return row_of(figures) | {
        "failed": client["refused"] + client["broken"],
        "caught_up_s": client["connect_s"],
        "replayed_per_s": replayed / client["connect_s"],
        "cpu_us_per_replayed": 1e6 * (figures.connected.cpu_s - figures.before.cpu_s) / max(1.0, replayed),
        "inexact": client["repeated"] + client["skipped"] + (client["fewest"] != MISSED) + (client["most"] != MISSED),
    }


STORM: Final = Scenario(
    "storm",
    f"{RETURNING} clients come back after a restart, {MISSED} events behind",
    (
        Column("caught_up_s", "caught up s", ",.2f", "until every client had every event it had missed, and was live"),
        Column("ready_p50_ms", "p50 ms", ",.0f", "until one client was so far"),
        Column("replayed_per_s", "events/s", ",.0f", "events that reached a client, per second"),
        Column("cpu_us_per_replayed", "CPU µs/event", ",.2f", "server CPU per such event, the connecting included"),
        Column("peak_bytes", "peak bytes", ",.0f", "resident memory at most"),
        BROKEN,
        Column("inexact", "wrong", ",.0f", "events that came twice, late or not at all", "worst"),
    ),
    [Variant("taskhub stored", lambda: storm(TaskHub(stored=True)))],
    files=RETURNING + OTHER_FILES,
    most_rounds=2,
)

# --- for a long time ---

WARM_UP: Final = 5000
SLICES: Final = 4
SLICE: Final = 50_000
LEFT_DEADLINE_S: Final = 30.0


def soak(peer: TaskHub) -> Row:
    """Streams are opened and, as soon as they are live, closed: one in order, the next by a reset."""
    with peer.serve() as server:
        hub = Hub(server.port)
        failed = 0.0
        resident = [0.0] * (SLICES + 1)
        speeds: list[float] = []
        for number in range(SLICES + 1):
            count = SLICE if number else WARM_UP
            load = Load(count, churn=True, publishes=False, seconds=0, concurrency=64, connect_deadline=1200)
            figures = run(peer, server, load, tolerant=True)
            wait_until_nobody_is_left(hub)
            failed += count - figures.client["connected"]
            speeds.append(figures.connects_per_s)
            resident[number] = server.usage().resident_bytes
        debug = hub.debug()
    return {
        "connects_per_s": speeds[-1],
        "failed": failed,
        "streams_left": float(debug["connected_clients"]),
        "groups_left": float(sum(channel["groups"] for channel in debug["instances"][0]["channels"])),
        **{f"resident_{number}": value for number, value in enumerate(resident)},
        "grown": resident[-1] - resident[0],
        "grown_late": resident[-1] - resident[-2],
    }


def wait_until_nobody_is_left(hub: Hub) -> None:
    """Raises RunFailed when the server still counts streams whose clients are gone."""
    deadline = time.monotonic() + LEFT_DEADLINE_S
    while hub.debug()["connected_clients"]:
        if time.monotonic() > deadline:
            raise RunFailed("the server counts streams whose clients left long ago")
        time.sleep(0.2)


SOAK: Final = Scenario(
    "soak",
    f"{SLICES * SLICE:,} streams opened and closed, after {WARM_UP:,} to warm up",
    (
        CONNECTS,
        BROKEN,
        Column("streams_left", "streams left", ",.0f", "that the server still counts at the end"),
        Column("groups_left", "groups left", ",.0f", "of equal filters, still there at the end"),
        Column("resident_0", "resident: warm", ",.0f", "bytes after the warm-up"),
        *(Column(f"resident_{n}", f"{n * SLICE:,}", ",.0f", "bytes after so many") for n in range(1, SLICES + 1)),
        Column("grown", "grown", ",.0f", "bytes, from the warm-up to the end"),
        Column("grown_late", "in the last quarter", ",.0f", "bytes: where this is large, something leaks"),
    ),
    each(soak, stored=False),
    opt_in=True,
    most_rounds=1,
)
