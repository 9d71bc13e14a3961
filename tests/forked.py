"""Processes forked from one that has imported TaskHub already: they start in milliseconds, while imports take seconds.

In all that tests look at, such a process is one that was started anew: it has its own environment, directory, session
and exit status, and can be stopped and killed. That TaskHub can be started at all is tested where it is started anew.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Final

# What the processes need sooner or later. None of it starts a thread or an event loop, which a fork would break.
PRELOADED: Final = (
    "alembic.command",
    "asyncpg",
    "broadcaster.redis_relay",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.ext.asyncio",
    "taskhub.app",
    "taskhub.cli.serve",
    "taskhub.serve",
    "taskhub.storage.restore",
    "uvloop",
)
_DEADLINE_S: Final = 60.0


def forks() -> ForkServerContext:
    """Processes of `multiprocessing`, forked from one that has imported TaskHub: one for all tests of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


class ForkedProcess:
    """A command of `taskhub` in a process and a session of its own; used as subprocess.Popen is.

    `output` takes what it prints, `errors` what it prints as errors (the same when None). It has started, and can get
    signals, once this returns. The caller must see that it ends.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        cwd: Path,
        output: Path,
        errors: Path | None = None,
    ) -> None:
        context = forks()
        begun, its_end = context.Pipe(duplex=False)
        with begun, its_end:
            self._process: ForkServerProcess = context.Process(
                target=_taskhub, args=(list(arguments), dict(environment), cwd, output, errors, its_end)
            )
            self._process.start()
            its_end.close()
            assert begun.poll(_DEADLINE_S), "the process does not begin"
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or -N after signal N; None while it runs, as far as one has asked."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(f"taskhub, process {self.pid}", timeout)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def _taskhub(
    arguments: list[str], environment: dict[str, str], cwd: Path, output: Path, errors: Path | None, begun: Connection
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    _print_to(1, output)
    if errors is None:
        os.dup2(1, 2)
    else:
        _print_to(2, errors)
    # As with PYTHONUNBUFFERED: what a killed process printed is there.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = ["taskhub", *arguments]
    begun.close()
    from taskhub.__main__ import main

    sys.exit(main())


def _print_to(descriptor: int, path: Path) -> None:
    with path.open("ab") as file:
        os.dup2(file.fileno(), descriptor)
