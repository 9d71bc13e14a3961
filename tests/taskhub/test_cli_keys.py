"""`taskhub keys`, `workspaces` and `audit` on a database of their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from taskhub.auth.secret import well_formed
from taskhub.cli.parser import run


@pytest.fixture(autouse=True)
def database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sqlite_template: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKHUB_DATA_DIR", str(data))
    return Path(shutil.copy(sqlite_template, data / "taskhub.db"))


class Said:
    """Runs commands, and what they print."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, standard output and standard error."""
        status = run(arguments)
        captured = self._capsys.readouterr()
        return status, captured.out, captured.err

    def done(self, *arguments: str) -> str:
        status, out, err = self(*arguments)
        assert status == 0, err
        return out

    def refused(self, *arguments: str) -> str:
        status, out, err = self(*arguments)
        assert (status, out) == (1, "")
        return err

    def audit(self, *arguments: str) -> list[Any]:
        return [json.loads(line) for line in self.done("audit", "--json", *arguments).splitlines()]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    return Said(capsys)


def test_a_key_for_a_new_user_takes_a_role(said: Said) -> None:
    assert "there is no user 'carol' in the workspace default; --role adds one" in said.refused(
        "keys", "create", "--user", "carol"
    )
    assert "the role agent may not admin" in said.refused(
        "keys", "create", "--user", "carol", "--role", "agent", "--scopes", "admin"
    )
    assert said.done("keys", "list") == ""

    assert well_formed(said.done("keys", "create", "--user", "carol", "--role", "agent").strip())
    assert well_formed(said.done("keys", "create", "--user", "Carol").strip())
    assert [json.loads(line)["user"] for line in said.done("keys", "list", "--json").splitlines()] == ["carol"] * 2


def test_a_key_is_given_limits_of_its_own(said: Said) -> None:
    said.done("keys", "create", "--user", "carol", "--role", "agent", "--limits", "writes_per_s=100, streams=0")
    (made,) = map(json.loads, said.done("keys", "list", "--json").splitlines())

    assert made["limits"] == {"streams": 0, "writes_per_s": 100, "write_burst": None}
    assert "streams=0,writes_per_s=100\n" in said.done("keys", "list")
    assert "streams=0,write_burst=7\n" in said.done(
        "keys", "change", made["id"], "--limits", "writes_per_s=-,write_burst=7"
    )
    assert "--limits" in said.refused("keys", "change", made["id"], "--limits", "streams=1.5")
    with pytest.raises(SystemExit):
        said("keys", "change", made["id"], "--limits", "stream=1")
    assert [entry["action"] for entry in said.audit("--action", "key.changed")] == ["key.changed"]


def test_a_role_or_kind_that_is_not_the_users_is_refused(said: Said) -> None:
    said.done("keys", "create", "--user", "Carol", "--role", "agent")

    role = said.refused("keys", "create", "--user", "carol", "--role", "operator")
    kind = said.refused("keys", "create", "--user", "carol", "--kind", "service")

    assert "the role of Carol (carol) is agent" in role
    assert "the kind of Carol (carol) is human" in kind
    assert len(said.done("keys", "list").splitlines()) == 1
    said.done("keys", "create", "--user", "carol", "--role", "agent", "--kind", "human")


def test_wrong_arguments_are_named(said: Said) -> None:
    said.done("keys", "create", "--user", "carol", "--role", "agent")
    (key,) = said.done("keys", "list").splitlines()

    assert "--scopes" in said.refused("keys", "create", "--user", "carol", "--scopes", "nothing")
    assert "--overlap" in said.refused("keys", "rotate", key.split()[0], "--overlap", "400d")
    assert "no workspace 'nowhere', but default" in said.refused("keys", "list", "--workspace", "nowhere")
    assert "no workspace 'nowhere'" in said.refused("export", "--workspace", "nowhere")
    assert "there are authentication.failed" in said.refused("audit", "--action", "nothing")
    assert "since" in said.refused("audit", "--since", "yesterday")


def test_workspaces_are_made_with_what_they_need_and_apart(said: Said, tmp_path: Path) -> None:
    assert "--user NAME" in said.done("workspaces", "create", "acme", "--key-prefix", "AC", "--name", "Acme Inc.")
    said.done("keys", "create", "--workspace", "acme", "--user", "carol", "--role", "operator")
    file = tmp_path / "tickets.jsonl"
    file.write_text('{"external_ticket_id": "X-1", "summary": "one", "status": "in progress"}\n')
    assert said.done("import", str(file), "--workspace", "acme") == "1 created, 0 updated, 0 unchanged, 0 not taken\n"

    listed = [json.loads(line) for line in said.done("workspaces", "list", "--json").splitlines()]
    assert [(each["id"], each["key_prefix"], each["name"]) for each in listed] == [
        ("acme", "AC", "Acme Inc."),
        ("default", "TH", "Default"),
    ]
    assert "AC-1" in said.done("export", "--workspace", "acme", "--format", "jsonl")
    assert said.done("export", "--format", "jsonl") == ""
    assert said.done("keys", "list") == ""
    assert said.done("workspaces", "rename", "acme", "Acme") == "acme is called Acme\n"
    assert said.done("doctor").splitlines()[-1] == "no problems"
    assert [entry["action"] for entry in said.audit("--workspace", "acme")] == [
        "workspace.created", "user.added", "key.created", "tickets.imported", "tickets.exported", "workspace.renamed",
    ]  # fmt: skip


def test_workspaces_that_cannot_be_are_refused(said: Said) -> None:
    said.done("workspaces", "create", "acme", "--key-prefix", "AC")

    for arguments, reason in (
        (("create", "acme", "--key-prefix", "AD"), "there is a workspace acme already"),
        (("create", "other", "--key-prefix", "AC"), "AC are those of the workspace acme"),
        (("create", "Other", "--key-prefix", "OT"), "lower-case letters"),
        (("create", "other", "--key-prefix", "ot"), "a capital letter"),
        (("create", "other", "--key-prefix", "O-T"), "a capital letter"),
        (("create", "other", "--key-prefix", "OT", "--name", " "), "the name must be"),
        (("rename", "nowhere", "x"), "no workspace 'nowhere', but acme, default"),
        (("rename", "acme", "\x1b[2J"), "printable"),
    ):
        assert reason in said.refused("workspaces", *arguments)


def test_the_audit_log_is_narrowed_and_shows_no_secret(said: Said) -> None:
    secret = said.done("keys", "create", "--user", "carol", "--role", "agent").strip()
    said.done("keys", "create", "--user", "carol", "--name", f"was {secret}")
    said.done("export")

    assert [entry["action"] for entry in said.audit()] == [
        "user.added", "key.created", "key.created", "tickets.exported",
    ]  # fmt: skip
    assert [entry["action"] for entry in said.audit("--action", "user.added,tickets.exported")] == [
        "user.added", "tickets.exported",
    ]  # fmt: skip
    assert said.audit("--actor", "user:nobody") == []
    assert len(said.audit("--since", "1h")) == 4
    lines = said.done("audit").splitlines()
    assert "key.created  success  user:local" in lines[1]
    assert secret not in "".join(lines)


def test_what_others_named_moves_nothing_in_the_terminal(said: Said) -> None:
    said.done("keys", "create", "--user", "carol", "--role", "agent", "--name", "\x1b[2J\x9b")

    assert "\x1b" not in said.done("audit") + said.done("keys", "list")
    assert "\x9b" not in said.done("audit") + said.done("keys", "list")


def test_backups_and_restores_are_recorded(said: Said, tmp_path: Path) -> None:
    said.done("workspaces", "create", "acme", "--key-prefix", "AC")
    said.done("backup", str(tmp_path / "b"))
    assert [entry["action"] for entry in said.audit()] == ["database.backed_up"]

    said.done("restore", "--replace", str(tmp_path / "b"))

    assert [entry["action"] for entry in said.audit()] == ["database.restored"]
    assert [entry["action"] for entry in said.audit("--workspace", "acme")] == [
        "workspace.created",
        "database.restored",
    ]
