"""What an operator sees of this instance: its log, its rates, every stream."""

import heapq
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from broadcaster.channel import Channel
from broadcaster.relay import RelayStatistics
from broadcaster.statistics import Counters, StreamStatistics
from broadcaster.subscriber import Subscriber


@dataclass(frozen=True, slots=True)
class ChannelStatistics:
    """One workspace's log and tail as this instance sees them."""

    workspace: str
    head: str
    oldest: str
    groups: int
    streams: int
    gaps_repaired: int
    troubles: list[str]


@dataclass(frozen=True, slots=True)
class BroadcastStatistics:
    """What `/events/debug` shows of this instance. Rates are per second; latencies are milliseconds. `streams` may be
    fewer than there are."""

    connected_clients: int
    events_sent: int
    last_event_time: str | None
    events_per_s: float
    events_per_s_5m: float
    deliveries_per_s: float
    deliveries_per_s_5m: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    streams_opened: int
    lagged: int
    resets: dict[str, int]
    ends: dict[str, int]
    buffered_bytes: int
    relay: RelayStatistics
    channels: list[ChannelStatistics]
    streams: list[StreamStatistics]


def report(
    subscribers: Collection[Subscriber],
    channels: Iterable[Channel],
    counters: Counters,
    relay: RelayStatistics,
    now: float,
    streams: int,
) -> BroadcastStatistics:
    """The statistics of one instance at the clock's `now`, with those of up to so many streams: the ones furthest
    behind, in time and then in events."""
    by_workspace = {channel.workspace: channel for channel in channels}
    return BroadcastStatistics(
        connected_clients=len(subscribers),
        events_sent=counters.deliveries.total,
        last_event_time=counters.last_event_time,
        events_per_s=counters.events.per_second(60, now),
        events_per_s_5m=counters.events.per_second(300, now),
        deliveries_per_s=counters.deliveries.per_second(60, now),
        deliveries_per_s_5m=counters.deliveries.per_second(300, now),
        latency_p50_ms=_milliseconds(counters.latency.quantile(0.5)),
        latency_p99_ms=_milliseconds(counters.latency.quantile(0.99)),
        streams_opened=counters.streams_opened,
        lagged=counters.lagged,
        resets=dict(counters.resets),
        ends=dict(counters.ends),
        buffered_bytes=sum(s.outlet.buffered() for s in subscribers if s.outlet is not None),
        relay=relay,
        channels=[_channel(channel) for channel in by_workspace.values()],
        streams=[
            _stream(subscriber, by_workspace[subscriber.workspace], now)
            for subscriber in _furthest_behind(subscribers, by_workspace, now, streams)
        ],
    )


def _furthest_behind(
    subscribers: Collection[Subscriber], channels: dict[str, Channel], now: float, most: int
) -> Collection[Subscriber]:
    if len(subscribers) <= most:
        return subscribers

    def behind(subscriber: Subscriber) -> tuple[float, int]:
        blocked_s = 0.0 if subscriber.blocked_since is None else now - subscriber.blocked_since
        hub = channels[subscriber.workspace].hub
        return blocked_s, hub.head - hub.position_of(subscriber).seq

    return heapq.nlargest(most, subscribers, key=behind)


def _channel(channel: Channel) -> ChannelStatistics:
    hub = channel.hub
    return ChannelStatistics(
        workspace=channel.workspace,
        head=hub.position,
        oldest=f"{hub.epoch}-{hub.oldest}",
        groups=len(hub.groups),
        streams=len(channel.subscribers),
        gaps_repaired=channel.runner.tail.gaps_repaired,
        troubles=sorted(channel.troubles),
    )


def _stream(subscriber: Subscriber, channel: Channel, now: float) -> StreamStatistics:
    position = channel.hub.position_of(subscriber)
    request = subscriber.request
    batching = subscriber.state == "live" and request.batching.window_s > 0
    return StreamStatistics(
        id=subscriber.id,
        workspace=subscriber.workspace,
        principal=request.principal,
        address=request.address,
        filter=dict(request.filter.describe()),
        format=request.format.kind,
        connected_s=round(now - subscriber.connected_at, 3),
        state="batching" if batching else subscriber.state,
        position=str(position),
        lag_events=max(0, channel.hub.head - position.seq),
        lag_ms=0 if subscriber.blocked_since is None else round(1000 * (now - subscriber.blocked_since)),
        buffered_bytes=0 if subscriber.outlet is None else subscriber.outlet.buffered(),
        bytes_sent=subscriber.bytes_sent,
        events_sent=subscriber.events_sent,
        last_write_s=round(now - subscriber.last_write, 3),
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)
