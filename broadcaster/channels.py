"""The workspaces that somebody listens to here: opened once, polled together, closed when they fall quiet."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Final

from broadcaster.channel import Channel
from broadcaster.errors import LogUnavailable
from broadcaster.log import EventLog
from broadcaster.relay import Relay

logger = logging.getLogger(__name__)

LINGER_S: Final = 10.0
"""A workspace stays open this long after its last listener: reconnects are frequent and a channel costs one poll."""


class Channels:
    """Open channels by workspace. After use you must `stop`, which ends every tail."""

    def __init__(self, log: EventLog, relay: Relay, make: Callable[[str], Channel]) -> None:
        self._log = log
        self._relay = relay
        self._make = make
        self._open: dict[str, Channel] = {}
        self._opening: dict[str, asyncio.Task[Channel]] = {}
        self._gaps_repaired = 0

    def __iter__(self) -> Iterator[Channel]:
        return iter(list(self._open.values()))

    def __getitem__(self, workspace: str) -> Channel:
        return self._open[workspace]

    def get(self, workspace: str) -> Channel | None:
        """The workspace's channel, if somebody listens to it here."""
        return self._open.get(workspace)

    @property
    def gaps_repaired(self) -> int:
        """Gaps that were filled from the log, also in channels that are closed by now."""
        return self._gaps_repaired + sum(channel.runner.tail.gaps_repaired for channel in self)

    async def open(self, workspace: str) -> Channel:
        """The workspace's channel, made by the first caller; the others wait for it. Raises LogUnavailable."""
        channel = self._open.get(workspace)
        if channel is not None:
            channel.idle_since = None
            return channel
        task = self._opening.get(workspace)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._begin(workspace))
            self._opening[workspace] = task
            task.add_done_callback(lambda _: self._opening.pop(workspace, None))
        return await asyncio.shield(task)

    async def _begin(self, workspace: str) -> Channel:
        channel = self._make(workspace)
        self._relay.watch(workspace)
        try:
            await channel.start()
        except BaseException:
            self._relay.unwatch(workspace)
            raise
        self._open[workspace] = channel
        # What was committed or announced since the log was read found nobody here.
        channel.runner.check()
        return channel

    async def poll(self) -> None:
        """Ask the log once where all open workspaces stand."""
        if not self._open:
            return
        try:
            heads = await self._log.heads(list(self._open))
        except LogUnavailable:
            for channel in self:
                channel.runner.check()  # it knows how to wait for the log, and says so to its streams
            return
        for workspace, bounds in heads.items():
            if (found := self._open.get(workspace)) is not None:
                found.observe(bounds)

    async def close_idle(self, now: float) -> None:
        """Close the channels that nobody has used for a while."""
        for channel in self:
            if channel.in_use:
                channel.idle_since = None
            elif channel.idle_since is None:
                channel.idle_since = now
            elif now - channel.idle_since >= LINGER_S:
                del self._open[channel.workspace]
                self._relay.unwatch(channel.workspace)
                await channel.stop()
                self._gaps_repaired += channel.runner.tail.gaps_repaired

    async def stop(self) -> None:
        """End all of them."""
        opening = list(self._opening.values())
        for task in opening:
            task.cancel()
        await asyncio.gather(*opening, return_exceptions=True)
        for channel in self:
            await channel.stop()
