"""What holds for every file that an operator edits or applies."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from taskhub.settings.loading import CONFIG_VARIABLE
from taskhub.settings.model import Settings
from taskhub.settings.server import PREFIX
from tests.config.dockerfile import ROOT

CONFIG = ROOT / "config"
PICTURES = (".png", ".webp")
FILES = sorted(
    path for path in CONFIG.rglob("*") if path.is_file() and path.name != ".env" and path.suffix not in PICTURES
)
DATA = [path for path in FILES if path.suffix in (".json", ".toml", ".yaml", ".yml")]
SCRIPTS = [path for path in FILES if path.suffix == ".sh"]
SETTINGS = {CONFIG_VARIABLE, *(PREFIX + name.upper() for name in Settings.model_fields)}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*DATA, ROOT / ".github/workflows/ci.yml"], ids=name_of)
def test_a_file_of_data_can_be_read(path: Path) -> None:
    text = path.read_text()
    if path.suffix == ".json":
        assert json.loads(text)
    elif path.suffix == ".toml":
        tomllib.loads(text)
    else:
        assert all(document for document in yaml.safe_load_all(text))


@pytest.mark.parametrize("path", [*FILES, ROOT / "Dockerfile", ROOT / ".github/workflows/ci.yml"], ids=name_of)
def test_every_setting_that_a_file_names_is_one(path: Path) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", path.read_text()))

    assert named <= SETTINGS


@pytest.mark.parametrize("path", [path for path in FILES if path.suffix == ".md"], ids=name_of)
def test_every_link_of_a_guide_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text())

    assert not [link for link in links if not (path.parent / link).exists()]


@pytest.mark.parametrize("path", SCRIPTS, ids=name_of)
def test_a_script_has_none_of_the_usual_faults(path: Path) -> None:
    shellcheck = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert shellcheck is not None

    judged = subprocess.run(
        [shellcheck, "--external-sources", "--source-path=SCRIPTDIR", str(path)], capture_output=True, text=True
    )

    assert judged.returncode == 0, judged.stdout
