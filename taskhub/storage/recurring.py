"""What every process that writes does again and again, by itself."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from taskhub.tickets.errors import StorageBusy

_log = logging.getLogger(__name__)


class Recurring:
    """Calls `do` every few seconds, from `async with` to its end. `first_s`: the wait before the first time.

    A failure ends nothing: the next time may fare better, and nobody else does it. Processes that were started together
    do not do it at the same moment.
    """

    def __init__(
        self, name: str, do: Callable[[], Awaitable[object]], *, every_s: float, first_s: float | None = None
    ) -> None:
        self._name = name
        self._do = do
        self._every_s = every_s
        self._first_s = every_s if first_s is None else first_s
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=self._name)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """A unit under way is the database's, and completes there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self) -> None:
        wait_s = self._first_s
        while True:
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.5))  # noqa: S311  # no secret
            wait_s = self._every_s
            try:
                await self._do()
            except StorageBusy as error:
                _log.debug("the %s waits for the next time: %s", self._name, error)
            except Exception:
                _log.exception("the %s has failed", self._name)
