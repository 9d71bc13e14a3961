"""The one timer of all streams: heartbeats, maximum ages, write timeouts.

A task or timer for each stream would cost a kilobyte and a wake-up apiece; here a stream stands in the bucket of the
second in which it has to be looked at next.
"""

from collections.abc import Callable
from typing import Final

from broadcaster.subscriber import Subscriber

TICK_S: Final = 1.0


class Timekeeper:
    """Looks at each planned stream when it is due. Call `tick` about once in TICK_S."""

    def __init__(
        self,
        now: float,
        *,
        write_timeout_s: float,
        heartbeat: Callable[[Subscriber, float], None],
        rotate: Callable[[Subscriber], None],
    ) -> None:
        self._write_timeout_s = write_timeout_s
        self._heartbeat = heartbeat
        self._rotate = rotate
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
        bucket = self._buckets.get(subscriber.check_at)
        if bucket is not None:
            bucket.pop(subscriber, None)

    def tick(self, now: float) -> None:
        """Do what is due up to `now`."""
        for second in range(self._ticked + 1, int(now) + 1):
            for subscriber in self._buckets.pop(second, ()):
                self._check(subscriber, now)
        self._ticked = max(self._ticked, int(now))

    def _check(self, subscriber: Subscriber, now: float) -> None:
        if not subscriber.check_progress(now, self._write_timeout_s):
            subscriber.mark_ended("overloaded")
            if subscriber.outlet is not None:
                subscriber.outlet.abort()
            return
        if now >= subscriber.max_age_at:
            self._rotate(subscriber)
        elif (
            subscriber.blocked_since is None
            and now - subscriber.last_write >= subscriber.request.heartbeat_s - TICK_S / 2
            and not subscriber.ended()
        ):
            self._heartbeat(subscriber, now)
        self.plan(subscriber, now)
