"""The targets: what the fan-out must reach, as ratios within one run or as figures of their own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.alone import FILTER_RATIO
from tests.benchmarks.latency import ADDED, BUSY_P99, BUSY_TICKET_P99
from tests.benchmarks.overload import READ_RATIO, WRITE_RATIO
from tests.benchmarks.relay import FLOOD_HEARD, FLOOD_SENT, HEARD, RELAY_ADDED, SENT
from tests.benchmarks.scenario import CPU, MEMORY, P99, RATE, Column, Outcome
from tests.benchmarks.tickets import BOARD_P99, DUE_P99, LIST_P99, NARROW_P99, SEARCH_P99
from tests.benchmarks.tools import READ_CPU

KIB: Final = 1024
VARIANTS: Final = ("taskhub", "taskhub stored")
DATABASES: Final = ("sqlite", "postgresql")


@dataclass(frozen=True, slots=True)
class Target:
    """A figure of TaskHub, alone or divided by that of `beside`, and its bound.

    `beside` is another variant of the same scenario.
    """

    text: str
    scenario: str
    column: Column
    at_most: float | None = None
    at_least: float | None = None
    beside: str | None = None
    variants: Sequence[str] = VARIANTS

    def judge(self, outcomes: Mapping[str, Outcome]) -> "Iterator[Verdict]":
        """One verdict for each variant; without a value where something was not measured."""
        for variant in self.variants:
            value = None
            if (outcome := outcomes.get(self.scenario)) is not None:
                value = outcome.value(variant, self.column)
                if value is not None and self.beside is not None:
                    other = outcome.value(self.beside, self.column)
                    value = value / other if other else None
            yield Verdict(self, variant, value)

    @property
    def bound(self) -> str:
        unit = "×" if self.beside else ""
        return (
            f"≤ {self.at_most:,g} {unit}".strip()
            if self.at_most is not None
            else f"≥ {self.at_least:,g} {unit}".strip()
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    target: Target
    variant: str
    value: float | None

    @property
    def met(self) -> bool | None:
        """None: not measured."""
        if self.value is None:
            return None
        if self.target.at_most is not None:
            return self.value <= self.target.at_most
        return self.target.at_least is not None and self.value >= self.target.at_least


TARGETS: Final = (
    *(
        Target(f"CPU per delivery, {load}, beside {beside}", scenario, CPU, at_most=bound, beside=beside)
        for scenario, load in (("light", "1000 × 10/s"), ("moderate", "1000 × 100/s"))
        for beside, bound in (("nchan", 0.85), ("c-one", 1.4))
    ),
    Target("p99, 1000 × 100/s, beside nchan", "moderate", P99, at_most=1, beside="nchan"),
    Target("saturation, 1000 subscribers, beside nchan", "sat", RATE, at_least=15, beside="nchan"),
    Target("saturation, 1000 subscribers, beside c-coalesced", "sat", RATE, at_least=0.5, beside="c-coalesced"),
    Target("saturation, 1000 subscribers, stored beside transient", "sat", RATE, at_least=0.5, beside="taskhub",
           variants=("taskhub stored",)),
    Target("saturation, 5000 subscribers, beside nchan", "sat5k", RATE, at_least=10, beside="nchan"),
    Target("memory per idle subscriber, bytes", "idle10k", MEMORY, at_most=3.5 * KIB),
    Target("memory per idle subscriber, beside nchan", "idle10k", MEMORY, at_most=0.35, beside="nchan"),
    Target("CPU per event with 5000 filters ÷ with one subscriber", "filters", FILTER_RATIO, at_most=1.3),
    Target("events to 10 000: p99 of GET /healthz meanwhile, ms", "busy", BUSY_P99, at_most=20),
    Target("events to 10 000: p99 of reading a ticket meanwhile, ms", "busy", BUSY_TICKET_P99, at_most=20),
    *(
        Target(f"one key floods: p99 of others' {what}, by that before", "overload", column, at_most=2,
               variants=("taskhub",))
        for what, column in (("reads", READ_RATIO), ("changes", WRITE_RATIO))
    ),
    Target("idle server: p50 over the commit, ms", "commit", ADDED, at_most=2),
    Target("over Redis: added p50, ms", "relay", RELAY_ADDED, at_most=2),
    Target("over Redis: CPU to hear an event, µs", "relay", HEARD, at_most=60),
    Target("over Redis: CPU to send an event, µs", "relay", SENT, at_most=60),
    Target("over Redis: CPU to hear an event in a flood, µs", "relay", FLOOD_HEARD, at_most=10),
    Target("over Redis: CPU to send an event in a flood, µs", "relay", FLOOD_SENT, at_most=10),
    Target("get_ticket_detail: CPU per call, beside the SDK's own server", "mcp", READ_CPU, at_most=0.6, beside="sdk",
           variants=("taskhub",)),
    *(
        Target(f"100 000 tickets: {what} p99, ms", "tickets100k", column, at_most=50, variants=DATABASES)
        for what, column in (
            ("list", LIST_P99), ("by due date", DUE_P99), ("search", SEARCH_P99), ("narrow search", NARROW_P99),
            ("board", BOARD_P99),
        )
    ),
)  # fmt: skip


def judged(outcomes: Mapping[str, Outcome]) -> list[Verdict]:
    """Of every target whose scenario was run."""
    return [verdict for target in TARGETS if target.scenario in outcomes for verdict in target.judge(outcomes)]
