"""`taskhub doctor`."""

import argparse
import asyncio
from dataclasses import asdict

import orjson

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun
from taskhub.doctor.findings import Findings
from taskhub.settings.model import Settings


def run(parsed: argparse.Namespace) -> int:
    """Say whether the database is sound; 1 when it is not. Raises CannotRun when it cannot be judged."""
    settings = load_settings(parsed).settings

    from taskhub.doctor.examination import OtherSchema
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import StorageBusy

    try:
        findings = asyncio.run(_examine(settings))
    except FileNotFoundError as error:
        raise CannotRun(str(error)) from None
    except (OtherSchema, NewerSchema, StorageBusy) as error:
        raise CannotRun.on(settings, error) from None
    print(as_json(findings) if parsed.json else as_text(findings))
    return 0 if findings.sound else 1


async def _examine(settings: Settings) -> Findings:
    from taskhub.doctor.examination import examine
    from taskhub.opening import open_database_as_it_is

    async with open_database_as_it_is(settings) as database:
        return await database.read(examine)


def as_json(findings: Findings) -> str:
    """The report for programs."""
    return orjson.dumps(
        {
            "sound": findings.sound,
            "workspaces": [asdict(examined) for examined in findings.examined],
            "problems": [asdict(problem) for problem in findings.problems],
            "unnamed_problems": dict(findings.unnamed),
        }
    ).decode()


def as_text(findings: Findings) -> str:
    """The report for people."""
    lines = [
        f"{e.workspace}: {e.tickets} tickets, {e.events} events, streams go back from {e.head_seq} to {e.oldest_seq}"
        for e in findings.examined
    ]
    for problem in findings.problems:
        where = "" if problem.workspace is None else f" {problem.workspace}:"
        lines.append(f"{problem.check}:{where} {problem.what}")
    lines += [f"{check}: and {count} more" for check, count in findings.unnamed.items()]
    count = len(findings.problems) + findings.unnamed.total()
    lines.append("no problems" if findings.sound else f"{count} problem{'s' if count > 1 else ''}")
    return "\n".join(lines)
