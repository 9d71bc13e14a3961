"""PostgreSQL databases that tests use one after another: to clean one takes a tenth of what to make one takes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import asyncpg

from tests.servers import PostgresServer

_TABLES: Final = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
# Whatever changes a schema, or a setting of the database, writes rows of these. (Statistics are written in place.)
_MADE: Final = """
    SELECT md5(string_agg(made, ' ' ORDER BY made)) FROM (
        SELECT 'class ' || oid || ' ' || xmin FROM pg_class WHERE oid >= 16384
        UNION ALL SELECT 'column ' || attrelid || ' ' || attnum || ' ' || xmin FROM pg_attribute WHERE attrelid >= 16384
        UNION ALL SELECT 'constraint ' || oid || ' ' || xmin FROM pg_constraint WHERE oid >= 16384
        UNION ALL SELECT 'default ' || oid || ' ' || xmin FROM pg_attrdef
        UNION ALL SELECT 'trigger ' || oid || ' ' || xmin FROM pg_trigger
        UNION ALL SELECT 'function ' || oid || ' ' || xmin FROM pg_proc WHERE oid >= 16384
        UNION ALL SELECT 'schema ' || oid || ' ' || xmin FROM pg_namespace WHERE nspname !~ '^pg_'
        UNION ALL SELECT 'setting ' || setdatabase || ' ' || setrole || ' ' || xmin FROM pg_db_role_setting
    ) AS _ (made)"""
_END_OTHERS: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""
# Rows that were deleted still take room: a database that was large would stay slow.
_ROOM: Final = "SELECT max(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = 'public'::regnamespace"
_MUCH_ROOM: Final = 4_000_000
_DEADLINE_S: Final = 60.0


class CleanDatabases:
    """Copies of a template, cleaned and handed out again. You must `close` it; the copies remain the server's."""

    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._template = template
        self._clean: list[_Copy] = []
        self._taken: dict[str, _Copy] = {}

    def take(self) -> str:
        """The address of a database that is as the template is; to be given back."""
        copy = self._clean.pop() if self._clean else _Copy(self._server.create_database(self._template))
        self._taken[copy.url] = copy
        return copy.url

    def give_back(self, url: str) -> None:
        """End whoever is still connected, and clean it; if its schema was changed it is dropped instead."""
        copy = self._taken.pop(url)
        if copy.cleaned():
            self._clean.append(copy)
        else:
            copy.close()
            self._server.drop_database(url)

    def close(self) -> None:
        for copy in (*self._clean, *self._taken.values()):
            copy.close()


class _Copy:
    """A database and a connection to it, on a thread of its own: tests have event loops of theirs."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._thread = ThreadPoolExecutor(1)
        self._runner = asyncio.Runner()
        self._connection = self._run(self._connect())
        self._made, self._clean = self._run(self._look())

    def cleaned(self) -> bool:
        """Whether it is as it was made, now. Nobody else is connected then."""
        return bool(self._run(self._cleaned()))

    def close(self) -> None:
        self._connection.terminate()
        self._thread.submit(self._runner.close).result()
        self._thread.shutdown()

    def _run(self, coroutine: Any) -> Any:
        return self._thread.submit(self._runner.run, coroutine).result()

    async def _connect(self) -> Any:
        return await asyncpg.connect(self.url, timeout=_DEADLINE_S, command_timeout=_DEADLINE_S)

    async def _look(self) -> tuple[str, str]:
        """What is made in it, and statements that bring its rows back."""
        tables = [row["relname"] for row in await self._connection.fetch(_TABLES)]
        clean = ["SET session_replication_role = replica"]  # in any order, without looking at foreign keys
        clean += [f"DELETE FROM {table}" for table in tables]
        for table in tables:
            if (rows := await self._connection.fetchval(f"SELECT json_agg(t) FROM {table} AS t")) is not None:
                literal = rows.replace("'", "''")
                clean.append(f"INSERT INTO {table} SELECT * FROM json_populate_recordset(NULL::{table}, '{literal}')")
        for row in await self._connection.fetch("SELECT sequencename, start_value FROM pg_sequences"):
            clean.append(f"SELECT setval('{row['sequencename']}', {row['start_value']}, false)")
        return await self._connection.fetchval(_MADE), "; ".join(clean)

    async def _cleaned(self) -> bool:
        try:
            async with asyncio.timeout(_DEADLINE_S):
                while await self._connection.fetchval(_END_OTHERS):
                    await asyncio.sleep(0.002)
            if await self._connection.fetchval(_MADE) != self._made:
                return False
            if await self._connection.fetchval(_ROOM) > _MUCH_ROOM:
                return False
            await self._connection.execute(self._clean)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False  # it was disconnected, or stands in the way of others
        return True
