"""What a collector of metrics is told of this instance: numbers alone, and none for each stream."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from broadcaster.channels import Channels
from broadcaster.relay import RelayStatistics
from broadcaster.statistics import Counters
from broadcaster.subscriber import State, Subscriber

STATES: Final[tuple[State, ...]] = get_args(State)


@dataclass(frozen=True, slots=True)
class TailFigures:
    """A workspace's tail: the newest event that came out of it, and how many more it knows of."""

    epoch: str
    seq: int
    missing: int


@dataclass(frozen=True, slots=True)
class Figures:
    """`streams` has a number for each state. `tails`: by workspace, of those that somebody listens to here."""

    streams: Mapping[str, int]
    groups: int
    buffered_bytes: int
    gaps_repaired: int
    relay: RelayStatistics
    tails: Mapping[str, TailFigures]
    counters: Counters


def figures(
    subscribers: Collection[Subscriber], channels: Channels, counters: Counters, relay: RelayStatistics
) -> Figures:
    """The figures of now."""
    states = Counter(subscriber.state for subscriber in subscribers)
    return Figures(
        streams={state: states[state] for state in STATES},
        groups=sum(len(channel.hub.groups) for channel in channels),
        buffered_bytes=sum(s.outlet.buffered() for s in subscribers if s.outlet is not None),
        gaps_repaired=channels.gaps_repaired,
        relay=relay,
        tails={
            channel.workspace: TailFigures(channel.hub.epoch, channel.hub.head, channel.runner.tail.missing)
            for channel in channels
        },
        counters=counters,
    )
