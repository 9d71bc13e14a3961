"""The development supervisor: it holds the listening socket and replaces the server when the source changes.

The new process starts beside the old one and takes over when it accepts connections; only then the old one is told to
leave, so no connection is refused and streams resume on the new one. A process that cannot start changes nothing; when
it is the first one and the source is to blame, the next change is waited for.
"""

import asyncio
import contextlib
import signal
import socket
import sys
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from watchfiles import Change, awatch

START_TIMEOUT_S: Final = 30.0
DEBOUNCE_MS: Final = 300
WATCHED: Final = (".py", ".toml")


@dataclass(slots=True, eq=False)
class Child:
    """A server process and our end of the line to it."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: "asyncio.Task[int]"

    def tell(self, word: str) -> None:
        self.writer.write(word.encode() + b"\n")


class Supervisor:
    """Runs one server process on `sock`, a new one for each change below `watched`.

    `command` starts a server; to it are added `--supervised LISTEN_FD:CONTROL_FD:first|again`, `first` until one has
    started.
    """

    def __init__(
        self,
        command: Sequence[str],
        sock: socket.socket,
        watched: Sequence[Path],
        *,
        stop_timeout_s: float,
        start_timeout_s: float = START_TIMEOUT_S,
        say: Callable[[str], None],
    ) -> None:
        self._command = list(command)
        self._sock = sock
        self._watched = list(watched)
        self._stop_timeout_s = stop_timeout_s
        self._start_timeout_s = start_timeout_s
        self._say = say
        self._turn = "first"
        self._broken = False
        self._children: set[Child] = set()
        self._leaving: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Supervise until SIGINT, SIGTERM, or the server ends by itself. Answers the exit status."""
        stop = self._stop_signals()
        changes: asyncio.Queue[set[Path]] = asyncio.Queue()
        watching = asyncio.create_task(self._watch(changes))
        try:
            return await self._supervise(stop, changes)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await asyncio.gather(*(self._leave(child, "stop") for child in self._children), *self._leaving)

    async def _supervise(self, stop: asyncio.Event, changes: "asyncio.Queue[set[Path]]") -> int:
        current = await self._start(stop)
        if current is None:
            if stop.is_set():
                return 0
            if not self._source_is_broken():
                return 1
            self._say("the next change starts it")
        stopping = asyncio.create_task(stop.wait())
        try:
            while True:
                changed = asyncio.create_task(changes.get())
                waiting: set[asyncio.Task[object]] = {stopping, changed}
                if current is not None:
                    waiting.add(current.ended)
                await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                if stop.is_set():
                    changed.cancel()
                    return 0
                if current is not None and current.ended.done():
                    status = current.ended.result()
                    self._forget(current)
                    current = None
                    if status == 0:
                        changed.cancel()
                        return 0
                    self._say(f"the server ended unexpectedly ({_status(status)}); the next change starts it again")
                if changed.done():
                    current = await self._replace(current, changed.result(), stop)
                else:
                    changed.cancel()
        finally:
            stopping.cancel()

    async def _replace(self, current: Child | None, changed: set[Path], stop: asyncio.Event) -> Child | None:
        names = ", ".join(sorted({_short(path) for path in changed})[:5])
        if broken := next((reason for path in sorted(changed) if (reason := syntax_problem(path))), None):
            self._refuse(current, f"{names} changed, but {broken}")
            return current
        self._say(f"{names} changed: starting the new process")
        successor = await self._start(stop)
        if successor is None:
            if not stop.is_set():
                self._refuse(current, "the new process could not start")
            return current
        if current is not None:
            leaving = asyncio.create_task(self._leave(current, "reload"))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._say("started" if current is None else "reloaded: the new process has taken over")
        return successor

    def _refuse(self, current: Child | None, why: str) -> None:
        rest = "the previous process keeps serving" if current is not None else "nothing serves until that is mended"
        self._say(f"not reloaded: {why}; {rest}")

    def _source_is_broken(self) -> bool:
        """Whether a change can mend what the last process that could not start died of. It may have died too early to
        say so itself."""
        if self._broken:
            return True
        roots = [path for path in self._watched if path.is_dir()]
        files = sorted(path for root in roots for path in root.rglob("*.py"))
        found = next((problem for path in files if (problem := syntax_problem(path))), None)
        if found is not None:
            self._say(f"it could not start: {found}")
        return found is not None

    async def _start(self, stop: asyncio.Event) -> Child | None:
        """A process that accepts connections; None when it did not get so far, and its reason has been said."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                "--supervised",
                f"{self._sock.fileno()}:{theirs.fileno()}:{self._turn}",
                pass_fds=(self._sock.fileno(), theirs.fileno()),
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        child = Child(process, reader, writer, asyncio.create_task(process.wait()))
        self._children.add(child)
        first_word = asyncio.create_task(reader.readline())
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({first_word, stopping}, timeout=self._start_timeout_s, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        said = first_word.result().decode().strip() if first_word.done() else ""
        word, _, reason = said.partition(" ")
        self._broken = word == "broken"
        if word == "ready":
            self._turn = "again"
            return child
        if word in ("failed", "broken"):
            self._say(f"it could not start: {reason}")
        elif not first_word.done():
            if not stop.is_set():
                self._say(f"it was not ready within {self._start_timeout_s:g} s")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()  # it does not listen to us yet
        first_word.cancel()
        await asyncio.gather(first_word, return_exceptions=True)
        await self._leave(child, "stop")
        return None

    async def _leave(self, child: Child, word: str) -> None:
        """Tell a process to end, wait for it, and end it by force when it does not."""
        with contextlib.suppress(ConnectionError):
            child.tell(word)
        try:
            await asyncio.wait_for(asyncio.shield(child.ended), self._stop_timeout_s)
        except TimeoutError:
            child.process.kill()
            await child.ended
        self._forget(child)

    def _forget(self, child: Child) -> None:
        child.writer.close()
        self._children.discard(child)

    def _stop_signals(self) -> asyncio.Event:
        """An event that the first SIGINT or SIGTERM sets. The second one kills the server at once."""
        stop = asyncio.Event()

        def requested() -> None:
            if stop.is_set():
                for child in self._children:
                    with contextlib.suppress(ProcessLookupError):
                        child.process.kill()
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, requested)
        return stop

    async def _watch(self, changes: "asyncio.Queue[set[Path]]") -> None:
        try:
            async for found in awatch(*self._watched, watch_filter=_is_source, debounce=DEBOUNCE_MS):
                paths = {Path(path) for _, path in found}
                while not changes.empty():  # one replacement serves every change so far
                    paths |= changes.get_nowait()
                changes.put_nowait(paths)
        except Exception as error:
            self._say(f"changes are no longer noticed: {error}")


def syntax_problem(path: Path) -> str | None:
    """What is wrong with a source file, with its line, before any process is started for it; None when nothing is."""
    try:
        source = path.read_bytes()
        if path.suffix == ".py":
            compile(source, str(path), "exec", dont_inherit=True)
        else:
            tomllib.loads(source.decode())
    except SyntaxError as error:
        return f"{_short(path)} line {error.lineno}: {error.msg}"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
        return f"{_short(path)}: {error}"
    except OSError:
        return None  # deleted, or about to be written again
    return None


def _is_source(change: Change, path: str) -> bool:
    return path.endswith(WATCHED)


def _short(path: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def _status(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def server_command(arguments: Sequence[str]) -> list[str]:
    """The command line that starts this program again with the same arguments."""
    # -P: nothing of the directory it is started in is imported, such as another program's `routes`; except where that
    # is this checkout, which need not be installed.
    isolated = [] if Path.cwd() == Path(__file__).resolve().parents[1] else ["-P"]
    return [sys.executable, *isolated, "-m", "taskhub", *arguments]
