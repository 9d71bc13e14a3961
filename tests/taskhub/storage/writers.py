"""A process that writes at random, with failures and delays: `python -m …writers URL SEED COUNT`."""

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable

from broadcaster.event import EventDraft
from taskhub.storage.database import Database
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from tests.taskhub.world import ALICE


class ChangedMind(Exception):
    """A rollback."""


async def write_at_random(url: str, seed: int, count: int, writers: int = 8) -> int:
    """Let `writers` tasks make `count` writes each; how many were committed."""
    # SQLite gives the file to any of those who wait; one of many may wait for long.
    database = Database(url, busy_timeout_s=60.0)
    await database.open()
    writer = Writer(database, lambda workspace, events: None)
    service = TicketService(database, writer)
    committed = 0

    async def one(dice: random.Random) -> None:
        nonlocal committed
        for n in range(count):
            kind = dice.choice(("create", "update", "update", "publish"))
            try:
                if kind == "create":
                    await service.create_ticket(
                        ALICE, NewTicket(summary=f"{seed} {n}", parent=dice.choice([None, "TH-1"]))
                    )
                elif kind == "update":
                    change = TicketChange(remarks=f"{seed} {n} {dice.random()}")
                    await service.update_ticket(ALICE, f"TH-{dice.randint(1, 3)}", change)
                else:
                    await writer.run("default", publish(dice))
                committed += 1
            except ChangedMind:
                continue

    await asyncio.gather(*(one(random.Random(f"{seed}/{i}")) for i in range(writers)))
    await writer.close()
    await database.close()
    return committed


def publish(dice: random.Random) -> Callable[[Transaction], Awaitable[None]]:
    """Append some events, with delays wherever another writer might slip in, and often change one's mind."""
    count, delays, mind_changes = dice.randint(1, 3), [dice.random() * 0.004 for _ in range(2)], dice.random() < 0.3

    async def work(transaction: Transaction) -> None:
        await transaction.take(events=count)
        await asyncio.sleep(delays[0])
        for n in range(count):
            transaction.emit(EventDraft("build.finished", "user:alice", "system", b'{"n":%d}' % n))
        await asyncio.sleep(delays[1])
        if mind_changes:
            raise ChangedMind

    return work


if __name__ == "__main__":
    print(asyncio.run(write_at_random(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))  # noqa: T201
