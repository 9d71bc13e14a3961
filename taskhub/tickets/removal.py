"""Deleting tickets, and having them back."""

from dataclasses import replace
from typing import Any

from taskhub.tickets import leases
from taskhub.tickets.errors import TicketNotFound
from taskhub.tickets.model import Written
from taskhub.tickets.unit import TicketUnit
from taskhub.tickets.writes import check_version


def delete(unit: TicketUnit, key: str, expected_version: int | None, lease_token: int | None) -> Written:
    """Take a ticket out of sight; what it blocks need not wait for it any longer. Its row, comments and relations stay.

    Raises TicketNotFound, TicketGone, LeaseHeld, LeaseLost and VersionConflict.
    """
    before = leases.check(unit, unit.ticket(key), lease_token, ("deleted",))
    check_version(unit, before, expected_version)
    after = unit.next_version(before, deleted_at=unit.transaction.time)
    return unit.save(before, after, "ticket.deleted", {"deleted": [False, True]})


def restore(unit: TicketUnit, key: str, expected_version: int | None) -> Written:
    """Have a deleted ticket back as it was; only whether it is blocked is found out anew.

    Raises TicketNotFound and VersionConflict.
    """
    no = unit.number(key)
    before = unit.records({no}).get(no)
    if before is None:
        raise TicketNotFound(key)
    check_version(unit, before, expected_version)
    if before.deleted_at is None:
        return unit.unchanged(before)
    after = replace(unit.next_version(before, deleted_at=None), blocked=unit.blocked([no])[no])
    changes: dict[str, list[Any]] = {"deleted": [True, False]}
    if before.blocked != after.blocked:
        changes["blocked"] = [before.blocked, after.blocked]
    return unit.save(before, after, "ticket.restored", changes)
