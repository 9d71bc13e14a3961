"""Workspaces: tenants of one deployment. Each has tickets, a log, users and keys of its own, and sees no other."""

import re
from dataclasses import dataclass, replace
from typing import Final, Literal

from sqlalchemy import Connection, Row, select, update

from taskhub.audit.record import Entry, record
from taskhub.auth.principal import Caller
from taskhub.storage.database import Database
from taskhub.storage.schema import workspaces
from taskhub.storage.seeds import add_workspace
from taskhub.storage.transaction import lock_workspace

_W: Final = workspaces.c
_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,38}[a-z0-9])?")
_KEY_PREFIX: Final = re.compile(r"[A-Z][A-Z0-9]{0,9}")
_MAX_NAME: Final = 100
_WORKSPACES: Final = select(_W.id, _W.name, _W.key_prefix, _W.created_at).order_by(_W.id)


@dataclass(frozen=True, slots=True)
class Workspace:
    """`key_prefix`: what the keys of its tickets begin with, in no other workspace."""

    id: str
    name: str
    key_prefix: str
    created_at: str


class BadWorkspace(ValueError):
    """A workspace cannot be made or renamed so: the message says what is wrong, and what would be right."""


class WorkspaceStore:
    """Makes, lists and renames workspaces. That is for whoever operates the deployment, and nobody over HTTP."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list(self) -> list[Workspace]:
        """All of them, by id. Raises StorageBusy."""
        return await self._database.read(
            lambda connection: [_workspace(row) for row in connection.execute(_WORKSPACES)]
        )

    async def create(self, caller: Caller, id: str, key_prefix: str, name: str) -> Workspace:
        """Make a workspace with the reference data that a new one has. Raises BadWorkspace and StorageBusy."""
        _check_id(id)
        _check_key_prefix(key_prefix)
        name = _checked_name(name)

        def work(connection: Connection) -> Workspace:
            for other in map(_workspace, connection.execute(_WORKSPACES)):
                if other.id == id:
                    raise BadWorkspace(f"there is a workspace {id} already")
                if other.key_prefix == key_prefix:
                    raise BadWorkspace(f"keys that begin with {key_prefix} are those of the workspace {other.id}")
            add_workspace(connection, id, key_prefix, name)
            made = _get(connection, id)
            record(connection, _entry(caller, made, "workspace.created"))
            return made

        return await self._database.write(work)

    async def rename(self, caller: Caller, id: str, name: str) -> Workspace:
        """Give a workspace another name; its id and the keys of its tickets stay. Raises UnknownWorkspace, BadWorkspace
        and StorageBusy."""
        name = _checked_name(name)

        def work(connection: Connection) -> Workspace:
            lock_workspace(connection, id)
            connection.execute(update(workspaces).where(_W.id == id).values(name=name))
            renamed = _get(connection, id)
            record(connection, _entry(caller, renamed, "workspace.renamed"))
            return renamed

        return await self._database.write(work)


def _entry(caller: Caller, workspace: Workspace, action: Literal["workspace.created", "workspace.renamed"]) -> Entry:
    """It is told where it happened, whosever workspace the caller's is."""
    told = Entry.by(caller, action, workspace.id, name=workspace.name, key_prefix=workspace.key_prefix)
    return replace(told, workspace=workspace.id)


def _get(connection: Connection, id: str) -> Workspace:
    return _workspace(connection.execute(_WORKSPACES.where(_W.id == id)).one())


def _workspace(row: Row[str, str, str, str]) -> Workspace:
    return Workspace(row.id, row.name, row.key_prefix, row.created_at)


def _check_id(id: str) -> None:
    if not _ID.fullmatch(id):
        raise BadWorkspace(
            f"the id {id[:80]!r} must be 1 to 40 lower-case letters, digits, - and _, such as acme; it never changes"
        )


def _check_key_prefix(key_prefix: str) -> None:
    if not _KEY_PREFIX.fullmatch(key_prefix):
        raise BadWorkspace(
            f"the key prefix {key_prefix[:80]!r} must be a capital letter and up to 9 more or digits, such as AC: "
            "tickets are AC-1, AC-2, …"
        )


def _checked_name(name: str) -> str:
    name = name.strip()
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable():
        raise BadWorkspace(f"the name must be 1 to {_MAX_NAME} printable characters")
    return name
