"""What only TaskHub is asked: thousands of filters, and readers that stall among readers that do not.

A scenario that compares two loads runs both within one measurement, so that a change of the machine's mood hits both.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tests.benchmarks.fanout import OTHER_FILES
from tests.benchmarks.hub import Hub
from tests.benchmarks.load import Load, run
from tests.benchmarks.peers import TaskHub
from tests.benchmarks.scenario import EXACTNESS, Column, Row, Scenario, each, inexactness

# --- filters ---

MANY: Final = Load(
    5000, path="/events/stream?heartbeat=60&subject=T%d", subjects=5000, rate=500, concurrency=32, connect_deadline=120
)
"""Heartbeats are rare, since 5000 of them would be no small part of what is measured."""
ONE: Final = replace(MANY, subscribers=1, path="/events/stream?heartbeat=60&subject=T*")
FILTER_RATIO: Final = Column("ratio", "ratio", ",.2f", "the former divided by the latter")


def filters(peer: TaskHub) -> Row:
    """Each event goes to one subscriber: to the only one there is, then to the one of 5000 that asked for it."""
    with peer.serve() as server:
        one = run(peer, server, ONE)
        many = run(peer, server, MANY)
    return {
        **inexactness(one, many),
        "many": many.cpu_us_per_event,
        "one": one.cpu_us_per_event,
        "ratio": many.cpu_us_per_event / one.cpu_us_per_event,
        "overdue": many.client["overdue"],
    }


FILTERS: Final = Scenario(
    "filters",
    "5000 subscribers, each of one subject; 500 events/s that go to one of them",
    (
        Column("many", "CPU µs/event", ",.1f", "server CPU per published event with 5000 filters"),
        Column("one", "with one subscriber", ",.1f", "the same publishing with one subscriber that gets every event"),
        FILTER_RATIO,
        Column("overdue", "overdue", ",.0f", "events that the server was too slow to take at that rate"),
        *EXACTNESS,
    ),
    each(filters),
    files=MANY.subscribers + OTHER_FILES,
)


# --- stalled readers ---

STALLED_P99: Final = Column("p99_stalled", "p99 ms, others stalled", ",.2f", "of the subscribers that read")
STALLED_MEMORY: Final = Column(
    "bytes_per_stalled", "bytes/stalled", ",.0f", "what the server's resident memory grew by beyond a run without them"
)


def stalled(load: Load) -> Callable[[TaskHub], Row]:
    """The load with its stalled subscribers, beside the same without them."""

    def measure(peer: TaskHub) -> Row:
        healthy = replace(load, subscribers=load.subscribers - load.stalled, stalled=0)
        with peer.serve() as server:
            without = run(peer, server, healthy)
        with peer.serve() as server:
            among = run(peer, server, load)
            lagged = Hub(server.port).debug()["lagged"]
        grown = among.peak_bytes - among.connected.resident_bytes
        grown_without = without.peak_bytes - without.connected.resident_bytes
        return {
            **inexactness(without, among),
            "p99_without": without.ms("delivery_p99"),
            "p99_stalled": among.ms("delivery_p99"),
            "p99_ratio": among.ms("delivery_p99") / without.ms("delivery_p99"),
            "bytes_per_stalled": (grown - grown_without) / load.stalled,
            "lagged": float(lagged),
        }

    return measure


STALLED_COLUMNS: Final = (
    Column("p99_without", "p99 ms, none stalled", ",.2f", "with as many subscribers that read, and no others"),
    STALLED_P99,
    Column("p99_ratio", "ratio", ",.2f", "the latter divided by the former"),
    STALLED_MEMORY,
    Column("lagged", "left behind", ",.0f", "how often the server took a subscriber out of the live fan-out"),
    *EXACTNESS,
)

# Events large and long enough that the kernel's buffers for a stalled client, some hundred kilobytes, are full soon.
SLOW: Final = Scenario(
    "slow",
    "1000 subscribers of which 300 never read, 100 events/s of 1000 bytes",
    STALLED_COLUMNS,
    each(stalled(Load(1000, stalled=300, rate=100, size=1000, warmup=2))),
    most_rounds=2,
)
HALF: Final = Scenario(
    "half",
    "10 000 subscribers of which 5000 never read, 10 events/s of 8000 bytes",
    STALLED_COLUMNS,
    each(stalled(Load(10_000, stalled=5000, rate=10, size=8000, warmup=3)), stored=False),
    files=10_000 + OTHER_FILES,
    most_rounds=2,
)
