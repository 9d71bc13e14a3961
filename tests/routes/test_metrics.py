"""`/metrics`: every metric tells of what it is about, and who may ask."""

import asyncio
import json
from pathlib import Path

import aiohttp
import pytest
from sqlalchemy import text

from routes.keys import BROADCASTER, DATABASE, HELD, TICKETS
from taskhub import __version__
from taskhub.metrics.catalogue import CATALOGUE, PREFIX
from taskhub.tickets.reference_inputs import NewUser
from taskhub.tickets.service import TicketService
from tests.routes.collector import RULES, Scraped, promtool, scrape, without_samples
from tests.routes.conftest import Hub, Start
from tests.routes.test_alerts import call_tool
from tests.taskhub.world import ALICE, execute, until

DASHBOARD = json.loads((RULES.parents[1] / "grafana/dashboards/taskhub.json").read_text())
README = (RULES.parents[2] / "README.md").read_text()
OURSELVES = Path(__file__).read_text()
HISTOGRAM_ENDINGS = ("_bucket", "_sum", "_count")


def family(name: str) -> str:
    """The metric that a sample is of."""
    ending = next((ending for ending in HISTOGRAM_ENDINGS if name.endswith(ending)), "")
    return name.removesuffix(ending) if ending and name.removesuffix(ending).endswith("_seconds") else name


async def busy(hub: Hub) -> tuple[Scraped, Scraped]:
    """Scrapes before and after something of everything."""
    first = await scrape(hub)
    async with hub.stream() as stream:
        await stream.until("ready")
        key = (await hub.create("Printer"))["key"]
        await stream.until("message")
        await call_tool(hub, "claim_ticket", ticket_id=key)
        await stream.until("message")
        last = await scrape(hub)
    return first, last


async def key_of_a_viewer(hub: Hub) -> str:
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Bob", role="viewer"))
    made = await hub.post("/api/v1/keys", {"user": "bob", "name": "n"}, headers={"x-api-key": "k-secret"})
    secret: str = made.json["secret"]
    return secret


async def test_promtool_finds_nothing_wrong_with_the_answer(hub: Hub) -> None:
    _, scraped = await busy(hub)
    status, said = promtool("check", "metrics", stdin=scraped.text)

    assert (status, said) == (0, "")


async def test_every_metric_is_declared_and_documented_and_has_its_labels(hub: Hub) -> None:
    _, scraped = await busy(hub)
    told = {family(name) for name, _ in scraped.values if name.startswith(PREFIX)}

    assert told <= {PREFIX + name for name in CATALOGUE}
    assert {PREFIX + name for name in CATALOGUE} - told == {"taskhub_workers", "taskhub_workers_reporting"}
    for name, metric in CATALOGUE.items():
        assert scraped.kinds.get(PREFIX + name, metric.kind) == metric.kind
        samples = f"{PREFIX}{name}_bucket" if metric.kind == "histogram" else PREFIX + name
        labels = {frozenset(of) - {"le"} for of in scraped.labels(samples)}
        assert labels <= {frozenset(metric.labels)}, name
        told_labels = "".join(f"`{label}` " for label in metric.labels).strip()
        assert f"| `{PREFIX}{name}` | {told_labels} | {metric.help} |" in README
        assert f"{PREFIX}{name}" in OURSELVES or name.startswith("workers")


async def test_requests_are_counted_by_what_is_declared_and_not_by_what_is_sent(hub: Hub) -> None:
    key = (await hub.create("Printer"))["key"]
    for path in (f"/api/v1/tickets/{key}", "/api/v1/tickets/TH-77", "/no/such/thing", "/another"):
        await hub.get(path)
    await hub.request("PROPFIND", "/coffee")
    scraped = await scrape(hub)
    name = "taskhub_http_request_duration_seconds_count"

    assert scraped(name, route="/api/v1/tickets/{key}", method="GET", status="200") == 1
    assert scraped(name, route="/api/v1/tickets/{key}", method="GET", status="404") == 1
    assert scraped(name, route="other", method="GET", status="404") == 2
    assert scraped(name, route="other", method="other") == 1
    assert scraped("taskhub_http_request_duration_seconds_sum", route="other") > 0
    assert scraped("taskhub_http_request_duration_seconds_bucket", route="other", method="GET", le="+Inf") == 2


async def test_mcp_requests_are_counted_by_tool_and_how_they_went(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a mistake")

    await call_tool(hub, "get_ticket_list")
    await call_tool(hub, "get_ticket_detail", ticket_id="TH-77")
    await call_tool(hub, "made_up")
    monkeypatch.setattr(TicketService, "list_tickets", fail)
    await call_tool(hub, "get_ticket_list")
    scraped = await scrape(hub)
    name = "taskhub_mcp_request_duration_seconds_count"

    def count(**labels: str) -> float:
        return scraped(name, method="tools/call", **labels)

    assert count(tool="get_ticket_list", outcome="ok") == 1
    assert count(tool="get_ticket_detail", outcome="refused") == 1
    assert count(tool="other", outcome="refused") == 1
    assert count(tool="get_ticket_list", outcome="failed") == 1


async def test_events_and_their_way_to_the_streams(hub: Hub) -> None:
    async with hub.stream() as one, hub.stream("type=build.*") as other:
        await one.until("ready")
        await other.until("ready")
        await hub.create("Printer")
        await hub.publish("build.finished")
        await hub.publish("deploy.finished")
        for _ in range(3):
            await one.until("message")
        await other.until("message")
        await until(lambda: sum(hub.app[BROADCASTER].counters.delivery_s.counts) == 4)
        scraped = await scrape(hub)

    assert scraped("taskhub_events_appended_total", type="ticket.created") == 1
    assert scraped("taskhub_events_appended_total", type="other") == 2
    assert scraped("taskhub_events_delivered_total") == 4
    assert scraped("taskhub_event_delivery_latency_seconds_count") == 4
    assert scraped("taskhub_event_delivery_latency_seconds_sum") > 0
    assert 2 <= scraped("taskhub_hub_flush_seconds_count") <= 4
    assert scraped("taskhub_streams", state="live") == 2
    assert scraped("taskhub_streams_limit") == hub.app[BROADCASTER].options.max_streams
    assert scraped("taskhub_stream_groups") == 2
    assert scraped("taskhub_log_head_seq", workspace="default") == 3
    assert scraped("taskhub_log_oldest_seq", workspace="default") == 1
    assert scraped("taskhub_tail_seq", workspace="default") == 3
    assert scraped("taskhub_tail_lag_events", workspace="default") == 0


async def test_what_becomes_of_streams(hub: Hub) -> None:
    await hub.publish()
    async with hub.stream("limit=1&since=earliest") as stream:
        await stream.rest()
    async with hub.stream(**{"Last-Event-ID": "zzzz-1"}) as stream:
        await stream.until("reset")
    await until(lambda: not hub.app[BROADCASTER].statistics().streams)
    scraped = await scrape(hub)

    assert scraped("taskhub_streams_opened_total") == 2
    assert scraped("taskhub_stream_ends_total", reason="done") == 1
    assert scraped("taskhub_stream_ends_total", reason="disconnected") == 1
    assert scraped("taskhub_stream_resets_total", reason="epoch_changed") == 1
    assert scraped("taskhub_streams") == 0


async def test_what_waits_for_a_slow_stream(hub: Hub) -> None:
    async with aiohttp.ClientSession(read_bufsize=1024) as session, session.get(f"{hub.url}/events/stream"):
        while not hub.app[BROADCASTER].counters.lagged:
            await hub.publish(data={"text": "x" * 60_000})
        scraped = await scrape(hub)

    assert scraped("taskhub_stream_buffered_bytes") > 0
    assert scraped("taskhub_stream_lags_total") >= 1
    assert scraped("taskhub_streams", state="lagging") == 1


async def test_the_tail_is_measured_by_the_log_itself(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        channel = hub.app[BROADCASTER]._channels["default"]
        await channel.runner.stop()
        await hub.publish()
        await hub.publish()
        scraped = await scrape(hub)

    assert scraped("taskhub_tail_lag_events", workspace="default") == 2


async def test_gaps_that_were_repaired_are_counted_for_good(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broadcaster.channels.LINGER_S", 0.0)
    broadcaster = hub.app[BROADCASTER]
    async with hub.stream() as stream:
        await stream.until("ready")
        with monkeypatch.context() as deaf:
            deaf.setattr(hub.app[TICKETS]._writer, "_on_commit", lambda *_: None)
            await hub.publish()
        await stream.until("message")
        open_ = await scrape(hub)
    await until(lambda: not list(broadcaster._channels))
    closed = await scrape(hub)

    assert open_("taskhub_relay_gaps_repaired_total") == closed("taskhub_relay_gaps_repaired_total") == 1


async def test_the_relay(start: Start) -> None:
    alone = await scrape(await start())
    hub = await start(redis_url="redis://127.0.0.1:1/0")
    await hub.publish()
    away = await scrape(hub)

    assert alone("taskhub_relay_up") == 1
    assert away("taskhub_relay_up") == 0
    assert away("taskhub_relay_dropped_total") == hub.app[BROADCASTER].figures().relay.dropped


async def test_leases_conflicts_and_repeats(hub: Hub) -> None:
    key = (await hub.create("Printer"))["key"]
    lease = await hub.request("PUT", f"/api/v1/tickets/{key}/lease", json={"lease_seconds": 60})
    held = await scrape(hub)
    await execute(hub.app[DATABASE], text("UPDATE leases SET expires_at = '2020-01-01T00:00:00.000Z'"))
    assert await hub.app[TICKETS].expire_leases() == 1
    await hub.request("PATCH", f"/api/v1/tickets/{key}", json={"summary": "x"}, headers={"If-Match": '"1"'})
    for _ in range(3):
        await hub.request("POST", "/api/v1/tickets", json={"summary": "y"}, headers={"Idempotency-Key": "k-1"})
    scraped = await scrape(hub)

    assert lease.status == 200
    assert held("taskhub_leases") == 1
    assert scraped("taskhub_leases") == 0
    assert scraped("taskhub_lease_expired_total") == 1
    assert scraped("taskhub_version_conflicts_total") == 1
    assert scraped("taskhub_idempotent_replays_total") == 2


async def test_the_database(hub: Hub, tmp_path: Path) -> None:
    await hub.create("Printer")
    good = await scrape(hub)
    (tmp_path / "taskhub.db").rename(tmp_path / "away.db")
    assert (await hub.get("/api/v1/tickets")).status == 503
    assert (await hub.post("/api/v1/tickets", {"summary": "x"})).status == 503
    away = await scrape(hub)
    (tmp_path / "away.db").rename(tmp_path / "taskhub.db")

    assert good("taskhub_db_query_duration_seconds_count", op="write") >= 1
    assert good("taskhub_db_query_duration_seconds_count", op="read") >= 1
    assert good("taskhub_db_errors_total") == 0
    assert good("taskhub_ready") == 1
    assert away("taskhub_db_errors_total", op="read") >= 1
    assert away("taskhub_db_errors_total", op="write") >= 1
    assert away("taskhub_ready") == 0
    assert not away.labels("taskhub_log_head_seq")


async def test_refused_credentials(start: Start) -> None:
    hub = await start(api_key="k-secret")
    key = await key_of_a_viewer(hub)
    await hub.get("/api/v1/tickets")
    await hub.get("/api/v1/tickets", headers={"x-api-key": "k-guess"})
    await hub.get("/api/v1/tickets", headers={"Authorization": "Bearer k-guess"})
    forbidden = await hub.get("/events/debug", headers={"x-api-key": key})
    scraped = await scrape(hub)

    assert forbidden.status == 403
    assert scraped("taskhub_limit_refusals_total", limit="auth_failures_per_min") == 0
    assert scraped("taskhub_auth_failures_total", reason="missing") == 1
    assert scraped("taskhub_auth_failures_total", reason="invalid") == 2
    assert scraped("taskhub_auth_failures_total", reason="forbidden") == 1


async def test_refusals_of_a_limit(start: Start) -> None:
    hub = await start(api_key="k-secret", auth_failures_per_min=1)
    statuses = [(await hub.get("/api/v1/tickets", headers={"x-api-key": f"k-guess-{n}"})).status for n in range(4)]
    hub.app[HELD].hold_s = 3600
    waiting = asyncio.create_task(hub.app[HELD].wait())
    await asyncio.sleep(0)
    scraped = await scrape(hub)
    hub.app[HELD].release_all()
    await waiting

    assert scraped("taskhub_limit_refusals_held") == 1
    assert scraped("taskhub_limit_refusals_total", limit="auth_failures_per_min") == statuses.count(429) > 0
    assert scraped("taskhub_auth_failures_total", reason="invalid") == statuses.count(401)


async def test_the_process(hub: Hub) -> None:
    first = await scrape(hub)

    assert first("taskhub_build_info", version=__version__) == 1
    assert first("process_resident_memory_bytes") > 10_000_000
    assert first("process_cpu_seconds_total") > 0
    assert 0 < first("process_open_fds") < first("process_max_fds")
    assert first("process_start_time_seconds") > 1_500_000_000
    while not (await scrape(hub))("taskhub_loop_lag_seconds_count"):
        await asyncio.sleep(0.01)


async def test_every_panel_of_the_dashboard_shows_something(hub: Hub, tmp_path: Path) -> None:
    queries = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    queries = [query.replace("$instance", ".*").replace("$__rate_interval", "5m") for query in queries]
    before, after = await busy(hub)

    assert len(queries) > 30
    assert without_samples(tmp_path, queries, before, after) == []


def test_every_metric_is_on_the_dashboard() -> None:
    shown = json.dumps(DASHBOARD)
    left_out = {"build_info", "tail_seq", "workers", "workers_reporting"}

    assert [name for name in CATALOGUE if PREFIX + name not in shown and name not in left_out] == []
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


async def test_who_may_read_the_metrics(start: Start) -> None:
    hub = await start(api_key="k-secret", trusted_proxies=("127.0.0.2",))
    elsewhere = await start(api_key="k-secret", metrics=("10.0.0.0/8",))
    proxied = {"X-Forwarded-For": "127.0.0.1"}

    assert (await hub.get("/metrics")).status == 200
    assert (await hub.get("/metrics", headers={"Host": "10.1.2.3:8000"})).status == 200
    assert (await hub.get("/metrics", headers=proxied)).code == "unauthenticated"
    assert (await elsewhere.get("/metrics")).code == "unauthenticated"
    assert (await elsewhere.get("/metrics", headers={"x-api-key": "k-secret"})).status == 200


async def test_a_trusted_proxy_says_who_asks(start: Start) -> None:
    hub = await start(api_key="k-secret", trusted_proxies=("127.0.0.1",), metrics=("10.0.0.0/8",))

    assert (await hub.get("/metrics", headers={"X-Forwarded-For": "10.9.9.9"})).status == 200
    assert (await hub.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})).code == "unauthenticated"


async def test_a_key_for_something_else_does_not_read_the_metrics(start: Start) -> None:
    hub = await start(api_key="k-secret", metrics=("10.0.0.0/8",))
    key = await key_of_a_viewer(hub)

    assert (await hub.get("/metrics", headers={"x-api-key": key})).code == "forbidden"


async def test_metrics_can_be_for_everybody_or_nobody(start: Start) -> None:
    everybody = await start(api_key="k-secret", metrics=("all",))
    nobody = await start(metrics=("off",))

    assert (await everybody.get("/metrics")).status == 200
    assert (await nobody.get("/metrics")).code == "no_such_resource"


async def test_a_server_in_front_of_another_has_metrics_of_its_own(start: Start) -> None:
    front = await start(api_base_url="http://127.0.0.1:1")
    await call_tool(front, "get_ticket_list")
    scraped = await scrape(front)

    assert scraped("taskhub_mcp_request_duration_seconds_count", tool="get_ticket_list", outcome="failed") == 1
    assert scraped("taskhub_ready") == 0
    assert not scraped.labels("taskhub_streams")
