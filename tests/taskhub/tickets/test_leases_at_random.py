"""Random writes on one ticket: each ends as a model of its lease, a few lines long, says that it must."""

import random
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest

from taskhub.tickets.errors import InvalidInput, LeaseHeld, LeaseLost, TicketError
from taskhub.tickets.inputs import NewClaim, NewComment, ProgressReport, Release, Renewal, TicketChange
from tests.taskhub.world import ALICE, World, caller

BOT = caller("agent:bot")
STEPS = 150
ACTIVE = "in_progress"


@dataclass
class Model:
    """What is known of the ticket. `end`: until when it is held, also when that is over and nobody has noticed."""

    token: int = 0
    seconds: int = 0
    end: datetime | None = None
    status: str = "received"
    expiries: int = 0

    def is_live(self, now: datetime) -> bool:
        return self.end is not None and now < self.end

    def refusal(self, now: datetime, token: int | None, *, guarded: bool) -> type[TicketError] | None:
        if token is not None:
            return None if self.is_live(now) and token == self.token else LeaseLost
        return LeaseHeld if guarded and self.is_live(now) else None

    def wrote(self, now: datetime, token: int | None) -> None:
        if token is not None:
            self.end = now + timedelta(seconds=self.seconds)

    def moved(self, status: str) -> None:
        self.status = status
        if status != ACTIVE and self.end is not None:
            self.end, self.expiries = None, 0

    def expired(self) -> None:
        self.end, self.expiries = None, self.expiries + 1
        self.status = "waiting" if self.expiries % 3 == 0 else "received"


class Walk:
    def __init__(self, world: World, seed: int) -> None:
        self.world, self.dice, self.model = world, random.Random(seed), Model()

    async def claim(self) -> None:
        person, take_over, seconds = self.dice.random() < 0.5, self.dice.random() < 0.3, self.dice.choice((60, 120))
        new = NewClaim(lease_seconds=seconds, take_over=take_over and person)
        model, live = self.model, self.model.is_live(self.world.now)
        if live and not new.take_over:
            expected: type[TicketError] | None = LeaseHeld
        else:
            expected = None
            if model.end is not None and not live:
                model.expired()
            model.token, model.seconds, model.status = model.token + 1, seconds, ACTIVE
            model.end = self.world.now + timedelta(seconds=seconds)
        await self.ends(expected, self.world.tickets.claim_ticket(ALICE if person else BOT, "TH-1", new))

    async def release(self, token: int | None) -> None:
        expected = self.model.refusal(self.world.now, token, guarded=True)
        expected = expected or (InvalidInput if token is None else None)
        await self.ends(expected, self.world.tickets.release_ticket(BOT, "TH-1", Release(), lease_token=token))
        if expected is None:
            self.model.moved("received")

    async def renew(self, token: int | None) -> None:
        expected = self.model.refusal(self.world.now, token, guarded=True)
        expected = expected or (InvalidInput if token is None else None)
        await self.ends(expected, self.world.tickets.renew_lease(BOT, "TH-1", Renewal(), lease_token=token))
        if expected is None:
            self.model.wrote(self.world.now, token)

    async def report(self, token: int | None) -> None:
        expected = self.model.refusal(self.world.now, token, guarded=True)
        asked = ProgressReport(percent=self.dice.choice((10, 20)))
        await self.ends(expected, self.world.tickets.report_progress(BOT, "TH-1", asked, lease_token=token))
        if expected is None:
            self.model.wrote(self.world.now, token)

    async def say(self, token: int | None) -> None:
        expected = self.model.refusal(self.world.now, token, guarded=False)
        new = NewComment(comment="x")
        await self.ends(expected, self.world.tickets.add_comment(BOT, "TH-1", new, lease_token=token))
        if expected is None:
            self.model.wrote(self.world.now, token)

    async def move(self, token: int | None) -> None:
        status = self.dice.choice((ACTIVE, "received", "verifying", "waiting"))
        expected = self.model.refusal(self.world.now, token, guarded=status != self.model.status)
        change = TicketChange(status=status, comment="why")
        await self.ends(expected, self.world.tickets.update_ticket(BOT, "TH-1", change, lease_token=token))
        if expected is None:
            self.model.wrote(self.world.now, token)
            self.model.moved(status)

    async def sweep(self) -> None:
        overdue = self.model.end is not None and not self.model.is_live(self.world.now)
        assert await self.world.tickets.expire_leases() == int(overdue)
        if overdue:
            self.model.expired()

    async def ends(self, expected: type[TicketError] | None, write: Awaitable[Any]) -> None:
        outcome: type[TicketError] | None = None
        try:
            await write
        except TicketError as error:
            outcome = type(error)
        assert outcome is expected

    async def step(self) -> None:
        self.world.tick(seconds=self.dice.choice((0.001, 1, 30, 70)))
        writes = (self.release, self.renew, self.report, self.say, self.move)
        # Mostly the right token, and often none, or one that was right before.
        token = self.dice.choice((self.model.token, self.model.token, self.model.token - 1, None))
        which = self.dice.randint(-4, len(writes) - 1)
        if which == -4:
            await self.sweep()
        elif which < 0:
            await self.claim()
        else:
            await writes[which](token)

    async def agrees(self) -> None:
        detail = await self.world.tickets.get_ticket(ALICE, "TH-1", include=["lease"])
        assert detail.lease is not None
        end = None if detail.lease.expires_at is None else datetime.fromisoformat(detail.lease.expires_at)
        assert (detail.ticket.status.id, end, detail.lease.expiries) == (
            self.model.status, self.model.end, self.model.expiries,
        )  # fmt: skip
        assert (detail.lease.holder is None) == (detail.lease.expires_at is None) == (detail.ticket.lease is None)


@pytest.mark.parametrize("seed", range(2))
async def test_every_write_ends_as_the_lease_says(world: World, seed: int) -> None:
    await world.create("Printer")
    walk = Walk(world, seed)
    for _ in range(STEPS):
        await walk.step()
        await walk.agrees()

    of_ticket = [event for event in world.heard if event.type.startswith("ticket.")]
    versions = [event.ticket_version for event in of_ticket if event.type != "ticket.commented"]
    assert versions == list(range(1, len(versions) + 1))
    assert walk.model.token > 10
