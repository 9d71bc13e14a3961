"""Server processes under test: pinned to a core, watched through /proc, and ended whatever happens."""

import contextlib
import ctypes
import os
import random
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

WANTED_FILES: Final = 65_536
START_DEADLINE_S: Final = 30.0
STOP_DEADLINE_S: Final = 6.0
PORTS: Final = range(20_000, 32_000)
"""Below the ports that the kernel gives to clients, of which a run uses many thousands."""

FIRST: Final = -15
"""The `nice` value of what is measured, after `go_first`."""

_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)
_first = False
_CORES: Final = sorted(os.sched_getaffinity(0))
SERVER_CORE: Final = _CORES[0]
CLIENT_CORE: Final = _CORES[-1]


class NotHere(Exception):
    """What a scenario needs is missing on this machine; `str()` says what."""


class DidNotStart(Exception):
    """A server did not become ready; `str()` says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What some processes have used: CPU seconds since they began, resident bytes now; read at `at` (monotonic)."""

    cpu_s: float
    resident_bytes: int
    at: float


def raise_file_limit() -> int:
    """Let this process, and so its children, open as many files as is allowed; return how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # only root may raise the hard limit
        if hard != resource.RLIM_INFINITY and hard < WANTED_FILES:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, WANTED_FILES))
            hard = WANTED_FILES
    limit = WANTED_FILES if hard == resource.RLIM_INFINITY else hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return limit


def unused_port() -> int:
    """A loopback port that nobody listens on now."""
    while True:
        port = random.choice(PORTS)  # so that runs side by side seldom try the same one
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port


def pinned(core: int) -> Callable[[], None]:
    """For `preexec_fn`: the new process runs on this core alone, and ends with the kit even if that is killed."""

    def prepare() -> None:
        os.sched_setaffinity(0, {core})
        if _first:
            _set_nice(FIRST)
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare


def go_first() -> None:
    """From now on, servers and load clients go before everything else on this machine. Raises PermissionError."""
    global _first
    _set_nice(FIRST - 1)  # the kit itself reads their figures at the right moment
    _first = True


def _set_nice(value: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, value)
    # Linux shares the CPU between sessions first: where it does, `nice` only counts within one.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(value))


def busy_s() -> float:
    """Seconds that the two cores have worked, for whomever, or were taken away by the hypervisor."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *times = line.split()
        if name in {f"cpu{SERVER_CORE}", f"cpu{CLIENT_CORE}"}:
            user, nice, system, _idle, _waiting, hard, soft, stolen = map(int, times[:8])
            ticks += user + nice + system + hard + soft + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


class Server:
    """A server process with its children. Use it in a `with` statement: at its end they have ended."""

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        *,
        environment: Mapping[str, str],
        cwd: Path | None = None,
        core: int = SERVER_CORE,
        ready: Callable[[int], bool],
    ) -> None:
        self.port = port
        self._command = command
        self._environment = environment
        self._cwd = cwd
        self._core = core
        self._ready = ready
        self._process: subprocess.Popen[bytes] | None = None
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `__exit__`

    def __enter__(self) -> "Server":
        try:
            self.start()
        except BaseException:  # an interrupt, too: `__exit__` will not be called
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._log.close()

    def start(self) -> None:
        """Return when it is ready; also again after `stop`. Raises DidNotStart."""
        self._process = subprocess.Popen(
            self._command,
            cwd=self._cwd,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that Ctrl-C reaches the kit alone, which then ends its servers
            preexec_fn=pinned(self._core),
        )
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._ready(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise DidNotStart(self.printed() or f"{self._command[0]} did not become ready")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and all its children; in good order if it does so soon."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def printed(self) -> str:
        """The last lines that it printed."""
        self._log.seek(0)
        return self._log.read()[-2000:].decode(errors="replace").strip()

    def usage(self) -> Usage:
        """Of the process and its children, at this moment."""
        assert self._process is not None, "not running"
        return usage_of(self._process.pid)


def usage_of(pid: int) -> Usage:
    """What a process and its children have used."""
    family = list(_family(pid))
    return Usage(sum(map(_cpu_s, family)), sum(map(_resident_bytes, family)), time.monotonic())


def _family(pid: int) -> Iterator[int]:
    yield pid
    with contextlib.suppress(OSError):  # it has just ended
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from _family(int(child))


def _cpu_s(pid: int) -> float:
    """`schedstat` counts nanoseconds, `stat` only ticks of 10 ms; but not every kernel has the former."""
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9
    except OSError:
        pass
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    return 0
