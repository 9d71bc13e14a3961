"""Fixtures of the MCP tests."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, insert

from taskhub.storage import schema
from taskhub.storage.seeds import DEFAULT_WORKSPACE
from taskhub.tickets.service import TicketService
from tests.migrated import migrated_file
from tests.taskhub.mcp.gate import Gate
from tests.taskhub.mcp.world import Served, open_tickets, serve_mcp

_TIME = "2026-01-01T00:00:00.000Z"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database file with the seeds and a few people and accounts, to be copied."""
    path = Path(shutil.copy(migrated_file(), tmp_path_factory.mktemp("seeds") / "taskhub.db"))
    common = {"workspace_id": DEFAULT_WORKSPACE, "active": True, "created_at": _TIME, "updated_at": _TIME}
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for user_id, name, kind, role in (
            ("alice", "Alice", "human", "manager"),
            ("bob", "Bob", "human", "agent"),
            ("triage_bot", "Triage Bot", "agent", "agent"),
        ):
            values = {"id": user_id, "name": name, "kind": kind, "role": role, "email": None}
            connection.execute(insert(schema.users).values(**values, **common))
        for table, names in (
            (schema.accounts, ("Acme", "Globex")),
            (schema.response_categories, ("Answered", "Corrected")),
        ):
            for order, name in enumerate(names):
                connection.execute(insert(table).values(id=name.lower(), name=name, order_no=order, **common))
    engine.dispose()
    return path


@pytest.fixture
def database_file(migrated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(migrated, tmp_path / "taskhub.db"))


@pytest.fixture
async def tickets(database_file: Path) -> AsyncIterator[TicketService]:
    async with open_tickets(database_file) as service:
        yield service


@pytest.fixture
async def served(tickets: TicketService) -> AsyncIterator[Served]:
    async with serve_mcp(tickets) as serving:
        yield serving


@pytest.fixture
async def gate() -> Gate:
    return Gate()
