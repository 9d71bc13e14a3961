"""Fan-out, TaskHub beside its peers: the same load on each server in turn."""

from collections.abc import Callable, Sequence
from typing import Final

from tests.benchmarks.load import Load, run
from tests.benchmarks.peers import EVERYBODY, Peer
from tests.benchmarks.scenario import (
    CONNECTS,
    CPU,
    EXACTNESS,
    MEMORY,
    P50,
    P99,
    RATE,
    Column,
    Row,
    Scenario,
    Variant,
    row_of,
)

OTHER_FILES: Final = 200
"""What a server has open beside its streams, at most."""


def against(peer: Peer, load: Load) -> Callable[[], Row]:
    """One run of the load against a fresh server."""

    def measure() -> Row:
        with peer.serve() as server:
            return row_of(run(peer, server, load))

    return measure


def compared(
    name: str,
    title: str,
    load: Load,
    columns: Sequence[Column],
    peers: Sequence[Peer] = EVERYBODY,
    *,
    opt_in: bool = False,
) -> Scenario:
    """A scenario with the same load on each of the peers."""
    variants = [Variant(peer.name, against(peer, load)) for peer in peers]
    files = load.subscribers + OTHER_FILES
    return Scenario(name, title, [*columns, *EXACTNESS], variants, files=files, opt_in=opt_in)


def without(*names: str) -> tuple[Peer, ...]:
    return tuple(peer for peer in EVERYBODY if peer.name not in names)


# The naive server is overloaded by most of this (two scenarios show how far it gets), and of the two limits only one is
# of interest where there is much, or next to nothing, to coalesce.
FANOUT: Final = (
    compared(
        "smoke", "5 subscribers, 20 events/s: does the kit work?",
        Load(5, rate=20, seconds=1, warmup=0), (CPU, P50), opt_in=True,
    ),
    compared("light", "1000 subscribers, 10 events/s", Load(1000, rate=10), (CPU, P50, P99)),
    compared(
        "moderate", "1000 subscribers, 100 events/s",
        Load(1000, rate=100), (CPU, P50, P99, RATE), without("naive"),
    ),
    compared(
        "sat", "saturation: 1000 subscribers, 32 events in flight on one connection",
        Load(1000, window=32, warmup=1.5), (RATE, CPU, P50, P99),
    ),
    compared(
        "sat5k", "saturation: 5000 subscribers, 16 events in flight on one connection",
        Load(5000, window=16, warmup=2), (RATE, CPU, P50, P99), without("naive", "c-one"),
    ),
    compared(
        "publishers", "saturation: 1000 subscribers, 32 publishers with one event each in flight",
        Load(1000, window=32, publishers=32, pipeline=1, warmup=1.5), (RATE, CPU, P50, P99), without("naive", "c-one"),
    ),
    compared(
        "idle10k", "10 000 idle subscribers, then 2 events/s",
        Load(10_000, rate=2), (MEMORY, CPU, P50, P99, CONNECTS), without("naive", "c-coalesced"),
    ),
)  # fmt: skip
