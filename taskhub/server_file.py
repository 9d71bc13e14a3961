"""Where the servers that run on a data directory can be reached.

Each server has its own file, `servers/<pid>.json`; `server.json` names the newest one that lives, for whoever reads it
without this module. A server that was killed leaves its file, which counts for nothing and is removed by the next one.
"""

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

AuthMode = Literal["none", "api_key", "oauth"]
NAME = "server.json"
DIRECTORY = "servers"


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server's process id (with several workers, that of their supervisor), its address such as
    `http://127.0.0.1:8000`, and whether it asks for an API key."""

    pid: int
    url: str
    auth: AuthMode = "none"


def write(data_dir: Path, server: RunningServer) -> None:
    """Say that this server runs; it is the newest one now."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    (data_dir / DIRECTORY).mkdir(mode=0o700, exist_ok=True)
    for path in _entries(data_dir):
        if _living(path) is None:
            path.unlink(missing_ok=True)
    _replace(data_dir / DIRECTORY / f"{server.pid}.json", server)
    _name_the_newest(data_dir)


def read(data_dir: Path) -> RunningServer | None:
    """The newest server that runs on this data directory; None when none does."""
    return next(iter(read_all(data_dir)), None)


def read_all(data_dir: Path) -> list[RunningServer]:
    """The servers that run on this data directory, the newest one first."""
    return [server for path in _entries(data_dir) if (server := _living(path)) is not None]


def remove(data_dir: Path, pid: int) -> None:
    """Say that this server runs no more. Nothing happens when it had not said that it does."""
    with contextlib.suppress(OSError):
        (data_dir / DIRECTORY / f"{pid}.json").unlink()
        _name_the_newest(data_dir)


def _name_the_newest(data_dir: Path) -> None:
    """Until what was written is still true: servers that start and end at the same time do this at the same time."""
    while True:
        newest = read(data_dir)
        if newest is None:
            (data_dir / NAME).unlink(missing_ok=True)
        else:
            _replace(data_dir / NAME, newest)
        if read(data_dir) == newest:
            return


def _entries(data_dir: Path) -> list[Path]:
    found: list[tuple[int, Path]] = []
    for path in (data_dir / DIRECTORY).glob("*.json"):
        with contextlib.suppress(OSError):
            found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]


def _living(path: Path) -> RunningServer | None:
    """The server of a file, unless its process is gone or the file is damaged."""
    try:
        document = json.loads(path.read_text())
        told = document.get("auth")
        auth: AuthMode = told if told in ("api_key", "oauth") else "none"
        server = RunningServer(int(document["pid"]), str(document["url"]), auth)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return server if _runs(server.pid) else None


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:  # another user's
        return True
    except (OSError, OverflowError):
        return False
    return pid > 0


def _replace(path: Path, server: RunningServer) -> None:
    """The whole file at once, so that no reader sees half of it."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(asdict(server)) + "\n")
    temporary.replace(path)
