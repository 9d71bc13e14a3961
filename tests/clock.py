"""The event loop's clock, set ahead by a test instead of waited for."""

import asyncio


class LoopClock:
    """The clock of the running loop. Make it before what reads the clock; it lasts as long as the loop."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._time = loop.time
        self._ahead_s = 0.0
        loop.time = self.time  # type: ignore[method-assign]  # the loop asks it for every timer

    def time(self) -> float:
        return self._time() + self._ahead_s

    def advance(self, seconds: float) -> None:
        """Let so much time have passed: timers that are due by then go off in the next turn."""
        self._ahead_s += seconds
