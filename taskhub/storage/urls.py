"""Database addresses as people write them, and what the drivers want."""

from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import URL, make_url

from taskhub.settings.addresses import POSTGRES_PARAMETERS

_SQLITE_NAMES: Final = ("sqlite", "sqlite+aiosqlite")
_POSTGRES_NAMES: Final = ("postgresql", "postgres", "postgresql+asyncpg")


def driver_url(url: str) -> tuple[URL, dict[str, str]]:
    """The address for the driver, and the server settings that were in its query.

    Raises ValueError for another kind of database, for a parameter that nobody knows, and for SQLite in memory, which
    one connection could not share with the next.
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
        if unknown := ", ".join(sorted(query.keys() - set(POSTGRES_PARAMETERS))):
            known = ", ".join(POSTGRES_PARAMETERS)
            raise ValueError(f"a database address has no parameter {unknown[:80]}; there are {known}")
        # Of a socket, or of several hosts.
        arguments: dict[str, Any] = {name: query.pop(name) for name in ("host", "port") if name in query}
        if query:  # of TLS and the like: asyncpg understands them as libpq does, but only in an address of its own
            arguments["dsn"] = f"postgresql://?{urlencode(query)}"
        return parsed.set(drivername="postgresql+asyncpg", query=arguments), server_settings
    raise ValueError(f"a database address starts with sqlite:// or postgresql://, not {parsed.drivername}://")


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite address, else None."""
    return Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
