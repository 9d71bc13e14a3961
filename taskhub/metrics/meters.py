"""What a process counts as things happen: plain numbers, so that counting costs next to nothing.

Everything here is called on the event loop. The values that become labels are few, whatever clients send.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from broadcaster.event import SYSTEM_TYPES, TICKET_TYPES, Event
from broadcaster.statistics import Histogram

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER: Final = "other"
"""Where a value is one that clients make up."""

REQUEST_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

Operation = Literal["read", "write"]
Outcome = Literal["ok", "refused", "failed"]
"""Of an MCP request: done; refused for a reason that is the caller's; not done for one that is TaskHub's."""

_TYPES: Final = frozenset((*TICKET_TYPES, *SYSTEM_TYPES))


class Histograms:
    """A histogram for each combination of labels that has occurred."""

    def __init__(self, *labels: str) -> None:
        self.labels = labels
        self.by_labels: dict[tuple[str, ...], Histogram] = {}

    def add(self, values: tuple[str, ...], seconds: float) -> None:
        """One more sample; `values` are those of `labels`."""
        histogram = self.by_labels.get(values)
        if histogram is None:
            histogram = self.by_labels[values] = Histogram(REQUEST_BOUNDS_S)
        histogram.add(seconds)

    def named(self) -> list[tuple[Mapping[str, str], Histogram]]:
        """Each with its labels by name."""
        return [
            (dict(zip(self.labels, values, strict=True)), histogram) for values, histogram in self.by_labels.items()
        ]


class Meters:
    """The meters of one process."""

    def __init__(self) -> None:
        self.http = Histograms("route", "method", "status")
        self.mcp = Histograms("method", "tool", "outcome")
        self.database = Histograms("op")
        self.database_errors: Counter[str] = Counter()
        self.loop_lag = Histogram(LAG_BOUNDS_S)
        self.appended: Counter[str] = Counter()
        self.auth_failures: Counter[str] = Counter()
        self.version_conflicts = 0
        self.replays = 0

    def request(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered. `route`: the path as it is declared; None where there is none."""
        known = method if method in METHODS else OTHER
        self.http.add((route or OTHER, known, str(status)), seconds)

    def mcp_request(self, method: str, tool: str, outcome: Outcome, seconds: float) -> None:
        """An MCP request was answered. `tool` is empty for what is no tool call."""
        self.mcp.add((method, tool, outcome), seconds)

    def unit(self, operation: Operation, seconds: float, *, failed: bool) -> None:
        """A unit of work on the database ended; `failed`: because the database is busy or away."""
        self.database.add((operation,), seconds)
        if failed:
            self.database_errors[operation] += 1

    def committed(self, events: Sequence[Event]) -> None:
        """Events were stored. Clients choose the types of their own."""
        appended = self.appended
        for event in events:
            appended[event.type if event.type in _TYPES else OTHER] += 1
