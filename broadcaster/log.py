"""The event log that the engine reads, as a protocol, and its in-memory twin."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from broadcaster.event import Event

_EPOCH_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz234567"


def random_epoch() -> str:
    """A new name for a log: eight random base-32 characters."""
    return "".join(random.SystemRandom().choices(_EPOCH_LETTERS, k=8))


@dataclass(frozen=True, slots=True)
class LogBounds:
    """Where a workspace's log stands. `oldest` is the first seq that can still be read, `head` the newest;
    an empty log has head 0 and oldest 1."""

    epoch: str
    oldest: int
    head: int


class EventLog(Protocol):
    """A workspace's events in commit order with dense seq. Every method may raise LogUnavailable."""

    async def bounds(self, workspace: str) -> LogBounds:
        """A fresh read of the log's bounds."""

    async def heads(self, workspaces: Iterable[str]) -> Mapping[str, LogBounds]:
        """The bounds of several workspaces in one cheap read; called every poll interval."""

    async def read(self, workspace: str, after: int, limit: int) -> Sequence[Event]:
        """Up to `limit` events with seq > `after`, in order. Raises PositionExpired when after + 1 < oldest."""

    async def seq_at(self, workspace: str, time: datetime) -> int:
        """The seq of the last event at or before `time` (oldest - 1 when there is none)."""
