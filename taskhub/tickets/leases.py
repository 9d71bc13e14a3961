"""Who may change a ticket while somebody holds it."""

from collections.abc import Collection
from dataclasses import replace
from typing import Final

from taskhub.tickets.errors import LeaseHeld, LeaseLost
from taskhub.tickets.keys import key_of
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.unit import TicketUnit

GUARDED: Final = (
    "status", "assignee", "completion_date", "actual_effort_hours", "response_category", "response_details",
    "has_defect", "progress", "lease", "deleted",
)  # fmt: skip
"""What only the holder changes, under the names of `changes`: who does the work, how far it is, and what came of it."""


def check(
    unit: TicketUnit, record: TicketRecord, lease_token: int | None, changed: Collection[str] = ()
) -> TicketRecord:
    """To be called by every write before it changes a ticket, with the names that it will have among `changes`.

    Answers the ticket to go on with: a write that carries the token renews the lease, whatever else becomes of it.
    Raises LeaseLost for any token but that of the live lease, and LeaseHeld for a change that takes one.
    """
    lease = record.lease
    live = lease is not None and lease.is_live(unit.transaction.now)
    if lease_token is None:
        guard(unit, record, lease_token, changed)
        return record
    if lease is None or not live or lease.token != lease_token:
        raise LeaseLost(key_of(unit.prefix, record.no), record.holder if live else None)
    return replace(record, lease=unit.renew_lease(record.no, lease))


def guard(unit: TicketUnit, record: TicketRecord, lease_token: int | None, changed: Collection[str]) -> None:
    """The part of `check` for who learns only later what will have changed. Raises LeaseHeld."""
    lease = record.lease
    if lease_token is not None or lease is None or lease.holder is None or not lease.is_live(unit.transaction.now):
        return
    if changing := [name for name in GUARDED if name in changed]:
        raise LeaseHeld(key_of(unit.prefix, record.no), lease.holder, lease.expires_at, changing)
