"""Who uses a database: everybody who has it open, or one who replaces it.

Each open connection to PostgreSQL, and each process that has an SQLite file open (see database_file), holds a shared
lock; a restore holds the exclusive one. It is refused while anybody holds a shared lock, and nobody who comes meanwhile
gets one. So there is no moment between looking and beginning, and nothing to clean up: both databases' locks end with
their holders.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import DBAPIError

from taskhub.tickets.errors import StorageBusy

ADVISORY_LOCK: Final = 0x7461736B687563
"""Any constant: it only must not be another program's in the same database."""

BEING_RESTORED: Final = "a backup is being restored into the database"

_OTHERS: Final = text(
    "SELECT DISTINCT a.pid, a.application_name, a.client_addr::text AS address"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.database = (SELECT oid FROM pg_database"
    " WHERE datname = current_database()) AND l.classid = :high AND l.objid = :low AND l.pid <> pg_backend_pid()"
    " ORDER BY a.pid"
)
_HOLDERS: Final = text(
    "SELECT DISTINCT a.pid, a.application_name, a.client_addr::text AS address"
    " FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'relation' AND l.granted AND l.database = (SELECT oid FROM pg_database"
    " WHERE datname = current_database()) AND l.pid <> pg_backend_pid()"
    " AND l.relation IN (SELECT to_regclass(name) FROM unnest(CAST(:names AS text[])) AS name)"
    " ORDER BY a.pid"
)
# A session that was cut off between preparing a statement and running it is not idle to PostgreSQL, so none of its
# timeouts ends it; it keeps the locks that it has until the connection is found to be dead, which may take hours.
_END_CUT_OFF: Final = text(
    "SELECT pg_terminate_backend(a.pid) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.granted AND l.mode = 'ShareLock' AND l.database = (SELECT oid"
    " FROM pg_database WHERE datname = current_database()) AND l.classid = :high AND l.objid = :low"
    " AND a.pid <> pg_backend_pid() AND a.usename = current_user AND a.backend_xid IS NOT NULL"
    " AND a.wait_event = 'ClientRead' AND a.state_change < clock_timestamp() - make_interval(secs => :patience)"
)
_HALVES: Final = {"high": ADVISORY_LOCK >> 32, "low": ADVISORY_LOCK & 0xFFFFFFFF}
_LOCK_NOT_AVAILABLE: Final = "55P03"


class DatabaseInUse(Exception):
    """Somebody has the database open; `who` says what is known of them."""

    def __init__(self, who: str = "") -> None:
        super().__init__("a server or another process uses the database" + (f" ({who})" if who else ""))


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
        raise StorageBusy(BEING_RESTORED)


def end_cut_off(connection: Connection, patience_s: float) -> None:
    """End the sessions of those who share the database that are in the middle of a write, and of which nothing was
    heard for so long that whoever they belong to has given up: others wait for what they have locked."""
    connection.execute(_END_CUT_OFF, {**_HALVES, "patience": patience_s})


def be_sole_user_of_postgres(connection: Connection) -> None:
    """Keep everybody else out until the transaction ends. Raises DatabaseInUse."""
    granted = connection.exec_driver_sql(f"SELECT pg_try_advisory_xact_lock({ADVISORY_LOCK})").scalar_one()
    if granted:
        return
    found = connection.execute(_OTHERS, _HALVES).all()
    raise DatabaseInUse(_told(found))


def take_tables(connection: Connection, names: Sequence[str]) -> None:
    """Keep everybody from the tables, also other programs, until the transaction ends. Raises DatabaseInUse when that
    takes longer than lock_timeout, with those who have them: every lock is in the way of this one."""
    if not names:
        return
    quote = connection.dialect.identifier_preparer.quote
    quoted = [quote(name) for name in names]
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(quoted)} IN ACCESS EXCLUSIVE MODE")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _LOCK_NOT_AVAILABLE:
            raise
        raise DatabaseInUse(_told(connection.execute(_HOLDERS, {"names": quoted}).all())) from None


def _told(found: Iterable[Row[Any]]) -> str:
    """Who they are, as far as is known: over a socket they have no address, and not every program says its name."""
    return ", ".join(
        f"{row.application_name or 'a program'}{f' at {row.address}' if row.address else ''}, backend {row.pid}"
        for row in found
    )
