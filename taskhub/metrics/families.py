"""Families of samples, and the text that Prometheus reads (exposition format 0.0.4).

Of our own, and not a client library's: the event engine, which may import none, counts in plain numbers, which are
read when somebody asks; and the samples of several workers become one answer.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from broadcaster.statistics import Histogram

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. `name` is the family's, for histograms with `_bucket`, `_sum` or `_count` after it."""

    name: str
    labels: Mapping[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one kind. A counter's name ends in `_total`; units are seconds and bytes."""

    name: str
    kind: Kind
    help: str
    samples: list[Sample] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        self.samples.append(Sample(self.name, labels, value))

    def add_histogram(self, histogram: Histogram, **labels: str) -> None:
        below = 0
        for bound, count in zip((*histogram.bounds, math.inf), histogram.counts, strict=True):
            below += count
            self.samples.append(Sample(f"{self.name}_bucket", {**labels, "le": number(bound)}, below))
        self.samples.append(Sample(f"{self.name}_sum", labels, histogram.sum))
        self.samples.append(Sample(f"{self.name}_count", labels, below))


@dataclass(frozen=True, slots=True)
class WorkerFigures:
    """What one worker tells. `draining`: its successor has the same number, and tells as well."""

    number: int
    draining: bool
    families: list[Family]


def labelled(families: Iterable[Family], **labels: str) -> list[Family]:
    """The same with one more label on each sample."""
    return [
        replace(family, samples=[replace(sample, labels={**sample.labels, **labels}) for sample in family.samples])
        for family in families
    ]


def joined(parts: Iterable[Sequence[Family]]) -> list[Family]:
    """All samples of equal names in one family: the format wants each family once."""
    families: dict[str, Family] = {}
    for family in (family for part in parts for family in part):
        known = families.setdefault(family.name, replace(family, samples=[]))
        known.samples.extend(family.samples)
    return list(families.values())


def exposition(families: Iterable[Family]) -> bytes:
    """The families as text. One without samples is left out."""
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for sample in family.samples:
            labels = ",".join(f'{name}="{_quoted(value)}"' for name, value in sample.labels.items())
            lines.append(f"{sample.name}{{{labels}}} {number(sample.value)}" if labels else
                         f"{sample.name} {number(sample.value)}")  # fmt: skip
    return ("\n".join(lines) + "\n").encode()


def number(value: float) -> str:
    """A number as the format has it: `3`, `0.25`, `+Inf`."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(float(value))


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
