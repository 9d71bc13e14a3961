"""What became of the writes: what the doctor, who does not know what was answered, cannot say."""

from collections.abc import Sequence

import asyncpg

from tests.chaos.writers import Write
from tests.e2e.harness.exactness import Logged


def marker_of(event: Logged) -> str | None:
    """The write that made an event."""
    if event.type == "ticket.created":
        return str(event.data["ticket"]["summary"])
    found = event.data.get("comment") or event.data.get("marker")
    return None if found is None else str(found)


def check_writes(log: Sequence[Logged], writes: Sequence[Write]) -> None:
    """Each answered write is there once, as it was answered; no other is there twice; nothing else is there."""
    made: dict[str, list[str]] = {}
    for event in log:
        if (marker := marker_of(event)) is not None:
            made.setdefault(marker, []).append(event.id)
    wrong = [
        f"{write.marker}: answered {write.event_id} (attempts: {write.attempts}), in the log {made.get(write.marker)}"
        for write in writes
        if write.event_id is not None and made.get(write.marker) != [write.event_id]
    ]
    wrong += [f"{marker}: {ids}" for marker, ids in made.items() if len(ids) > 1]
    assert not wrong, "\n".join(wrong)
    assert made.keys() <= {write.marker for write in writes}


async def check_records(log: Sequence[Logged], database_url: str) -> None:
    """Each write that was made has its idempotency record. The reverse is the doctor's."""
    connection = await asyncpg.connect(database_url, timeout=30)
    try:
        keys = {row["key"] for row in await connection.fetch("SELECT key FROM idempotency_keys")}
    finally:
        await connection.close()
    assert {marker for event in log if (marker := marker_of(event)) is not None} <= keys
