"""A process that writes at random, with failures and delays: `python -m …writers URL SEED COUNT`."""

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from broadcaster.event import EventDraft
from taskhub.storage.database import Database
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets.errors import TicketNotFound, VersionConflict
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from tests.taskhub.world import ALICE, wait_within

WRITERS = 16


class ChangedMind(Exception):
    """A rollback."""


@dataclass
class Tally:
    """How many writes were committed, in how many groups, and how many failed of each error expected here."""

    committed: int = 0
    groups: int = 0
    failed: Counter[str] = field(default_factory=Counter)


async def write_at_random(url: str, seed: int, count: int) -> Tally:
    """Let tasks make `count` writes each. Raises every error that is not expected."""
    # SQLite gives the file to any of those who wait; one of many may wait for long.
    database, tally = Database(url, busy_timeout_s=60.0), Tally()
    await database.open()

    def heard(workspace: str, events: object) -> None:
        tally.groups += 1

    writer = Writer(database, heard)
    service = TicketService(database, writer)

    async def one(dice: random.Random) -> None:
        for n in range(count):
            try:
                await write(dice, f"{seed} {n}")
                tally.committed += 1
            except (ChangedMind, TicketNotFound, VersionConflict) as error:
                tally.failed[type(error).__name__] += 1

    async def write(dice: random.Random, text: str) -> None:
        kind = dice.choice(("create", "update", "update", "conflict", "missing", "publish", "publish"))
        if kind == "create":
            new = NewTicket(summary=text, parent=dice.choice([None, "TH-1"]))
            key = dice.choice([None, str(dice.random())])
            await service.create_ticket(ALICE, new, idempotency_key=key)
        elif kind == "publish":
            await writer.run("default", publish(dice))
        else:
            ticket = "TH-100000" if kind == "missing" else f"TH-{dice.randint(1, 3)}"
            change = TicketChange(remarks=f"{text} {dice.random()}")
            await service.update_ticket(ALICE, ticket, change, expected_version=1 if kind == "conflict" else None)

    await asyncio.gather(*(one(random.Random(f"{seed}/{i}")) for i in range(WRITERS)))
    await writer.close()
    await database.close()
    return tally


def publish(dice: random.Random) -> Callable[[Transaction], None]:
    """Append some events, with delays wherever another writer might slip in, and often change one's mind."""
    loop = asyncio.get_running_loop()
    count, delays, mind_changes = dice.randint(1, 3), [dice.random() * 0.004 for _ in range(2)], dice.random() < 0.3

    def work(transaction: Transaction) -> None:
        wait_within(asyncio.sleep(delays[0]), loop)
        for n in range(count):
            transaction.emit(EventDraft("build.finished", "user:alice", "system", b'{"n":%d}' % n))
        wait_within(asyncio.sleep(delays[1]), loop)
        if mind_changes:
            raise ChangedMind

    return work


if __name__ == "__main__":
    print(asyncio.run(write_at_random(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))).committed)  # noqa: T201
