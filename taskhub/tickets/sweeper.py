"""Tickets whose holders have not come back are given to others, by every process that writes."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

from taskhub.tickets.errors import StorageBusy

SWEEP_EVERY_S: Final = 5.0

_log = logging.getLogger(__name__)


class LeaseSweeper:
    """Calls `expire` (TicketService.expire_leases) every few seconds, from `async with` to its end.

    When several processes do so, the first that comes ends a lease, and the others find nothing to do.
    """

    def __init__(self, expire: Callable[[], Awaitable[int]], *, every_s: float = SWEEP_EVERY_S) -> None:
        self._expire = expire
        self._every_s = every_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="sweep of leases")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A unit under way is the writer's, and completes there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        while True:
            # Processes that were started together do not all look at the same moment.
            await asyncio.sleep(self._every_s * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
            try:
                if expired := await self._expire():
                    _log.info("%s leases have run out, and their tickets were given back", expired)
            except StorageBusy as error:
                _log.debug("leases that have run out stay until the next sweep: %s", error)
            except Exception:  # the next sweep may fare better, and nobody else gives the tickets back
                _log.exception("leases that have run out could not be ended")
