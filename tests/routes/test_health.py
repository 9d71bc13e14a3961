"""Probes and capabilities."""

import asyncio

import pytest
from sqlalchemy import text

from broadcaster.filters import FILTER_NAMES
from routes.keys import DATABASE, LIFECYCLE
from taskhub import __version__
from tests.routes.conftest import DEADLINE_S, Hub, Start
from tests.taskhub.world import execute


async def test_a_running_server_is_alive_and_ready(hub: Hub) -> None:
    ready = await hub.get("/readyz")

    assert (await hub.get("/healthz")).json == {"status": "ok"}
    assert (ready.status, ready.json["status"]) == (200, "ready")
    assert ready.json["checks"] == {"process": "ok", "database": "ok", "relay": "ok"}


async def test_a_draining_server_is_alive_and_not_ready(hub: Hub) -> None:
    hub.app[LIFECYCLE].draining = True
    answer = await hub.get("/readyz")
    hub.app[LIFECYCLE].draining = False

    assert (answer.status, answer.json["checks"]["process"]) == (503, "draining")
    assert (await hub.get("/healthz")).status == 200


async def test_without_a_database_a_server_is_alive_and_not_ready(hub: Hub) -> None:
    await hub.app[DATABASE].close()
    ready, health = await hub.get("/readyz"), await hub.get("/health")

    assert (ready.status, ready.json["status"]) == (503, "unavailable")
    assert (health.status, health.json["status"]) == (200, "unavailable")
    assert (await hub.get("/healthz")).status == 200


@pytest.mark.parametrize(("revision", "advice"), [("0001", "run `taskhub migrate`"), ("9999", "update this one")])
async def test_a_schema_of_another_version_is_not_ready_and_says_what_to_do(
    hub: Hub, revision: str, advice: str
) -> None:
    await execute(hub.app[DATABASE], text(f"UPDATE alembic_version SET version_num = '{revision}'"))
    answer = await hub.get("/readyz")

    assert answer.status == 503
    assert answer.json["checks"]["database"].endswith(advice)


async def test_without_redis_a_server_is_degraded_and_ready(start: Start) -> None:
    hub = await start(redis_url="redis://127.0.0.1:1/0")
    answer = await hub.get("/readyz")

    assert (answer.status, answer.json["status"]) == (200, "degraded")
    assert (await hub.get("/health")).json["status"] == "degraded"


async def test_health_tells_people_what_runs(start: Start) -> None:
    hub = await start(api_key="k-secret")
    answer = (await hub.get("/health")).json

    assert (answer["status"], answer["version"], answer["auth_enabled"]) == ("ok", __version__, True)
    assert answer["transport"] == ["http", "sse"]
    assert answer["instance"] == hub.app[LIFECYCLE].instance


async def test_capabilities_tell_programs_what_there_is(hub: Hub) -> None:
    answer = (await hub.get("/capabilities")).json

    assert answer["auth"]["mode"] == "none"
    assert answer["mcp"]["transports"] == {"http": ["/mcp"], "sse": ["/sse", "/message"]}
    assert {"create_ticket", "update_task_status"} <= set(answer["mcp"]["tools"])
    assert answer["mcp"]["eras"]["sessionless"]
    assert answer["mcp"]["eras"]["initialize"]
    assert answer["events"]["filters"] == list(FILTER_NAMES)
    assert "ticket.status_changed" in answer["events"]["types"]


async def test_without_streamable_http_no_sessionless_era_is_told(start: Start) -> None:
    answer = (await (await start(mcp_transports=("sse",))).get("/capabilities")).json["mcp"]

    assert set(answer["transports"]) == {"sse"}
    assert set(answer["eras"]) == {"initialize"}


async def test_a_server_in_front_of_another_tells_only_what_it_has(start: Start) -> None:
    hub = await start(api_base_url="http://127.0.0.1:1")
    answer, page = await hub.get("/capabilities"), await hub.get("/", headers={"Accept": "text/html"})

    assert "events" not in answer.json
    assert answer.json["auth"]["scopes"] == ["events:read", "tickets:read", "tickets:write"]
    assert b"/events/stream" not in page.body
    assert b"/mcp" in page.body
    assert (await hub.get("/events/stream")).code == "no_such_resource"


async def test_a_server_in_front_of_another_is_ready_when_that_answers(hub: Hub, start: Start) -> None:
    front = await start(api_base_url=hub.url)
    away = await start(api_base_url="http://127.0.0.1:1")
    ready, unready, health = await front.get("/readyz"), await away.get("/readyz"), await away.get("/health")

    assert (ready.status, ready.json["checks"]) == (200, {"process": "ok", "upstream": "ok"})
    assert (unready.status, unready.json["status"]) == (503, "unavailable")
    assert unready.json["checks"]["upstream"].startswith("does not answer")
    assert (health.status, health.json["status"]) == (200, "unavailable")


async def test_a_server_in_front_of_one_that_refuses_its_key_is_not_ready(start: Start) -> None:
    behind = await start(api_key="k-secret")
    front = await start(api_base_url=behind.url, remote_api_key="k-guess")
    answer = await front.get("/readyz")

    assert answer.status == 503
    assert "API key" in answer.json["checks"]["upstream"]
    assert b"k-guess" not in answer.body


async def test_the_check_of_a_server_that_hangs_has_an_end(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskhub.remote.CHECK_TIMEOUT_S", 0.5)
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        gone.set()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        front = await start(api_base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        answer = await front.get("/readyz")
        async with asyncio.timeout(DEADLINE_S):
            await gone.wait()

    assert (answer.status, answer.json["checks"]["upstream"]) == (503, "does not answer (timeout)")


async def test_version_is_this_one(hub: Hub) -> None:
    assert (await hub.get("/version")).json == {"name": "TaskHub", "version": __version__}
