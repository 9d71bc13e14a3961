"""The broadcaster: every live stream of this instance, from admission to goodbye.

It joins the parts: the log and the relay it is given, a channel (tail and hub) for each workspace somebody listens to,
one timer for all heartbeats and ages, one poll for all workspaces.
"""

import asyncio
import contextvars
import logging
import random
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

from broadcaster.catchup import CatchUp
from broadcaster.catchup_queue import CatchUpQueue
from broadcaster.channel import Channel, Observer
from broadcaster.channels import Channels
from broadcaster.credentials import OpenedStreams
from broadcaster.errors import LogUnavailable
from broadcaster.event import Event, EventDraft, Position, wire_time
from broadcaster.figures import Figures, figures
from broadcaster.hub import Flushed, Hub, Scheduler
from broadcaster.log import EventLog, LogBounds
from broadcaster.options import BroadcastOptions
from broadcaster.relay import Announcement, Relay, RelayState
from broadcaster.replay import Replay
from broadcaster.report import BroadcastStatistics, report
from broadcaster.ring import Ring
from broadcaster.starts import resolve_start
from broadcaster.statistics import Counters
from broadcaster.stream import FINAL_REASONS, EndReason, Reset, StreamRefused, StreamRequest
from broadcaster.subscriber import Subscriber
from broadcaster.timekeeper import TICK_S, Timekeeper
from broadcaster.turns import Turns

logger = logging.getLogger(__name__)

RELOAD_RETRY_MS: Final = 250

GOODBYES_PER_TURN: Final = 100
"""A drain ends so many streams, then lets the loop breathe: each end is an encoding and up to three writes."""


class Broadcaster:
    """Start it once; stop it once. All methods must be called on the event loop it was started on."""

    def __init__(
        self,
        log: EventLog,
        relay: Relay,
        options: BroadcastOptions,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        threads_busy: Callable[[], bool] = lambda: False,
        on_flush: Flushed | None = None,
    ) -> None:
        self._log = log
        self._relay = relay
        self.options = options
        self._now = now
        # Not the loop's own time: some loops have it stand still while a turn lasts.
        self._clock = clock
        self._threads_busy = threads_busy
        self._on_flush = on_flush
        self._random = random.Random()  # noqa: S311  # tells events apart, guards nothing
        self._counters: defaultdict[str, Counters] = defaultdict(Counters)
        """By workspace, from its first stream here on."""
        self._subscribers: dict[str, Subscriber] = {}
        self._channels = Channels(log, relay, self._make_channel)
        self.opened = OpenedStreams(self._notify, self.end)
        self._timeouts: dict[Subscriber, asyncio.TimerHandle] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._queue = CatchUpQueue(self._own)
        self._draining = False
        self._relay_down = False
        self._all_closed = asyncio.Event()

    # Life

    async def start(self) -> None:
        """Begin to listen to the relay and to poll."""
        loop = asyncio.get_running_loop()
        # In a context of its own: what it does is for everybody, and not for the request that happens to cause it.
        context = contextvars.Context()
        self._scheduler = Scheduler(
            partial(loop.call_soon, context=context),
            partial(loop.call_later, context=context),
            self._clock,
            self._threads_busy,
        )
        self._timekeeper = Timekeeper(
            self._clock(),
            write_timeout_s=self.options.write_timeout_s,
            heartbeat=self._heartbeat,
            rotate=lambda subscriber: self.end(subscriber, "rotate"),
            call_soon=loop.call_soon,
        )
        await self._relay.start(self)
        self._own(self._keep_ticking())
        self._own(self._keep_polling())

    async def drain(self, window_s: float, *, reload: bool = False) -> None:
        """Say goodbye to every stream, wait up to `window_s` until all are closed, cut the rest. No more are admitted.

        The retry of each goodbye is drawn over the window, so that clients do not all come back at once; with `reload`
        a successor already listens, and the retry is short. What is committed later is still announced, until `stop`.
        """
        self._draining = True
        leaving = list(self._subscribers.values())
        random.shuffle(leaving)
        for number, subscriber in enumerate(leaving):
            retry_ms = RELOAD_RETRY_MS if reload else int(_spread(0.1, 1.0) * window_s * 1000)
            self.end(subscriber, "shutdown", retry_ms=retry_ms)
            if number % GOODBYES_PER_TURN == GOODBYES_PER_TURN - 1:
                await asyncio.sleep(0)
        if self._subscribers:
            self._all_closed.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_closed.wait(), window_s)
        for subscriber in list(self._subscribers.values()):
            if subscriber.outlet is not None:
                subscriber.outlet.abort()

    async def stop(self) -> None:
        """End the streams that are left, the tails and the timers, and flush the relay. Writers must have ended."""
        if not self._draining:
            await self.drain(0.0)
        owned = list(self._tasks)
        for task in owned:
            task.cancel()
        await asyncio.gather(*owned, return_exceptions=True)
        await self._channels.stop()
        await self._relay.stop()

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the broadcaster died", exc_info=task.exception())

    # Events come in

    def committed(self, workspace: str, events: Sequence[Event]) -> None:
        """Events that this process just committed, in order."""
        if not events:
            return
        channel = self._channels.get(workspace)
        if channel is not None:
            channel.runner.offer(events)
        first, last = events[0], events[-1]
        self._relay.announce(Announcement(workspace, first.epoch, first.seq, last.seq, tuple(events)))

    def publish_transient(self, workspace: str, drafts: Sequence[EventDraft]) -> Sequence[Event]:
        """Send events that are not stored to who is live now, here and on the other instances."""
        time = wire_time(self._now())
        events = [
            draft.placed(workspace, "", 0, id=_uuid(self._random.getrandbits(122)), time=time) for draft in drafts
        ]
        channel = self._channels.get(workspace)
        if channel is not None:
            channel.hub.publish_transient(events)
        for event in events:
            self._relay.announce(Announcement(workspace, "", 0, 0, (event,)))
        return events

    def announced(self, announcements: Sequence[Announcement]) -> None:
        """What other instances say (RelayListener)."""
        for announcement in announcements:
            channel = self._channels.get(announcement.workspace)
            if channel is None:
                continue
            if announcement.transient:
                channel.hub.publish_transient(announcement.events)
            elif announcement.events:
                channel.runner.offer(announcement.events)
            else:
                channel.runner.expect(announcement.epoch, announcement.last)

    def relay_changed(self, up: bool) -> None:
        """The relay went or came back (RelayListener). What was said meanwhile is in the log."""
        self._relay_down = not up
        for channel in self._channels:
            self._trouble(channel, "relay", not up)
            if up:
                channel.runner.check()

    # Streams come and go

    async def admit(self, workspace: str, request: StreamRequest) -> Subscriber:
        """A place for one stream. The caller writes the response head and calls `start` on what it gets, or
        `disconnected` when that fails. Raises StreamRefused while draining, over a limit, or without a database."""
        self.check_room()
        try:
            channel = await self._channels.open(workspace)
            channel.watchers += 1  # or it might be closed as idle while the log is slow
            try:
                position, outcome, reset = await resolve_start(channel, self._log, request)
            finally:
                channel.watchers -= 1
        except LogUnavailable as error:
            raise StreamRefused("overloaded", "the event log cannot be read now", self._retry_ms()) from error
        self.check_room()
        now = self._clock()
        jitter = 1 - self.options.max_age_jitter * _spread(0, 1)
        subscriber = Subscriber(
            self,
            f"st_{secrets.token_hex(8)}",
            workspace,
            request,
            position,
            outcome,
            reset,
            now,
            now + self.options.max_age_s * jitter,
        )
        self._subscribers[subscriber.id] = subscriber
        channel.subscribers[subscriber] = None
        self.opened.add(subscriber)
        self._counters[workspace].streams_opened += 1
        return subscriber

    def check_room(self) -> None:
        """Raise StreamRefused while draining, or when all streams are taken."""
        if self._draining:
            raise StreamRefused("shutdown", "this instance is shutting down", self._drain_retry_ms())
        if self.options.max_streams and len(self._subscribers) >= self.options.max_streams:
            raise StreamRefused("limit", f"all {self.options.max_streams} streams are taken", self._retry_ms())

    async def position(self, workspace: str) -> Position:
        """Where the log stands, read afresh. Raises LogUnavailable."""
        bounds = await self._log.bounds(workspace)
        return Position(bounds.epoch, bounds.head)

    async def wait_beyond(self, workspace: str, seq: int, timeout_s: float) -> bool:
        """Wait until the workspace's head is past `seq`; False after `timeout_s`. Raises LogUnavailable."""
        channel = await self._channels.open(workspace)
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def wake() -> None:
            if not reached.done():
                reached.set_result(None)

        channel.watchers += 1
        channel.hub.when_reached(seq + 1, wake)
        try:
            await asyncio.wait_for(reached, timeout_s)
        except TimeoutError:
            return False
        finally:
            channel.hub.forget_waiter(wake)
            channel.watchers -= 1
        return True

    async def watch(self, workspace: str, observer: Observer) -> Callable[[], None]:
        """Show the workspace's stored events to an observer, whichever instance they come from, from now until what is
        returned is called. Raises LogUnavailable."""
        channel = await self._channels.open(workspace)
        channel.observers[observer] = None
        return lambda: channel.observers.pop(observer, None)

    def position_of(self, subscriber: Subscriber) -> Position:
        """Up to where this stream has everything it asked for."""
        return self._channels[subscriber.workspace].hub.position_of(subscriber)

    def find(self, stream_id: str) -> Subscriber | None:
        """The stream of that id on this instance."""
        return self._subscribers.get(stream_id)

    def end(self, subscriber: Subscriber, reason: EndReason, *, retry_ms: int | None = None) -> None:
        """Send what waits for it, a goodbye, and close. Does nothing when it has ended already."""
        if subscriber.ended():
            return
        hub = self._channels[subscriber.workspace].hub
        hub.release(subscriber)
        if subscriber.ended():
            return  # what waited was the last that it wanted
        retry = self._retry_ms() if retry_ms is None else retry_ms
        goodbye = {
            "reason": reason,
            "reconnect": reason not in FINAL_REASONS,
            "retry_ms": retry,
            "position": self._place_to_resume(subscriber),
        }
        outlet = subscriber.outlet
        if outlet is not None:
            subscriber.write(subscriber.request.format.control("goodbye", goodbye, retry_ms=retry), 0, self._clock())
        subscriber.mark_ended(reason)
        if outlet is not None:
            outlet.close()

    def warn(self, subscriber: Subscriber, detail: str) -> None:
        """Tell a stream, if it is live, that what it was opened by will soon end."""
        self._notify(subscriber, {"code": "auth_expiring", "detail": detail})

    def _place_to_resume(self, subscriber: Subscriber) -> str | None:
        """The position with which it may come back; None where it has to come back as it came."""
        if subscriber.reset is not None:
            return subscriber.reset.requested  # not yet told of it, it has no more than that
        return None if subscriber.snapshot_due else str(self.position_of(subscriber))

    # What subscribers tell of themselves (Owner)

    def start_stream(self, subscriber: Subscriber) -> None:
        channel = self._channels[subscriber.workspace]
        hub, request = channel.hub, subscriber.request

        def hello() -> dict[str, object]:
            return {
                "stream": subscriber.id,
                "position": f"{hub.epoch}-{subscriber.cursor}",
                "resume": subscriber.resume_outcome,
                "filter": request.filter.describe(),
                "heartbeat_s": request.heartbeat_s,
                "max_age_s": round(subscriber.max_age_at - subscriber.connected_at),
                "instance": self.options.instance,
                "version": self.options.version,
            }

        if request.timeout_s is not None:
            self._timeouts[subscriber] = self._scheduler.call_later(
                request.timeout_s, lambda: self.end(subscriber, "done")
            )
        self._timekeeper.plan(subscriber, self._clock())
        if channel.replay.turns.take_now():
            work = self._make_catch_up(subscriber, channel)
            if work.begin_at_head(hello, self._retry_ms()):
                self._warn(subscriber, channel)
                return
        self._catch_up(subscriber, lambda work: work.begin(hello, self._retry_ms()))

    def _warn(self, subscriber: Subscriber, channel: Channel) -> None:
        """Tell a stream that has just become live of what is wrong."""
        if subscriber.state == "live" and channel.troubles:
            self._notify(subscriber, _notice(channel))

    def _notify(self, subscriber: Subscriber, notice: dict[str, str]) -> None:
        hub = self._channels[subscriber.workspace].hub
        hub.tell(subscriber, subscriber.request.format.control("notice", notice))

    def resume(self, subscriber: Subscriber) -> None:
        if subscriber in self._queue:
            return
        channel = self._channels[subscriber.workspace]
        if subscriber.cursor == channel.hub.head:
            channel.hub.join(subscriber)
            self._warn(subscriber, channel)
        else:
            self._catch_up(subscriber, lambda work: work.resume())

    def forget(self, subscriber: Subscriber) -> None:
        self._subscribers.pop(subscriber.id, None)
        self._timekeeper.forget(subscriber)
        self.opened.remove(subscriber)
        self._queue.cancel(subscriber)
        if (timeout := self._timeouts.pop(subscriber, None)) is not None:
            timeout.cancel()
        channel = self._channels.get(subscriber.workspace)
        if channel is not None:
            channel.hub.leave(subscriber)
            channel.subscribers.pop(subscriber, None)
        self._counters[subscriber.workspace].ends[subscriber.end_reason or "disconnected"] += 1
        if not self._subscribers:
            self._all_closed.set()

    def _catch_up(self, subscriber: Subscriber, begin: Callable[[CatchUp], Coroutine[Any, Any, None]]) -> None:
        channel = self._channels[subscriber.workspace]

        async def work() -> None:
            try:
                await begin(self._make_catch_up(subscriber, channel))
                self._warn(subscriber, channel)
            except Exception:
                # The stream cannot go on, but its client can: it comes back with its position.
                logger.exception("catching up of %s failed", subscriber.id)
                self.end(subscriber, "overloaded")

        self._queue.begin(subscriber, channel.replay.turns, work)

    def _make_catch_up(self, subscriber: Subscriber, channel: Channel) -> CatchUp:
        counters = self._counters[subscriber.workspace]
        return CatchUp(subscriber, channel.replay, counters, on_limit=self._limit_reached)

    def _limit_reached(self, subscriber: Subscriber) -> None:
        self.end(subscriber, "done")

    def _make_channel(self, workspace: str) -> Channel:
        channel = Channel(
            workspace,
            self._log,
            lambda bounds: self._make_hub(workspace, bounds),
            lambda hub: self._make_replay(hub, lambda: channel.runner.check()),
            clock=self._clock,
            on_epoch=self._epoch_changed,
            on_trouble=self._trouble,
        )
        if self._relay_down:
            channel.troubles.add("relay")
        return channel

    def _make_hub(self, workspace: str, bounds: LogBounds) -> Hub:
        return Hub(
            workspace,
            bounds,
            scheduler=self._scheduler,
            counters=self._counters[workspace],
            timestamp=self._timestamp,
            buffer_bytes=self.options.buffer_bytes,
            ring=Ring(self.options.ring_events, self.options.ring_bytes),
            on_limit=self._limit_reached,
            on_flush=self._on_flush,
        )

    def _make_replay(self, hub: Hub, ask_tail: Callable[[], None]) -> Replay:
        return Replay(
            hub,
            self._log,
            Turns(self._scheduler.call_soon),
            clock=self._clock,
            timestamp=self._timestamp,
            buffer_bytes=self.options.buffer_bytes,
            ask_tail=ask_tail,
        )

    def _epoch_changed(self, channel: Channel, old_epoch: str) -> None:
        for subscriber in list(channel.subscribers):
            if subscriber.ended():
                continue
            # One that has not been told of an earlier reset yet still has what it had before that one.
            reset = subscriber.reset or Reset("epoch_changed", f"{old_epoch}-{subscriber.cursor}")
            subscriber.reset = reset
            if subscriber.state == "starting":  # admitted, without a hello yet
                subscriber.cursor, subscriber.resume_outcome = channel.hub.head, "reset"
                continue
            self._catch_up(subscriber, lambda work, reset=reset: work.restart(reset))  # type: ignore[misc]  # the default binds the loop's value

    def _trouble(self, channel: Channel, cause: str, present: bool) -> None:
        was_degraded = bool(channel.troubles)
        if present:
            channel.troubles.add(cause)
        else:
            channel.troubles.discard(cause)
        if was_degraded != bool(channel.troubles):
            channel.hub.tell_all("notice", _notice(channel))

    # The one timer, and the one poll

    async def _keep_ticking(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            try:
                self.tick(self._clock())
                await self._channels.close_idle(self._clock())
            except Exception:
                logger.exception("a tick of the broadcaster failed")

    def tick(self, now: float) -> None:
        """Heartbeats, maximum ages and write timeouts that are due."""
        self._timekeeper.tick(now)

    def _heartbeat(self, subscriber: Subscriber, now: float) -> None:
        if subscriber.state == "live":
            self._channels[subscriber.workspace].hub.heartbeat(subscriber, now)
        else:
            subscriber.write(subscriber.request.format.heartbeat, 0, now)

    async def _keep_polling(self) -> None:
        while True:
            await asyncio.sleep(self.options.poll_interval_s)
            try:
                await self._channels.poll()
            except Exception:
                logger.exception("a poll of the event log failed")

    # What an operator sees

    @property
    def relay_state(self) -> RelayState:
        """What `statistics` says of the relay, without looking at every stream."""
        return self._relay.statistics().state

    @property
    def counters(self) -> Counters:
        """What was counted in all workspaces together."""
        return Counters.together(list(self._counters.values()))

    def statistics(self, *, workspace: str | None = None, streams: int = sys.maxsize) -> BroadcastStatistics:
        """What this instance does in a workspace, or in all of them, and up to so many streams one by one.

        Those of the relay are of all of them in any case."""
        relay, now = self._relay.statistics(), self._clock()
        if workspace is None:
            return report(self._subscribers.values(), self._channels, self.counters, relay, now, streams)
        subscribers = [each for each in self._subscribers.values() if each.workspace == workspace]
        channel = self._channels.get(workspace)
        counters = self._counters.get(workspace) or Counters()
        return report(subscribers, () if channel is None else (channel,), counters, relay, now, streams)

    def figures(self) -> Figures:
        """What a collector of metrics is told of this instance."""
        return figures(self._subscribers.values(), self._channels, self.counters, self._relay.statistics())

    def _timestamp(self) -> str:
        return wire_time(self._now())

    def _retry_ms(self) -> int:
        return int(self.options.retry_s * 1000 * _spread(0.5, 1.5))

    def _drain_retry_ms(self) -> int:
        return int(self.options.drain_s * 1000 * _spread(0.1, 1.0))


def _uuid(bits: int) -> str:
    """The UUID (RFC 9562, version 4) of 122 random bits, for a third of what the standard library's takes."""
    digits = f"{bits:031x}"
    return f"{digits[1:9]}-{digits[9:13]}-4{digits[13:16]}-{'89ab'[int(digits[0])]}{digits[16:19]}-{digits[19:]}"


def _notice(channel: Channel) -> dict[str, str]:
    """What is wrong with a channel's streams, or that nothing is any more."""
    details = {
        "database": "the database does not answer; changes arrive when it is back",
        "relay": "the relay is away; changes made on other instances arrive up to a poll interval later",
    }
    detail = "; ".join(details[cause] for cause in sorted(channel.troubles)) or "all is well again"
    return {"code": "degraded" if channel.troubles else "recovered", "detail": detail}


def _spread(low: float, high: float) -> float:
    return random.uniform(low, high)  # noqa: S311  # keeps clients apart, guards nothing
