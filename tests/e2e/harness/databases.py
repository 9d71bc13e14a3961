"""The database of a server under test, behind its back."""

import contextlib
from collections.abc import AsyncIterator

from taskhub.storage.database import Database
from tests.e2e.harness.process import TaskHubProcess
from tests.taskhub.world import ills


def database_url(hub: TaskHubProcess) -> str:
    return hub.environment.get("TASKHUB_DATABASE_URL", f"sqlite:///{hub.data_dir / 'taskhub.db'}")


@contextlib.asynccontextmanager
async def database_of(hub: TaskHubProcess) -> AsyncIterator[Database]:
    """The server's database, whether the server runs or not."""
    database = Database(database_url(hub))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def check_sound(hub: TaskHubProcess) -> None:
    """The doctor finds nothing."""
    async with database_of(hub) as database:
        assert await ills(database) == []
