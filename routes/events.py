"""`/api/v1/events`: the same log as the stream, by polling or long polling."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, Field

from broadcaster.engine import Broadcaster
from broadcaster.errors import PositionExpired
from broadcaster.event import Event, Position
from broadcaster.filters import FILTER_NAMES, Filter
from broadcaster.frames import with_match
from broadcaster.log import EventLog, LogBounds
from routes.access import caller_with
from routes.bodies import json_response, parse_query
from routes.errors import Fault, Problem
from routes.keys import BROADCASTER, EVENT_LOG, LIFECYCLE, TICKETS, Lifecycle
from routes.positions import parse_start
from routes.stream import read_filter

PAGE: Final = 500
MAX_SCANNED: Final = 10 * PAGE
"""A request with a narrow filter looks at no more events than this; `more` tells the client to go on from there."""
MAX_WAIT_S: Final = 50
# A long poll looks this often whether the process is about to end.
WAIT_SLICE_S: Final = 1.0


class PollParameters(BaseModel):
    """The parameters of a poll that are not filters."""

    after: str = "now"
    limit: Annotated[int, Field(ge=1, le=500)] = 100
    wait: Annotated[float, Field(ge=0, le=MAX_WAIT_S)] = 0


async def poll(request: web.Request) -> web.Response:
    """GET /api/v1/events: `{"events": […], "position": "…", "more": false}`. Continue with `after=<position>`."""
    caller = caller_with(request, "events:read")
    items = list(request.query.items())
    given, faults = parse_query(items, PollParameters, also=FILTER_NAMES)
    start = parse_start(request.query.get("after", "now"), "after", datetime.now(UTC))
    if isinstance(start, Fault):
        faults.append(start)
    selected = await read_filter(request.app[TICKETS], caller, items, faults)
    if given is None or isinstance(start, Fault) or faults:
        raise Problem.of("bad_parameter", faults)
    log, workspace = request.app[EVENT_LOG], caller.principal.workspace
    bounds = await log.bounds(workspace)
    if start == "now":
        after = bounds.head
    elif start == "earliest":
        after = bounds.oldest - 1
    elif isinstance(start, datetime):
        after = max(await log.seq_at(workspace, start), bounds.oldest - 1)
    elif isinstance(start, Position):
        after = _readable(start, bounds)
    else:
        raise AssertionError(start)
    scan = Scan(request.app[BROADCASTER], log, request.app[LIFECYCLE], workspace, bounds.epoch, selected)
    try:
        await scan.run(after, given.limit, given.wait)
    except (PositionExpired, LogReplaced) as error:
        reason = "expired" if isinstance(error, PositionExpired) else "epoch_changed"
        raise _expired(Position(bounds.epoch, scan.position), await log.bounds(workspace), reason) from error
    position = str(Position(bounds.epoch, scan.position))
    more = b"true" if scan.more else b"false"
    body = b'{"events":[' + b",".join(scan.found) + b'],"position":"' + position.encode() + b'","more":' + more + b"}"
    return json_response(body, headers={"TaskHub-Position": position})


class LogReplaced(Exception):
    """The log has another epoch than when the reading began: its events do not follow those read before."""


class Scan:
    """One reading of the log: what it found, encoded; how far it came; and whether there is more to read now."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        log: EventLog,
        lifecycle: Lifecycle,
        workspace: str,
        epoch: str,
        selected: Filter,
    ) -> None:
        self._broadcaster = broadcaster
        self._log = log
        self._lifecycle = lifecycle
        self._workspace = workspace
        self._epoch = epoch
        self._match = selected.match
        self.found: list[bytes] = []
        self.position = 0
        self.more = False

    async def run(self, after: int, limit: int, wait_s: float) -> None:
        """Read on from `after`; when nothing matches, wait up to `wait_s` for something that does.

        Raises PositionExpired, LogReplaced, LogUnavailable.
        """
        self.position = after
        scanned = 0
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            page = await self._log.read(self._workspace, self.position, PAGE)
            if page and page[0].epoch != self._epoch:
                raise LogReplaced
            scanned += len(page)
            self.more = self._take(page, limit) or len(page) == PAGE
            if len(self.found) == limit or scanned >= MAX_SCANNED:
                return
            if self.more:
                continue
            if self.found or not await self._something_new(deadline):
                return

    def _take(self, page: Sequence[Event], limit: int) -> bool:
        """Collect what matches; True when events of the page are left over."""
        for number, event in enumerate(page, 1):
            self.position = event.seq
            match = self._match(event)
            if match is not None:
                self.found.append(with_match(event, match))
                if len(self.found) == limit:
                    return number < len(page)
        return False

    async def _something_new(self, deadline: float) -> bool:
        """Wait until the log has grown; False when time is up, or this process is about to end."""
        loop = asyncio.get_running_loop()
        while (left := deadline - loop.time()) > 0 and not self._lifecycle.draining:
            if await self._broadcaster.wait_beyond(self._workspace, self.position, min(left, WAIT_SLICE_S)):
                return True
        return False


def _readable(start: Position, bounds: LogBounds) -> int:
    """The seq to read after. Raises Problem when the events after it are not to be had."""
    if start.epoch != bounds.epoch:
        raise _expired(start, bounds, "epoch_changed")
    if start.seq > bounds.head:
        raise _expired(start, bounds, "ahead")
    if start.seq + 1 < bounds.oldest:
        raise _expired(start, bounds, "expired")
    return start.seq


def _expired(requested: Position, bounds: LogBounds, reason: str) -> Problem:
    """What a stream would say by a `reset`, with the same members."""
    details = {
        "expired": "events after it were removed by retention",
        "epoch_changed": "it belongs to a log that was replaced",
        "ahead": "the log has not come so far: it was probably restored",
    }
    return Problem(
        "position_expired",
        f"cannot continue after {requested}: {details[reason]}; read the tickets again, then continue after `position`",
        members={
            "reason": reason,
            "requested": str(requested),
            "oldest": str(Position(bounds.epoch, bounds.oldest - 1)),
            "position": str(Position(bounds.epoch, bounds.head)),
            "snapshot": "/api/v1/tickets?show_completed=true",
        },
    )
