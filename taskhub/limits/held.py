"""What waits for its time, with one timer for all: refusals that are held back, and connections that say nothing."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

HOLD_S: Final = 1.0
"""Of a refusal: long beside what it costs, short beside what clients wait for an answer."""
AT_ONCE: Final = 16
"""So many are released in one turn of the loop; then others have theirs."""
TICK_S: Final = 0.01
"""Those of so long are released together: to wake up for each costs as much as to release it."""


class Held:
    """At most `most` at a time, each for `hold_s`, released in their order."""

    def __init__(self, most: int, hold_s: float = HOLD_S) -> None:
        self.hold_s = hold_s
        self.most = most
        self._held: OrderedDict[Callable[[], None], float] = OrderedDict()
        """What is called → when; in order, for all wait equally long."""
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, release: Callable[[], None]) -> bool:
        """Call `release` later; False, and it will not be called, when too many are held. It must not raise."""
        if len(self._held) >= self.most:
            return False
        loop = asyncio.get_running_loop()
        self._held[release] = due = loop.time() + self.hold_s
        if self._timer is None:
            self._timer = loop.call_at(due, self._release)
        return True

    def drop(self, release: Callable[[], None]) -> None:
        """It need not be called any more."""
        self._held.pop(release, None)

    async def wait(self) -> None:
        """Return when it is time, at once when too many are held."""
        time_is_up = asyncio.Event()
        if self.hold(time_is_up.set):
            try:
                await time_is_up.wait()
            finally:
                self.drop(time_is_up.set)

    def release_all(self) -> None:
        """Now: the server stops."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._held:
            self._release_first()

    def _release(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for _ in range(AT_ONCE):
            if not self._held or next(iter(self._held.values())) > now:
                break
            self._release_first()
        # When nothing is held, the next one sets it.
        self._timer = None
        if self._held:
            due = next(iter(self._held.values()))
            self._timer = loop.call_at(now if due <= now else max(due, now + TICK_S), self._release)

    def _release_first(self) -> None:
        release, _ = self._held.popitem(last=False)
        release()
