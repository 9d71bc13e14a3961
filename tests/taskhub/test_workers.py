"""The supervisor of several workers: each is kept running and replaced in turn, and nobody is refused meanwhile."""

import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from taskhub.listening import listen, share
from taskhub.processes import Processes
from taskhub.workers import MAX_FAILURES, Workers
from tests.e2e.harness.process import ROOT
from tests.e2e.harness.waiting import until

DEADLINE_S = 30.0
COUNT = 2


class Crew:
    """A supervisor in this process over `fake_server.py` workers, which answer what `source` says."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "source"
        self.log = directory / "log"
        self.sockets = share(listen("127.0.0.1", 0, move_on=False), COUNT)
        self.became_ready = 0
        self.running: asyncio.Task[int] | None = None
        self._others: set[int] = set()
        self._others = self.pids()  # such as a database server that other tests share

    def start(self, text: str, *, stop_timeout_s: float = DEADLINE_S, steady_s: float = 0.0) -> "asyncio.Task[int]":
        self.source.write_text(text)
        fake = str(ROOT / "tests/taskhub/fake_server.py")
        command = [sys.executable, fake, str(self.source), str(self.log)]
        workers = Workers(
            Processes(command, stop_timeout_s=stop_timeout_s),
            self.sockets,
            on_ready=self._ready,
            min_backoff_s=0.01,
            steady_s=steady_s,
        )
        self.running = asyncio.create_task(workers.run())
        return self.running

    def _ready(self) -> None:
        self.became_ready += 1

    async def ready(self) -> None:
        await until(lambda: self.became_ready, "workers that are ready", DEADLINE_S)

    def pids(self) -> set[int]:
        children = psutil.Process().children()
        return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE} - self._others

    async def ask(self, word: str = "") -> str:
        """The answer of whichever worker accepts the connection; empty when it ends without one."""
        reader, writer = await asyncio.open_connection(*self.sockets[0].getsockname())
        try:
            writer.write(word.encode() + b"\n")
            return (await asyncio.wait_for(reader.read(), DEADLINE_S)).decode()
        except ConnectionError:
            return ""
        finally:
            writer.close()

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        assert self.running is not None
        os.kill(os.getpid(), number)
        return await asyncio.wait_for(self.running, DEADLINE_S)

    def lives(self) -> list[str]:
        """What each worker that left was told, with what it served."""
        return sorted(self.log.read_text().splitlines()) if self.log.exists() else []


@pytest.fixture
async def crew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Crew]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    crew = Crew(tmp_path)
    yield crew
    if crew.running is not None and not crew.running.done():
        await crew.end()
    for sock in crew.sockets:
        sock.close()
    assert crew.pids() == set()


async def test_all_workers_serve_and_all_are_told_to_end(crew: Crew) -> None:
    crew.start("'serve' # one")
    await crew.ready()

    assert {await crew.ask() for _ in range(20)} == {"'serve' # one"}
    assert len(crew.pids()) == COUNT
    assert await crew.end() == 0
    assert crew.became_ready == 1
    assert crew.lives() == ["worker one signal"] * COUNT


async def test_a_worker_that_dies_is_replaced_and_who_waits_for_it_is_served(crew: Crew) -> None:
    crew.start("'serve' # one")
    await crew.ready()

    for _ in range(MAX_FAILURES + 1):  # more often than a worker may fail in a row: each had been steady
        await crew.ask("die")

        # About half of these wait at the dead worker's socket.
        assert await asyncio.gather(*(crew.ask() for _ in range(20))) == ["'serve' # one"] * 20

    assert await crew.end() == 0


async def test_a_first_worker_that_cannot_start_is_the_only_one_that_is_tried(
    crew: Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    running = crew.start("fail")

    assert await asyncio.wait_for(running, DEADLINE_S) == 1
    assert crew.became_ready == 0
    assert capfd.readouterr().out.count("it was told to") == 1


async def test_a_worker_that_fails_again_and_again_ends_all_with_a_failure(
    crew: Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    running = crew.start("'serve' # one")
    await crew.ready()
    crew.source.write_text("crash")
    await crew.ask("die")

    assert await asyncio.wait_for(running, DEADLINE_S) == 1
    assert crew.lives() == ["worker one signal"] * (COUNT - 1)
    assert f"failed {MAX_FAILURES} times in a row, at last with: exit status 3" in capfd.readouterr().out


async def test_workers_that_die_soon_after_each_start_count_as_failing(crew: Crew) -> None:
    running = crew.start("'serve' # one", steady_s=DEADLINE_S)
    await crew.ready()

    async def kill_all_the_time() -> None:
        while True:
            await crew.ask("die")

    killing = asyncio.create_task(kill_all_the_time())
    assert await asyncio.wait_for(running, DEADLINE_S) == 1
    killing.cancel()
    await asyncio.gather(killing, return_exceptions=True)


async def test_a_process_that_cannot_be_made_for_the_moment_is_tried_again_and_ends_nobody(
    crew: Crew, monkeypatch: pytest.MonkeyPatch
) -> None:
    crew.start("'serve' # one")
    await crew.ready()
    make, refused = asyncio.create_subprocess_exec, 0

    async def refuse_once(*command: str, **options: Any) -> asyncio.subprocess.Process:
        nonlocal refused
        if not refused:
            refused += 1
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return await make(*command, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refuse_once)
    await crew.ask("die")

    assert await asyncio.gather(*(crew.ask() for _ in range(20))) == ["'serve' # one"] * 20
    assert refused == 1
    assert await crew.end() == 0


async def test_sighup_replaces_every_worker_and_no_connection_is_refused(crew: Crew) -> None:
    crew.start("'serve' # one")
    await crew.ready()
    before = crew.pids()
    crew.source.write_text("'serve' # two")

    os.kill(os.getpid(), signal.SIGHUP)
    while len(crew.lives()) < COUNT:
        # An answer may be missing (an old process had accepted and ended), but a connection is never refused.
        assert await crew.ask() in ("'serve' # one", "'serve' # two", "")

    assert {await crew.ask() for _ in range(20)} == {"'serve' # two"}
    await until(lambda: not crew.pids() & before, "end of the replaced", DEADLINE_S)
    assert crew.lives() == ["worker one reload"] * COUNT
    assert await crew.end() == 0
    assert crew.lives() == ["worker one reload"] * COUNT + ["worker two signal"] * COUNT


async def test_a_successor_that_cannot_start_leaves_every_worker_where_it_is(
    crew: Crew, capfd: pytest.CaptureFixture[str]
) -> None:
    crew.start("'serve' # one")
    await crew.ready()
    before = crew.pids()
    crew.source.write_text("fail")
    printed = ""

    def refused() -> bool:
        nonlocal printed
        printed += capfd.readouterr().out
        return "the previous ones keep serving" in printed

    os.kill(os.getpid(), signal.SIGHUP)
    await until(refused, "refusal", DEADLINE_S)

    assert crew.pids() == before
    assert {await crew.ask() for _ in range(20)} == {"'serve' # one"}
    crew.source.write_text("'serve' # two")
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: crew.lives() == ["worker one reload"] * COUNT, "replacement", DEADLINE_S)


async def test_a_worker_that_does_not_leave_is_ended_by_force_and_the_status_says_so(crew: Crew) -> None:
    crew.start("stubborn", stop_timeout_s=0.2)
    await crew.ready()

    assert await crew.end() == 1


async def test_a_second_signal_ends_all_at_once(crew: Crew) -> None:
    running = crew.start("stubborn", stop_timeout_s=600)
    await crew.ready()

    os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)

    assert await asyncio.wait_for(running, DEADLINE_S) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not spread connections")
def test_connections_are_spread_over_shared_sockets_and_nobody_else_gets_any() -> None:
    sockets = share(listen("127.0.0.1", 0, move_on=False), 2)
    clients: list[socket.socket] = []
    try:
        clients += [socket.create_connection(sockets[0].getsockname(), timeout=10) for _ in range(200)]
        taken = []
        for sock in sockets:
            count = 0
            while True:
                try:
                    sock.accept()[0].close()
                except BlockingIOError:
                    break
                count += 1
            taken.append(count)

        assert sum(taken) == 200
        assert min(taken) > 50
        with pytest.raises(OSError, match="in use"):
            socket.create_server(sockets[0].getsockname())
    finally:
        for sock in (*sockets, *clients):
            sock.close()
