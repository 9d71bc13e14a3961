"""A collector of metrics: scrapes as Prometheus reads them, and what its rules make of them as time goes by."""

import re
import subprocess
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from tests.e2e.harness import tools
from tests.routes.conftest import Hub

RULES: Final = Path(__file__).resolve().parents[2] / "config/prometheus/rules.yml"
INTERVAL: Final = "15s"
QUIET: Final = 40
"""Scrapes before something happens: ten minutes."""
LASTING: Final = 80
"""Scrapes while it goes on: twenty minutes."""

_SAMPLE: Final = re.compile(r"(?P<name>[a-z_]+)(?:\{(?P<labels>.*)\})? (?P<value>[0-9.e+-]+|\+Inf)")
_LABEL: Final = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"(?:,|$)')

Series = tuple[str, frozenset[tuple[str, str]]]


@dataclass(frozen=True, slots=True)
class Scraped:
    """One answer of /metrics."""

    text: str
    values: Mapping[Series, float]
    kinds: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> "Scraped":
        kinds, values = {}, {}
        for line in text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                assert name not in kinds, f"{name} is there twice"
                kinds[name] = kind
            elif not line.startswith("# HELP "):
                found = _SAMPLE.fullmatch(line)
                assert found is not None, line
                series = found["name"], frozenset(_LABEL.findall(found["labels"] or ""))
                assert series not in values, f"{line} is there twice"
                values[series] = float(found["value"])
        return cls(text, values, kinds)

    def __call__(self, name: str, /, **labels: str) -> float:
        """The sum of the samples of this name that have these labels."""
        wanted = set(labels.items())
        return sum(value for (found, of), value in self.values.items() if found == name and wanted <= of)

    def labels(self, name: str) -> set[frozenset[str]]:
        """The names of the labels of this metric's samples."""
        return {frozenset(key for key, _ in of) for found, of in self.values if found == name}


async def scrape(hub: Hub, **options: object) -> Scraped:
    answer = await hub.get("/metrics", **options)
    assert answer.status == 200, answer
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    return Scraped.parse(answer.body.decode())


def firing(directory: Path, before: Scraped | None, after: Scraped | None) -> set[str]:
    """The alerts of the shipped rules that fire, by promtool, when the collector finds `before` for ten minutes, and
    then for twenty minutes in each interval what lies between `before` and `after`: counters grow by as much again.

    None: nobody answers. Fails when one fires in the first ten minutes.
    """
    document = {
        "rule_files": [str(RULES)],
        "evaluation_interval": INTERVAL,
        "tests": [
            {
                "interval": INTERVAL,
                "input_series": _input(before, after),
                "promql_expr_test": [_expected("9m", ()), _expected("29m", ("nothing",))],
            }
        ],
    }
    said = _test_rules(directory, document)
    assert "time: 9m" not in said, said
    found = re.search(r"time: 29m,\s*exp:.*?\n\s*got:(?P<got>.*)", said, re.DOTALL)
    assert found is not None, said
    return set(re.findall(r'alertname="(\w+)"', found["got"]))


def without_samples(directory: Path, expressions: Collection[str], before: Scraped, after: Scraped) -> list[str]:
    """Those of the expressions that find nothing, in the same twenty minutes."""
    at = "29m"
    document = {
        "evaluation_interval": INTERVAL,
        "tests": [
            {
                "interval": INTERVAL,
                "input_series": _input(before, after),
                "promql_expr_test": [
                    {"expr": f"count({expression}) > bool 0", "eval_time": at,
                     "exp_samples": [{"labels": "{}", "value": 1}]}
                    for expression in expressions
                ],
            }
        ],
    }  # fmt: skip
    said = _test_rules(directory, document)
    return [expression for expression in expressions if f"count({expression}) > bool 0" in said]


def promtool(*arguments: str, stdin: str = "") -> tuple[int, str]:
    """Run promtool; its status and what it said. Skips where there is none."""
    try:
        program = tools.promtool()
    except tools.Missing as missing:
        pytest.skip(f"missing {missing}")
    done = subprocess.run([program, *arguments], input=stdin, capture_output=True, text=True, check=False, timeout=120)
    return done.returncode, done.stdout + done.stderr


def _test_rules(directory: Path, document: object) -> str:
    file = directory / "rules-test.yml"
    file.write_text(yaml.safe_dump(document, width=10_000))
    return promtool("test", "rules", str(file))[1]


def _expected(at: str, alerts: Collection[str]) -> dict[str, object]:
    samples = [{"labels": f'{{alertname="{name}"}}', "value": 1} for name in alerts]
    query = 'count by (alertname) (ALERTS{alertstate="firing"})'
    return {"expr": query, "eval_time": at, "exp_samples": samples}


def _input(before: Scraped | None, after: Scraped | None) -> list[dict[str, str]]:
    first, then = (scraped.values if scraped is not None else {} for scraped in (before, after))
    kinds = {**(before.kinds if before else {}), **(after.kinds if after else {})}
    up = f"1+0x{QUIET - 1} {int(after is not None)}+0x{LASTING - 1}"
    rows = [{"series": 'up{job="taskhub",instance="a:8000"}', "values": up}]
    for series in {**first, **then}:
        a, b = first.get(series), then.get(series)
        counts = kinds.get(series[0]) != "gauge"
        quiet = f"_x{QUIET}" if a is None else f"{a!r}+0x{QUIET - 1}"
        step = 0.0 if b is None or not counts else max(0.0, b - (a or 0.0))
        lasting = f"_x{LASTING}" if b is None else f"{b!r}+{step!r}x{LASTING - 1}"
        rows.append({"series": _named(series), "values": f"{quiet} {lasting}"})
    return rows


def _named(series: Series) -> str:
    name, labels = series
    told = [("instance", "a:8000"), ("job", "taskhub"), *sorted(labels)]
    pairs = ",".join(f'{key}="{value}"' for key, value in told)
    return f"{name}{{{pairs}}}"
