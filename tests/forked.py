"""Python processes forked from one that has imported TaskHub: they start in milliseconds, while imports take seconds.

In all that tests look at, such a process is one that was started anew: it has its own environment, directory, session
and exit status, and can be stopped and killed. That TaskHub can be started at all is tested where it is started anew.
"""

import asyncio
import contextlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from multiprocessing import reduction
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any, Final

# What the processes need sooner or later. None of it starts a thread or an event loop, which a fork would break.
PRELOADED: Final = (
    "alembic.command",
    "asyncpg",
    "broadcaster.redis_relay",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.dialects.sqlite",
    "sqlalchemy.ext.asyncio",
    "taskhub.app",
    "taskhub.cli.backup",
    "taskhub.cli.doctor",
    "taskhub.cli.restore",
    "taskhub.cli.serve",
    "taskhub.cli.stdio",
    "taskhub.mcp.host",
    "taskhub.serve",
    "tests.taskhub.world",
    "uvloop",
    "tests.frozen",
)
_ROOT: Final = Path(__file__).resolve().parents[1]
_DEADLINE_S: Final = 60.0


def forks() -> ForkServerContext:
    """Processes of `multiprocessing`, forked from one that has imported TaskHub: one for all tests of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    return context


class ForkedPython:
    """`python ARGUMENTS…`, where those begin with `-m MODULE` or `-c PROGRAM`; used as subprocess.Popen is.

    It has a session of its own, has begun and gets signals once this returns; the caller must see that it ends. The
    descriptors remain the caller's to close.
    """

    def __init__(
        self,
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        cwd: Path = _ROOT,
        stdin: int,
        stdout: int,
        stderr: int,
    ) -> None:
        context = forks()
        begun, its_end = context.Pipe(duplex=False)
        descriptors = [_Descriptor(number) for number in (stdin, stdout, stderr)]
        with begun, its_end:
            self._process: ForkServerProcess = context.Process(
                target=_python,
                args=(arguments, dict(os.environ if environment is None else environment), cwd, descriptors, its_end),
            )
            self._process.start()
            its_end.close()
            assert begun.poll(_DEADLINE_S), "the process does not begin"
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, or -N after signal N; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = _DEADLINE_S) -> int:
        """Raises subprocess.TimeoutExpired."""
        self._process.join(timeout)
        if (status := self._process.exitcode) is None:
            raise subprocess.TimeoutExpired(f"forked process {self.pid}", timeout)
        return status

    def send_signal(self, number: signal.Signals) -> None:
        """Nothing happens when it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


def run_forked(
    *arguments: str, environment: Mapping[str, str] | None = None, given: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """Run `python ARGUMENTS…` to its end, with `given` as its standard input. Not to be called on an event loop."""
    with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        stdin.write(given)
        stdin.seek(0)
        process = ForkedPython(
            *arguments, environment=environment,
            stdin=stdin.fileno(), stdout=stdout.fileno(), stderr=stderr.fileno(),
        )  # fmt: skip
        try:
            status = process.wait()
        finally:
            process.send_signal(signal.SIGKILL)
        for file in (stdout, stderr):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, status, stdout.read(), stderr.read())


class PipedPython:
    """A forked process and the ends of its pipes; used as asyncio.subprocess.Process is."""

    def __init__(
        self,
        process: ForkedPython,
        stdin: asyncio.StreamWriter,
        stdout: asyncio.StreamReader,
        stderr: asyncio.StreamReader,
    ) -> None:
        self.stdin = stdin
        self.stdout = stdout
        self.stderr = stderr
        self.send_signal = process.send_signal
        self._process = process

    @property
    def returncode(self) -> int | None:
        return self._process.returncode

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        return await asyncio.to_thread(self._process.wait)

    async def communicate(self) -> tuple[bytes, bytes]:
        """Close its input; what it still prints, and prints as errors, until it has ended."""
        self.stdin.close()
        output, errors = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return output, errors


@contextlib.asynccontextmanager
async def piped(
    *arguments: str, environment: Mapping[str, str] | None = None, cwd: Path = _ROOT
) -> AsyncIterator[PipedPython]:
    """`python ARGUMENTS…` with pipes to and from it; killed at the end of the block."""
    pipes = [os.pipe() for _ in range(3)]
    (its_stdin, stdin), (stdout, its_stdout), (stderr, its_stderr) = pipes
    loop = asyncio.get_running_loop()
    async with contextlib.AsyncExitStack() as stack:
        try:
            process = await asyncio.to_thread(
                ForkedPython, *arguments, environment=environment, cwd=cwd,
                stdin=its_stdin, stdout=its_stdout, stderr=its_stderr,
            )  # fmt: skip
        finally:
            for number in (its_stdin, its_stdout, its_stderr):
                os.close(number)
        readers = []
        for number in (stdout, stderr):
            reader = asyncio.StreamReader()
            protocol = partial(asyncio.StreamReaderProtocol, reader)
            transport, _ = await loop.connect_read_pipe(protocol, os.fdopen(number, "rb", 0))
            stack.callback(transport.close)
            readers.append(reader)
        output, flow = await loop.connect_write_pipe(asyncio.streams.FlowControlMixin, os.fdopen(stdin, "wb", 0))
        writer = asyncio.StreamWriter(output, flow, None, loop)
        stack.callback(writer.close)
        try:
            yield PipedPython(process, writer, *readers)
        finally:
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.wait)


class _Descriptor:
    """A file descriptor that becomes one of the process it is sent to."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return _Descriptor._received, (reduction.DupFd(self.number),)

    @staticmethod
    def _received(sent: Any) -> "_Descriptor":
        return _Descriptor(sent.detach())


def _python(
    arguments: Sequence[str],
    environment: dict[str, str],
    cwd: Path,
    descriptors: Sequence[_Descriptor],
    begun: Connection,
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.stdin.close()
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor.number, number)
        os.close(descriptor.number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    # Line by line: what a killed process printed is there.
    sys.stdout = open(1, "w", buffering=1, encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    begun.close()
    kind, program, *rest = arguments
    sys.argv = [kind, *rest]
    try:
        if kind == "-m":
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        else:
            exec(program, {"__name__": "__main__"})
    except Exception:
        traceback.print_exc()  # as Python does, not as `multiprocessing` does
        sys.exit(1)
