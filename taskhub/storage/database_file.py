"""The files of an SQLite database on the disk: its own, two locks beside it, and the one that takes its place.

Each process that has the database open holds a shared lock; a restore holds the exclusive one. Locks lie beside the
file itself, not beside a link to it, so that all who come by different names meet. They end with their holders.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from taskhub.storage import whole_files
from taskhub.storage.occupancy import BEING_RESTORED, DatabaseInUse
from taskhub.tickets.errors import StorageBusy


class CannotKeepOwner(Exception):
    """Whoever runs this may not give a file to the owner of the database."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path} belongs to another user or group, and its new file would not: run this as its owner or as root"
        )


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a database: its file's owner, group and permissions."""

    uid: int
    gid: int
    mode: int

    def give(self, descriptor: int) -> None:
        """Let an open file be theirs, too. Raises OSError when that is not allowed."""
        if not hasattr(os, "fchown"):  # Windows: files have the permissions of their directory
            return
        found = os.fstat(descriptor)
        if (found.st_uid, found.st_gid) != (self.uid, self.gid):
            os.fchown(descriptor, self.uid, self.gid)
        if stat.S_IMODE(found.st_mode) != self.mode:
            os.fchmod(descriptor, self.mode)


class DatabaseFiles:
    """The files of the database that `path` leads to; `path` is then the file itself, whatever links there were."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    def access(self) -> Access:
        """Of the database, or what it shall be when it is made. A new one is for its owner alone, for it holds the
        secret that signs sessions; what root makes is for the owner of the directory, who is going to serve."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            directory = self.path.parent.stat()
            user, group = (os.geteuid(), os.getegid()) if hasattr(os, "geteuid") else (0, 0)
            if user == 0 or directory.st_mode & stat.S_ISGID:
                group = directory.st_gid
            return Access(directory.st_uid if user == 0 else user, group, 0o600)
        return Access(found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode))

    def make(self) -> None:
        """Make the directory and an empty database, unless they are there. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            self._create(self.path)

    def share(self) -> "Lock | None":
        """Use the database beside others. Raises StorageBusy. None when there is not even the directory."""
        try:
            return self._lock(".lock", exclusive=False)
        except FileNotFoundError:
            return None
        except BlockingIOError:
            raise StorageBusy(BEING_RESTORED) from None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only process that has the database open. Raises DatabaseInUse and StorageBusy."""
        try:
            lock = self._lock(".lock", exclusive=True)
        except BlockingIOError:
            raise DatabaseInUse from None
        with contextlib.closing(lock):
            yield

    @contextmanager
    def migrating(self) -> Iterator[None]:
        """Wait to be the only one that migrates: SQLite's own lock would not cover the change to WAL mode. Raises
        StorageBusy."""
        with contextlib.closing(self._lock(".migrate", exclusive=True, wait=True)):
            yield

    @contextmanager
    def successor(self) -> Iterator[Path]:
        """An empty file for those who may use the database, to be written and then to `take_place`; it is gone in the
        end. You must be `alone`. Raises CannotKeepOwner, and OSError."""
        # Always the same name: what a restore that was killed has left goes away with the next one.
        path = self._beside(".restoring")
        path.unlink(missing_ok=True)
        try:
            self._create(path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def take_place(self, successor: Path) -> None:
        """Let it be the database, for good. No log of changes may lie beside the old one any more."""
        whole_files.sync_file(successor)
        # A log that came back after a power failure would be taken for one of the new file's.
        whole_files.sync_directory(self.path.parent)
        whole_files.give_name(successor, self.path, replace=True)

    def drop_logs(self) -> None:
        """Delete the logs of changes of a database that cannot be read, and so cannot be joined with them."""
        for suffix in ("-wal", "-shm", "-journal"):
            self._beside(suffix).unlink(missing_ok=True)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _create(self, path: Path) -> None:
        access = self.access()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            access.give(descriptor)
        except OSError as error:
            # A new database stays with whoever has made it: in a container, root may not give files away.
            if self.path != path and self.path.exists():
                raise CannotKeepOwner(self.path) from error
        finally:
            os.close(descriptor)

    def _lock(self, suffix: str, *, exclusive: bool, wait: bool = False) -> "Lock":
        path = self._beside(suffix)
        try:
            descriptor = self._open_lock(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StorageBusy(f"the lock {path} cannot be opened: {error.strerror}") from error
        try:
            whole_files.lock(descriptor, exclusive=exclusive, wait=wait)
        except BlockingIOError:
            os.close(descriptor)
            raise
        except OSError as error:
            os.close(descriptor)
            raise StorageBusy(f"the file system cannot lock {path}: {error.strerror}") from error
        return Lock(descriptor)

    def _open_lock(self, path: Path) -> int:
        """A lock file that one user has made is there for all who may use the database."""
        while True:
            with contextlib.suppress(FileNotFoundError):
                return _open_to_lock(path)
            with contextlib.suppress(FileExistsError):
                access = self.access()
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                try:
                    access.give(descriptor)
                except OSError:
                    # Who may not give it away shares it at least as far as the database is shared.
                    os.fchmod(descriptor, access.mode)
                return descriptor


def _open_to_lock(path: Path) -> int:
    here = getattr(os, "O_NOFOLLOW", 0)
    try:
        return os.open(path, os.O_RDWR | here)
    except FileNotFoundError:
        raise
    except OSError:
        return os.open(path, os.O_RDONLY | here)  # enough to lock it, but not over NFS


class Lock:
    """A lock that is held until it is closed."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class SameFile:
    """The file that is at `path` when it is first looked for.

    SQLite goes on with a file that was deleted or replaced under it: every commit would seem to work, and be gone with
    the process. And a new connection would make a new, empty file. So look before each use.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._identity: tuple[int, int] | None = None
        with contextlib.suppress(StorageBusy):
            self.check()

    def check(self) -> None:
        """Raise StorageBusy unless the file is where it was. It may be again later."""
        try:
            status = self.path.stat()
        except FileNotFoundError:
            raise StorageBusy(f"the database file {self.path.name} is not there: put it back") from None
        except OSError as error:
            raise StorageBusy(f"the database file cannot be found: {error.strerror}") from error
        identity = (status.st_dev, status.st_ino)
        if self._identity is None:
            self._identity = identity
        if identity != self._identity:
            raise StorageBusy(
                f"another file has taken the place of the database file {self.path.name}: restart the server to use it"
            )
