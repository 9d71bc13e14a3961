"""Whether TaskHub would serve with what a file of `config/` gives it."""

import os
from collections.abc import Mapping

import pytest

from taskhub.settings.loading import Loaded, look
from tests.config.dockerfile import ROOT, read

SECRETS = {
    "TASKHUB_API_KEY": "k" * 32,
    "TASKHUB_DATABASE_URL": "postgresql://taskhub:p@postgres/taskhub",
    "TASKHUB_REDIS_URL": "redis://:p@redis:6379/0",
}
"""What stands in a secret of each of these names."""


def look_in_image(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Loaded:
    """The settings of a container of our image with this environment."""
    image = {name: value for name, value in read()[-1].environment.items() if name.startswith("TASKHUB_")}
    # COPY puts it there.
    assert image["TASKHUB_CONFIG"] == "/etc/taskhub/taskhub.toml"
    return look_with(monkeypatch, image | {"TASKHUB_CONFIG": str(ROOT / "config/production.toml")} | dict(environment))


def look_with(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> Loaded:
    for name in [name for name in os.environ if name.startswith("TASKHUB_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return look()


def problems(monkeypatch: pytest.MonkeyPatch, environment: Mapping[str, str]) -> list[str]:
    """Why the image would not serve in this environment, and names in it that are no settings."""
    loaded = look_in_image(monkeypatch, environment)
    return [*loaded.unknown, *loaded.problems()]
