"""What all tests share."""

import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import Connection, Engine, event

from tests.servers import PostgresServer

# The same examples in every run; `pytest --hypothesis-profile=search` looks for new ones.
# Tests that take long take a part of the examples.
settings.register_profile("search", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("any machine", settings.get_profile("search"), max_examples=100, derandomize=True)
settings.load_profile("any machine")

# Databases wait for the disk at each write, and servers, browsers and PostgreSQL write much else that nobody keeps.
_MEMORY: Final = Path("/dev/shm")
_ROOM: Final = 4_000_000_000
if (
    "TMPDIR" not in os.environ
    and os.access(_MEMORY, os.W_OK)
    and shutil.disk_usage(_MEMORY).free > _ROOM
    and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC  # there are tests that install programs
):
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

# What is imported and collected stays until the end: nothing of it is garbage, and looking for some takes long.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_this_machine() -> Iterator[None]:
    """No setting that the developer has in the environment reaches a test, or a process that a test starts."""
    with pytest.MonkeyPatch.context() as environment:
        for name in list(os.environ):
            if name.startswith(("TASKHUB_", "MCP_")) or name in ("PORT", "K_SERVICE", "XDG_DATA_HOME"):
                environment.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests of a process, each with databases of its own; skips where there is none."""
    try:
        server = PostgresServer()
    except FileNotFoundError as missing:
        pytest.skip(f"missing {missing}")
    server.start()
    yield server
    server.close()


class _Compiled(dict[tuple[Any, ...], Any]):
    """Compiled statements by the name of the database's kind, where SQLAlchemy tells apart those of each engine."""

    def get(self, key: tuple[Any, ...], default: Any = None) -> Any:
        dialect, *rest = key
        return super().get((dialect.name, *rest), default)

    def __setitem__(self, key: tuple[Any, ...], value: Any) -> None:
        dialect, *rest = key
        super().__setitem__((dialect.name, *rest), value)


_COMPILED = _Compiled()


@event.listens_for(Engine, "engine_connect")
def _share_compiled_statements(connection: Connection) -> None:
    """Hundreds of tests have an engine each, and most of their time would go into compiling the same statements."""
    connection.execution_options(compiled_cache=_COMPILED)
