"""The names of the packages are taken on the index: what is imported must be this checkout and nothing else."""

import importlib
import importlib.metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = "taskhub-server"


@pytest.mark.parametrize("name", ["taskhub", "broadcaster", "routes"])
def test_the_imported_package_is_this_checkout(name: str) -> None:
    package = importlib.import_module(name)

    assert [Path(path).resolve() for path in package.__path__] == [ROOT / name]


@pytest.mark.parametrize("name", ["taskhub", "broadcaster", "routes"])
def test_no_other_distribution_provides_the_name(name: str) -> None:
    providers = set(importlib.metadata.packages_distributions().get(name, ()))

    assert providers <= {OURS}


def test_nothing_named_like_a_package_of_ours_is_installed_beside_it() -> None:
    places = {Path(str(d.locate_file(""))).resolve() for d in importlib.metadata.distributions()} - {ROOT}

    found = [
        place / name for place in places for name in ("taskhub", "broadcaster", "routes") if (place / name).exists()
    ]

    assert found == []


def test_the_package_of_all_versions_imports_nothing() -> None:
    lines = (ROOT / "taskhub" / "__init__.py").read_text().splitlines()

    assert not [line for line in lines if line.startswith(("import ", "from "))]
