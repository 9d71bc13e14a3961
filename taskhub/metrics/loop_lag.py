"""How late the event loop is: what blocks it delays everything that the process does."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from broadcaster.statistics import Histogram

EVERY_S: Final = 0.25


class LoopLag:
    """Measures again and again how much later than planned a timer comes, from `async with` to its end."""

    def __init__(
        self, lag: Histogram, *, every_s: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lag = lag
        self._every_s = every_s
        # Not the loop's own time: some loops have it stand still while a turn lasts.
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        self._plan()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self) -> None:
        due = self._clock() + self._every_s
        self._timer = asyncio.get_running_loop().call_later(self._every_s, self._measure, due)

    def _measure(self, due: float) -> None:
        self._lag.add(max(0.0, self._clock() - due))
        self._plan()
