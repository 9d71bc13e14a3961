"""What others notice of one caller that asks far too much."""

import json
import os
import subprocess
import sys
import time
from typing import Any, Final

from tests.benchmarks.hub import Hub
from tests.benchmarks.latency import Prober, get, post, quantile_ms
from tests.benchmarks.load import RunFailed
from tests.benchmarks.peers import UNLIMITED, TaskHub
from tests.benchmarks.processes import CLIENT_CORE, pinned
from tests.benchmarks.scenario import Column, Row, Scenario, Variant

ATTEMPTS: Final = 20_000
ATTEMPTS_PER_S: Final = 1000
WRITES_PER_S: Final = 1000
"""The limits of one credential are 50 streams and 20 changes a second."""
QUIET_S: Final = 8.0
EVERY_S: Final = 0.01
MOST_S: Final = 180.0
"""For the flood, on a machine where it does not get so far."""
WRITE: Final = 6
"""Of the seven requests that others make: fourteen changes a second, which is within the limit of one."""

READ_RATIO: Final = Column("read_ratio", "reads ×", ",.2f", "the p99 of others' reads in the flood, by that before it")
WRITE_RATIO: Final = Column("write_ratio", "changes ×", ",.2f", "the p99 of others' changes, in the same way")


def overload(peer: TaskHub) -> Row:
    """Others read and change a little, alone, and then beside one key that opens 20 000 streams and changes a thousand
    things a second."""
    with peer.serve() as server:
        hub = Hub(server.port)
        key = hub.create_ticket()
        hub.call("POST", "/api/v1/users", {"name": "Flood", "role": "agent"})
        secret = hub.call("POST", "/api/v1/keys", {"user": "Flood", "name": "flood"})["secret"]
        reads = (get("/healthz"), get(f"/api/v1/tickets/{key}"))
        requests = (*reads, *reads, *reads, post("/events", {"type": "others.write", "data": {}}))
        quiet, beside = (Prober(server.port, requests, EVERY_S) for _ in range(2))
        with quiet:
            time.sleep(QUIET_S)
        before = server.usage()
        with beside:
            flood = _flood(server.port, secret)
        after = server.usage()
        refused = hub.debug()["refused"]
    streams, writes = flood["streams"], flood["writes"]
    if not streams.get("goodbye") or not refused.get("writes_per_s"):
        raise RunFailed(f"the flood was none: {flood}, refused {refused}")
    row = {
        "read_quiet_p50_ms": quantile_ms(_reads(quiet), 0.5),
        "read_p50_ms": quantile_ms(_reads(beside), 0.5),
        "read_quiet_ms": quantile_ms(_reads(quiet), 0.99),
        "read_ms": quantile_ms(_reads(beside), 0.99),
        "write_quiet_ms": quiet.quantile_ms(WRITE, 0.99),
        "write_ms": beside.quantile_ms(WRITE, 0.99),
        "attempts": float(sum(streams.values())),
        "attempts_per_s": (sum(streams.values()) - streams.get("not sent", 0)) / flood["seconds"],
        "writes_per_s": (sum(writes.values()) - writes.get("not sent", 0)) / flood["seconds"],
        "opened": float(streams.get("hello", 0)),
        "written": float(writes.get("201", 0)),
        "unserved": float(streams.get("broken", 0) + streams.get("not sent", 0)),
        "utilisation": (after.cpu_s - before.cpu_s) / (after.at - before.at),
    }
    return row | {
        "read_ratio": row["read_ms"] / row["read_quiet_ms"],
        "write_ratio": row["write_ms"] / row["write_quiet_ms"],
    }


def _flood(port: int, key: str) -> Any:
    """What the program prints. Raises RunFailed."""
    arguments = [str(port), key, str(ATTEMPTS), str(ATTEMPTS_PER_S), str(WRITES_PER_S)]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.flood", *arguments],
            capture_output=True,
            timeout=MOST_S,
            check=True,
            preexec_fn=_behind_the_others,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        said = (error.stderr or b"").decode(errors="replace")[-500:]
        raise RunFailed(f"the flood failed: {said}") from error
    return json.loads(done.stdout)


def _behind_the_others() -> None:
    """Who asks little shares the core, and its latency should be the server's."""
    pinned(CLIENT_CORE)()
    os.nice(5)


def _reads(prober: Prober) -> list[float]:
    return [latency for kind, each in enumerate(prober.latencies) if kind != WRITE for latency in each]


# As it is shipped: the kit's other servers have no limits.
_AS_SHIPPED: Final = dict.fromkeys(UNLIMITED, "")

OVERLOAD: Final = Scenario(
    "overload",
    "one key opens 20 000 streams and changes a thousand things a second; others read and change a little",
    (
        Column("read_quiet_p50_ms", "quiet: reads p50 ms", ",.1f", "of others, while nobody else asks anything"),
        Column("read_p50_ms", "flood: reads p50 ms", ",.1f", "of others, in the flood"),
        Column("read_quiet_ms", "quiet: reads p99 ms", ",.1f", "of others, while nobody else asks anything"),
        Column("read_ms", "flood: reads p99 ms", ",.1f", "of others, in the flood"),
        READ_RATIO,
        Column("write_quiet_ms", "quiet: changes p99 ms", ",.1f", "of others, while nobody else asks anything"),
        Column("write_ms", "flood: changes p99 ms", ",.1f", "of others, in the flood"),
        WRITE_RATIO,
        Column("attempts", "attempts", ",.0f", "streams that the one asked for"),
        Column("attempts_per_s", "attempts/s", ",.0f", "the same per second"),
        Column("opened", "opened", ",.0f", "of them, at a time"),
        Column("writes_per_s", "changes/s", ",.0f", "that the one asked for, per second"),
        Column("written", "made", ",.0f", "of them, in all"),
        Column("unserved", "unanswered", ",.0f", "attempts that got no answer at all", "worst"),
        Column("utilisation", "server", ".0%", "share of a core that the server used in the flood"),
    ),
    [Variant("taskhub", lambda: overload(TaskHub(settings=_AS_SHIPPED)))],
    most_rounds=2,
)
