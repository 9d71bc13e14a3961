"""Guards on the repository itself."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-build.lock")
# Put together here, so that this file does not find itself.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b")
HOSTS = re.compile("|".join(("py" + r"pi\.org", "python" + r"hosted\.org", "npm" + r"js\.org", "registry" + r"\.npm")))
MACHINE_PATHS = re.compile(
    "|".join((r"/ro" + r"ot/", r"/wo" + r"rk/", r"/Us" + r"ers/[a-z]", r"/ho" + r"me/(?!me/|somebody)[a-z]"))
)


def tracked() -> list[Path]:
    """The text files of the repository."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this checkout is no git repository")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize(
    ("pattern", "what"),
    [
        (UNFINISHED, "unfinished work"),
        (HOSTS, "the host of a package registry"),
        (MACHINE_PATHS, "a path of a machine"),
    ],
    ids=["unfinished", "hosts", "paths"],
)
def test_no_file_names_what_belongs_elsewhere(pattern: re.Pattern[str], what: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), start=1)
        if pattern.search(line)
    ]

    assert found == [], what


def test_only_the_rooms_of_the_house_are_at_the_top() -> None:
    rooms = {path.relative_to(ROOT).parts[0] for path in tracked()}

    assert rooms <= {
        ".ci", ".dockerignore", ".github", ".gitignore", "broadcaster", "CHANGELOG.md", "config", "Dockerfile",
        "LICENSE", "Makefile", "pyproject.toml", "README.md", "routes", "taskhub", "tests", *LOCKS,
    }  # fmt: skip


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_has_an_exact_version_and_a_hash_for_everything_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    blocks = re.split(r"\n(?=[A-Za-z0-9])", text.strip())

    assert len(blocks) > 3
    for block in blocks:
        assert re.match(r"[A-Za-z0-9._-]+(\[[a-z,]+\])?==[^\s;]+", block), block[:80]
        assert "--hash=sha256:" in block, block[:80]
    assert "://" not in text
    assert "index-url" not in text
    assert "find-links" not in text


def names_in(lock: str) -> dict[str, str]:
    text = (ROOT / lock).read_text()
    return {name.lower(): version for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", text, re.MULTILINE)}


def test_the_locks_agree_and_hold_every_requirement() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    runtime, development, build = (names_in(lock) for lock in LOCKS)

    assert all(development[name] == version for name, version in (*runtime.items(), *build.items()))
    for wanted, lock in (
        (project["project"]["dependencies"], runtime),
        ([r for group in groups.values() for r in group if isinstance(r, str)], development),
        (groups["build"], build),
    ):
        missing = [r for r in wanted if re.split(r"[\[~=<>; ]", r)[0].lower() not in lock]
        assert missing == []


def test_every_requirement_is_bounded() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"].values()
    wanted = [*project["project"]["dependencies"], *(r for group in groups for r in group if isinstance(r, str))]

    assert not [requirement for requirement in wanted if "~=" not in requirement]


def test_the_distribution_cannot_be_uploaded_by_mistake() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["name"] == "taskhub-server"
    assert "Private :: Do Not Upload" in project["classifiers"]
