"""A restore whose process is killed at a chosen place."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

from taskhub.storage import restore, whole_files
from tests.forked import forks


def killed_restore(url: str, path: Path, where: str) -> int | None:
    """Restore in another process, which is killed when it comes to the function `where` (`named`: once the new file
    has its name); its exit status."""
    process = forks().Process(target=_restore, args=(url, path, where))
    process.start()
    process.join()
    status = process.exitcode
    process.close()
    return status


def _restore(url: str, path: Path, where: str) -> None:
    if where == "named":
        whole_files.give_name = _named_and_killed
    else:
        setattr(whole_files if where == "sync_directory" else restore, where, _killed)
    asyncio.run(restore.restore(url, path, replace=True))


def _named_and_killed(unfinished: Path, path: Path, *, replace: bool) -> None:
    unfinished.replace(path)
    _killed()


def _killed(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)
