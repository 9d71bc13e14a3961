"""One workspace on this instance, from its first subscriber to its last: tail, hub, and what is wrong."""

import logging
from collections.abc import Callable, Sequence

from broadcaster.event import Event
from broadcaster.hub import Hub
from broadcaster.log import EventLog, LogBounds
from broadcaster.replay import Replay
from broadcaster.subscriber import Subscriber
from broadcaster.tail import Tail, TailRunner

logger = logging.getLogger(__name__)

Observer = Callable[[Sequence[Event] | None], None]
"""Gets the stored events of a workspace as they arrive, in order; None when the log begins anew, so that whatever was
told before may no longer be true. Must not block."""


class Channel:
    """Brings the tail's contiguous events into the hub. Start it before use; stop it when nobody listens."""

    def __init__(
        self,
        workspace: str,
        log: EventLog,
        make_hub: Callable[[LogBounds], Hub],
        make_replay: Callable[[Hub], Replay],
        *,
        clock: Callable[[], float],
        on_epoch: Callable[["Channel", str], None],
        on_trouble: Callable[["Channel", str, bool], None],
    ) -> None:
        self.workspace = workspace
        self.subscribers: dict[Subscriber, None] = {}
        self.watchers = 0
        """Others that listen to the hub's head, such as long polls."""
        self.observers: dict[Observer, None] = {}
        self.idle_since: float | None = None
        self.troubles: set[str] = set()
        """Why streams are degraded: `database`, `relay`."""
        self._make_hub = make_hub
        self._make_replay = make_replay
        self._on_epoch = on_epoch
        self._hub: Hub | None = None
        self._replay: Replay | None = None
        self.runner = TailRunner(
            workspace,
            log,
            Tail(),
            deliver=self._deliver,
            on_epoch=self._epoch_changed,
            on_unavailable=lambda: on_trouble(self, "database", True),
            on_available=lambda: on_trouble(self, "database", False),
            clock=clock,
        )

    @property
    def hub(self) -> Hub:
        if self._hub is None:
            raise RuntimeError("the channel was not started")
        return self._hub

    @property
    def replay(self) -> Replay:
        if self._replay is None:
            raise RuntimeError("the channel was not started")
        return self._replay

    async def start(self) -> None:
        """Read where the log stands and listen from there. Raises LogUnavailable."""
        self._hub = self._make_hub(await self.runner.start())
        self._replay = self._make_replay(self._hub)

    async def stop(self) -> None:
        await self.runner.stop()
        if self._replay is not None:
            await self._replay.stop()

    @property
    def in_use(self) -> bool:
        return bool(self.subscribers) or bool(self.observers) or self.watchers > 0

    def observe(self, bounds: LogBounds) -> None:
        """What a poll found."""
        if self._hub is not None:
            self._hub.oldest = bounds.oldest
            self.replay.observe(bounds.oldest)
            self.runner.observe(bounds)

    def _deliver(self, events: Sequence[Event]) -> None:
        self.hub.publish(events)
        self._tell_observers(events)

    def _tell_observers(self, events: Sequence[Event] | None) -> None:
        for observer in list(self.observers):
            try:
                observer(events)
            except Exception:
                logger.exception("an observer of %s failed", self.workspace)

    def _epoch_changed(self, bounds: LogBounds) -> None:
        hub = self.hub
        for subscriber in list(self.subscribers):
            hub.release(subscriber)
        old_epoch = hub.epoch
        hub.begin_epoch(bounds)
        self.replay.clear()
        self._on_epoch(self, old_epoch)
        self._tell_observers(None)
