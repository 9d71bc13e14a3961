"""Asking the event log by polling, as a caller of the ticket service."""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import orjson

from broadcaster.errors import CannotContinue, InvalidFilter, InvalidStart, LogUnavailable
from broadcaster.filters import Filter, Resolver, parse_filter
from broadcaster.polling import Poller, WaitBeyond, start_of
from taskhub.storage.event_log import SqlEventLog
from taskhub.tickets.errors import InputProblem, InvalidInput, PositionGone, StorageBusy
from taskhub.tickets.inputs import EventQuery
from taskhub.tickets.model import EventPage

_LOOK_S: Final = 0.5


class EventPolling:
    """Reads the log for callers. Without `wait_beyond`, in a process that has no streams, a wait looks at the log."""

    def __init__(self, log: SqlEventLog, wait_beyond: WaitBeyond | None, ending: Callable[[], bool]) -> None:
        self._log = log
        self._poller = Poller(log, wait_beyond or self._look, ending)

    async def poll(self, workspace: str, query: EventQuery, selected: Filter) -> EventPage:
        """What happened after a position. Raises InvalidInput, PositionGone and StorageBusy."""
        try:
            start = start_of(query.after, datetime.now(UTC))
            found = await self._poller.poll(workspace, start, selected, limit=query.limit, wait_s=query.wait_seconds)
        except InvalidStart as wrong:
            raise InvalidInput([InputProblem("/after", str(wrong))]) from None
        except CannotContinue as gone:
            raise PositionGone(gone.position, str(gone)) from gone
        except LogUnavailable as error:
            raise StorageBusy(str(error) or "the event log cannot be read now") from error
        return EventPage([orjson.loads(event) for event in found.events], str(found.position), found.more)

    async def _look(self, workspace: str, seq: int, timeout_s: float) -> bool:
        if (await self._log.bounds(workspace)).head > seq:
            return True
        await asyncio.sleep(min(timeout_s, _LOOK_S))
        return (await self._log.bounds(workspace)).head > seq


def filter_of(given: Mapping[str, str], resolver: Resolver) -> Filter:
    """The filter that a stream with these parameters has. Raises InvalidInput."""
    try:
        return parse_filter(given.items(), resolver)
    except InvalidFilter as error:
        problems = [
            InputProblem(f"/filter/{p.parameter}", p.reason, did_you_mean=p.did_you_mean) for p in error.problems
        ]
        raise InvalidInput(problems) from None
