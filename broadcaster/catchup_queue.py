"""Streams that catch up: each in a task of its own, begun when there is room in a turn of the loop."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from broadcaster.subscriber import Subscriber
from broadcaster.turns import Turns


class CatchUpQueue:
    """At most one piece of work for each stream. Thousands may begin at once, as when a network comes back."""

    def __init__(self, own: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]) -> None:
        self._own = own
        self._pending: dict[Subscriber, asyncio.Future[None]] = {}
        """Each one's task, or the turn in which that will begin."""

    def __contains__(self, subscriber: Subscriber) -> bool:
        pending = self._pending.get(subscriber)
        return pending is not None and not pending.done()

    def begin(self, subscriber: Subscriber, turns: Turns, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do `work` in this turn, or in one of the next. What the stream was doing is cancelled."""

        def start(turn: asyncio.Future[None]) -> None:
            if self._pending.get(subscriber) is turn:  # else it left meanwhile, or begins anew
                task = self._pending[subscriber] = self._own(work())
                task.add_done_callback(lambda done: self._ended(subscriber, done))

        self.cancel(subscriber)
        turn = self._pending[subscriber] = asyncio.get_running_loop().create_future()
        if turns.take_now():
            start(turn)
        else:
            turn.add_done_callback(start)
            turns.line_up([turn])

    def cancel(self, subscriber: Subscriber) -> None:
        """It is gone, or begins anew."""
        if (pending := self._pending.pop(subscriber, None)) is not None:
            pending.cancel()

    def _ended(self, subscriber: Subscriber, task: asyncio.Future[None]) -> None:
        if self._pending.get(subscriber) is task:
            del self._pending[subscriber]
