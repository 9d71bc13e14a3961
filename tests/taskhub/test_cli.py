"""The command line."""

import asyncio
import json
import os
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from taskhub import __main__, server_file
from taskhub.cli.parser import build_parser, run
from taskhub.server_file import RunningServer
from taskhub.settings.model import Settings


@pytest.fixture(autouse=True)
def data_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKHUB_DATA_DIR", str(tmp_path / "data"))
    return tmp_path / "data"


def test_check_prints_every_setting_with_its_source_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_API_KEY", "hunter2")
    monkeypatch.setenv("PORT", "9000")

    status = run(["check"])

    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0
    assert [f"TASKHUB_{name.upper()}" for name in Settings.model_fields if f"TASKHUB_{name.upper()}" not in lines] == []
    assert "9000" in lines["TASKHUB_PORT"]
    assert lines["TASKHUB_PORT"].endswith("environment PORT")
    assert "hunter2" not in out


def test_check_fails_on_unknown_names(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("TASKHUB_DRIAN_S", "8")

    assert run(["check"]) == 2
    assert "TASKHUB_DRIAN_S is not a setting; did you mean TASKHUB_DRAIN_S?" in capsys.readouterr().err


def test_check_shows_the_other_settings_when_one_is_wrong_and_never_the_wrong_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "mysql://me:hunter2@h/d")

    assert run(["check"]) == 2

    said = capsys.readouterr()
    lines = {line.split()[0]: line.split(maxsplit=2)[1:] for line in said.out.splitlines()}
    assert lines["TASKHUB_DATABASE_URL"] == ["(wrong)", "environment TASKHUB_DATABASE_URL"]
    assert lines["TASKHUB_PORT"] == ["8000", "default"]
    assert "DATABASE_URL (environment TASKHUB_DATABASE_URL): must be" in said.err
    assert "hunter2" not in said.out + said.err


def test_check_says_why_authentication_is_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_API_KEY", "k")

    assert run(["check"]) == 0

    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("TASKHUB_AUTH "))
    assert line.split(maxsplit=2)[1:] == ["api_key", "because API_KEY is set (environment TASKHUB_API_KEY)"]


def test_serve_names_all_that_is_wrong_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_ENV", "production")
    monkeypatch.setenv("TASKHUB_PORT", "many")
    monkeypatch.setenv("TASKHUB_DRIAN_S", "8")

    assert run(["serve", "--reload", "--host", "0.0.0.0"]) == 2

    said = capsys.readouterr().err
    for part in ("PORT (environment", "TASKHUB_API_KEY", "TASKHUB_ALLOWED_HOSTS", "--reload is", "TASKHUB_DRAIN_S?"):
        assert part in said, part


def test_what_follows_from_a_value_that_is_wrong_is_not_held_against_anybody(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_AUTH", "apikey")
    monkeypatch.setenv("TASKHUB_ALLOWED_HOSTS", "x.example")

    assert run(["serve", "--host", "0.0.0.0"]) == 2

    assert capsys.readouterr().err.splitlines() == [
        "taskhub: AUTH (environment TASKHUB_AUTH): input should be 'none', 'api_key' or 'oauth'"
    ]


@pytest.mark.parametrize("command", ["check", "serve", "stdio", "migrate", "watch", "mcp-config"])
def test_every_command_names_a_wrong_setting_and_exits_2(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_PORT", "many")

    assert run([command]) == 2
    assert "taskhub: PORT (environment TASKHUB_PORT)" in capsys.readouterr().err


def test_serve_refuses_what_is_not_safe_before_it_binds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--host", "0.0.0.0", "--port", "0"]) == 2

    said = capsys.readouterr().err
    assert "TASKHUB_API_KEY" in said
    assert "TASKHUB_ALLOWED_HOSTS" in said


def test_serve_refuses_to_reload_in_production(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_ENV", "production")
    monkeypatch.setenv("TASKHUB_API_KEY", "k")

    assert run(["serve", "--reload", "--port", "0"]) == 2
    assert "--reload is for development" in capsys.readouterr().err


def test_serve_refuses_several_workers_without_what_they_share_and_says_what_to_set(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["serve", "--workers", "2", "--port", "0"]) == 2

    database, redis = capsys.readouterr().err.splitlines()
    assert "WORKERS=2" in database
    assert "SQLite is one server's" in database
    assert "TASKHUB_DATABASE_URL" in database
    assert "streams would hear it a poll later" in redis
    assert "TASKHUB_REDIS_URL" in redis


@pytest.mark.parametrize(
    ("arguments", "transports", "said"),
    [
        (["--reload"], "http", "--reload is for one server process; with WORKERS, SIGHUP"),
        (["--demo"], "http", "--demo is for one server process"),
        ([], "http,sse", "set TASKHUB_MCP_TRANSPORTS=http"),
    ],
)
def test_serve_refuses_what_only_one_process_can_do(
    arguments: list[str],
    transports: str,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "postgresql://db/taskhub")
    monkeypatch.setenv("TASKHUB_REDIS_URL", "redis://redis")
    monkeypatch.setenv("TASKHUB_WORKERS", "2")
    monkeypatch.setenv("TASKHUB_MCP_TRANSPORTS", transports)

    assert run(["serve", "--port", "0", *arguments]) == 2

    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_check_says_why_the_older_transport_is_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_WORKERS", "2")

    run(["check"])

    (line,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("TASKHUB_MCP_TRANSPORTS "))
    assert line.split(maxsplit=2)[1:] == ["http", "because WORKERS is 2 (environment TASKHUB_WORKERS)"]


def test_serve_refuses_examples_where_it_holds_no_tickets(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["serve", "--demo", "--api-base-url", "http://127.0.0.1:1"]) == 2
    assert "--demo" in capsys.readouterr().err


def test_migrate_makes_the_database(data_of_its_own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["migrate"]) == 0
    assert run(["migrate"]) == 0

    assert (data_of_its_own / "taskhub.db").stat().st_size > 0


def test_tickets_leave_as_a_file_and_come_back_once(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "tickets.csv"
    path.write_text("external_ticket_id,summary\nA,検索\nB,\n")
    assert run(["import", "--strict", str(path)]) == 1
    assert run(["import", str(path)]) == 1
    said = capfdbinary.readouterr()
    assert b"1 created, 0 updated, 0 unchanged, 1 not taken" in said.out
    assert f"{path}:3: summary".encode() in said.err

    assert run(["export", "--format", "jsonl"]) == 0
    lines = tmp_path / "tickets.jsonl"
    lines.write_bytes(capfdbinary.readouterr().out)
    assert [json.loads(text)["summary"] for text in lines.read_text().splitlines()] == ["検索"]
    assert run(["import", str(lines)]) == 0
    assert b"1 unchanged" in capfdbinary.readouterr().out
    assert run(["import", str(tmp_path / "nothing.csv")]) == 1


@pytest.mark.parametrize("command", ["migrate", "check", "serve", "stdio", "export"])
def test_an_address_that_is_no_database_is_named_before_it_is_used(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "mysql://me:hunter2@h/d")

    assert run([command]) == 2
    said = capsys.readouterr().err
    assert said.startswith("taskhub: DATABASE_URL ")
    assert "hunter2" not in said


def configurations(text: str) -> list[dict[str, object]]:
    """The JSON objects in the output of `mcp-config`, in order."""
    found = []
    decoder = json.JSONDecoder()
    while (start := text.find("{\n")) >= 0:
        document, end = decoder.raw_decode(text[start:])
        found.append(document["mcpServers"]["taskhub"])
        text = text[start + end :]
    return found


def test_mcp_config_prints_three_forms_for_the_running_server(
    data_of_its_own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server_file.write(data_of_its_own, RunningServer(os.getpid(), "http://127.0.0.1:8042"))

    assert run(["mcp-config"]) == 0

    http, older, stdio = configurations(capsys.readouterr().out)
    assert http == {"type": "http", "url": "http://127.0.0.1:8042/mcp"}
    assert older == {"type": "sse", "url": "http://127.0.0.1:8042/mcp"}
    assert stdio["args"] == ["-P", "-m", "taskhub", "stdio"]
    assert Path(str(stdio["command"])).is_absolute()
    environment = stdio["env"]
    assert isinstance(environment, dict)
    assert environment["TASKHUB_DATA_DIR"] == str(data_of_its_own)
    assert environment["TASKHUB_DATABASE_URL"] == f"sqlite:///{data_of_its_own}/taskhub.db"


def test_mcp_config_never_prints_a_secret_and_goes_through_the_server_where_the_database_is_not_embedded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "postgresql://me:hunter2@db/taskhub")
    monkeypatch.setenv("TASKHUB_API_KEY", "hunter2")

    assert run(["mcp-config", "--url", "https://taskhub.example.org"]) == 0

    out = capsys.readouterr().out
    http, _, stdio = configurations(out)
    assert "hunter2" not in out
    assert http["headers"] == {"x-api-key": "${TASKHUB_API_KEY}"}
    assert stdio["args"] == ["-P", "-m", "taskhub", "stdio", "--api-base-url", "https://taskhub.example.org"]


def test_mcp_config_goes_where_the_server_goes_that_has_no_tickets_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_API_BASE_URL", "https://taskhub.example.org")
    monkeypatch.setenv("TASKHUB_REMOTE_API_KEY", "hunter2")

    assert run(["mcp-config"]) == 0

    out = capsys.readouterr().out
    http, _, stdio = configurations(out)
    assert "hunter2" not in out
    assert http["url"] == "http://127.0.0.1:8000/mcp"
    assert stdio["args"] == ["-P", "-m", "taskhub", "stdio", "--api-base-url", "https://taskhub.example.org"]
    environment = stdio["env"]
    assert isinstance(environment, dict)
    assert environment["TASKHUB_REMOTE_API_KEY"] == "${TASKHUB_REMOTE_API_KEY}"


def test_mcp_config_prints_one_form_alone_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    for form in ("http", "sse", "stdio"):
        assert run(["mcp-config", "--form", form]) == 0

        assert json.loads(capsys.readouterr().out)["mcpServers"]["taskhub"]["type"] == form


def test_mcp_config_names_the_key_that_a_running_server_asks_for_though_this_shell_has_none(
    data_of_its_own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server_file.write(data_of_its_own, RunningServer(os.getpid(), "http://127.0.0.1:8042", "api_key"))

    for arguments in ([], ["--url", "http://127.0.0.1:8042/mcp/"]):
        assert run(["mcp-config", *arguments]) == 0

        http, older, _ = configurations(capsys.readouterr().out)
        assert http["headers"] == older["headers"] == {"x-api-key": "${TASKHUB_API_KEY}"}
        assert http["url"] == older["url"] == "http://127.0.0.1:8042/mcp"


def test_mcp_config_names_the_variable_of_a_database_whose_address_holds_a_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "postgresql://me:hunter2@db/taskhub")

    assert run(["mcp-config"]) == 0

    said = capsys.readouterr()
    _, _, stdio = configurations(said.out)
    assert "hunter2" not in said.out + said.err
    environment = stdio["env"]
    assert isinstance(environment, dict)
    assert environment["TASKHUB_DATABASE_URL"] == "${TASKHUB_DATABASE_URL}"
    assert stdio["args"] == ["-P", "-m", "taskhub", "stdio"]


@pytest.mark.parametrize("command", ["watch", "mcp-config"])
@pytest.mark.parametrize("url", ["ftp://h", "127.0.0.1:8000", "http://", "http://h:port", "http://h/?x=1", ""])
def test_an_address_that_is_not_of_a_server_is_refused(
    command: str, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run([command, "--url", url])

    assert ended.value.code == 2
    assert "is not an address such as http://127.0.0.1:8000" in capsys.readouterr().err


async def test_watch_sends_the_key_of_this_server_and_not_that_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_API_KEY", "of-this-server")
    monkeypatch.setenv("TASKHUB_REMOTE_API_KEY", "of-another")
    keys: list[str | None] = []

    async def refuse(request: web.Request) -> web.Response:
        keys.append(request.headers.get("x-api-key"))
        return web.json_response({"title": "no"}, status=401)

    app = web.Application()
    app.router.add_get("/events/stream", refuse)
    async with TestServer(app) as server:
        assert await asyncio.to_thread(run, ["watch", "--url", str(server.make_url(""))]) == 1
    assert keys == ["of-this-server"]


def test_watch_says_what_a_filter_looks_like(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["watch", "in_progress"]) == 1
    assert "a filter looks like status=in_progress" in capsys.readouterr().err


def test_without_a_command_the_help_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([]) == 2
    assert "COMMAND" in capsys.readouterr().out


def test_every_command_has_its_module() -> None:
    directory = Path(__main__.__file__).parent / "cli"
    actions = [action for action in build_parser()._actions if action.dest == "command"]

    commands = list(actions[0].choices or ())

    assert sorted(commands) == [
        "audit", "backup", "check", "doctor", "export", "import", "keys", "mcp-config", "migrate", "oauth", "restore",
        "serve", "stdio", "users", "watch", "workspaces",
    ]  # fmt: skip
    for command in sorted({*commands, "import_file"} - {"import"}):
        assert (directory / f"{command.replace('-', '_')}.py").is_file()


def test_ctrl_c_prints_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(arguments: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("taskhub.cli.parser.run", interrupted)

    assert __main__.main() == 130
