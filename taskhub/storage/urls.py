"""Database addresses as people write them, and what the drivers want."""

from pathlib import Path
from typing import Any, Final

from sqlalchemy import URL, make_url

_SQLITE_NAMES: Final = ("sqlite", "sqlite+aiosqlite")
_POSTGRES_NAMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")


def driver_url(url: str) -> tuple[URL, dict[str, str]]:
    """The address for the driver, and the server settings that were in its query.

    Raises ValueError for another kind of database and for SQLite in memory, which one connection could not share
    with the next.
    """
    parsed = make_url(url)
    if parsed.drivername in _SQLITE_NAMES:
        if parsed.database in (None, "", ":memory:"):
            raise ValueError("TaskHub's SQLite database is a file, such as sqlite:////var/lib/taskhub/taskhub.db")
        return parsed.set(drivername="sqlite"), {}
    if parsed.drivername in _POSTGRES_NAMES:
        query: dict[str, Any] = dict(parsed.query)
        server_settings: dict[str, str] = {
            name: str(query.pop(name)) for name in ("application_name", "options") if name in query
        }
        if "sslmode" in query:  # libpq's name for what asyncpg calls ssl
            query["ssl"] = query.pop("sslmode")
        return parsed.set(drivername="postgresql+asyncpg", query=query), server_settings
    raise ValueError(f"a database address starts with sqlite:// or postgresql://, not {parsed.drivername}://")


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite address, else None."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
