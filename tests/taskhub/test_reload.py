"""The development supervisor: a change is taken over without a gap, and a mistake is not taken over at all."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from taskhub import server_file
from taskhub.listening import listen
from taskhub.processes import Processes, server_command
from taskhub.reload import Supervisor, syntax_problem
from tests.e2e.harness.process import ROOT, TaskHubProcess

DEADLINE_S = 60.0


class Supervised:
    """A supervisor in this process over `fake_server.py`, which answers what `source` says."""

    def __init__(self, directory: Path) -> None:
        self.watched = directory / "watched"
        self.watched.mkdir()
        self.source = self.watched / "source.py"
        self.log = directory / "log"
        self.said: list[str] = []
        self._socket = listen("127.0.0.1", 0, move_on=False)
        self.processes: Processes | None = None
        self.running: asyncio.Task[int] | None = None

    def start(self, text: str) -> None:
        self.source.write_text(text)
        fake = str(ROOT / "tests/taskhub/fake_server.py")
        command = [sys.executable, fake, str(self.source), str(self.log)]
        self.processes = Processes(command, stop_timeout_s=DEADLINE_S, start_timeout_s=DEADLINE_S)
        supervisor = Supervisor(self.processes, self._socket, [self.watched], say=self.said.append)
        self.running = asyncio.create_task(supervisor.run())

    async def ask(self, word: str = "") -> str:
        """The answer of whoever accepts the connection; empty when it ends without one."""
        reader, writer = await asyncio.open_connection(*self._socket.getsockname())
        writer.write(word.encode() + b"\n")
        try:
            return (await asyncio.wait_for(reader.read(), DEADLINE_S)).decode()
        except ConnectionError:
            return ""
        finally:
            writer.close()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def until_answered(self, text: str) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while await self.ask() != text:
                await asyncio.sleep(0.01)

    def has_said(self, text: str) -> Callable[[], bool]:
        return lambda: any(text in line for line in self.said)

    async def stop(self) -> int:
        assert self.running is not None
        os.kill(os.getpid(), signal.SIGTERM)
        return await asyncio.wait_for(self.running, DEADLINE_S)

    async def close(self) -> None:
        if self.running is not None and not self.running.done():
            await self.stop()
        self._socket.close()


@pytest.fixture
async def supervised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervised]:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    others = set(psutil.Process().children())
    supervised = Supervised(tmp_path)
    yield supervised
    await supervised.close()
    assert set(psutil.Process().children()) <= others


async def test_a_change_is_taken_over_and_only_then_the_old_process_is_told_to_leave(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")

    supervised.source.write_text("'serve' # two")
    await supervised.until_answered("'serve' # two")
    await supervised.until(lambda: supervised.log.exists() and supervised.log.read_text().endswith("\n"))

    assert supervised.log.read_text() == "first one reload\n"
    assert await supervised.stop() == 0
    assert supervised.log.read_text() == "first one reload\nagain two signal\n"


async def test_no_connection_is_refused_while_processes_change(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")
    supervised.source.write_text("'serve' # two")

    while (answer := await supervised.ask()) != "'serve' # two":
        # An answer may be missing (the old process had accepted and ended), but a connection is never refused.
        assert answer in ("'serve' # one", "")


async def test_a_syntax_error_is_explained_and_the_old_process_keeps_serving(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")

    supervised.source.write_text("'serve' \n def broken(: # two")
    await supervised.until(supervised.has_said("keeps serving"))

    assert "source.py line 2" in supervised.said[-1]
    assert await supervised.ask() == "'serve' # one"


async def test_a_process_that_cannot_start_is_explained_and_the_old_one_keeps_serving(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")

    supervised.source.write_text("fail")
    await supervised.until(supervised.has_said("keeps serving"))
    assert supervised.has_said("it could not start: it was told to")()
    assert await supervised.ask() == "'serve' # one"

    supervised.source.write_text("'serve' # three")
    await supervised.until_answered("'serve' # three")


async def test_a_process_that_never_gets_ready_is_given_up(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")
    assert supervised.processes is not None
    supervised.processes._start_timeout_s = 0.5  # it may have taken the first process longer to get ready

    supervised.source.write_text("hang")
    await supervised.until(supervised.has_said("keeps serving"))

    assert supervised.has_said("it was not ready within")()
    assert await supervised.ask() == "'serve' # one"


async def test_a_first_process_that_cannot_start_ends_the_supervisor_with_a_failure(supervised: Supervised) -> None:
    supervised.start("crash")
    assert supervised.running is not None

    assert await asyncio.wait_for(supervised.running, DEADLINE_S) == 1


async def test_a_first_process_that_cannot_start_for_another_reason_ends_the_supervisor(supervised: Supervised) -> None:
    supervised.start("fail")
    assert supervised.running is not None

    assert await asyncio.wait_for(supervised.running, DEADLINE_S) == 1


@pytest.mark.parametrize(
    ("text", "said"), [("broken", "line 7 of it"), ("crash \n def broken(:", "source.py line 2: ")]
)
async def test_a_first_process_that_fails_on_its_source_is_started_by_the_next_change(
    supervised: Supervised, text: str, said: str
) -> None:
    supervised.start(text)
    await supervised.until(supervised.has_said("the next change starts it"))
    assert said in supervised.said[-2]

    supervised.source.write_text("'serve' # two")
    await supervised.until_answered("'serve' # two")

    assert await supervised.stop() == 0
    assert supervised.log.read_text() == "first two signal\n"


async def test_a_server_that_ends_by_itself_ends_the_supervisor(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")

    await supervised.ask("exit")

    assert supervised.running is not None
    assert await asyncio.wait_for(supervised.running, DEADLINE_S) == 0


async def test_a_server_that_dies_is_started_again_by_the_next_change(supervised: Supervised) -> None:
    supervised.start("'serve' # one")
    await supervised.until_answered("'serve' # one")

    await supervised.ask("die")
    await supervised.until(supervised.has_said("ended unexpectedly (exit status 4)"))
    supervised.source.write_text("'serve' # two")

    await supervised.until_answered("'serve' # two")


async def test_a_supervisor_that_is_killed_takes_the_server_with_it(tmp_path: Path) -> None:
    hub = TaskHubProcess(tmp_path / "data", reload=True)
    try:
        await hub.start()
        running = server_file.read(hub.data_dir)
        assert running is not None
        assert running.pid != hub.pid
        server = psutil.Process(running.pid)

        hub.signal(signal.SIGKILL)
        await asyncio.to_thread(server.wait, DEADLINE_S)

        assert server_file.read(hub.data_dir) is None
    finally:
        hub.dispose()


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("good.py", "x = 1\n", None),
        ("bad.py", "x = 1\ny = (\n", "bad.py line 2: '(' was never closed"),
        ("zero.py", "x = '\0'\n", "zero.py"),
        ("good.toml", "port = 1\n", None),
        ("bad.toml", "port 1\n", "bad.toml: "),
    ],
)
def test_a_syntax_problem_is_named_with_its_place(tmp_path: Path, name: str, text: str, problem: str | None) -> None:
    (tmp_path / name).write_text(text)

    found = syntax_problem(tmp_path / name)

    assert found == problem if problem is None else problem in str(found)


def test_a_file_that_is_gone_is_no_problem(tmp_path: Path) -> None:
    assert syntax_problem(tmp_path / "gone.py") is None


def test_a_successor_imports_nothing_of_the_directory_it_is_started_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "routes.py").write_text("raise RuntimeError('the routes of another program')")
    monkeypatch.chdir(tmp_path)
    *python, _, _ = server_command([])

    done = subprocess.run(
        [*python, "-c", "import routes"], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
