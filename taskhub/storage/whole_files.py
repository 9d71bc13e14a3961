"""Files that have their names only once they are whole, and that outlive a power failure."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

_NO_LINKS: Final = frozenset({errno.EPERM, errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK})
_NO_SYNC: Final = frozenset({errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})


class BeingWritten(Exception):
    """Another process is writing the file `path`."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another process is writing {path}")


@contextmanager
def unfinished(path: Path, *, replace: bool = True) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file for its owner alone, to be written and then to get the name `path`; it is gone from beside it in the end.

    Always of the same name: what a writer that was killed has left goes away with the next one. Raises
    FileExistsError at once unless `replace`, BeingWritten while another writer is at it, and other OSErrors.
    """
    if not replace and path.exists():
        raise FileExistsError(path)
    beside = path.with_name(f".{path.name}.unfinished")
    with _alone(path, beside) as file:
        try:
            yield beside, file
        finally:
            beside.unlink(missing_ok=True)


@contextmanager
def _alone(target: Path, path: Path) -> Iterator[IO[bytes]]:
    while True:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o600)
        with os.fdopen(descriptor, "wb") as file:
            try:
                lock(file.fileno(), exclusive=True)
            except BlockingIOError:
                raise BeingWritten(target) from None
            found = os.fstat(file.fileno())
            if not _is_at(found, path):
                continue  # the one before has just given it its name, or taken it away
            if stat.S_IMODE(found.st_mode) & 0o077 or (hasattr(os, "geteuid") and found.st_uid != os.geteuid()):
                path.unlink()  # whoever has made it may read along
                continue
            file.truncate()
            yield file
            return


def _is_at(status: os.stat_result, path: Path) -> bool:
    try:
        return os.path.samestat(status, path.stat())
    except FileNotFoundError:
        return False


def give_name(unfinished: Path, path: Path, *, replace: bool) -> None:
    """Let a file that is whole be `path`, for good. Raises FileExistsError unless `replace`, and other OSErrors."""
    if replace:
        unfinished.replace(path)
    else:
        _give_new_name(unfinished, path)
    sync_directory(path.parent)


def _give_new_name(unfinished: Path, path: Path) -> None:
    try:
        os.link(unfinished, path)  # unlike a rename, it fails when there is such a file by now
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return
    # A file system without links, such as that of a memory stick: an empty file keeps the name free.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        unfinished.replace(path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def sync_file(path: Path) -> None:
    """Let what a file holds outlive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Let the names in it outlive a power failure, where the file system can."""
    try:
        sync_file(directory)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise


def lock(descriptor: int, *, exclusive: bool, wait: bool = False) -> None:
    """Lock an open file until it is closed. Raises BlockingIOError when it cannot be had at once, and other OSErrors
    where there are no such locks. On Windows, where a file that is open cannot be replaced anyway, it does nothing."""
    with contextlib.suppress(ImportError):
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))
