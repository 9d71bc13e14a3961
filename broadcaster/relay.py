"""How instances tell each other of new events, as a protocol, and the twin for a single instance."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from broadcaster.event import Event

RelayState = Literal["local", "connecting", "up", "down"]


@dataclass(frozen=True, slots=True)
class Announcement:
    """Events `first`..`last` of a workspace's log are committed; or, with first = last = 0, transient events.

    `events` is empty when they were too large to carry: the receiver reads them from the log.
    """

    workspace: str
    epoch: str
    first: int
    last: int
    events: Sequence[Event] = ()

    @property
    def transient(self) -> bool:
        return self.first == 0


@dataclass(frozen=True, slots=True)
class RelayStatistics:
    """State and counters since start, of all workspaces. `dropped` counts announcements given up while the relay was
    away; `trouble` is why it is. Who operates a workspace that is not the deployment's own is not told of the others,
    and these are None."""

    state: RelayState
    announced: int | None = 0
    received: int | None = 0
    dropped: int | None = 0
    reconnects: int = 0
    trouble: str | None = None


class RelayListener(Protocol):
    """Who hears what other instances announce. Both are called on the event loop and must not block."""

    def announced(self, announcements: Sequence[Announcement]) -> None:
        """Announcements of other instances, in the order received."""

    def relay_changed(self, up: bool) -> None:
        """The relay was lost (False) or is back and resubscribed (True): messages in between are gone."""


class Relay(Protocol):
    """A doorbell between instances. At most once: the log is the truth and heals what the relay loses."""

    async def start(self, listener: RelayListener) -> None:
        """Begin. Returns without waiting for the far side."""

    async def stop(self) -> None:
        """Send what is queued (bounded in time), then end."""

    def announce(self, announcement: Announcement) -> None:
        """Tell the other instances. Never blocks: a bounded queue drops its oldest when full."""

    def watch(self, workspace: str) -> None:
        """Hear announcements of this workspace from now on."""

    def unwatch(self, workspace: str) -> None:
        """Hear them no longer."""

    def statistics(self) -> RelayStatistics:
        """State and counters."""


class LocalRelay:
    """The relay of an instance that is alone: nobody to tell, always up."""

    async def start(self, listener: RelayListener) -> None:
        pass

    async def stop(self) -> None:
        pass

    def announce(self, announcement: Announcement) -> None:
        pass

    def watch(self, workspace: str) -> None:
        pass

    def unwatch(self, workspace: str) -> None:
        pass

    def statistics(self) -> RelayStatistics:
        return RelayStatistics("local")
