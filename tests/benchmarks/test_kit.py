"""The benchmark kit works, and sees what it is there to see. How fast anything is, no test says."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import psutil
import pytest

from tests.benchmarks.load import Client, Load
from tests.benchmarks.peers import Peer, TaskHub
from tests.benchmarks.processes import DidNotStart, Server, unused_port
from tests.benchmarks.programs import FLAGS, HERE, SOURCES
from tests.benchmarks.scenario import RATE, Outcome, Scenario
from tests.benchmarks.targets import Target

ROOT: Final = HERE.parents[1]
KIT: Final = (sys.executable, "-m", "tests.benchmarks")
DEADLINE_S: Final = 240.0

Found = TypeVar("Found")
Mischief = Callable[[list[bytes]], list[bytes]]


@pytest.mark.parametrize("program", SOURCES)
def test_the_c_programs_compile_without_a_warning(program: str, tmp_path: Path) -> None:
    sources = [str(HERE / name) for name in SOURCES[program] if name.endswith(".c")]

    subprocess.run(["gcc", *FLAGS, "-Werror", "-o", str(tmp_path / program), *sources], check=True)


def test_a_small_run_measures_the_limit_and_taskhub(tmp_path: Path) -> None:
    as_json, as_markdown = tmp_path / "figures.json", tmp_path / "figures.md"
    variants = "c-one,c-coalesced,naive,taskhub,taskhub stored"
    wanted = ("--only", "smoke", "--reps", "1", "--variants", variants)

    subprocess.run(
        [*KIT, *wanted, "--json", str(as_json), "--markdown", str(as_markdown)],
        cwd=ROOT,
        check=True,
        timeout=DEADLINE_S,
    )

    smoke = json.loads(as_json.read_text())["scenarios"]["smoke"]
    assert smoke["failures"] == {}
    assert set(smoke["runs"]) == set(variants.split(","))
    for (run,) in smoke["runs"].values():
        assert run["deliveries_per_s"] > 0
        assert run["cpu_us_per_delivery"] > 0
        assert (run["lost"], run["repeated"], run["skipped"]) == (0, 0, 0)
    assert "| taskhub stored |" in as_markdown.read_text()


def test_an_interrupted_run_leaves_no_process_behind() -> None:
    kit = subprocess.Popen([*KIT, "--only", "light", "--variants", "taskhub"], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        # Both: the server, and the load client on it.
        children = until(lambda: found if len(found := psutil.Process(kit.pid).children(recursive=True)) > 1 else None)

        kit.send_signal(signal.SIGINT)

        assert kit.wait(DEADLINE_S) == 130
        assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    finally:
        kit.kill()
        kit.wait()


def test_a_server_that_does_not_start_is_reported_with_what_it_printed() -> None:
    command = [sys.executable, "-c", "raise SystemExit('the disk is full')"]
    server = Server(command, unused_port(), environment=os.environ, ready=lambda _: False)

    with pytest.raises(DidNotStart, match="the disk is full"), server:
        pass


# --- the load client's eyes ---


class Raw(Peer):
    """A server that takes bare JSON objects."""

    name = "mischief"

    def serve(self) -> None:  # type: ignore[override]  # started by the test
        raise NotImplementedError


class Mischievous(socketserver.ThreadingTCPServer):
    """Sends what is published to its streams, after doing something to it: `mischief` maps frames to frames."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, mischief: Mischief) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.mischief = mischief
        self.streams: list[socketserver.StreamRequestHandler] = []
        self.lock = threading.Lock()
        self.closing = threading.Event()

    def send(self, body: bytes) -> None:
        frames = self.mischief([b"data: " + line + b"\n\n" for line in body.splitlines()])
        with self.lock:
            for stream in self.streams:
                stream.wfile.write(b"".join(frames))


class Handler(socketserver.StreamRequestHandler):
    server: Mischievous

    def handle(self) -> None:
        while head := self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()).strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            if head.startswith(b"GET"):
                with self.server.lock:
                    self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
                    self.server.streams.append(self)
                self.server.closing.wait()
                return
            self.server.send(self.rfile.read(length))
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


def nothing(frames: list[bytes]) -> list[bytes]:
    return frames


def lose_one(frames: list[bytes]) -> list[bytes]:
    return frames[:1] + frames[2:]


def repeat_one(frames: list[bytes]) -> list[bytes]:
    return frames[:2] + frames[1:]


def swap_two(frames: list[bytes]) -> list[bytes]:
    return [frames[1], frames[0], *frames[2:]]


@pytest.fixture
def client_figures() -> Iterator[Callable[[Mischief], dict[str, float]]]:
    """What the load client says of three subscribers of a server that does this mischief to each batch of four."""
    servers: list[Mischievous] = []

    def measure(mischief: Mischief) -> dict[str, float]:
        server = Mischievous(mischief)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        load = Load(3, rate=80, batch=4, seconds=0.5, warmup=0)
        with Client(load.arguments(Raw(), server.server_address[1]), DEADLINE_S) as client:
            client.phase("connected")
            client.go_on()
            client.phase("measuring")
            client.phase("measured")
            figures: dict[str, float] = json.loads(client.line())
        return figures

    yield measure
    for server in servers:
        server.closing.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("mischief", "lost", "repeated", "skipped"),
    [(nothing, 0, 0, 0), (lose_one, 1, 0, 1), (swap_two, 0, 1, 1)],
)
def test_the_load_client_sees_every_event_that_is_lost_or_swapped(
    client_figures: Callable[[Mischief], dict[str, float]], mischief: Mischief, lost: int, repeated: int, skipped: int
) -> None:
    figures = client_figures(mischief)

    batches = figures["published_in_all"] / 4 * 3  # each of which reaches three subscribers
    assert batches > 0
    assert figures["undelivered"] == lost * batches
    assert figures["repeated"] == repeated * batches
    # Of a batch that begins with its second event, the first batch shows no gap: nothing came before.
    assert 0 <= skipped * batches - figures["skipped"] <= 3


def test_the_load_client_sees_events_that_are_repeated(client_figures: Callable[[Mischief], dict[str, float]]) -> None:
    figures = client_figures(repeat_one)

    # It waits for no more deliveries than it expects: the last of those that come twice may come after that.
    assert figures["repeated"] > 0
    assert figures["undelivered"] < 0


# --- what is made of the figures ---


def test_a_target_is_judged_by_the_ratio_of_medians() -> None:
    outcome = Outcome(Scenario("sat", "", [RATE], []))
    outcome.runs = {
        "taskhub": [{"deliveries_per_s": value} for value in (90.0, 100.0, 900.0)],
        "nchan": [{"deliveries_per_s": value} for value in (1.0, 10.0, 11.0)],
    }
    target = Target("", "sat", RATE, at_least=10, beside="nchan", variants=("taskhub", "taskhub stored"))

    taskhub, stored = target.judge({"sat": outcome})

    assert (taskhub.value, taskhub.met) == (10, True)
    assert (stored.value, stored.met) == (None, None)


def test_taskhub_is_measured_with_authorisation() -> None:
    assert "X-API-Key" in TaskHub().headers


def until(look: Callable[[], Found | None]) -> Found:
    """What `look` finds, once it finds something."""
    deadline = time.monotonic() + DEADLINE_S
    while (found := look()) is None:
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
    return found
