"""What the import contracts in pyproject.toml cannot say."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BROADCASTER_MAY_IMPORT = {"broadcaster", "orjson"} | sys.stdlib_module_names


def imported(path: Path) -> Iterator[str]:
    """The top-level names of everything that a module imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield str(node.module).partition(".")[0]


@pytest.mark.parametrize("path", sorted((ROOT / "broadcaster").rglob("*.py")), ids=lambda path: path.name)
def test_the_event_engine_imports_the_standard_library_and_orjson(path: Path) -> None:
    allowed = BROADCASTER_MAY_IMPORT | ({"redis"} if path.name == "redis_relay.py" else set())

    assert set(imported(path)) <= allowed


@pytest.mark.parametrize("package", ["taskhub", "broadcaster", "routes"])
def test_packages_re_export_nothing(package: str) -> None:
    for path in (ROOT / package).rglob("__init__.py"):
        assert not list(imported(path)), path


def test_a_server_that_nobody_speaks_mcp_to_has_not_read_it_nor_what_tokens_take() -> None:
    unneeded = {"mcp", "mcp_types", "alembic", "jwt", "cryptography"}
    program = f"import sys, taskhub.app, taskhub.serve; print(*sorted({unneeded} & set(sys.modules)))"

    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True)

    assert done.stdout.split() == []


def test_settings_files_hold_no_python() -> None:
    assert not list((ROOT / "config").rglob("*.py"))
