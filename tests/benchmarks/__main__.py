"""The benchmark kit: `make bench`, or `python -m tests.benchmarks`.

Each scenario is measured in rounds. In a round every variant (TaskHub with transient events, with stored ones, and each
peer that is installed) gets a fresh server and one run, so that a machine that becomes slower is slower for all of
them. Servers run on one core, the load client on another. Figures are medians over the rounds; quote ratios between
variants of one run, not absolute figures of different runs.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Final

from tests.benchmarks import report
from tests.benchmarks.alone import FILTERS, HALF, SLOW
from tests.benchmarks.connections import BURST, SOAK, STORM
from tests.benchmarks.fanout import FANOUT
from tests.benchmarks.latency import BUSY, COMMIT
from tests.benchmarks.load import RunFailed
from tests.benchmarks.overload import OVERLOAD
from tests.benchmarks.page import PAGE
from tests.benchmarks.peers import EVERYBODY, present
from tests.benchmarks.processes import CLIENT_CORE, SERVER_CORE, DidNotStart, NotHere, go_first, raise_file_limit
from tests.benchmarks.programs import SOURCES as PROGRAMS
from tests.benchmarks.programs import built
from tests.benchmarks.relay import RELAY
from tests.benchmarks.scenario import Column, Outcome, Scenario
from tests.benchmarks.targets import judged
from tests.benchmarks.tickets import HUNDRED_THOUSAND, TOOLS
from tests.benchmarks.tools import CALLS, LISTENING

SCENARIOS: Final[Sequence[Scenario]] = (
    *FANOUT, FILTERS, SLOW, HALF, BUSY, COMMIT, RELAY, BURST, STORM, OVERLOAD, SOAK, TOOLS, CALLS, LISTENING,
    PAGE, HUNDRED_THOUSAND,
)  # fmt: skip

EXACT: Final = "In every run, every subscriber got every event once and in order."
INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is asked for; 130 when interrupted."""
    asked = _parser().parse_args(arguments)
    if asked.list:
        explain()
        return 0
    for number in INTERRUPTS:
        signal.signal(number, _interrupt)
    if asked.first:
        go_first()
    os.sched_setaffinity(0, {CLIENT_CORE})  # and so are the databases that it starts
    files = raise_file_limit()
    absent = {peer.name for peer in EVERYBODY} - {peer.name for peer in present(EVERYBODY)[0]}
    for missing in present(EVERYBODY)[1]:
        say(f"left out, for it is not installed: {missing}")
    if SERVER_CORE == CLIENT_CORE:
        say("this machine has one core, so server and client share it: the figures are too high, and ratios too close")
    for program in PROGRAMS:
        built(program)
    outcomes: dict[str, Outcome] = {}
    status = 0
    try:
        for scenario in _chosen(asked.only):
            if scenario.files > files:
                say(f"{scenario.name} is left out: it needs {scenario.files} open files, and {files} are allowed")
                continue
            outcomes[scenario.name] = Outcome(scenario)
            measure(outcomes[scenario.name], asked.reps, absent, set(asked.variants or ()))
            show(outcomes[scenario.name])
    except KeyboardInterrupt:
        say("interrupted")
        status = 130
    verdicts = judged(outcomes)
    if verdicts:
        say(f"\nTargets\n{report.text_table(report.verdict_cells(verdicts), left=2)}")
    if any(outcome.runs for outcome in outcomes.values()):
        say("\n" + "\n".join(["Not exact:", *report.inexact(outcomes)] if report.inexact(outcomes) else [EXACT]))
    if asked.json is not None:
        asked.json.write_text(json.dumps(report.document(outcomes, verdicts, asked.reps), indent=1) + "\n")
    if asked.markdown is not None:
        asked.markdown.write_text(report.markdown(outcomes, verdicts, asked.reps))
    return status


def measure(outcome: Outcome, rounds: int, absent: set[str], wanted: set[str]) -> None:
    """All rounds of one scenario. A run that fails is noted, and the others go on."""
    say(f"\n{outcome.scenario.name}: {outcome.scenario.title}")
    began = time.monotonic()
    rounds = min(rounds, outcome.scenario.most_rounds or rounds)
    for _ in range(rounds):
        for variant in outcome.scenario.variants:
            if variant.name in absent or (wanted and variant.name not in wanted):
                continue
            try:
                row = variant.measure()
            except (RunFailed, DidNotStart, NotHere) as failure:
                outcome.failures.setdefault(variant.name, []).append(str(failure))
            else:
                outcome.runs.setdefault(variant.name, []).append(row)
    say(f"(rounds: {rounds}; {time.monotonic() - began:.0f} s)")


def show(outcome: Outcome) -> None:
    """The scenario's table."""
    say(report.text_table(report.cells(outcome)))
    for line in report.failures(outcome):
        say(line)


def explain() -> None:
    """The scenarios, and what each figure is where it first appears."""
    told: set[Column] = set()
    for scenario in SCENARIOS:
        say(f"{scenario.name:12}{scenario.title}{' (only when named)' if scenario.opt_in else ''}")
        for column in scenario.columns:
            if column not in told:
                worst = " (worst round)" if column.over_rounds == "worst" else ""
                say(f"    {column.heading:24}{column.meaning}{worst}")
                told.add(column)


def say(text: str) -> None:
    """To the terminal, at once."""
    print(text, flush=True)  # noqa: T201 - a command line prints


def _chosen(names: Sequence[str] | None) -> list[Scenario]:
    return [s for s in SCENARIOS if (s.name in names if names else not s.opt_in)]


def _interrupt(number: int, frame: FrameType | None) -> None:
    for other in INTERRUPTS:  # a second one would keep servers from being ended
        signal.signal(other, signal.SIG_IGN)
    raise KeyboardInterrupt


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := set(names) - {scenario.name for scenario in SCENARIOS}:
        raise argparse.ArgumentTypeError(f"no scenario is called {', '.join(sorted(unknown))}; --list names them")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__.partition("\n\n")[0] if __doc__ else None)
    parser.add_argument("--only", type=_names, metavar="NAMES", help="scenarios, such as light,sat; default: all")
    parser.add_argument("--variants", type=lambda text: text.split(","), metavar="NAMES", help="such as taskhub,nchan")
    parser.add_argument("--reps", type=int, default=3, help="rounds; default: 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure of every run")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables as Markdown")
    parser.add_argument("--first", action="store_true", help="go before other programs on a busy machine (root only)")
    parser.add_argument("--list", action="store_true", help="name the scenarios, say what each figure is, and exit")
    return parser


if __name__ == "__main__":
    sys.exit(main())
