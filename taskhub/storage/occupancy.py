"""Who uses a database: everybody who has it open, or one who replaces it.

Each open connection to PostgreSQL, and each process that has an SQLite file open, holds a shared lock; a restore holds
the exclusive one. It is refused while anybody holds a shared lock, and nobody who comes meanwhile gets one. So there is
no moment between looking and beginning, and nothing to clean up: both databases' locks end with their holders.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from sqlalchemy import Connection, text

from taskhub.tickets.errors import StorageBusy

ADVISORY_LOCK: Final = 0x7461736B687563
"""Any constant: it only must not be another program's in the same database."""

_BEING_RESTORED: Final = "a backup is being restored into the database"

_OTHERS: Final = text(
    "SELECT DISTINCT a.pid, a.application_name, a.client_addr::text AS address"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database"
    " WHERE datname = current_database()) AND l.classid = :high AND l.objid = :low AND l.pid <> pg_backend_pid()"
    " ORDER BY a.pid"
)


class DatabaseInUse(Exception):
    """Somebody has the database open; `who` says what is known of them."""

    def __init__(self, who: str = "") -> None:
        super().__init__("a server or another process uses the database" + (f" ({who})" if who else ""))


class FileLock:
    """The lock on an SQLite file: one on a file of its own beside it, which stays. You must `release` it."""

    def __init__(self, database: Path, *, exclusive: bool = False) -> None:
        """Take it, unless there is not even the directory. Raises StorageBusy (DatabaseInUse when `exclusive`) when it
        cannot be had at once."""
        self._file: IO[bytes] | None = None
        try:
            import fcntl
        except ImportError:  # Windows, where a file that is open cannot be replaced anyway
            return
        try:
            file = (real := database.resolve()).with_name(real.name + ".lock").open("a+b")
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageBusy("the directory of the database file cannot be written") from error
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise (DatabaseInUse() if exclusive else StorageBusy(_BEING_RESTORED)) from None
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


@contextmanager
def sole_user_of_file(database: Path) -> Iterator[None]:
    """Be the only process that has the SQLite file open. Raises DatabaseInUse."""
    lock = FileLock(database, exclusive=True)
    try:
        yield
    finally:
        lock.release()


def share_postgres(connection: Any, record: object) -> None:
    """To be called with each new connection of the driver. Raises StorageBusy."""
    cursor = connection.cursor()
    cursor.execute(f"SELECT pg_try_advisory_lock_shared({ADVISORY_LOCK})")
    (granted,) = cursor.fetchone()
    cursor.close()
    # The driver has begun a transaction for it, in which nobody may find the connection.
    connection.rollback()
    if not granted:
        connection.close()
        raise StorageBusy(_BEING_RESTORED)


def be_sole_user_of_postgres(connection: Connection) -> None:
    """Keep everybody else out until the transaction ends. Raises DatabaseInUse."""
    granted = connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({ADVISORY_LOCK})").scalar_one()
    if granted:
        return
    halves = {"high": ADVISORY_LOCK >> 32, "low": ADVISORY_LOCK & 0xFFFFFFFF}
    found = connection.execute(_OTHERS, halves).all()
    raise DatabaseInUse(", ".join(f"{row.application_name} at {row.address}, backend {row.pid}" for row in found))
