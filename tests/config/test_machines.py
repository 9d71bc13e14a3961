"""What runs beside TaskHub on a machine of one's own: proxies, systemd, Litestream."""

import os
import re
import shutil
import signal
import subprocess

import pytest
import yaml

from taskhub.cli.parser import build_parser
from taskhub.settings.model import Settings
from tests.config.dockerfile import ROOT
from tests.config.served import look_with

CADDY = (ROOT / "config/caddy/Caddyfile").read_text()
NGINX = (ROOT / "config/nginx/taskhub.conf").read_text()
UNIT = ROOT / "config/systemd/taskhub.service"


def unit() -> dict[str, list[str]]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    found: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition("=")
        found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("idle", [re.search(r"keepalive_timeout (\d+)s", NGINX), re.search(r"keepalive (\d+)s", CADDY)])
def test_a_proxy_closes_idle_connections_before_taskhub_does(idle: re.Match[str] | None) -> None:
    assert idle is not None
    assert int(idle[1]) < Settings.model_fields["keep_alive_s"].default


def test_caddy_and_nginx_take_bodies_of_the_same_size() -> None:
    assert re.findall(r"max_size (\d+)MiB", CADDY) == ["257", "33"]
    assert sorted(re.findall(r"client_max_body_size (\d+)m;", NGINX)) == ["257", "33"]


def test_caddy_passes_streams_on_as_they_come_and_lets_them_end() -> None:
    (grace,) = re.findall(r"grace_period (\d+)m", CADDY)

    assert "flush_interval -1" in CADDY
    assert int(grace) * 60 > Settings.model_fields["sse_max_age_s"].default
    assert CADDY.count("{") == CADDY.count("}")


def test_systemd_starts_taskhub_with_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    told = unit()
    variables = dict(pair.split("=", 1) for line in told["Environment"] for pair in line.split())
    given = {name: value.replace("%S", "/var/lib") for name, value in variables.items() if name.startswith("TASKHUB_")}
    secrets = {"TASKHUB_CONFIG": str(ROOT / "config/production.toml"), "TASKHUB_API_KEY": "k" * 32,
               "TASKHUB_ALLOWED_HOSTS": "taskhub.example.org"}  # fmt: skip
    (program, *arguments) = told["ExecStart"][0].split()

    loaded = look_with(monkeypatch, given | secrets)

    assert [*loaded.unknown, *loaded.problems()] == []
    assert str(loaded.settings.data_dir) == f"/var/lib/{told['StateDirectory'][0]}"
    assert program.endswith("/.venv/bin/taskhub")
    assert build_parser().parse_args(arguments).command == "serve"


def test_systemd_waits_until_taskhub_has_drained() -> None:
    told = unit()

    assert int(told["TimeoutStopSec"][0]) > Settings.model_fields["drain_s"].default
    assert told["KillMode"] == ["mixed"]
    assert getattr(signal, told.get("KillSignal", ["SIGTERM"])[0]) == signal.SIGTERM


def test_systemd_keeps_the_service_in() -> None:
    if (analyze := shutil.which("systemd-analyze")) is None:
        pytest.skip("missing systemd-analyze (not on the path)")

    judged = subprocess.run(
        [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True, text=True, env=os.environ | {"NO_COLOR": "1"},
    )  # fmt: skip

    assert judged.returncode == 0, judged.stdout[-2000:] + judged.stderr


def test_litestream_copies_the_database_of_the_service() -> None:
    (database,) = yaml.safe_load((ROOT / "config/litestream.yml").read_text())["dbs"]

    assert database["path"] == f"/var/lib/{unit()['StateDirectory'][0]}/taskhub.db"
