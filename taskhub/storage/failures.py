"""Which failures of a database mean `busy or away`, so that the same call may work later, and which are mistakes."""

import logging
import sqlite3
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from taskhub.tickets.errors import InputProblem, InvalidInput, StorageBusy

# Result codes of SQLite (the low byte of an extended one).
_SQLITE_AWAY: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: "another process has locked the database",
    sqlite3.SQLITE_LOCKED: "the database is locked",
    sqlite3.SQLITE_READONLY: "the database file is read-only",
    sqlite3.SQLITE_IOERR: "the disk refuses to read or write the database file",
    sqlite3.SQLITE_FULL: "the disk of the database is full",
    sqlite3.SQLITE_CANTOPEN: "the database file cannot be opened",
}
# Of these, a commit that fails with one was not made: it had not got so far as to write its end.
_SQLITE_NOT_COMMITTED: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_FULL})
# Of these, a connection does not recover: it knows the file as it was opened, which may have been read-only.
_SQLITE_BROKEN: Final = frozenset({sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
# Classes of SQLSTATE: connection, transaction rolled back, resources, object in use (lock timeout), operator, system.
_POSTGRES_AWAY: Final = ("08", "40", "53", "55", "57", "58", "25P0", "25006", "3D000", "28")
_POSTGRES_NO_TEXT: Final = "22021"

_log = logging.getLogger(__name__)


@contextmanager
def busy_told(failures: type[Exception] = Exception) -> Iterator[None]:
    """Raise StorageBusy for those of these failures that mean it, InvalidInput for a text that no database takes, and
    the others as they are."""
    try:
        yield
    except failures as error:
        busy = storage_busy(error)
        if busy is None and _takes_no_such_text(error):
            # PostgreSQL takes no NUL, not even to look for it; whoever sent it has asked for what cannot be there.
            raise InvalidInput([InputProblem("", "a text must not contain NUL or half of a surrogate pair")]) from error
        if busy is None:
            raise
        _log.debug("the database is busy or away: %s", error)
        raise busy from error


def storage_busy(error: BaseException) -> StorageBusy | None:
    """The condition that `error` stands for when the database is busy or away, else None: then it is a mistake."""
    if isinstance(error, PoolTimeout):
        return StorageBusy("all database connections are in use")
    if isinstance(error, DBAPIError):
        return _from_driver(error)
    if isinstance(error, OSError | TimeoutError):  # a connection that could not be made, or that gave no answer
        return StorageBusy(_unreachable(error))
    return None


def _takes_no_such_text(error: BaseException) -> bool:
    """Whether a text held NUL, or half of a surrogate pair."""
    driver_error = error.orig if isinstance(error, DBAPIError) else error
    causes = (driver_error, driver_error.__cause__ if driver_error is not None else None)
    return any(isinstance(e, UnicodeEncodeError) or getattr(e, "sqlstate", None) == _POSTGRES_NO_TEXT for e in causes)


def in_doubt(error: BaseException) -> bool:
    """Whether a commit that failed so may have been made all the same."""
    return _sqlite_code(getattr(error, "orig", None)) not in _SQLITE_NOT_COMMITTED


def is_locked(error: BaseException) -> bool:
    """Whether another connection to the SQLite file is in the way."""
    return _sqlite_code(getattr(error, "orig", None)) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def breaks_connection(driver_error: BaseException) -> bool:
    """Whether an SQLite connection that had this error must be replaced by a new one."""
    return _sqlite_code(driver_error) in _SQLITE_BROKEN


def _sqlite_code(driver_error: BaseException | None) -> int | None:
    code = getattr(driver_error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _unreachable(error: BaseException) -> str:
    """An operator has to mend what is wrong with TLS; anything else may pass by itself."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of the database server is refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"the database server and this one find no common TLS: {error.reason or error}"
    if isinstance(error, ConnectionError) and "rejected SSL" in str(error):
        return "the database server offers no TLS, which sslmode demands"
    return "the database cannot be reached"


def _from_driver(error: DBAPIError) -> StorageBusy | None:
    driver_error = error.orig
    code = _sqlite_code(driver_error)
    if code is not None:
        reason = _SQLITE_AWAY.get(code)
        return None if reason is None else StorageBusy(reason)
    if error.connection_invalidated:
        return StorageBusy("the connection to the database was lost")
    state = getattr(driver_error, "sqlstate", None)
    if state is not None:
        return StorageBusy(_postgres_reason(state)) if state.startswith(_POSTGRES_AWAY) else None
    cause = driver_error.__cause__ if driver_error else None
    if isinstance(cause, OSError | TimeoutError):
        return StorageBusy(_unreachable(cause))
    return None


def _postgres_reason(state: str) -> str:
    if state.startswith("28"):
        return "the database server refuses this user name or password"
    if state == "3D000":
        return "the database server has no database of that name"
    if state == "53100":
        return "the disk of the database server is full"
    if state == "25006":
        return "the database is read-only"
    return "the database is busy or away"
