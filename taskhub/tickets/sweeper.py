"""Tickets whose holders have not come back are given to others, by every process that writes."""

import logging
from collections.abc import Awaitable, Callable
from typing import Final

from taskhub.storage.recurring import Recurring

SWEEP_EVERY_S: Final = 5.0

_log = logging.getLogger(__name__)


class LeaseSweeper(Recurring):
    """Calls `expire` (TicketService.expire_leases) every few seconds, from `async with` to its end.

    When several processes do so, the first that comes ends a lease, and the others find nothing to do.
    """

    def __init__(self, expire: Callable[[], Awaitable[int]], *, every_s: float = SWEEP_EVERY_S) -> None:
        super().__init__("sweep of leases", self._sweep, every_s=every_s)
        self._expire = expire

    async def _sweep(self) -> None:
        if expired := await self._expire():
            _log.info("%s leases have run out, and their tickets were given back", expired)
