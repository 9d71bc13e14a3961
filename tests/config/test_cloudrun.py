"""Cloud Run: what the service is given, and what the scripts do, before a gcloud that only remembers what was made."""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from taskhub.settings.model import Settings
from tests.config.dockerfile import ROOT
from tests.config.served import SECRETS, look_in_image, problems

CLOUDRUN: Final = ROOT / "config/cloudrun"
KILLED_AFTER_S: Final = 10
"""By Cloud Run, from SIGTERM."""
ALERTS: Final = sorted((CLOUDRUN / "alerts").glob("*.json"))

# What is made is a file; what is asked for is there when it was made. Everything that is called goes to the log.
GCLOUD: Final = """#!/bin/sh
set -eu
echo "$*" >>"$GCLOUD/log"
thing=$(echo "$*" | sed 's/ --.*//')
made=$GCLOUD/$(echo "$thing" | sed -E 's/@.*//; s/ (create|describe|get-auth-string|set-password) / /; s/[^a-z]+/_/g')
policy=$(echo "$*" | sed -nE 's/.*(alerts\\/|displayName=")([A-Za-z]+).*/\\2/p')
case $thing in
    *" create"*)
        case "$*" in *--data-file=-*) cat >"$made" ;; *) touch "$made$policy" ;; esac ;;
    *" get-auth-string "*) echo redis-password ;;
    *"redis instances describe"*) test -e "$made" && echo 10.0.0.3 ;;
    "projects describe"*) echo 123456 ;;
    *" list") ! test -e "${made%list}create$policy" || echo "$3/1" ;;
    "monitoring dashboards describe"*) echo 7 ;;
    "monitoring dashboards update"*) cp "${5#--config-from-file=}" "$GCLOUD/dashboard.json" ;;
    *" describe "*) test -e "$made" ;;
    "run services replace"*) cp "$4" "$GCLOUD/service.yaml" ;;
esac
"""


def service(*, metrics: bool = False) -> dict[str, Any]:
    text = (CLOUDRUN / "service.yaml").read_text()
    if not metrics:
        text = re.sub(r"(?s) *# sidecar \{.*?# \} sidecar\n", "", text)
    parsed: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+\}", "filled-in", text))
    return parsed


def environment() -> dict[str, str]:
    (told,) = service()["spec"]["template"]["spec"]["containers"]
    given = {each["name"]: each.get("value", SECRETS.get(each["name"])) for each in told["env"]}
    # As Cloud Run sets them.
    return {**given, "K_SERVICE": "taskhub", "PORT": str(told["ports"][0]["containerPort"])}


class Cloud:
    """A directory in which the scripts find a gcloud."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "gcloud").write_text(GCLOUD)
        (directory / "gcloud").chmod(0o755)

    def run(self, script: str, *arguments: str, status: int = 0, **variables: str) -> str:
        """What a script prints."""
        done = subprocess.run(
            [CLOUDRUN / script, *arguments], capture_output=True, text=True, check=False,
            env=os.environ | {
                "PATH": f"{self.directory}{os.pathsep}{os.environ['PATH']}", "GCLOUD": str(self.directory),
                "PROJECT": "my-project", "REGION": "europe-west1", **variables,
            },
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def calls(self) -> list[str]:
        """What was called since the last time."""
        log = self.directory / "log"
        if not log.exists():
            return []
        called = log.read_text().splitlines()
        log.unlink()
        return called


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    return Cloud(tmp_path)


def test_taskhub_would_serve_with_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, environment()) == []


def test_without_its_database_it_refuses_to_lose_data(monkeypatch: pytest.MonkeyPatch) -> None:
    without = {name: value for name, value in environment().items() if name != "TASKHUB_DATABASE_URL"}

    (refused,) = problems(monkeypatch, without)

    assert "TASKHUB_DATABASE_URL" in refused


def test_streams_rotate_and_instances_drain_before_cloud_run_cuts_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = look_in_image(monkeypatch, environment()).settings
    spec = service()["spec"]["template"]["spec"]

    assert settings.sse_max_age_s == 14 * 60 < spec["timeoutSeconds"] == 15 * 60
    assert settings.drain_s < KILLED_AFTER_S
    assert settings.sse_max_streams < spec["containerConcurrency"] == 1000


def test_an_instance_is_always_there_and_has_its_cpu_between_requests() -> None:
    notes = service()["spec"]["template"]["metadata"]["annotations"]
    (told,) = service()["spec"]["template"]["spec"]["containers"]

    assert notes["run.googleapis.com/cpu-throttling"] == "false"
    assert notes["autoscaling.knative.dev/minScale"] == "1"
    assert told["ports"][0]["name"] == "http1", "no HTTP/2 to TaskHub"
    assert {told[probe]["httpGet"]["path"] for probe in ("startupProbe", "livenessProbe")} == {"/healthz"}


def test_the_sidecar_comes_with_its_image_alone() -> None:
    assert [each["name"] for each in service(metrics=True)["spec"]["template"]["spec"]["containers"]] == [
        "taskhub", "metrics",
    ]  # fmt: skip
    assert "METRICS_IMAGE" not in str(service())


def test_setup_makes_everything_once_and_prints_no_secret(cloud: Cloud) -> None:
    first = cloud.run("setup.sh")
    made = [call for call in cloud.calls() if " create" in call]
    second = cloud.run("setup.sh")
    again = [call for call in cloud.calls() if " create" in call]

    secrets = [path.read_text() for path in cloud.directory.glob("secrets_*")]
    assert {call.split(" create")[0] for call in made} == {
        "iam service-accounts", "artifacts repositories", "sql instances", "sql databases", "sql users",
        "redis instances", "secrets",
    }  # fmt: skip
    assert again == []
    assert len(secrets) == 3
    for secret in secrets:
        assert len(secret) >= 32
        assert secret not in first + second
        for password in re.findall(r":([^:/@]+)@", secret):
            assert password not in first + second
    assert all(secret.startswith(("postgresql://", "redis://")) or re.fullmatch(r"[0-9a-f]{64}", secret)
               for secret in secrets)  # fmt: skip


def test_the_addresses_in_the_secrets_are_ones_that_taskhub_takes(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.run("setup.sh")
    url = (cloud.directory / "secrets_taskhub_database_url").read_text()
    given = {"TASKHUB_DATABASE_URL": url,
             "TASKHUB_REDIS_URL": (cloud.directory / "secrets_taskhub_redis_url").read_text()}  # fmt: skip

    assert problems(monkeypatch, environment() | given) == []
    assert url.endswith("@/taskhub?host=/cloudsql/my-project:europe-west1:taskhub")


def test_deploy_fills_everything_in(cloud: Cloud) -> None:
    said = cloud.run("deploy.sh", IMAGE="taskhub:1", DOMAIN="tickets.example.org")

    manifest = (cloud.directory / "service.yaml").read_text()
    parsed = yaml.safe_load(manifest)
    (told,) = parsed["spec"]["template"]["spec"]["containers"]
    hosts = next(each["value"] for each in told["env"] if each["name"] == "TASKHUB_ALLOWED_HOSTS")
    assert "${" not in re.sub(r"#.*", "", manifest)
    assert told["image"] == "taskhub:1"
    assert hosts == "taskhub-123456.europe-west1.run.app,tickets.example.org"
    assert "https://taskhub-123456.europe-west1.run.app" in said


@pytest.mark.parametrize("script", ["setup.sh", "deploy.sh", "monitoring.sh"])
def test_a_dry_run_says_everything_and_does_nothing(cloud: Cloud, script: str) -> None:
    said = cloud.run(script, "--dry-run", EMAIL="operators@example.org", IMAGE="taskhub:1")

    assert cloud.calls() == []
    assert len(re.findall(r"^gcloud ", said, re.MULTILINE)) >= 2


@pytest.mark.parametrize("script", ["setup.sh", "deploy.sh", "monitoring.sh"])
def test_a_script_says_what_it_lacks(cloud: Cloud, script: str) -> None:
    assert "set REGION" in cloud.run(script, "--dry-run", status=2, REGION="")
    assert "usage: " in cloud.run(script, "--dryrun", status=2)


def test_monitoring_makes_every_policy_and_the_dashboard(cloud: Cloud) -> None:
    cloud.run("monitoring.sh")

    calls = cloud.calls()
    assert sum("policies create --policy-from-file=" in call for call in calls) == len(ALERTS) > 8
    assert sum("dashboards create --config-from-file=" in call for call in calls) == 1


def test_monitoring_brings_up_to_date_what_is_there(cloud: Cloud) -> None:
    cloud.run("monitoring.sh", EMAIL="operators@example.org")
    cloud.calls()
    cloud.run("monitoring.sh", EMAIL="operators@example.org")

    calls = cloud.calls()
    assert [call for call in calls if " create" in call] == []
    updates = [call for call in calls if "policies update" in call]
    assert len(updates) == len(ALERTS)
    assert all("--set-notification-channels=channels/1" in call for call in updates)
    # An update of a dashboard that names no version is refused.
    assert json.loads((cloud.directory / "dashboard.json").read_text()) == {
        "etag": "7", **json.loads((CLOUDRUN / "dashboard.json").read_text()),
    }  # fmt: skip


@pytest.mark.parametrize("path", ALERTS, ids=lambda path: path.stem)
def test_an_alert_is_named_as_its_file_and_asks_what_prometheus_asks(path: Path) -> None:
    policy = json.loads(path.read_text())
    (condition,) = policy["conditions"]
    rules = {rule["alert"]: rule
             for group in yaml.safe_load((ROOT / "config/prometheus/rules.yml").read_text())["groups"]
             for rule in group["rules"]}  # fmt: skip
    asked = condition["conditionPrometheusQueryLanguage"]

    assert policy["displayName"] == path.stem
    assert f"## {path.stem}\n" in (ROOT / "config/runbook.md").read_text()
    if path.stem != "TaskHubDown":  # there is no `up` of an instance that is not there
        assert asked["query"] == " ".join(rules[path.stem]["expr"].split())
    assert asked["duration"] == f"{60 * int(rules[path.stem].get('for', '0m')[:-1])}s"


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    from taskhub.metrics.catalogue import CATALOGUE, PREFIX

    text = (CLOUDRUN / "dashboard.json").read_text()
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(rf"\b{PREFIX}\w+", text)}

    assert len(shown) > 10
    assert shown <= {PREFIX + name for name in CATALOGUE}


def test_the_default_maximum_age_is_made_for_hosts_that_cut_at_fifteen_minutes() -> None:
    assert Settings.model_fields["sse_max_age_s"].default == 840
