"""The development supervisor: it holds the listening socket and replaces the server when the source changes.

The new process starts beside the old one and takes over when it accepts connections; only then the old one is told to
leave, so no connection is refused and streams resume on the new one. A process that cannot start changes nothing; when
it is the first one and the source is to blame, the next change is waited for.
"""

import asyncio
import contextlib
import socket
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from watchfiles import Change, awatch

from taskhub.processes import Child, NotStarted, Processes, Turn, status_text

DEBOUNCE_MS: Final = 300
WATCHED: Final = (".py", ".toml", ".js", ".css", ".svg")


class Supervisor:
    """Runs one server process on `sock`, a new one for each change below `watched`."""

    def __init__(
        self,
        processes: Processes,
        sock: socket.socket,
        watched: Sequence[Path],
        *,
        say: Callable[[str], None],
    ) -> None:
        self._processes = processes
        self._sock = sock
        self._watched = list(watched)
        self._say = say
        self._turn: Turn = "first"
        self._broken = False

    async def run(self) -> int:
        """Supervise until SIGINT, SIGTERM, or the server ends by itself. Answers the exit status."""
        self._processes.stop_on_signals()
        changes: asyncio.Queue[set[Path]] = asyncio.Queue()
        watching = asyncio.create_task(self._watch(changes))
        try:
            return await self._supervise(self._processes.stop, changes)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self._processes.end()

    async def _supervise(self, stop: asyncio.Event, changes: "asyncio.Queue[set[Path]]") -> int:
        current = await self._start()
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
                    self._processes.forget(current)
                    current = None
                    if status == 0:
                        changed.cancel()
                        return 0
                    said = f"the server ended unexpectedly ({status_text(status)}); the next change starts it again"
                    self._say(said)
                if changed.done():
                    current = await self._replace(current, changed.result())
                else:
                    changed.cancel()
        finally:
            stopping.cancel()

    async def _replace(self, current: Child | None, changed: set[Path]) -> Child | None:
        names = ", ".join(sorted({_short(path) for path in changed})[:5])
        if broken := next((reason for path in sorted(changed) if (reason := syntax_problem(path))), None):
            self._refuse(current, f"{names} changed, but {broken}")
            return current
        self._say(f"{names} changed: starting the new process")
        successor = await self._start()
        if successor is None:
            if not self._processes.stop.is_set():
                self._refuse(current, "the new process could not start")
            return current
        if current is not None:
            self._processes.replace(current)
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

    async def _start(self) -> Child | None:
        """A process that accepts connections; None when it did not get so far, and its reason has been said."""
        try:
            child = await self._processes.start(self._sock, self._turn)
        except NotStarted as error:
            self._broken = error.broken
            if not error.stopping:
                self._say(f"it could not start: {error}")
            return None
        self._turn = "again"
        return child

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
        elif path.suffix == ".toml":
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
