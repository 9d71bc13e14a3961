"""What a developer meets: saving a mistake, pasting a configuration, opening a page of another origin."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.browser import LISTEN, browser_page, other_origin
from tests.e2e.harness.checkout import copy_of_the_code
from tests.e2e.harness.clients import Api, api, call, inspect, mcp_sse
from tests.e2e.harness.process import ROOT, TaskHubProcess, run_taskhub
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until


async def test_a_syntax_error_saved_during_development_leaves_the_old_process_serving_and_is_explained(
    make_hub: MakeHub, tmp_path: Path
) -> None:
    checkout = copy_of_the_code(tmp_path / "checkout")
    source = checkout / "taskhub/tickets/model.py"
    good = source.read_text()
    hub = await make_hub(reload=True, checkout=checkout).start()
    async with api(hub.url) as client, record(hub.url) as stream:
        await stream.wait_ready()
        instance = stream.frames[0].data["instance"]
        source.write_text(good + "\ndef broken(:\n")
        said = await until(lambda: explanation(hub.log, "model.py"), "explanation", explain=lambda: hub.log)
        line = len(good.splitlines()) + 2
        assert str(line) in said
        made = await client.create("While the source is broken")
        await stream.wait_id(made["event_id"])

        assert stream.ids == [made["event_id"]]
        assert not stream.named("goodbye")

        source.write_text(good + "\n# mended\n")
        goodbye = await stream.wait_frame("goodbye")
        assert goodbye.data["reconnect"] is True
        async with record(hub.url, headers={"Last-Event-ID": stream.last_event_id or ""}) as again:
            await again.wait_ready()
            assert again.frames[0].data["instance"] != instance
            assert again.frames[0].data["resume"] == "complete"


async def test_a_mistake_that_only_shows_when_the_code_runs_leaves_the_old_process_serving_too(
    make_hub: MakeHub, tmp_path: Path
) -> None:
    checkout = copy_of_the_code(tmp_path / "checkout")
    hub = await make_hub(reload=True, checkout=checkout).start()
    async with api(hub.url) as client, record(hub.url) as stream:
        await stream.wait_ready()
        source = checkout / "taskhub/app.py"
        source.write_text(source.read_text() + "\nraise RuntimeError('misspelt in a hurry')\n")
        await until(lambda: "misspelt in a hurry" in hub.log, "explanation", explain=lambda: hub.log)
        await until(lambda: "keeps serving" in hub.log, "word that the old one serves", explain=lambda: hub.log)
        made = await client.create("While the new process cannot start")
        await stream.wait_id(made["event_id"])

        assert not stream.named("goodbye")


def explanation(log: str, name: str) -> str:
    """The line that says why a file was not taken over."""
    return next((line for line in log.splitlines() if name in line and "keeps serving" in line), "")


def printed_configurations(text: str) -> list[dict[str, Any]]:
    """Every JSON object with `mcpServers` in a text, as a person would copy it."""
    found = []
    decoder = json.JSONDecoder()
    for start in (m.start() for m in re.finditer(r"^ *\{", text, re.MULTILINE)):
        try:
            document, _ = decoder.raw_decode(text[start:].lstrip())
        except ValueError:
            continue
        if "mcpServers" in document:
            found.append(document)
    return found


async def through_inspector(configuration: Path, directory: Path, summary: str) -> str:
    """Create a ticket with the Inspector started in `directory` on this configuration; returns the event's id."""
    answer = await inspect(
        "--config", str(configuration), "--server", "taskhub",
        "--method", "tools/call", "--tool-name", "create_ticket", "--tool-arg", f"summary={summary}",
        cwd=directory,
    )  # fmt: skip
    event_id: str = answer["structuredContent"]["event_id"]
    return event_id


@pytest.mark.needs("npm packages")
async def test_what_mcp_config_prints_works_in_a_client_started_in_another_directory(
    hub: TaskHubProcess, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "another project"
    elsewhere.mkdir()
    # A directory that holds modules of the same names must not be taken for TaskHub.
    (elsewhere / "taskhub.py").write_text("raise SystemExit('not this one')\n")
    (elsewhere / "routes.py").write_text("raise SystemExit('not this one')\n")
    data = {"TASKHUB_DATA_DIR": str(hub.data_dir)}
    printed = await run_taskhub("mcp-config", environment=data)
    configurations = printed_configurations(printed)
    kinds = [next(iter(c["mcpServers"].values()))["type"] for c in configurations]
    assert kinds == ["http", "sse", "stdio"], printed

    async with record(hub.url) as stream:
        await stream.wait_ready()
        written = []
        for kind, configuration in zip(kinds, configurations, strict=True):
            file = tmp_path / f"{kind}.json"
            file.write_text(json.dumps(configuration))
            written.append(await through_inspector(file, elsewhere, f"Over {kind}"))
        await stream.wait_id(written[-1])

        assert stream.ids == written


@pytest.mark.needs("npm packages")
async def test_the_readmes_configuration_works_as_printed_and_in_its_older_form(
    make_hub: MakeHub, tmp_path: Path
) -> None:
    (printed, *_) = printed_configurations((ROOT / "README.md").read_text())
    (server,) = printed["mcpServers"].values()
    assert server == {"type": "http", "url": "http://127.0.0.1:8000/mcp"}
    # In development a busy port moves on to the next one; then the printed address is another program's.
    hub = make_hub("--port", "8000")
    await hub.start()
    text = json.dumps(printed).replace("http://127.0.0.1:8000", hub.url)
    as_printed, older = tmp_path / "printed.json", tmp_path / "older.json"
    as_printed.write_text(text)
    older.write_text(text.replace('"type": "http"', '"type": "sse"'))

    async with record(hub.url) as stream:
        await stream.wait_ready()
        written = [
            await through_inspector(as_printed, tmp_path, "As printed"),
            await through_inspector(older, tmp_path, "In the older form"),
        ]
        async with mcp_sse(hub.url, "/mcp") as client:
            written.append((await call(client, "create_ticket", summary="The SDK's older transport"))["event_id"])
        await stream.wait_id(written[-1])

        assert stream.ids == written


READ_EVERYTHING = """
async base => {
  const tickets = await fetch(base + "/api/v1/tickets");
  const made = await fetch(base + "/api/v1/tickets", {
    method: "POST",
    headers: {"Content-Type": "application/json", "Idempotency-Key": "from-a-page"},
    body: JSON.stringify({summary: "From a page of another origin"}),
  });
  const detail = await fetch(base + "/api/v1/tickets/" + (await made.clone().json()).key);
  const stream = await fetch(base + "/events/stream?limit=1&since=earliest", {
    headers: {"Last-Event-ID": "", "Accept": "text/event-stream"},
  });
  return {
    position: tickets.headers.get("TaskHub-Position"),
    tickets: (await tickets.json()).tickets,
    made: await made.json(),
    etag: detail.headers.get("ETag"),
    streamPosition: stream.headers.get("TaskHub-Position"),
    stream: stream.headers.get("TaskHub-Stream"),
  };
}
"""


@pytest.mark.needs("chromium")
async def test_a_page_of_an_allowed_origin_reads_the_stream_and_the_api(make_hub: MakeHub) -> None:
    async with other_origin() as origin, browser_page() as page:
        environment = {"TASKHUB_ALLOWED_ORIGINS": origin}
        hub = await make_hub(environment=environment).start()
        await page.goto(origin)
        await page.evaluate(LISTEN, {"url": f"{hub.url}/events/stream", "names": ["message", "ready"]})
        await until(lambda: page.evaluate("window.seen.some(e => e.event === 'ready')"), "ready in the page")
        read = await page.evaluate(READ_EVERYTHING, hub.url)
        await until(lambda: page.evaluate("window.seen.filter(e => e.event === 'message').length"), "event in the page")
        seen = await page.evaluate("window.seen")

    assert seen[-1]["id"] == read["made"]["event_id"]
    assert seen[-1]["data"]["data"]["ticket"]["summary"] == "From a page of another origin"
    assert read["etag"] == '"1"'
    assert read["position"]
    assert read["streamPosition"]
    assert read["stream"]


@pytest.mark.needs("chromium")
async def test_a_page_of_an_origin_that_is_not_allowed_reads_nothing(make_hub: MakeHub) -> None:
    key = {"X-API-Key": "e2e-key-" + "k" * 24}
    environment = {
        "TASKHUB_ENV": "production",
        "TASKHUB_API_KEY": key["X-API-Key"],
        "TASKHUB_ALLOWED_ORIGINS": "https://board.example",
    }
    hub = await make_hub(environment=environment).start()
    attempt = "([base, headers]) => fetch(base + '/api/v1/tickets', {headers}).then(r => r.status, e => 'refused')"
    async with other_origin() as origin, browser_page() as page:
        await page.goto(origin)
        answers = [await page.evaluate(attempt, [hub.url, headers]) for headers in ({}, key)]
    async with api(hub.url, headers=key) as client:
        assert await client.get("/api/v1/tickets")

    assert answers == ["refused", "refused"]


async def test_in_development_a_busy_port_moves_on_and_the_real_address_is_written_down(
    make_hub: MakeHub, hub: TaskHubProcess, rest: Api
) -> None:
    second = make_hub("--port", str(hub.port))
    await second.start()

    assert second.port != hub.port
    assert f"{second.url}/mcp" in second.log
    async with api(second.url) as client:
        await client.create("On the second server")
        assert len(await client.all_tickets()) == 1


async def test_in_production_a_busy_port_is_an_error_that_names_the_holder(
    make_hub: MakeHub, hub: TaskHubProcess
) -> None:
    environment = {"TASKHUB_ENV": "production", "TASKHUB_API_KEY": "e2e-key-" + "k" * 24}
    second = make_hub("--port", str(hub.port), environment=environment)
    second.launch()

    assert await second.wait_exit() != 0
    assert str(hub.port) in second.log
    assert str(hub.pid) in second.log
    assert "Traceback" not in second.log
