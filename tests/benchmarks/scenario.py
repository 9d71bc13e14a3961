"""What a scenario is: variants that are measured in turn, and the figures to show of each."""

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from tests.benchmarks.load import Figures
from tests.benchmarks.peers import TaskHub

Row = dict[str, float]
"""Figure → value, of one run."""


@dataclass(frozen=True, slots=True)
class Column:
    """A figure: its heading, its format, and a sentence that says what it is."""

    figure: str
    heading: str
    format: str
    meaning: str
    over_rounds: Literal["median", "worst"] = "median"


@dataclass(frozen=True, slots=True)
class Variant:
    """One line of a scenario's table. `measure` does one run from beginning to end; raises RunFailed, DidNotStart."""

    name: str
    measure: Callable[[], Row]


@dataclass(frozen=True, slots=True)
class Scenario:
    name: str
    title: str
    columns: Sequence[Column]
    variants: Sequence[Variant]
    files: int = 0
    """How many files a server, or the client, must be able to open at a time."""
    opt_in: bool = False
    """Runs only when it is named."""
    most_rounds: int | None = None
    """For one that takes long and whose variants are not compared with each other."""


@dataclass(slots=True)
class Outcome:
    """What was measured of one scenario: variant → its runs, and → why runs failed."""

    scenario: Scenario
    runs: dict[str, list[Row]] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def value(self, variant: str, column: Column) -> float | None:
        """The figure over all rounds; None when no run has it."""
        values = [row[column.figure] for row in self.runs.get(variant, []) if column.figure in row]
        if not values:
            return None
        return max(values, key=abs) if column.over_rounds == "worst" else statistics.median(values)


CPU: Final = Column("cpu_us_per_delivery", "CPU µs/delivery", ",.2f", "server CPU per event that reached a subscriber")
RATE: Final = Column("deliveries_per_s", "deliveries/s", ",.0f", "events that reached a subscriber, per second")
P50: Final = Column(
    "delivery_p50_ms", "p50 ms", ",.2f", "from the moment an event was made by the client to its arrival"
)
P99: Final = Column("delivery_p99_ms", "p99 ms", ",.2f", P50.meaning)
MEMORY: Final = Column(
    "bytes_per_subscriber",
    "bytes/subscriber",
    ",.0f",
    "resident memory of the server's processes, after connecting less before",
)
CONNECTS: Final = Column("connects_per_s", "connects/s", ",.0f", "streams opened per second, until they were live")
CPU_CONNECT: Final = Column("cpu_us_per_connect", "CPU µs/connect", ",.0f", "server CPU per stream opened")
LOST: Final = Column(
    "lost",
    "lost",
    ",.0f",
    "deliveries that had not come when nothing came any more; those of an overloaded server may be late",
    "worst",
)
REPEATED: Final = Column(
    "repeated", "twice or late", ",.0f", "deliveries that had come before, or after a newer event", "worst"
)
SKIPPED: Final = Column(
    "skipped", "left out", ",.0f", "events missing between two deliveries to one subscriber", "worst"
)
OTHERS: Final = Column(
    "others", "others", ".0%", "share of the two cores that other programs took; where it is large, figures mean little"
)
EXACTNESS: Final = (LOST, REPEATED, SKIPPED, OTHERS)
"""What every table ends with: whether each subscriber got every event once and in order, and how far to trust it."""


def row_of(figures: Figures) -> Row:
    """All that one run of the load client says."""
    client = figures.client
    return {
        "cpu_us_per_delivery": figures.cpu_us_per_delivery,
        "cpu_us_per_event": figures.cpu_us_per_event,
        "deliveries_per_s": figures.deliveries_per_s,
        "published_per_s": figures.published_per_s,
        "utilisation": figures.utilisation,
        "bytes_per_subscriber": figures.bytes_per_subscriber,
        "connects_per_s": figures.connects_per_s,
        "cpu_us_per_connect": figures.cpu_us_per_connect,
        "peak_bytes": figures.peak_bytes,
        "others": figures.others,
        "client_utilisation": client["client_cpu_s"] / client["seconds"] if client["seconds"] else 0.0,
        "lost": client["undelivered"],
        **{name: client[name] for name in ("repeated", "skipped", "overdue", "events_per_read")},
        **{
            f"{what}_{quantile}_ms": figures.ms(f"{what}_{quantile}")
            for what in ("ready", "delivery", "answer")
            for quantile in ("p50", "p99", "max")
        },
    }


def inexactness(*several: Figures) -> Row:
    """The figures of EXACTNESS, each the worst of several runs that make one measurement."""
    rows = [row_of(figures) for figures in several]
    return {column.figure: max((row[column.figure] for row in rows), key=abs) for column in EXACTNESS}


def each(measure: Callable[[TaskHub], Row], *, stored: bool = True) -> list[Variant]:
    """The variants of a scenario of TaskHub alone: transient events and, unless told otherwise, stored ones."""
    peers = [TaskHub(), TaskHub(stored=True)] if stored else [TaskHub()]
    return [Variant(peer.name, functools.partial(measure, peer)) for peer in peers]
