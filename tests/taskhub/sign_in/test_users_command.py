"""`taskhub users`, run as a program."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from taskhub import server_file
from taskhub.server_file import RunningServer
from tests.e2e.harness.process import clean_environment
from tests.forked import run_forked

PASSWORD = "correct horse battery"


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    return clean_environment({"TASKHUB_DATA_DIR": str(tmp_path)})


def users(
    environment: Mapping[str, str], *arguments: str, typed: str = "", status: int = 0
) -> subprocess.CompletedProcess[bytes]:
    done = run_forked("-m", "taskhub", "users", *arguments, environment=environment, given=typed.encode())
    assert done.returncode == status, done.stderr.decode()
    return done


def test_the_first_operator_gets_a_link_to_the_server_that_runs(environment: Mapping[str, str], tmp_path: Path) -> None:
    server_file.write(tmp_path, RunningServer(os.getpid(), "http://127.0.0.1:8042", "api_key"))
    made = users(environment, "sign-in-link", "Olga", "--role", "operator")
    elsewhere = users(environment, "sign-in-link", "olga", "--url", "https://hub.example.org/")

    # The link alone is on standard output, so that it can be passed on.
    assert re.fullmatch(rb"http://127\.0\.0\.1:8042/login#link=thl_[\w-]{48}\n", made.stdout)
    assert b"once, within 15 minutes" in made.stderr
    assert elsewhere.stdout.startswith(b"https://hub.example.org/login#link=thl_")


def test_a_password_is_read_from_standard_input_and_told_nowhere(environment: Mapping[str, str]) -> None:
    users(environment, "add", "Olga", "--role", "operator")
    users(environment, "add", "Bot", "--kind", "agent")
    done = users(environment, "set-password", "Olga", typed=f"{PASSWORD}\n")
    listed = users(environment, "list", "--json").stdout.decode().splitlines()
    by_id = {user["id"]: user for user in map(json.loads, listed)}

    assert b"olga has a new password" in done.stderr
    assert PASSWORD.encode() not in done.stdout + done.stderr
    assert (by_id["olga"]["role"], by_id["olga"]["has_password"]) == ("operator", True)
    assert (by_id["bot"]["kind"], by_id["bot"]["has_password"]) == ("agent", False)
    assert "olga  Olga  human  operator  password" in users(environment, "list").stdout.decode()


def test_what_cannot_be_done_is_told(environment: Mapping[str, str]) -> None:
    users(environment, "add", "Olga")
    short = users(environment, "set-password", "Olga", typed="short\n", status=1)
    unknown = users(environment, "sign-in-link", "Olag", status=1)
    twice = users(environment, "add", "Olga", status=1)

    assert b"at least 12" in short.stderr
    assert b"short" not in short.stderr
    assert b"there is no 'Olag'" in unknown.stderr
    assert b"Olga" in twice.stderr
    nowhere = users(environment, "sign-in-link", "Olga", "--workspace", "acme", status=1)
    assert nowhere.stderr == b"taskhub: there is no workspace 'acme', but default\n"
    assert users(environment, "sign-out", "Olga").stderr == b"0 sessions have ended\n"


def test_who_signs_in_has_the_role_that_was_asked_for(environment: Mapping[str, str]) -> None:
    users(environment, "add", "Olga", "--role", "viewer")
    refused = users(environment, "sign-in-link", "olga", "--role", "operator", status=1)
    nothing = users(environment, "change", "Olga", status=1)
    nobody = users(environment, "change", "Olag", "--role", "operator", status=1)
    users(environment, "change", "Olga", "--role", "operator")
    link = users(environment, "sign-in-link", "olga", "--role", "operator")
    users(environment, "change", "Olga", "--out-of-use")
    gone = users(environment, "sign-in-link", "olga", status=1)
    users(environment, "change", "Olga", "--in-use")

    assert b"the role of Olga (olga) is viewer" in refused.stderr
    assert b"`taskhub users change`" in refused.stderr
    assert refused.stdout == b""
    assert b"--role, --email, --out-of-use or --in-use" in nothing.stderr
    assert b"there is no user 'Olag'" in nobody.stderr
    assert b"#link=thl_" in link.stdout
    assert gone.stdout == b""
    assert "olga  Olga  human  operator  no password" in users(environment, "list").stdout.decode()


def test_an_address_for_the_provider_is_given_and_changed(environment: Mapping[str, str]) -> None:
    users(environment, "add", "Olga", "--email", "olga@example.org")
    users(environment, "change", "Olga", "--email", "olga@example.com")
    (olga,) = (json.loads(line) for line in users(environment, "list", "--json").stdout.splitlines() if b"olga" in line)

    assert olga["email"] == "olga@example.com"
    assert b"no account" in users(environment, "unlink", "Olga", status=1).stderr
