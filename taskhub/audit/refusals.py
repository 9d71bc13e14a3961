"""Recording refusals, which have no transaction, and of which anybody may cause as many as there are packets.

Equal ones are counted: the first is recorded within a second, those of the rest of its minute together at the end of
it. Whoever is refused waits for nothing, and a flood is at most so many entries in a minute, whoever sends it.
"""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import TracebackType
from typing import Final, Literal

from sqlalchemy import Connection

from taskhub.audit.record import DEPLOYMENT, Entry, record
from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import Caller
from taskhub.rates import household
from taskhub.storage.database import Database
from taskhub.storage.recurring import Recurring
from taskhub.storage.times import Clock, to_text, utc_now
from taskhub.tickets.errors import StorageBusy

MAX_KINDS: Final = 100
"""Refusals that are told apart at a time. Further ones count together, as of unknown callers."""
WINDOW: Final = timedelta(seconds=60)
WRITE_EVERY_S: Final = 1.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refusal:
    """What is counted as one."""

    action: Literal["authentication.failed", "access.denied"]
    reason: str | None
    workspace: str = DEPLOYMENT
    actor: str | None = None
    credential: str | None = None
    address: str | None = None

    def entry(self, count: int, since: datetime) -> Entry:
        details = {"reason": self.reason, "count": count, "since": to_text(since)}
        return Entry(
            self.action,
            self.workspace,
            self.actor,
            outcome="denied",
            credential=self.credential,
            address=self.address,
            details=details,
        )


@dataclass(slots=True, eq=False)
class _Tally:
    """How often it happened since `since`, not recorded yet. `until`: when its minute is over."""

    until: datetime
    since: datetime
    count: int = 0
    recorded: bool = False


class Refusals(Recurring):
    """Counts refusals, and records them from `async with` to its end, where it records what is left."""

    def __init__(self, database: Database, *, clock: Clock = utc_now, every_s: float = WRITE_EVERY_S) -> None:
        super().__init__("record of refusals", self.write, every_s=every_s)
        self._database = database
        self._clock = clock
        self._tallies: dict[Refusal, _Tally] = {}

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await super().__aexit__(kind, error, trace)
        try:
            await self.write(all=True)
        except StorageBusy as busy:
            _log.warning("refusals of the last minute are not in the audit log: %s", busy)

    def note(self, refusal: Refusal) -> None:
        """Count a refusal; it takes no time."""
        now = self._clock()
        if refusal not in self._tallies and len(self._tallies) >= MAX_KINDS:
            refusal = Refusal(refusal.action, None)
        tally = self._tallies.get(refusal)
        if tally is None:
            tally = self._tallies[refusal] = _Tally(now + WINDOW, now)
        elif tally.count == 0:
            tally.since = now
        tally.count += 1

    def note_denied(self, caller: Caller, error: Forbidden) -> None:
        """Count that a caller, known as it is, was not allowed something."""
        who, address = caller.principal, household(caller.address or "") or None
        reason = f"needs {error.scope}"
        self.note(Refusal("access.denied", reason, who.workspace, who.actor, who.credential, address))

    async def write(self, *, all: bool = False) -> None:
        """Record what is due. Raises StorageBusy; then it is still due."""
        now = self._clock()
        due = {
            refusal: (tally.count, tally.since)
            for refusal, tally in self._tallies.items()
            if tally.count and (all or not tally.recorded or now >= tally.until)
        }

        def work(connection: Connection) -> None:
            for refusal, (count, since) in due.items():
                record(connection, refusal.entry(count, since), now)

        if due:
            await self._database.write(work)
        for refusal, (count, _) in due.items():
            tally = self._tallies[refusal]
            tally.count -= count  # others may have come meanwhile
            tally.since, tally.recorded = now, True
            if now >= tally.until:
                tally.until = now + WINDOW
        self._tallies = {refusal: tally for refusal, tally in self._tallies.items() if tally.count or now < tally.until}
