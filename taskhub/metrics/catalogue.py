"""Every metric of TaskHub's own: its kind, its labels, and what it says. The README has the same table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from broadcaster.statistics import Histogram
from taskhub.metrics.families import Family, Kind

PREFIX: Final = "taskhub_"


@dataclass(frozen=True, slots=True)
class Metric:
    kind: Kind
    labels: tuple[str, ...]
    help: str


CATALOGUE: Final[Mapping[str, Metric]] = {
    "http_request_duration_seconds": Metric(
        "histogram", ("route", "method", "status"), "Seconds until an HTTP request was answered, streams left out"
    ),
    "mcp_request_duration_seconds": Metric(
        "histogram",
        ("method", "tool", "outcome"),
        "Seconds until an MCP request was answered; `refused` for the caller's reasons, `failed` for TaskHub's",
    ),
    "events_appended_total": Metric(
        "counter", ("type",), "Events that this process stored; types of clients' own are `other`"
    ),
    "events_delivered_total": Metric("counter", (), "Events written to streams, counted for each stream"),
    "event_delivery_latency_seconds": Metric(
        "histogram", (), "Seconds from an event's commit, or its arrival from another instance, to a stream's socket"
    ),
    "streams": Metric("gauge", ("state",), "Open streams"),
    "streams_limit": Metric("gauge", (), "Streams that this process takes; 0 for as many as come"),
    "streams_opened_total": Metric("counter", (), "Streams opened"),
    "stream_groups": Metric("gauge", (), "Groups of streams that get the same bytes"),
    "stream_lags_total": Metric("counter", (), "Times that a stream could not take what was written and fell behind"),
    "stream_ends_total": Metric("counter", ("reason",), "Streams that ended, by the reason of their `goodbye`"),
    "stream_resets_total": Metric("counter", ("reason",), "Streams that were told to read the tickets again"),
    "stream_buffered_bytes": Metric("gauge", (), "Bytes that wait in this process for slow streams"),
    "hub_flush_seconds": Metric(
        "histogram", (), "Seconds from the first to the last write of what a group of streams gets"
    ),
    "relay_up": Metric("gauge", (), "1 when other instances can be told and heard, or there is no Redis"),
    "relay_gaps_repaired_total": Metric(
        "counter", (), "Gaps that were filled from the log, because no message had come"
    ),
    "relay_dropped_total": Metric("counter", (), "Messages to other instances given up while Redis was away"),
    "tail_seq": Metric("gauge", ("workspace",), "Newest event that this process has passed on to its streams"),
    "tail_lag_events": Metric("gauge", ("workspace",), "Events in the log that it has yet to pass on"),
    "log_head_seq": Metric("gauge", ("workspace",), "Newest event of the log"),
    "log_oldest_seq": Metric("gauge", ("workspace",), "Oldest event that streams can replay"),
    "leases": Metric("gauge", (), "Tickets that somebody holds"),
    "lease_expired_total": Metric("counter", (), "Leases that ran out"),
    "version_conflicts_total": Metric("counter", (), "Writes refused because the ticket had changed"),
    "idempotent_replays_total": Metric("counter", (), "Writes answered again from their idempotency key"),
    "db_query_duration_seconds": Metric(
        "histogram", ("op",), "Seconds of a database transaction, the wait for a connection included"
    ),
    "db_errors_total": Metric("counter", ("op",), "Transactions that failed because the database was busy or away"),
    "auth_failures_total": Metric(
        "counter", ("reason",), "Requests without, or with a wrong, or with too little credential"
    ),
    "limit_refusals_total": Metric("counter", ("limit",), "Requests and streams refused, by the setting that says so"),
    "limit_refusals_held": Metric("gauge", (), "Refusals that come later, for callers that ask on after others"),
    "loop_lag_seconds": Metric("histogram", (), "Seconds by which a timer came too late, four times a second"),
    "ready": Metric("gauge", (), "1 when `/readyz` answers 200"),
    "workers": Metric("gauge", (), "Processes behind the port, with more than one"),
    "workers_reporting": Metric("gauge", (), "Those whose figures these are"),
    "build_info": Metric("gauge", ("version",), "1, and what runs"),
}
"""By name without the prefix. Each sample of a server with several workers has the label `worker` besides, but for what
is the database's or the port's."""


def family(name: str) -> Family:
    """The family of this name, without samples yet."""
    metric = CATALOGUE[name]
    return Family(PREFIX + name, metric.kind, metric.help)


def single(name: str, value: float) -> Family:
    """One sample without labels."""
    found = family(name)
    found.add(value)
    return found


def by_label(name: str, values: Mapping[str, float]) -> Family:
    """A sample for each value of the only label."""
    (label,) = CATALOGUE[name].labels
    found = family(name)
    for value, count in values.items():
        found.add(count, **{label: value})
    return found


def histogram(name: str, measured: Histogram) -> Family:
    """A histogram without labels."""
    found = family(name)
    found.add_histogram(measured)
    return found
