"""Refusals that are held back for a while, with one timer for all of them."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

HOLD_S: Final = 1.0
"""Long beside what a refusal costs, short beside what clients wait for an answer."""


class Held:
    """At most `most` at a time, each for `hold_s`, released in their order."""

    def __init__(self, most: int, hold_s: float = HOLD_S) -> None:
        self.hold_s = hold_s
        self.most = most
        self._held: deque[tuple[float, Callable[[], None]]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, release: Callable[[], None]) -> bool:
        """Call `release` later; False, and it will not be called, when too many are held. It must not raise."""
        if len(self._held) >= self.most:
            return False
        loop = asyncio.get_running_loop()
        self._held.append((loop.time() + self.hold_s, release))
        if self._timer is None:
            self._timer = loop.call_at(self._held[0][0], self._release)
        return True

    async def wait(self) -> bool:
        """Return when it is time, at once when too many are held: whether it was held."""
        time_is_up = asyncio.Event()
        held = self.hold(time_is_up.set)
        if held:
            await time_is_up.wait()
        return held

    def release_all(self) -> None:
        """Now: the server stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held:
            self._held.popleft()[1]()

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        while self._held and self._held[0][0] <= now:
            self._held.popleft()[1]()
        self._timer = loop.call_at(self._held[0][0], self._release) if self._held else None
