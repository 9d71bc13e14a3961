"""Serving: where it listens, what it prints, how it starts and fails to start, and that it leaves nothing behind."""

import asyncio
import json
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer

from routes.keys import BROADCASTER, LIFECYCLE
from taskhub import server_file
from taskhub.app import _kept_secret, broadcast_options, create_app, open_tickets
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.cli.serve import banner_text
from taskhub.listening import listen
from taskhub.settings.loading import load
from taskhub.tickets.inputs import NewTicket, TicketQuery
from tests.e2e.harness.process import TaskHubProcess, run_command
from tests.e2e.harness.waiting import until
from tests.taskhub.world import DEADLINE_S

KEY = "a-key-of-the-tests"


async def test_an_application_starts_and_stops_with_a_stream_open_and_leaves_no_task(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    app = create_app(load({"data_dir": tmp_path}).settings)
    async with TestClient(TestServer(app)) as client:
        stream = await client.get("/events/stream")
        head = await stream.content.readuntil(b"\n\n")
        assert b"event: hello" in head
        await client.close()

    assert asyncio.all_tasks() == before
    assert app[LIFECYCLE].draining


async def test_what_a_stdio_process_writes_a_server_on_the_same_database_has(tmp_path: Path) -> None:
    settings = load({"data_dir": tmp_path}).settings
    caller = Caller(Principal("user:alice", "default", ALL_SCOPES, authenticated=False), "mcp_tool")

    async with open_tickets(settings) as (tickets, _):
        written = await tickets.create_ticket(caller, NewTicket(summary="From elsewhere"))
    async with TestClient(TestServer(create_app(settings))) as client:
        answer = await client.get(f"/api/v1/tickets/{written.key}")
        assert (await answer.json())["ticket"]["summary"] == "From elsewhere"


async def test_in_front_of_another_taskhub_only_mcp_is_served_and_the_tickets_are_the_others(tmp_path: Path) -> None:
    caller = Caller(Principal("user:alice", "default", ALL_SCOPES, authenticated=False), "mcp_tool")
    async with TestServer(create_app(load({"data_dir": tmp_path / "a"}).settings)) as server:
        front = load({"data_dir": tmp_path / "b", "api_base_url": str(server.make_url("")).rstrip("/")}).settings
        async with open_tickets(front) as (tickets, watch):
            written = await tickets.create_ticket(caller, NewTicket(summary="Through the front"))
            listed = await tickets.list_tickets(caller, TicketQuery())
            assert watch is None
        app = create_app(front)
        async with TestClient(TestServer(app)) as client:
            assert (await client.get("/api/v1/tickets")).status == 404
            assert (await client.get("/readyz")).status == 200
            assert BROADCASTER not in app

    assert [ticket.key for ticket in listed.tickets] == [written.key]
    assert (tmp_path / "b" / "session-secret").stat().st_mode & 0o077 == 0
    assert not (tmp_path / "b" / "taskhub.db").exists()


def test_a_secret_is_kept_and_never_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(size: int) -> bytes:
        raise SystemExit

    path = tmp_path / "new" / "session-secret"
    with monkeypatch.context() as context:
        context.setattr("secrets.token_bytes", killed)
        with pytest.raises(SystemExit):
            _kept_secret(path)

    secret = _kept_secret(path)

    assert len(secret) == 32
    assert _kept_secret(path) == secret
    assert path.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in path.parent.iterdir()] == ["session-secret"]


def test_every_limit_of_streams_comes_from_its_setting() -> None:
    given = {
        "sse_max_age_s": 11,
        "sse_buffer_bytes": 2222,
        "sse_write_timeout_s": 3,
        "sse_max_streams": 44,
        "poll_interval_ms": 555,
        "drain_s": 6,
    }

    options = broadcast_options(load(given).settings, "i1")

    assert (options.instance, options.max_age_s, options.buffer_bytes) == ("i1", 11, 2222)
    assert (options.write_timeout_s, options.max_streams, options.poll_interval_s, options.drain_s) == (3, 44, 0.555, 6)


def test_the_banner_can_be_pasted(tmp_path: Path) -> None:
    text = banner_text(load({"data_dir": tmp_path, "api_key": KEY}).settings, "http://127.0.0.1:8001")

    assert 'curl -N -H "x-api-key: $TASKHUB_API_KEY" "http://127.0.0.1:8001/events/stream"' in text
    assert json.loads(text[text.index("{") :])["mcpServers"]["taskhub"]["url"] == "http://127.0.0.1:8001/mcp"
    assert str(tmp_path) in text
    assert KEY not in text


def test_the_banner_names_the_command_by_a_path_unless_the_shell_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "taskhub").touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.chdir(tmp_path)
    settings = load({"data_dir": tmp_path}).settings

    monkeypatch.setenv("PATH", "/nowhere")
    assert "(other forms: .venv/bin/taskhub mcp-config)" in banner_text(settings, "http://127.0.0.1:8001")
    monkeypatch.setenv("PATH", str(programs))
    assert "(other forms: taskhub mcp-config)" in banner_text(settings, "http://127.0.0.1:8001")


async def test_in_development_a_busy_port_moves_on_and_the_real_address_is_printed_and_written_down(
    tmp_path: Path,
) -> None:
    with listen("127.0.0.1", 0, move_on=False) as busy:
        hub = TaskHubProcess(tmp_path / "data")
        hub.port = taken = busy.getsockname()[1]
        hub.launch()
        try:
            async with asyncio.timeout(DEADLINE_S):
                while (server := server_file.read(hub.data_dir)) is None:
                    assert hub.running, hub.log
                    await asyncio.sleep(0.02)
            async with aiohttp.ClientSession() as session, session.get(f"{server.url}/readyz") as ready:
                assert ready.status == 200
            assert server.url != f"http://127.0.0.1:{taken}"
            assert f"port {taken} is in use; moving on to" in hub.log
            assert f"{server.url}/mcp" in hub.log
            assert await hub.stop() == 0
        finally:
            hub.dispose()

    assert server_file.read(hub.data_dir) is None


async def test_a_second_server_on_the_same_data_says_so_and_the_first_is_found_again_when_it_ends(
    tmp_path: Path,
) -> None:
    first = TaskHubProcess(tmp_path / "data")
    second = TaskHubProcess(tmp_path / "second", environment={"TASKHUB_DATA_DIR": str(first.data_dir)})
    other = "another TaskHub (pid {0.pid}, http://127.0.0.1:{0.port}) serves this data directory, too"
    try:
        await first.start()
        second.launch()
        await until(lambda: other.format(first) in second.log, "word of the first server")
        running = server_file.read(first.data_dir)
        assert running is not None
        assert running.pid == second.pid
        assert "another TaskHub" not in first.log
        assert await second.stop() == 0

        running = server_file.read(first.data_dir)
        assert running is not None
        assert running.pid == first.pid
        assert await first.stop() == 0
    finally:
        first.dispose()
        second.dispose()

    assert server_file.read(first.data_dir) is None


async def test_in_production_a_busy_port_is_an_error_and_logs_are_json(tmp_path: Path) -> None:
    environment = {"TASKHUB_ENV": "production", "TASKHUB_API_KEY": KEY}
    first = TaskHubProcess(tmp_path / "first", environment=environment)
    second = TaskHubProcess(tmp_path / "second", environment=environment)
    try:
        await first.start()
        second.port = first.port
        second.launch()

        assert await second.wait_exit() == 1
        assert f"port {first.port} is in use" in second.log
        assert await first.stop() == 0
    finally:
        first.dispose()
        second.dispose()

    records = [json.loads(line) for line in first.log.splitlines() if line.startswith('{"')]
    assert {"time", "severity", "message"} <= set(records[-1])


@pytest.mark.parametrize("arguments", [["--no-reload"], ["--reload"]])
async def test_a_database_that_is_away_ends_the_start_with_one_sentence(tmp_path: Path, arguments: list[str]) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/taskhub"
    hub = TaskHubProcess(tmp_path / "data", *arguments, environment={"TASKHUB_DATABASE_URL": url})
    hub.launch()
    try:
        assert await hub.wait_exit() == 1
    finally:
        hub.dispose()

    assert "the database cannot be reached" in hub.log
    assert "Traceback" not in hub.log
    assert "hunter2" not in hub.log


async def test_an_older_variable_starts_the_stdio_server_without_a_command(tmp_path: Path) -> None:
    environment = {"TASKHUB_DATA_DIR": str(tmp_path), "MCP_TRANSPORT_TYPE": "stdio"}

    assert await run_command(sys.executable, "-m", "taskhub", environment=environment) == ""
