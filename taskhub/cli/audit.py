"""`taskhub audit`."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, caller_in, printable, run_with_services

if TYPE_CHECKING:
    from taskhub.audit.log import AuditEntry, AuditLog, AuditQuery
    from taskhub.auth.principal import Caller
    from taskhub.opening import Services

NEWEST: Final = 50
"""Entries to show when nothing is said of how many."""
LOOK_EVERY_S: Final = 1.0
LATEST: Final = timedelta(seconds=60)
"""How much later than others an entry can be committed whose time comes before theirs."""


def run(parsed: argparse.Namespace) -> int:
    """Print the audit log of a workspace, the newest entry last; with --follow also those that come, until Ctrl-C."""
    settings = load_settings(parsed).settings
    try:
        return run_with_services(settings, partial(_show, parsed))
    except BrokenPipeError:
        # Whoever read standard output has ended, such as `head`: what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _show(parsed: argparse.Namespace, services: "Services") -> int:
    from pydantic import ValidationError

    from taskhub.audit.log import ACTIONS, AuditQuery

    caller = await caller_in(services, parsed.workspace)
    try:
        query = AuditQuery(since=parsed.since, action=parsed.action or [], actor=parsed.actor, limit=NEWEST)
    except ValidationError as error:
        name = error.errors()[0]["loc"][0]
        allowed = f"; there are {', '.join(ACTIONS)}" if name == "action" else ""
        raise CannotRun(f"--{name} is wrong{allowed}") from None
    follower = _Follower(services.audit, caller, query, as_json=parsed.json)
    if parsed.follow:
        await follower.know_latest()
    if parsed.since is None:
        follower.show(reversed((await services.audit.page(caller, query)).entries))
    else:
        async for entries in services.audit.walk(caller, query):
            follower.show(entries)
    while parsed.follow:
        await asyncio.sleep(LOOK_EVERY_S)
        await follower.look()
    return 0


class _Follower:
    """Prints entries, each once."""

    def __init__(self, log: "AuditLog", caller: "Caller", query: "AuditQuery", *, as_json: bool) -> None:
        self._log = log
        self._caller = caller
        self._query = query
        self._as_json = as_json
        self._shown: set[str] = set()

    async def know_latest(self) -> None:
        """Show none of what is there already unless it is asked for."""
        self._shown |= {entry.id for entry in await self._latest()}

    def show(self, entries: "Iterable[AuditEntry]") -> None:
        for entry in entries:
            self._shown.add(entry.id)
            print(orjson.dumps(entry).decode() if self._as_json else _line(entry))
        sys.stdout.flush()

    async def look(self) -> None:
        """Show what has come. While the database is away that is nothing."""
        from taskhub.tickets.errors import StorageBusy

        try:
            latest = await self._latest()
        except StorageBusy:
            return
        self.show([entry for entry in latest if entry.id not in self._shown])
        self._shown = {entry.id for entry in latest}

    async def _latest(self) -> "list[AuditEntry]":
        found: list[AuditEntry] = []
        async for entries in self._log.walk(self._caller, self._query.of_the_last(LATEST)):
            found += entries
        return found


def _line(entry: "AuditEntry") -> str:
    who = [entry.actor or "-", entry.credential, entry.address]
    details = " ".join(
        f"{name}={value if isinstance(value, str) else orjson.dumps(value).decode()}"
        for name, value in entry.details.items()
        if value is not None
    )
    parts = (entry.time, entry.action, entry.outcome, *who, entry.target, details)
    return printable("  ".join(part for part in parts if part))
