"""Rates and latencies of the recent past, cheap enough to be always on."""

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

LATENCY_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From what a quiet server takes to what nobody would call live."""


class Rate:
    """How many per second, over the last minute and the last five, from one bucket for each second."""

    def __init__(self) -> None:
        self.total = 0
        self._buckets: deque[tuple[int, int]] = deque(maxlen=300)
        self._second = -1
        self._count = 0

    def add(self, count: int, now: float) -> None:
        second = int(now)
        if second != self._second:
            if self._count:
                self._buckets.append((self._second, self._count))
            self._second, self._count = second, 0
        self._count += count
        self.total += count

    @classmethod
    def together(cls, rates: Sequence["Rate"]) -> "Rate":
        """What they count together."""
        counts = Counter[int]()
        for rate in rates:
            for second, count in (*rate._buckets, (rate._second, rate._count)):
                counts[second] += count
        whole = cls()
        whole.total = sum(rate.total for rate in rates)
        whole._buckets.extend(sorted(counts.items()))
        return whole

    def per_second(self, window_s: int, now: float) -> float:
        since = int(now) - window_s
        recent = sum(count for second, count in self._buckets if second > since)
        if self._second > since:
            recent += self._count
        return round(recent / window_s, 3)


class Latency:
    """Quantiles over the last 2048 samples, in seconds."""

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=2048)

    def add(self, seconds: float) -> None:
        self._samples.append(seconds)

    def add_all(self, other: "Latency") -> None:
        self._samples.extend(other._samples)

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0 to 1) of the samples; None without any."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


class Histogram:
    """How many samples lie in each of some ranges: from two looks at it, a collector tells any quantile in between.

    `bounds` are the upper ends of the ranges, ascending, each included; one more range has what is above. `counts` are
    of each range by itself.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float] = LATENCY_BOUNDS_S) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float, times: int = 1) -> None:
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def add_all(self, other: "Histogram") -> None:
        """The samples of another one with the same bounds."""
        self.counts = [own + more for own, more in zip(self.counts, other.counts, strict=True)]
        self.sum += other.sum


class Counters:
    """What is counted of a workspace."""

    def __init__(self) -> None:
        self.events = Rate()
        self.deliveries = Rate()
        self.latency = Latency()
        self.delivery_s = Histogram()
        """For each delivery, the time from the arrival of the oldest event of its flush to the end of the flush."""
        self.flush_s = Histogram()
        """How long flushes took, from the first write to the last."""
        self.last_event_time: str | None = None
        self.streams_opened = 0
        self.lagged = 0
        self.resets: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()

    @classmethod
    def together(cls, parts: Sequence["Counters"]) -> "Counters":
        """What they have counted together up to now."""
        whole = cls()
        whole.events = Rate.together([part.events for part in parts])
        whole.deliveries = Rate.together([part.deliveries for part in parts])
        for part in parts:
            whole.latency.add_all(part.latency)
            whole.delivery_s.add_all(part.delivery_s)
            whole.flush_s.add_all(part.flush_s)
            whole.streams_opened += part.streams_opened
            whole.lagged += part.lagged
            whole.resets += part.resets
            whole.ends += part.ends
        whole.last_event_time = max((p.last_event_time for p in parts if p.last_event_time is not None), default=None)
        return whole


@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """One stream as an operator sees it. Times are seconds; `lag_ms` is how long its socket has taken nothing."""

    id: str
    workspace: str
    principal: str
    address: str
    filter: dict[str, object]
    format: str
    connected_s: float
    state: str
    position: str
    lag_events: int
    lag_ms: int
    buffered_bytes: int
    bytes_sent: int
    events_sent: int
    last_write_s: float
