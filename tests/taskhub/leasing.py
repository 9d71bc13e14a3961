"""Leases for tests of other things."""

from datetime import timedelta
from typing import Any

from sqlalchemy import insert

from taskhub.storage.schema import leases
from taskhub.storage.times import to_text
from tests.taskhub.world import World, execute


async def hold(world: World, no: int, holder: str, **lasting: Any) -> int:
    """Give a ticket to a holder, for half an hour or as long as is said; the token."""
    ends = world.now + timedelta(**lasting or {"minutes": 30})
    row = {
        "workspace_id": "default", "ticket_no": no, "token": 1, "holder": holder, "seconds": 1800,
        "acquired_at": to_text(world.now), "expires_at": to_text(ends), "told_seq": 0, "expiries": 0,
    }  # fmt: skip
    await execute(world.database, insert(leases).values(row))
    return 1
