"""A real TaskHub server process: started, waited for, stopped, killed and started again on the same port and data."""

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.e2e.harness.waiting import DEADLINE_S, until
from tests.forked import ForkedPython, run_forked
from tests.migrated import migrated_file

ROOT: Final = Path(__file__).resolve().parents[3]


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without settings of TaskHub that the developer may have set, plus `extra`."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TASKHUB_", "MCP_")) and name not in ("PORT", "K_SERVICE")
    }
    return kept | {"PYTHONUNBUFFERED": "1", "NO_COLOR": "1"} | dict(extra or {})


class TaskHubProcess:
    """`taskhub serve` with a data directory of its own.

    The first start takes a free port, later ones the same. Everything printed goes to `log`, shown when a test fails.
    The server is forked from a process that has imported it, and finds a database that has been migrated, unless it
    reloads or the `checkout` is another one.
    `command` starts the server in another way; the port is read from the data directory then too.
    """

    def __init__(
        self,
        data_dir: Path,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        checkout: Path = ROOT,
        reload: bool = False,
        command: Sequence[str] = (),
        name: str = "taskhub",
    ) -> None:
        self.name = name
        self.data_dir = data_dir
        self.checkout = checkout
        self.port = 0
        self.process: subprocess.Popen[bytes] | ForkedPython | None = None
        self._forked = not command and not reload and checkout == ROOT
        self._command = command
        self._arguments = ("--reload" if reload else "--no-reload", *arguments)
        self._environment = clean_environment({"TASKHUB_DATA_DIR": str(data_dir), **(environment or {})})
        self._log_path = data_dir.parent / f"{data_dir.name}.log"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.process is not None, "not started"
        return self.process.pid

    @property
    def environment(self) -> dict[str, str]:
        """What the server was started with; for other commands on the same data."""
        return dict(self._environment)

    @property
    def log(self) -> str:
        """Everything that the process, and its predecessors on this data, printed."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def memory_bytes(self) -> int:
        """Resident memory of the process that serves (with reload, of all its processes)."""
        own = psutil.Process(self.pid)
        return sum(p.memory_info().rss for p in [own, *own.children(recursive=True)])

    def configure(self, **settings: str) -> None:
        """Settings for the starts that follow, such as `failpoints="…"`; an empty one has its default again."""
        self._environment |= {f"TASKHUB_{name.upper()}": value for name, value in settings.items()}

    def launch(self) -> None:
        """Start the process without waiting for it."""
        assert not self.running, "already running"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        database = self.data_dir / "taskhub.db"
        if self._forked and "TASKHUB_DATABASE_URL" not in self._environment and not database.exists():
            shutil.copy(migrated_file(), database)
        arguments = ["-m", "taskhub", "serve", "--port", str(self.port), *self._arguments]
        with self._log_path.open("ab") as log, open(os.devnull) as nothing:
            if self._forked:
                self.process = ForkedPython(
                    *arguments,
                    environment=self._environment,
                    stdin=nothing.fileno(),
                    stdout=log.fileno(),
                    stderr=log.fileno(),
                )
                return
            self.process = subprocess.Popen(
                self._command or [sys.executable, *arguments],
                cwd=self.checkout,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def start(self, deadline_s: float = DEADLINE_S) -> "TaskHubProcess":
        """Start the process and wait until it is ready."""
        self.launch()
        await until(self._answers, "a ready server", deadline_s, explain=lambda: self.log[-4000:])
        return self

    def _answers(self) -> bool:
        if not self.running:
            raise AssertionError(f"{self.name} exited with {self.process and self.process.returncode}\n{self.log}")
        if not self.port:
            # The kernel chose the port; the server writes down which.
            try:
                self.port = int(json.loads((self.data_dir / "server.json").read_text())["url"].rpartition(":")[2])
            except FileNotFoundError:
                return False
        return self.status("/readyz") == 200

    def status(self, path: str) -> int | None:
        """The status of a GET, None when nobody answers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except OSError:
            return None
        finally:
            connection.close()

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send a signal to the process, as a service manager does."""
        assert self.process is not None
        self.process.send_signal(number)

    async def wait_exit(self, deadline_s: float = DEADLINE_S) -> int:
        """Wait for the process to end; return its exit status."""
        assert self.process is not None
        process = self.process
        await until(lambda: process.poll() is not None, "exit", deadline_s, explain=lambda: self.log[-4000:])
        return process.wait(0)

    async def stop(self) -> int:
        """SIGTERM, then wait."""
        self.signal(signal.SIGTERM)
        return await self.wait_exit()

    async def kill(self) -> None:
        """kill -9, the whole process group: nothing gets a chance to tidy up."""
        os.killpg(self.pid, signal.SIGKILL)
        await self.wait_exit()

    async def restart(self) -> None:
        """Start again on the same data and port."""
        assert not self.running
        await self.start()

    def dispose(self) -> None:
        """End whatever is left, for the end of a test."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(DEADLINE_S)


async def run_command(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    deadline_s: float = 2 * DEADLINE_S,
    status: int | None = 0,
) -> str:
    """Run a program to its end and return its standard output. Fails unless it exits with `status` (None: any)."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        env=clean_environment(environment),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(deadline_s):
            output, errors = await process.communicate()
    except TimeoutError:
        raise AssertionError(f"{' '.join(arguments)} did not end within {deadline_s} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if status is not None and process.returncode != status:
        raise AssertionError(
            f"{' '.join(arguments)} exited with {process.returncode}\n{output.decode()}\n{errors.decode()}"
        )
    return output.decode()


async def run_taskhub(*arguments: str, environment: Mapping[str, str] | None = None, status: int = 0) -> str:
    """As `run_command`, for a command of `taskhub`, forked as servers are."""
    done = await asyncio.to_thread(run_forked, "-m", "taskhub", *arguments, environment=clean_environment(environment))
    if done.returncode != status:
        said = (done.stdout + b"\n" + done.stderr).decode()
        raise AssertionError(f"taskhub {' '.join(arguments)} exited with {done.returncode}\n{said}")
    return done.stdout.decode()
