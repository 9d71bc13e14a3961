"""An SQLite file as it is on the disk, whatever its name points to by now."""

import contextlib
from pathlib import Path

from taskhub.tickets.errors import StorageBusy


class DatabaseFile:
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
