"""A process that claims: `python -m …claimers URL SEED CLAIMERS TICKETS`.

It says `ready`, waits for a line, and claims until nothing is left; then it says what it got, and holds on to that.
"""

import asyncio
import json
import random
import sys

from taskhub.storage.database import Database
from taskhub.storage.writer import Writer
from taskhub.tickets.errors import LeaseHeld, NothingReady
from taskhub.tickets.inputs import ClaimNext, NewClaim
from taskhub.tickets.model import Claimed
from taskhub.tickets.service import TicketService
from tests.taskhub.world import caller

ACTORS = 3
"""Fewer than there are claimers: many of them, in every process, go by the same name."""
A_DAY = 86_400


async def claim_all(url: str, seed: str, claimers: int, tickets_there: int) -> list[Claimed]:
    # SQLite gives the file to any of those who wait; one of many may wait for long.
    database = Database(url, busy_timeout_s=60.0)
    await database.open()
    writer = Writer(database, lambda workspace, events: None)
    tickets = TicketService(database, writer)
    await tickets.statuses(caller())
    print("ready", flush=True)  # noqa: T201
    await asyncio.to_thread(sys.stdin.readline)
    claimed: list[Claimed] = []

    async def claim(number: int) -> None:
        dice, who = random.Random(f"{seed}/{number}"), caller(f"agent:{number % ACTORS}")
        for _ in range(8 if number % 2 else 0):
            # At random, where others may have been before.
            key = f"TH-{dice.randint(1, tickets_there)}"
            try:
                claimed.append(await tickets.claim_ticket(who, key, NewClaim(lease_seconds=A_DAY)))
            except LeaseHeld:
                continue
        while True:
            try:
                claimed.append(await tickets.claim_next(who, ClaimNext(lease_seconds=A_DAY)))
            except NothingReady:
                return

    await asyncio.gather(*(claim(number) for number in range(claimers)))
    await writer.close()
    await database.close()
    return claimed


if __name__ == "__main__":
    got = asyncio.run(claim_all(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    print(json.dumps([[claimed.key, claimed.lease_token] for claimed in got]), flush=True)  # noqa: T201
    sys.stdin.readline()
