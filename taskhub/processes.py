"""Server processes under a supervisor: each is started on an inherited socket, and led over a line of its own."""

import asyncio
import contextlib
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

START_TIMEOUT_S: Final = 30.0

Turn = Literal["first", "again", "worker"]
"""What a process is started as: alone and the first one (it prints the banner), alone and a successor, one of many."""


@dataclass(frozen=True, slots=True)
class Place:
    """A worker's place: its number, from 1, among so many `workers` of the `group`, which no other supervisor has."""

    number: int
    workers: int
    group: str


class NotStarted(Exception):
    """A process did not get so far that it accepts connections; the message says why.

    `broken` when a mistake in the source is to blame, as far as the process could tell; `stopping` when the supervisor
    was told to stop meanwhile.
    """

    def __init__(self, reason: str, *, broken: bool = False, stopping: bool = False) -> None:
        super().__init__(reason)
        self.broken = broken
        self.stopping = stopping


@dataclass(slots=True, eq=False)
class Child:
    """A server process and our end of the line to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: "asyncio.Task[int]"

    def tell(self, word: str) -> None:
        self.writer.write(word.encode() + b"\n")


class Processes:
    """The server processes of one supervisor.

    `command` starts a server; to it are added `--supervised LISTEN_FD:CONTROL_FD:TURN`, and for a worker
    `:NUMBER:GROUP`. `stop` is set by the first SIGINT or SIGTERM after `stop_on_signals`; the second one kills every
    process. You must `end` it.
    """

    def __init__(
        self, command: Sequence[str], *, stop_timeout_s: float, start_timeout_s: float = START_TIMEOUT_S
    ) -> None:
        self._command = list(command)
        self._stop_timeout_s = stop_timeout_s
        self._start_timeout_s = start_timeout_s
        self._children: set[Child] = set()
        self._leaving: set[asyncio.Task[int]] = set()
        self._group = secrets.token_hex(8)
        self.stop = asyncio.Event()

    def stop_on_signals(self) -> None:
        """From now on SIGINT and SIGTERM are this supervisor's."""

        def requested() -> None:
            if self.stop.is_set():
                for child in self._children:
                    with contextlib.suppress(ProcessLookupError):
                        child.process.kill()
            self.stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, requested)

    async def start(self, sock: socket.socket, turn: Turn, *, number: int | None = None) -> Child:
        """A process that accepts connections on `sock`; `number`: which worker it is. Raises NotStarted."""
        place = "" if number is None else f":{number}:{self._group}"
        with contextlib.ExitStack() as unless_started:
            try:
                ours, theirs = socket.socketpair()
                unless_started.callback(ours.close)
                with theirs:
                    process = await asyncio.create_subprocess_exec(
                        *self._command,
                        "--supervised",
                        f"{sock.fileno()}:{theirs.fileno()}:{turn}{place}",
                        pass_fds=(sock.fileno(), theirs.fileno()),
                    )
            except OSError as error:  # neither memory nor descriptors, for the moment
                raise NotStarted(f"no process could be made: {error.strerror}") from error
            unless_started.pop_all()
        reader, writer = await asyncio.open_connection(sock=ours)
        child = Child(process, reader, writer, asyncio.create_task(process.wait()))
        self._children.add(child)
        first_word = asyncio.create_task(reader.readline())
        stopping = asyncio.create_task(self.stop.wait())
        await asyncio.wait({first_word, stopping}, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        said = first_word.result().decode().strip() if first_word.done() else ""
        word, _, reason = said.partition(" ")
        if word == "ready":
            return child
        stopped = self.stop.is_set()
        if not first_word.done() and not stopped:
            reason = f"it was not ready within {self._start_timeout_s:g} s"
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # it does not listen to us yet
        first_word.cancel()
        await asyncio.gather(first_word, return_exceptions=True)
        status = await self.leave(child, "stop")
        raise NotStarted(reason or status_text(status), broken=word == "broken", stopping=stopped)

    async def leave(self, child: Child, word: Literal["stop", "reload"]) -> int:
        """Tell a process to end, wait for it, and end it by force when it does not. Answers its exit status."""
        with contextlib.suppress(ConnectionError):
            child.tell(word)
        try:
            status = await asyncio.wait_for(asyncio.shield(child.ended), self._stop_timeout_s)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                child.process.kill()
            status = await child.ended
        self.forget(child)
        return status

    def replace(self, child: Child) -> "asyncio.Task[int]":
        """As `leave`, beside what else happens, for a process whose successor accepts connections already."""
        leaving = asyncio.create_task(self.leave(child, "reload"))
        self._leaving.add(leaving)
        leaving.add_done_callback(self._leaving.discard)
        return leaving

    def forget(self, child: Child) -> None:
        """A process has ended."""
        child.writer.close()
        self._children.discard(child)

    async def end(self) -> bool:
        """End all processes; whether all those that still ran did so in good order."""
        leaving = set(self._leaving)
        statuses = await asyncio.gather(*(self.leave(child, "stop") for child in self._children), *leaving)
        return not any(statuses)


def server_command(arguments: Sequence[str]) -> list[str]:
    """The command line that starts this program again with the same arguments."""
    # -P: nothing of the directory it is started in is imported, such as another program's `routes`; except where that
    # is this checkout, which need not be installed.
    isolated = [] if Path.cwd() == Path(__file__).resolve().parents[1] else ["-P"]
    return [sys.executable, *isolated, "-m", "taskhub", *arguments]


def status_text(status: int) -> str:
    """A process's exit status for people, such as `signal SIGKILL`."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
