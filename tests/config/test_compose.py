"""The Compose file: what each profile starts, and what it asks for."""

import re
from typing import Any

import pytest
import yaml

from taskhub.settings.model import Settings
from tests.config.dockerfile import ROOT
from tests.config.served import problems

TEXT = (ROOT / "config/compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "taskhub"]


def profile(name: str) -> set[str]:
    return {service for service, told in SERVICES.items() if name in told["profiles"]}


def filled(value: str) -> str:
    """With what the variables of config/.env might be, and the defaults of the others."""
    asked = re.sub(r"\$\{\w+:\?[^}]*\}", "f00d", value)
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", asked)


def seconds(duration: str) -> int:
    assert re.fullmatch(r"\d+s", duration)
    return int(duration[:-1])


def test_embedded_is_taskhub_alone_and_full_is_all_of_it() -> None:
    assert profile("embedded") == {"embedded"}
    assert profile("full") == {"taskhub", "postgres", "redis", "prometheus", "grafana"}


@pytest.mark.parametrize("name", OURS)
def test_taskhub_would_serve_with_what_it_is_given(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {variable: filled(value) for variable, value in SERVICES[name]["environment"].items()}

    assert problems(monkeypatch, environment) == []


def test_no_secret_has_a_default() -> None:
    variables = re.findall(r"\$\{(\w+)(:[-?]|\})", TEXT)
    secrets = [(name, operator) for name, operator in variables if re.search(r"KEY|PASSWORD|SECRET", name)]

    assert {name for name, _ in secrets} == {
        "TASKHUB_API_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD", "GRAFANA_PASSWORD",
    }  # fmt: skip
    assert {operator for _, operator in secrets} == {":?"}


def test_the_guide_makes_every_secret_that_is_asked_for() -> None:
    (made,) = re.findall(r"for name in ([A-Z_ ]+); do", (ROOT / "config/README.md").read_text())

    assert set(made.split()) == set(re.findall(r"\$\{(\w+):\?", TEXT))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded(name: str) -> None:
    service = SERVICES[name]

    assert name in OURS or re.search(r":v?\d+[.\d]*(-\w+)?$", service["image"]), "an image without a version"
    assert name in OURS or service["healthcheck"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert all(filled(port).startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert all(wait["condition"] == "service_healthy" for wait in service.get("depends_on", {}).values())


@pytest.mark.parametrize("name", OURS)
def test_taskhub_writes_to_data_alone_and_has_time_to_drain(name: str) -> None:
    service = SERVICES[name]
    places = [*service.get("volumes", ()), *service.get("tmpfs", ())]

    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert len(places) == 1
    assert "/data" in places[0]
    assert seconds(service["stop_grace_period"]) > Settings.model_fields["drain_s"].default


def test_the_files_that_are_mounted_are_there() -> None:
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", ())]
    places = [place for place in mounted if place.startswith("./")]

    assert len(places) >= 3
    assert not [place for place in places if not (ROOT / "config" / place).exists()]
