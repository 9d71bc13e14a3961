"""Results as tables for the terminal, as Markdown, and as JSON."""

import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.processes import CLIENT_CORE, SERVER_CORE
from tests.benchmarks.scenario import LOST, REPEATED, SKIPPED, Outcome
from tests.benchmarks.targets import Verdict

NOT_MEASURED = "-"


def cells(outcome: Outcome) -> list[list[str]]:
    """The scenario's table: its head, then a line for each variant."""
    columns = outcome.scenario.columns
    table = [["", *(column.heading for column in columns)]]
    for variant in outcome.scenario.variants:
        if variant.name not in outcome.runs and variant.name not in outcome.failures:
            continue
        values = [(outcome.value(variant.name, column), column) for column in columns]
        table.append([variant.name, *(_shown(value, column.format) for value, column in values)])
    return table


def verdict_cells(verdicts: Iterable[Verdict]) -> list[list[str]]:
    """The table of targets."""
    words = {None: "not measured", True: "met", False: "MISSED"}
    table = [["target", "variant", "bound", "measured", ""]]
    for verdict in verdicts:
        shown = _shown(verdict.value, ",.3g" if (verdict.value or 0) < 100 else ",.0f")
        unit = " ×" if verdict.target.beside and verdict.value is not None else ""
        table.append([verdict.target.text, verdict.variant, verdict.target.bound, shown + unit, words[verdict.met]])
    return table


def text_table(table: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Aligned columns, the first `left` of them to the left."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for row in table:
        aligned = [c.ljust(w) if i < left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(aligned).rstrip())
    return "\n".join(lines)


def markdown_table(table: Sequence[Sequence[str]], *, left: int = 1) -> str:
    head, *body = table
    rule = ["---" if i < left else "--:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *body))


def failures(outcome: Outcome) -> list[str]:
    """A line for each variant with runs that failed."""
    return [f"{name}: {len(reasons)} failed: {reasons[-1]}" for name, reasons in outcome.failures.items()]


def inexact(outcomes: Mapping[str, Outcome]) -> list[str]:
    """A line for each variant of a scenario whose subscribers did not get every event once and in order."""
    lines = []
    for name, outcome in outcomes.items():
        for variant in outcome.runs:
            values = {column.heading: outcome.value(variant, column) or 0 for column in (LOST, REPEATED, SKIPPED)}
            if any(values.values()):
                lines.append(
                    f"{name}, {variant}: " + ", ".join(f"{value:.0f} {what}" for what, value in values.items())
                )
    return lines


def markdown(outcomes: Mapping[str, Outcome], verdicts: Sequence[Verdict], rounds: int) -> str:
    """Everything, for a document."""
    machine = about_machine()
    parts = [
        f"{machine['cpu']}, {machine['cores']} cores (server on core {SERVER_CORE}, client on core {CLIENT_CORE}), "
        f"{machine['system']}, Python {machine['python']}; medians of {rounds} interleaved rounds."
    ]
    for outcome in outcomes.values():
        parts += [f"**{outcome.scenario.title}**", markdown_table(cells(outcome))]
        parts += failures(outcome)
    if verdicts:
        parts += ["**Targets**", markdown_table(verdict_cells(verdicts), left=2)]
    return "\n\n".join(parts) + "\n"


def document(outcomes: Mapping[str, Outcome], verdicts: Iterable[Verdict], rounds: int) -> dict[str, Any]:
    """Everything, as JSON: with every single run."""
    return {
        "machine": about_machine(),
        "rounds": rounds,
        "scenarios": {
            name: {
                "title": outcome.scenario.title,
                "figures": {
                    variant.name: {c.figure: outcome.value(variant.name, c) for c in outcome.scenario.columns}
                    for variant in outcome.scenario.variants
                },
                "runs": outcome.runs,
                "failures": outcome.failures,
            }
            for name, outcome in outcomes.items()
        },
        "targets": [
            {
                "target": verdict.target.text,
                "variant": verdict.variant,
                "bound": verdict.target.bound,
                "measured": verdict.value,
                "met": verdict.met,
            }
            for verdict in verdicts
        ],
    }


def about_machine() -> dict[str, Any]:
    """What figures depend on."""
    names = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }


def _shown(value: float | None, form: str) -> str:
    return NOT_MEASURED if value is None else format(value, form)
