"""Where a stream starts: what its client asked for, held against what the log has."""

from datetime import datetime
from typing import Literal

from broadcaster.channel import Channel
from broadcaster.event import Position
from broadcaster.log import EventLog
from broadcaster.stream import Reset, StreamRequest

Outcome = Literal["complete", "none", "reset"]
"""Whether the client gets everything after the position that it named; `none` when it named none."""


async def resolve_start(
    channel: Channel, log: EventLog, request: StreamRequest
) -> tuple[Position, Outcome, Reset | None]:
    """The position after which the stream begins, and with `reset` why it is not the one asked for.

    Raises LogUnavailable.
    """
    hub, start = channel.hub, request.start
    head = Position(hub.epoch, hub.head)
    if start == "now":
        return head, "none", None
    if start == "earliest":
        return Position(hub.epoch, hub.oldest - 1), "complete", None
    requested = request.requested or str(start)
    if isinstance(start, datetime):
        seq = await log.seq_at(channel.workspace, start)
        return Position(hub.epoch, min(max(seq, hub.oldest - 1), hub.head)), "complete", None
    if isinstance(start, str):
        return head, "reset", Reset("invalid", requested)
    if start.epoch != hub.epoch or start.seq > hub.head:
        # Perhaps it comes from an instance that is further than this one: only the log itself can tell.
        fresh = await log.bounds(channel.workspace)
        if start.epoch != fresh.epoch:
            return Position(hub.epoch, hub.head), "reset", Reset("epoch_changed", requested)
        if start.seq > fresh.head:
            return Position(hub.epoch, hub.head), "reset", Reset("ahead", requested)
        channel.runner.check()
    if start.seq + 1 < hub.oldest:
        return Position(hub.epoch, hub.head), "reset", Reset("expired", requested)
    return start, "complete", None
