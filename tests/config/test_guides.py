"""The guides beside the files: what a reader types is what there is."""

import re
import shlex
import stat
import subprocess
from pathlib import Path

import pytest

from taskhub.cli.parser import build_parser
from tests.config.dockerfile import ROOT

GUIDES = sorted((ROOT / "config").glob("*.md"))


def commands(guide: Path) -> list[list[str]]:
    """What is written to be typed and begins with `taskhub`, alone or in a container."""
    before = r"(?:docker exec \S+ |docker compose .*? exec -T \S+ |kubectl .*? -- )?"
    lines = re.findall(rf"^    {before}(taskhub .*)$", guide.read_text(), re.MULTILINE)
    return [shlex.split(line.partition(" >")[0]) for line in lines]


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_command_of_taskhub_is_one_that_it_takes(guide: Path) -> None:
    for _, *arguments in commands(guide):
        assert build_parser().parse_args(arguments).command == arguments[0], arguments


def test_the_guides_tell_how_to_operate_it() -> None:
    told = {words[1] for guide in GUIDES for words in commands(guide)}

    assert {"backup", "restore", "doctor", "users", "keys", "audit"} <= told


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.name)
def test_every_place_that_a_guide_names_is_there(guide: Path) -> None:
    places = re.findall(r"`((?:taskhub|routes|broadcaster|tests|config)/[^`\s]*)", guide.read_text())

    missing = [place for place in places if not list(ROOT.glob(place.rstrip("/")))]
    assert [place for place in missing if place != "config/.env"] == []


def test_the_secrets_of_compose_are_made_as_the_guide_says(tmp_path: Path) -> None:
    text = (ROOT / "config/README.md").read_text()
    (script,) = re.findall(r"^    (\(umask 077; for .*?\.env\))$", text, re.MULTILINE | re.DOTALL)
    (tmp_path / "config").mkdir()

    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)

    made = tmp_path / "config/.env"
    assert re.fullmatch(r"([A-Z_]+=[0-9a-f]{64}\n){4}", made.read_text())
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
