"""The one timer of all streams: heartbeats, maximum ages, write timeouts.

A task or timer for each stream would cost a kilobyte and a wake-up apiece; here a stream stands in the bucket of the
second in which it has to be looked at next.
"""

import logging
from collections.abc import Callable
from typing import Final

from broadcaster.subscriber import Subscriber

TICK_S: Final = 1.0

CHECKS_PER_TURN: Final = 500
"""After an event to all streams they are all due in the same second."""

logger = logging.getLogger(__name__)


class Timekeeper:
    """Looks at each planned stream when it is due. Call `tick` about once in TICK_S."""

    def __init__(
        self,
        now: float,
        *,
        write_timeout_s: float,
        heartbeat: Callable[[Subscriber, float], None],
        rotate: Callable[[Subscriber], None],
        call_soon: Callable[[Callable[[], None]], object],
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._heartbeat = heartbeat
        self._rotate = rotate
        self._call_soon = call_soon
        self._now = now
        self._due: dict[Subscriber, None] = {}
        self._buckets: dict[int, dict[Subscriber, None]] = {}
        self._ticked = int(now)

    def plan(self, subscriber: Subscriber, now: float) -> None:
        """Look at it again when its next heartbeat or its maximum age is due, and often enough to see it stuck."""
        due = min(subscriber.max_age_at, now + self._write_timeout_s / 2)
        if not subscriber.ended() and subscriber.blocked_since is None:
            due = min(due, subscriber.last_write + subscriber.request.heartbeat_s)
        subscriber.check_at = max(int(due), int(now) + 1, self._ticked + 1)
        self._buckets.setdefault(subscriber.check_at, {})[subscriber] = None

    def forget(self, subscriber: Subscriber) -> None:
        """It is gone."""
        self._due.pop(subscriber, None)
        bucket = self._buckets.get(subscriber.check_at)
        if bucket is not None:
            bucket.pop(subscriber, None)

    def tick(self, now: float) -> None:
        """Do what is due up to `now`, some of it in later turns of the loop when it is much."""
        under_way = bool(self._due)
        for second in range(self._ticked + 1, int(now) + 1):
            self._due.update(self._buckets.pop(second, {}))
        self._ticked = max(self._ticked, int(now))
        self._now = now
        if not under_way:
            self._check_some()

    def _check_some(self) -> None:
        for _ in range(min(CHECKS_PER_TURN, len(self._due))):
            subscriber, _ = self._due.popitem()
            try:
                self._check(subscriber, self._now)
            except Exception:
                logger.exception("looking after %s failed", subscriber.id)
            if not subscriber.gone:
                self.plan(subscriber, self._now)
        if self._due:
            self._call_soon(self._check_some)

    def _check(self, subscriber: Subscriber, now: float) -> None:
        if not subscriber.check_progress(now, self._write_timeout_s):
            subscriber.mark_ended("overloaded")
            if subscriber.outlet is not None:
                subscriber.outlet.abort()
        elif now >= subscriber.max_age_at:
            self._rotate(subscriber)
        elif (
            subscriber.blocked_since is None
            and now - subscriber.last_write >= subscriber.request.heartbeat_s - TICK_S / 2
            and not subscriber.ended()
        ):
            self._heartbeat(subscriber, now)
