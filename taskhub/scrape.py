"""What a collector of metrics is answered: this process's figures, those of its fellow workers, and the database's.

A worker tells of all behind its port: whoever asks meets one of them, a different one each time. The samples of each
have its number (`worker`), so that a counter that begins anew is that of a worker that was replaced.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select

from broadcaster.engine import Broadcaster
from broadcaster.figures import Figures, TailFigures
from taskhub import __version__
from taskhub.metrics.catalogue import by_label, family, histogram, single
from taskhub.metrics.families import Family, WorkerFigures, exposition, joined, labelled
from taskhub.metrics.meters import Meters
from taskhub.metrics.process import process_families
from taskhub.processes import Place
from taskhub.storage.database import Database
from taskhub.storage.schema import leases, workspaces
from taskhub.tickets.errors import StorageBusy

PATIENCE_S: Final = 0.4
"""How long an answer waits for the database, less than another worker waits for the answer. Without it, what only the
database knows is left out."""

logger = logging.getLogger(__name__)


AskWorkers = Callable[[str], Awaitable[Sequence[WorkerFigures]]]
"""The figures of the workers of a group, this one's included."""


@dataclass(frozen=True, slots=True)
class _Log:
    epoch: str
    oldest: int
    head: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """What the database knows, by workspace; the same whichever process asks."""

    logs: Mapping[str, _Log]
    leases: int

    @classmethod
    def read(cls, connection: Connection) -> "_Stored":
        w = workspaces.c
        rows = connection.execute(select(w.id, w.epoch, w.oldest_seq, w.head_seq)).all()
        held = connection.execute(select(func.count()).where(leases.c.holder.is_not(None))).scalar_one()
        return cls({row.id: _Log(row.epoch, row.oldest_seq, row.head_seq) for row in rows}, held)


class Scrape:
    """The metrics of a process, which may have no event engine and no database. `place`: where it is one of several
    workers, which `ask` reaches. `refused`: how often each limit has; `held`: refusals that come
    later. You must `close` it before the database."""

    def __init__(
        self,
        meters: Meters,
        *,
        draining: Callable[[], bool],
        broadcaster: Broadcaster | None = None,
        database: Database | None = None,
        place: Place | None = None,
        ask: AskWorkers | None = None,
        refused: Mapping[str, int] | None = None,
        held: Sized = (),
    ) -> None:
        self._meters = meters
        self._draining = draining
        self._broadcaster = broadcaster
        self._database = database
        self._place = place
        self._ask = ask
        self._refused = {} if refused is None else refused
        self._held = held
        self._reading: asyncio.Task[_Stored | None] | None = None

    async def text(self, ready: Callable[[], Awaitable[bool]]) -> bytes:
        """All of it, in the exposition format. `ready`: whether the process is, as its readiness probe tells."""
        stored, told, is_ready = await asyncio.gather(self._stored(), self._told(), ready())
        return exposition(joined([told, _of_database(stored), [single("ready", is_ready)]]))

    async def own(self) -> WorkerFigures:
        """What this process tells of itself."""
        families = _of_meters(self._meters)
        if self._broadcaster is not None:
            stored = await self._stored()
            logs = {} if stored is None else stored.logs
            families += _of_engine(self._broadcaster.figures(), self._broadcaster.options.max_streams, logs)
        # At zero from the beginning, so that the first one is an increase.
        families.append(by_label("limit_refusals_total", {"auth_failures_per_min": 0, **self._refused}))
        families.append(single("limit_refusals_held", len(self._held)))
        families += [by_label("build_info", {__version__: 1}), *process_families()]
        return WorkerFigures(0 if self._place is None else self._place.number, self._draining(), families)

    async def of_group(self, group: str) -> WorkerFigures | None:
        """The same for a worker of the same group; None where this is none."""
        return await self.own() if self._place is not None and self._place.group == group else None

    async def _told(self) -> list[Family]:
        place = self._place
        if place is None:
            return (await self.own()).families
        told = [await self.own()] if self._ask is None else await self._ask(place.group)
        by_number: dict[int, WorkerFigures] = {}
        for each in told:
            known = by_number.get(each.number)
            if known is None or known.draining:
                by_number[each.number] = each
        parts = [labelled(each.families, worker=str(number)) for number, each in sorted(by_number.items())]
        return joined([*parts, [single("workers", place.workers), single("workers_reporting", len(by_number))]])

    async def _stored(self) -> _Stored | None:
        """What the database knows; None when it gives no answer, for which only one waits at a time."""
        if self._database is None:
            return None
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(self._database), name="figures of the database")
        reading = self._reading
        done, _ = await asyncio.wait((reading,), timeout=PATIENCE_S)
        return reading.result() if done else None

    async def _read(self, database: Database) -> _Stored | None:
        try:
            return await database.read(_Stored.read)
        except StorageBusy as error:
            logger.debug("the database's figures are left out: %s", error)
            return None

    async def close(self) -> None:
        """Wait for what was asked of the database."""
        if self._reading is not None:
            await asyncio.wait((self._reading,))


def _of_database(stored: _Stored | None) -> list[Family]:
    if stored is None:
        return []
    head, oldest = family("log_head_seq"), family("log_oldest_seq")
    for workspace, log in stored.logs.items():
        head.add(log.head, workspace=workspace)
        oldest.add(log.oldest, workspace=workspace)
    return [head, oldest, single("leases", stored.leases)]


def _of_meters(meters: Meters) -> list[Family]:
    families = []
    for name, histograms in (
        ("http_request_duration_seconds", meters.http),
        ("mcp_request_duration_seconds", meters.mcp),
        ("db_query_duration_seconds", meters.database),
    ):
        each = family(name)
        for labels, measured in histograms.named():
            each.add_histogram(measured, **labels)
        families.append(each)
    return [
        *families,
        histogram("loop_lag_seconds", meters.loop_lag),
        by_label("events_appended_total", meters.appended),
        # At zero from the beginning, so that the first one is an increase.
        by_label("db_errors_total", {"read": 0, "write": 0, **meters.database_errors}),
        by_label("auth_failures_total", {"missing": 0, "invalid": 0, "forbidden": 0, **meters.auth_failures}),
        single("lease_expired_total", meters.appended["ticket.lease_expired"]),
        single("version_conflicts_total", meters.version_conflicts),
        single("idempotent_replays_total", meters.replays),
    ]


def _of_engine(figures: Figures, max_streams: int | None, logs: Mapping[str, _Log]) -> list[Family]:
    counters, relay = figures.counters, figures.relay
    ends = dict.fromkeys(("disconnected", "overloaded"), 0)
    resets = dict.fromkeys(("expired", "epoch_changed", "ahead", "invalid"), 0)
    return [
        by_label("streams", figures.streams),
        single("streams_limit", max_streams or 0),
        single("streams_opened_total", counters.streams_opened),
        single("stream_groups", figures.groups),
        single("stream_lags_total", counters.lagged),
        by_label("stream_ends_total", {**ends, **counters.ends}),
        by_label("stream_resets_total", {**resets, **counters.resets}),
        single("stream_buffered_bytes", figures.buffered_bytes),
        single("events_delivered_total", counters.deliveries.total),
        histogram("event_delivery_latency_seconds", counters.delivery_s),
        histogram("hub_flush_seconds", counters.flush_s),
        single("relay_up", relay.state in ("local", "up")),
        single("relay_gaps_repaired_total", figures.gaps_repaired),
        single("relay_dropped_total", relay.dropped or 0),
        by_label("tail_seq", {workspace: tail.seq for workspace, tail in figures.tails.items()}),
        by_label("tail_lag_events", {name: _lag(tail, logs.get(name)) for name, tail in figures.tails.items()}),
    ]


def _lag(tail: TailFigures, log: _Log | None) -> int:
    """By the log itself, where that could be asked: a tail that hears nothing any more knows of nothing that it
    misses."""
    known = 0 if log is None or log.epoch != tail.epoch else log.head - tail.seq
    return max(tail.missing, known)
