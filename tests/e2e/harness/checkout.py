"""Copies of this checkout's code, for tests that edit it while it runs."""

import shutil
from pathlib import Path

from tests.e2e.harness.process import ROOT

CODE = ("taskhub", "broadcaster", "routes", "config")


def copy_of_the_code(target: Path) -> Path:
    """Copy what a server needs to `target` and return it; `python -m taskhub` started there runs the copy."""
    for name in CODE:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, target / name)
    return target
