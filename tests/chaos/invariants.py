"""What must hold of the database after any faults, read straight from it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from tests.chaos.writers import Write
from tests.e2e.harness.exactness import Logged


def marker_of(event: Logged) -> str | None:
    """The write that made an event."""
    if event.type == "ticket.created":
        return str(event.data["ticket"]["summary"])
    found = event.data.get("comment") or event.data.get("marker")
    return None if found is None else str(found)


def check_log(log: Sequence[Logged]) -> None:
    """Seqs are dense, and so are the versions of each ticket."""
    assert [event.seq for event in log] == list(range(1, len(log) + 1)), "the log has holes"
    epochs = {event.id.partition("-")[0] for event in log}
    assert len(epochs) <= 1, f"the log was taken for another: {epochs}"
    versions: dict[str, int] = {}
    for event in log:
        if event.ticket_version is not None and event.subject is not None:
            expected = versions.get(event.subject, 0) + (event.type != "ticket.commented")  # a comment is no new one
            assert event.ticket_version == expected, f"{event} is not of version {expected}"
            versions[event.subject] = expected


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


def check_tickets(log: Sequence[Logged], tickets: Mapping[str, Mapping[str, Any]]) -> None:
    """The rows are what the newest events say."""
    newest = {event.subject: event.data["ticket"] for event in log if event.type.startswith("ticket.")}
    assert newest == tickets


async def check_records(log: Sequence[Logged], database_url: str) -> None:
    """Each idempotency record has its effect, and the reverse."""
    connection = await asyncpg.connect(database_url, timeout=30)
    try:
        keys = Counter(row["key"] for row in await connection.fetch("SELECT key FROM idempotency_keys"))
    finally:
        await connection.close()
    assert keys == Counter(marker for event in log if (marker := marker_of(event)) is not None)
