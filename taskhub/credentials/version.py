"""The version of all credentials: as long as it stays, each of them is good for what it was."""

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, func, select, update

from taskhub.storage.database import Database
from taskhub.storage.schema import deployment, workspaces

# A change of a user's role counts as well, and users are reference data.
_VERSION: Final = select(
    deployment.c.credentials_version, select(func.sum(workspaces.c.references_version)).scalar_subquery()
)
_CHANGED: Final = update(deployment).values(credentials_version=deployment.c.credentials_version + 1)


@dataclass(frozen=True, slots=True)
class CredentialsVersion:
    """Changes whenever a credential may be good for something else than before."""

    credentials: int
    references: int


async def credentials_version(database: Database) -> CredentialsVersion:
    """Raises StorageBusy."""
    return await database.read(lambda connection: CredentialsVersion(*connection.execute(_VERSION).one()))


def raise_version(connection: Connection) -> None:
    """Call this in every transaction that ends a credential or changes what one is good for."""
    connection.execute(_CHANGED)
