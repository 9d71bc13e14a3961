"""Turns: how thousands of coroutines that all have something to do share the loop with everybody else."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

TURNS_PER_LOOP_TURN: Final = 10
"""Rendering a page of the log takes up to a millisecond, a write some microseconds."""


class Turns:
    """Await `take` before each piece of work, such as one write; first come, first served.

    Without it, ten thousand streams that resume when one page of the log arrives would all run in the same loop turn.
    """

    def __init__(self, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._call_soon = call_soon
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = 0
        self._planned = False

    async def take(self) -> None:
        """Return at once while this loop turn has turns left, else when there is one in a later loop turn."""
        if not self.take_now():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.line_up([turn])
            await turn

    def take_now(self) -> bool:
        """Take a turn if this loop turn has one left and nobody waits."""
        if self._waiting or self._taken >= TURNS_PER_LOOP_TURN:
            return False
        self._taken += 1
        self._plan()
        return True

    def line_up(self, waiting: Iterable[asyncio.Future[None]]) -> None:
        """Give whoever awaits these futures a turn each, as if it had asked now."""
        self._waiting.extend(waiting)
        self._plan()

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._call_soon(self._next)

    def _next(self) -> None:
        self._planned = False
        self._taken = 0
        while self._waiting and self._taken < TURNS_PER_LOOP_TURN:
            turn = self._waiting.popleft()
            if not turn.done():  # else its coroutine was cancelled
                turn.set_result(None)
                self._taken += 1
        if self._taken:
            self._plan()
