"""The load client, run against a server: what it is told to do, and the figures that come of it."""

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.benchmarks.peers import Peer
from tests.benchmarks.processes import CLIENT_CORE, SERVER_CORE, Server, Usage, busy_s, pinned
from tests.benchmarks.programs import built

SETTLE_S: Final = 0.5
"""Between the last connection and the look at memory."""
EXTRA_S: Final = 30.0
"""How much longer than it should a run may take before it is given up."""
LOOK_S: Final = 0.5
"""Between two looks at memory, for its peak."""


class RunFailed(Exception):
    """The load client could not do its work; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Load:
    """What the load client does. The fields are those of `struct options` in loadclient.h, which explains them."""

    subscribers: int
    path: str = "/events/stream"
    stream_headers: str = ""
    concurrency: int = 128
    churn: bool = False
    backlog: int = 0
    stalled: int = 0
    seconds: float = 3
    warmup: float = 1
    connect_deadline: float = 60
    publishes: bool = True
    publish_port: int = 0
    subjects: int = 0
    rate: float = 0
    window: int = 0
    batch: int = 1
    size: int = 200
    publishers: int = 1
    pipeline: int = 64

    def arguments(self, peer: Peer, port: int) -> list[str]:
        """For the program, against a server of this kind."""
        path = ("/events/batch" if self.batch > 1 else "/events") if peer.hub else "/events"
        given = {
            "port": port, "publish-port": self.publish_port, "path": self.path, "headers": peer.headers,
            "stream-headers": self.stream_headers, "ready": peer.ready or "", "subscribers": self.subscribers,
            "concurrency": self.concurrency, "backlog": self.backlog, "stalled": self.stalled,
            "connect-deadline": self.connect_deadline, "publish": path if self.publishes else "",
            "subjects": self.subjects, "rate": self.rate, "window": self.window, "batch": self.batch, "size": self.size,
            "publishers": self.publishers, "pipeline": self.pipeline,
        }  # fmt: skip
        flags = {"churn": self.churn, "hub": peer.hub, "stored": peer.stored}
        return [
            "--wait",
            *(f"--{name}" for name, on in flags.items() if on),
            *(f"--{name}={value}" for name, value in given.items() if value),
            *(f"--seconds={self.seconds}", f"--warmup={self.warmup}"),
        ]


@dataclass(frozen=True, slots=True)
class Figures:
    """What one run measured: the load client's own figures, named as loadclient.c prints them, and the server's usage.

    `before`, `connected`, `measuring`, `measured` and `after` say what the server had used at these moments.
    """

    client: dict[str, float]
    before: Usage
    connected: Usage
    measuring: Usage
    measured: Usage
    after: Usage
    peak_bytes: int
    others: float
    """How much of the two cores others than server and client used meanwhile: from about 0.1 on, figures suffer."""

    @property
    def cpu_us_per_delivery(self) -> float:
        return 1e6 * self._cpu_s / self.client["deliveries"] if self.client["deliveries"] else 0.0

    @property
    def cpu_us_per_event(self) -> float:
        return 1e6 * self._cpu_s / self.client["published"] if self.client["published"] else 0.0

    @property
    def deliveries_per_s(self) -> float:
        return self._per_second("deliveries")

    @property
    def published_per_s(self) -> float:
        return self._per_second("published")

    @property
    def utilisation(self) -> float:
        """Share of a core that the server used."""
        elapsed = self.measured.at - self.measuring.at
        return self._cpu_s / elapsed if elapsed else 0.0

    @property
    def bytes_per_subscriber(self) -> float:
        return (self.connected.resident_bytes - self.before.resident_bytes) / max(1, self.client["connected"])

    @property
    def connects_per_s(self) -> float:
        return self.client["connected"] / self.client["connect_s"]

    @property
    def cpu_us_per_connect(self) -> float:
        return 1e6 * (self.connected.cpu_s - self.before.cpu_s) / max(1, self.client["connected"])

    @property
    def _cpu_s(self) -> float:
        return self.measured.cpu_s - self.measuring.cpu_s

    def _per_second(self, what: str) -> float:
        return self.client[what] / self.client["seconds"] if self.client["seconds"] else 0.0

    def ms(self, name: str) -> float:
        """One of the client's times, such as `delivery_p99`, in milliseconds."""
        return self.client[f"{name}_us"] / 1000


class Client:
    """The load client's process. Use it in a `with` statement: at its end the process has ended."""

    def __init__(self, arguments: list[str], limit_s: float) -> None:
        self._limit_s = limit_s
        self._deadline = time.monotonic() + limit_s
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._process = subprocess.Popen(
            [str(built("loadclient")), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            start_new_session=True,  # so that Ctrl-C reaches the kit alone
            preexec_fn=pinned(CLIENT_CORE),
        )
        self._unread = b""

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def go_on(self) -> None:
        """Let it measure, after it said `connected`."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def line(self, meanwhile: Callable[[], None] = lambda: None) -> str:
        """The next line that it prints; `meanwhile` is called now and then. Raises RunFailed."""
        assert self._process.stdout is not None
        while b"\n" not in self._unread:
            if time.monotonic() > self._deadline:
                raise RunFailed(f"not done after {self._limit_s:.0f} s")
            if select.select([self._process.stdout], [], [], LOOK_S)[0]:
                read = os.read(self._process.stdout.fileno(), 65536)
                if not read:
                    self._errors.seek(0)
                    raise RunFailed(self._errors.read().decode().strip() or "the load client ended")
                self._unread += read
            meanwhile()
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()

    def phase(self, expected: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until it says that it is so far. Raises RunFailed."""
        if (line := self.line(meanwhile)) != expected:
            raise RunFailed(f"the load client said {line!r} instead of {expected!r}")


def run(
    peer: Peer,
    server: Server,
    load: Load,
    *,
    tolerant: bool = False,
    on_connected: Callable[[], None] = lambda: None,
    on_measured: Callable[[], None] = lambda: None,
) -> Figures:
    """Put the load on the server. Raises RunFailed.

    `on_connected` is called when all subscribers are connected and nothing has been published yet, `on_measured` while
    they are still connected. With `tolerant`, streams that could not be opened are figures; else the run has failed.
    """
    seen = server.usage
    peak = 0

    def look() -> None:
        nonlocal peak
        peak = max(peak, seen().resident_bytes)

    limit_s = load.connect_deadline + load.warmup + load.seconds + EXTRA_S
    before = seen()
    with Client(load.arguments(peer, server.port), limit_s) as client:
        client.phase("connected")
        # Not `connected` itself: that may come before the server has done all that belongs to the last connection.
        time.sleep(SETTLE_S)
        connected = measuring = measured = seen()
        busy_before = busy_after = 0.0
        on_connected()
        client.go_on()
        if load.seconds:
            client.phase("measuring", look)
            busy_before, measuring = busy_s(), seen()
            client.phase("measured", look)
            busy_after, measured = busy_s(), seen()
            on_measured()
        figures = json.loads(client.line(look))
        after = seen()
    if figures["connected"] < load.subscribers and not tolerant:
        refused = f"{figures['refused']} refused, {figures['broken']} broken"
        raise RunFailed(f"only {figures['connected']} of {load.subscribers} connected ({refused})")
    if figures["publish_errors"]:
        raise RunFailed(f"{figures['publish_errors']} publications were refused")
    cores = len({SERVER_CORE, CLIENT_CORE})
    own_s = measured.cpu_s - measuring.cpu_s + figures["client_cpu_s"]
    elapsed_s = measured.at - measuring.at
    others = max(0.0, busy_after - busy_before - own_s) / elapsed_s / cores if elapsed_s else 0.0
    return Figures(figures, before, connected, measuring, measured, after, max(peak, after.resident_bytes), others)
