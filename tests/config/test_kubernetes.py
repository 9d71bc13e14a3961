"""The Kubernetes overlays, rendered by kubectl: what holds for their pods."""

import shutil
import subprocess
from functools import cache
from typing import Any

import pytest
import yaml
from aiohttp import web

from routes.keys import SETTINGS
from routes.setup import add_routes
from taskhub.settings.model import Settings
from tests.config.dockerfile import ROOT, read
from tests.config.served import SECRETS, look_in_image, problems

KUBERNETES = ROOT / "config/kubernetes"
OVERLAYS = ("embedded", "full")
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


@cache
def rendered(overlay: str) -> dict[str, Any]:
    """The overlay's resources by kind, each of which it has once."""
    if (kubectl := shutil.which("kubectl")) is None:
        pytest.skip("missing kubectl (not on the path)")
    text = subprocess.run([kubectl, "kustomize", str(KUBERNETES / overlay)], check=True, capture_output=True).stdout
    resources = list(yaml.safe_load_all(text))
    by_kind = {resource["kind"]: resource for resource in resources}
    assert len(by_kind) == len(resources)
    return by_kind


def pod(overlay: str) -> dict[str, Any]:
    spec: dict[str, Any] = rendered(overlay)["Deployment"]["spec"]["template"]["spec"]
    return spec


def container(overlay: str) -> dict[str, Any]:
    (found,) = pod(overlay)["containers"]
    return dict(found)


def environment(overlay: str) -> dict[str, str]:
    """What the container is given, with something in each secret."""
    told = container(overlay)
    (source,) = told["envFrom"]
    config = rendered(overlay)["ConfigMap"]
    assert source["configMapRef"]["name"] == config["metadata"]["name"]
    secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in told["env"]}
    assert all(secret["name"] == "taskhub" for secret in secrets.values())
    return {**config["data"], **{name: SECRETS[secret["key"]] for name, secret in secrets.items()}}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_taskhub_would_serve_with_what_it_is_given(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert problems(monkeypatch, environment(overlay)) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_service_does_not_set_settings(overlay: str) -> None:
    # A Service of the name taskhub puts TASKHUB_PORT=tcp://… into the pods of its namespace, unless they say no.
    assert rendered(overlay)["Service"]["metadata"]["name"] == "taskhub"
    assert pod(overlay)["enableServiceLinks"] is False


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_taskhub_answers(overlay: str) -> None:
    app = web.Application()
    app[SETTINGS] = Settings()
    add_routes(app)
    paths = {resource.canonical for resource in app.router.resources()}
    told = container(overlay)

    assert [told[probe]["httpGet"]["path"] for probe in PROBES] == ["/healthz", "/healthz", "/readyz"]
    assert {told[probe]["httpGet"]["path"] for probe in PROBES} <= paths
    assert {told[probe]["httpGet"]["port"] for probe in PROBES} == {"http"}
    assert told["ports"] == [{"name": "http", "containerPort": Settings.model_fields["port"].default}]
    assert rendered(overlay)["Service"]["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_has_time_to_drain(overlay: str, monkeypatch: pytest.MonkeyPatch) -> None:
    drain_s = look_in_image(monkeypatch, environment(overlay)).settings.drain_s
    before_s = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pod(overlay)["terminationGracePeriodSeconds"] > before_s + drain_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_may_run_where_pods_are_restricted(overlay: str) -> None:
    user = read()[-1].last("USER").text
    told, ours = pod(overlay)["securityContext"], container(overlay)["securityContext"]

    assert f"{told['runAsUser']}:{told['runAsGroup']}" == user
    assert told["runAsNonRoot"] is True
    assert told["seccompProfile"] == {"type": "RuntimeDefault"}
    assert ours["allowPrivilegeEscalation"] is False
    assert ours["readOnlyRootFilesystem"] is True
    assert ours["capabilities"] == {"drop": ["ALL"]}
    assert [mount["mountPath"] for mount in container(overlay)["volumeMounts"]] == read()[-1].last("VOLUME").words


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_selectors_find_the_pods(overlay: str) -> None:
    resources = rendered(overlay)
    labels = resources["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        resources["Deployment"]["spec"]["selector"]["matchLabels"],
        resources["Service"]["spec"]["selector"],
        resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"],
    ]
    if overlay == "full":
        selectors.append(resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"])

    assert all(selector and selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_ingress_passes_streams_on_as_they_come(overlay: str) -> None:
    notes = rendered(overlay)["Ingress"]["metadata"]["annotations"]
    told = {name.rpartition("/")[2]: value for name, value in notes.items()}

    assert told["proxy-buffering"] == "off"
    assert int(told["proxy-read-timeout"]) > Settings.model_fields["sse_max_age_s"].default
    assert "non_idempotent" not in told["proxy-next-upstream"]


def test_one_pod_alone_has_the_embedded_database() -> None:
    told = rendered("embedded")["Deployment"]["spec"]

    assert (told["replicas"], told["strategy"]) == (1, {"type": "Recreate"})
    (volume,) = pod("embedded")["volumes"]
    assert (
        volume["persistentVolumeClaim"]["claimName"]
        == rendered("embedded")["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert "TASKHUB_DATABASE_URL" not in environment("embedded")


def test_several_pods_share_services_and_are_replaced_one_by_one() -> None:
    resources = rendered("full")

    assert resources["HorizontalPodAutoscaler"]["spec"]["minReplicas"] > 1
    assert resources["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == "taskhub"
    assert resources["Deployment"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "replicas" not in resources["Deployment"]["spec"], "each apply would undo the autoscaler's work"
    assert {"TASKHUB_DATABASE_URL", "TASKHUB_REDIS_URL"} <= environment("full").keys()
    assert environment("full")["TASKHUB_MCP_TRANSPORTS"] == "http"
    opened = {port["port"] for rule in resources["NetworkPolicy"]["spec"]["egress"] for port in rule["ports"]}
    assert opened == {53, 5432, 6379}
