"""Two workspaces on one server: what is in one cannot be read, counted, changed or guessed at from the other.

All that Blue has carries a mark, in its texts or in ids that were noted when they were made. Red asks for everything
that can be asked for, by Blue's ids as well, and must be answered as it is for ids that never were.
"""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import pytest

from tests.e2e.harness.clients import Answer, Api, api
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.streams import SocketRecorder, record
from tests.e2e.harness.waiting import DEADLINE_S
from tests.servers import PostgresServer

MARK: Final = "zebra"
MODERN: Final = "2026-07-28"
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass
class Tenant:
    """A workspace with an operator's key. `ids` are what its answers named, by what they are."""

    id: str
    prefix: str
    secret: str
    api: Api
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.secret}"}

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        return await self.api.request(method, path, json=body, headers=headers)

    async def mcp(self, method: str, about: str | None = None, /, **params: Any) -> Any:
        """A request of the present protocol; its result, or its error."""
        headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN}
        headers |= {"Mcp-Method": method} | ({} if about is None else {"Mcp-Name": about})
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
        return (await self.send("POST", "/mcp", body, **headers)).json

    async def tool(self, tool: str, /, **arguments: Any) -> Any:
        return await self.mcp("tools/call", tool, name=tool, arguments=arguments)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]
) -> Iterator[TaskHubProcess]:
    """A server, of each database in turn, for the tests of this module."""
    environment = {"TASKHUB_AUTH": "api_key"}
    if request.param == "postgresql":
        postgres: PostgresServer = request.getfixturevalue("postgres")
        environment["TASKHUB_DATABASE_URL"] = postgres.create_migrated()
    hub = TaskHubProcess(tmp_path_factory.mktemp(request.param) / "hub", environment=environment, name=request.param)
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest.fixture(scope="module")
def made(shared: TaskHubProcess) -> dict[str, tuple[str, dict[str, str]]]:
    """By workspace, what was made for the first of the tests: an operator's key, and the ids of what is there."""
    return {}


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def tenants(
    shared: TaskHubProcess, made: dict[str, tuple[str, dict[str, str]]], stack: AsyncExitStack
) -> tuple[Tenant, Tenant]:
    if not shared.running:
        await shared.start()

    async def tenant(id: str, prefix: str, mark: str) -> Tenant:
        secret, ids = made.get(id, ("", {}))
        if not secret:
            of = ("--workspace", id, "--user", "olga", "--role", "operator")
            await run_taskhub("workspaces", "create", id, "--key-prefix", prefix, environment=shared.environment)
            secret = (await run_taskhub("keys", "create", *of, environment=shared.environment)).strip()
        client = await stack.enter_async_context(api(shared.url, {"Authorization": f"Bearer {secret}"}))
        found = Tenant(id, prefix, secret, client, ids)
        if not ids:
            await furnish(found, mark)
            made[id] = secret, found.ids
        return found

    return await tenant("red", "RE", "plain"), await tenant("blue", "BL", MARK)


async def furnish(of: Tenant, mark: str) -> None:
    """Some of everything, each with the mark."""
    ids = of.ids
    ids["user"] = f"{mark}_user"
    await of.send("POST", "/api/v1/users", {"name": f"{mark} user", "role": "agent"})
    await of.send("POST", "/api/v1/accounts", {"name": f"{mark} account"})
    # More in Blue than in Red: counts would tell.
    for number in range(3 if mark == MARK else 1):
        written = await of.api.create(f"{mark} {number}", labels=[mark], account=f"{mark} account", remarks=mark)
    ids["ticket"], ids["event"] = written["key"], written["event_id"]
    ids["epoch"] = written["event_id"].partition("-")[0]
    await of.send("POST", f"/api/v1/tickets/{ids['ticket']}/comments", {"comment": f"{mark} said"})
    changed = await of.send(
        "POST", "/api/v1/tickets/bulk", {"items": [{"ticket_id": ids["ticket"], "summary": f"{mark} again"}]}
    )
    assert changed.status == 200, changed
    ids["batch"] = changed.json["batch_id"]
    made = await of.send("POST", "/api/v1/keys", {"user": ids["user"], "name": f"{mark} key"})
    ids["key"] = made.json["key"]["id"]
    await of.api.publish({"type": f"{mark}.happened", "data": {mark: 1}, "subject": mark})
    page = await of.api.get("/api/v1/tickets?limit=1&show_completed=true")
    ids["cursor"] = page["next_cursor"] or ""
    ids["position"] = page["position"]


def betrayed(blue: Tenant, text: str) -> list[str]:
    """What of Blue's shows in an answer."""
    tokens = [MARK, f"{blue.prefix}-", f'"{blue.id}"', *blue.ids.values()]
    return [token for token in tokens if token and token in text]


READS: Final = (
    "/api/v1/tickets?show_completed=true&limit=100",
    f"/api/v1/tickets?query={MARK}",
    f"/api/v1/tickets?label={MARK}",
    "/api/v1/board",
    "/api/v1/export",
    "/api/v1/export?format=jsonl",
    "/api/v1/events?after=earliest&limit=500",
    "/api/v1/users",
    "/api/v1/accounts",
    "/api/v1/categories",
    "/api/v1/category-details",
    "/api/v1/statuses",
    "/api/v1/request-channels",
    "/api/v1/response-categories",
    "/api/v1/me",
    "/api/v1/keys",
    "/api/v1/audit?limit=200",
    "/events/debug?streams=1000",
    "/health",
    "/capabilities",
)


async def test_nothing_of_it_is_in_what_is_read(tenants: tuple[Tenant, Tenant], stack: AsyncExitStack) -> None:
    red, blue = tenants
    theirs = await stack.enter_async_context(record(blue.api.base_url, headers=blue.headers))
    await theirs.wait_ready()

    for path in READS:
        answer = await red.send("GET", path)
        own = betrayed(blue, answer.body.decode().replace(f'"{path}"', ""))
        assert (answer.status, own if MARK not in path else [o for o in own if o != MARK]) == (200, []), (path, answer)
    assert (await red.api.get(f"/api/v1/tickets?query={MARK}"))["tickets"] == []
    counts = {c["status"]["id"]: c["count"] for c in (await red.api.get("/api/v1/board"))["columns"]}
    assert sum(counts.values()) == len(await red.api.all_tickets())


def never_was(id: str) -> str:
    """An id of the same form that nobody has."""
    kind, mark, rest = id.partition("_")
    if mark and kind in ("key", "bat", "st", "batch"):
        return f"{kind}_{'0' * len(rest)}"
    if "-" in id:
        return f"{id.partition('-')[0]}-999999"
    return "nobody_at_all"


BY_ID: Final[tuple[tuple[str, str, Any], ...]] = (
    ("GET", "/api/v1/tickets/{ticket}", None),
    ("GET", "/api/v1/tickets/{ticket}?include=history,comments", None),
    ("GET", "/api/v1/tickets/{ticket}?as_of=2026-11-20T00:00:00Z", None),
    ("PATCH", "/api/v1/tickets/{ticket}", {"summary": "mine now"}),
    ("DELETE", "/api/v1/tickets/{ticket}", None),
    ("POST", "/api/v1/tickets/{ticket}/restore", None),
    ("PUT", "/api/v1/tickets/{ticket}/lease", {}),
    ("DELETE", "/api/v1/tickets/{ticket}/lease", None),
    ("POST", "/api/v1/tickets/{ticket}/progress", {"percent": 1}),
    ("GET", "/api/v1/tickets/{ticket}/history", None),
    ("GET", "/api/v1/tickets/{ticket}/comments", None),
    ("POST", "/api/v1/tickets/{ticket}/comments", {"comment": "x"}),
    ("GET", "/api/v1/tickets/{ticket}/relations", None),
    ("GET", "/api/v1/tickets/{ticket}/attachments", None),
    ("DELETE", "/api/v1/tickets/{ticket}/attachments/1", None),
    ("POST", "/api/v1/tickets", {"summary": "x", "parent": "{ticket}"}),
    ("POST", "/api/v1/tickets/{own}/relations", {"relation": "related", "other": "{ticket}"}),
    ("POST", "/api/v1/tickets/bulk", {"items": [{"ticket_id": "{ticket}", "summary": "x"}]}),
    ("POST", "/api/v1/tickets", {"summary": "x", "person_in_charge": "{user}"}),
    ("GET", "/api/v1/tickets?person_in_charge={user}", None),
    ("PATCH", "/api/v1/users/{user}", {"role": "viewer"}),
    ("DELETE", "/api/v1/users/{user}", None),
    ("GET", "/api/v1/batches/{batch}", None),
    ("POST", "/api/v1/batches/{batch}/undo", {}),
    ("GET", "/api/v1/keys/{key}", None),
    ("POST", "/api/v1/keys/{key}/rotate", {}),
    ("DELETE", "/api/v1/keys/{key}", None),
    ("GET", "/api/v1/board?as_of={event}", None),
    ("GET", "/api/v1/tickets/{own}?as_of={event}", None),
    ("GET", "/api/v1/events?after={position}", None),
    ("GET", "/events/debug/explain?event={own_event}&stream={stream}", None),
    ("GET", "/events/debug/explain?event={event}&stream={own_stream}", None),
    ("GET", "/events/debug/explain?event={event}&stream={stream}", None),
    ("DELETE", "/events/debug/streams/{stream}", None),
)


async def test_its_ids_are_answered_as_those_that_never_were(
    tenants: tuple[Tenant, Tenant], stack: AsyncExitStack
) -> None:
    red, blue = tenants
    theirs = await stack.enter_async_context(record(blue.api.base_url, headers=blue.headers))
    own = await stack.enter_async_context(record(red.api.base_url, headers=red.headers))
    names = {"own": red.ids["ticket"], "own_event": red.ids["event"], "own_stream": await stream_id(own)}
    before = await blue.api.all_tickets()
    real = {**blue.ids, "stream": await stream_id(theirs)}
    epoch = "a" * len(blue.ids["epoch"])
    fictional = {name: never_was(given) for name, given in real.items()}
    fictional |= {name: f"{epoch}-{real[name].partition('-')[2]}" for name in ("event", "position")}

    for method, path, body in BY_ID:
        told = []
        for ids in (real, fictional):
            given = json.loads(filled(json.dumps(body), {**ids, **names}))
            answer = await red.send(method, filled(path, {**ids, **names}), given)
            told.append((answer.status, without(answer.json if answer.body else None, ids)))
        assert told[0] == told[1], (method, path)
        assert told[0][0] >= 400, (method, path, told[0])

    assert await blue.api.all_tickets() == before
    assert not theirs.ended
    assert (await blue.api.get(f"/api/v1/keys/{blue.ids['key']}"))["revoked_at"] is None


def filled(text: str, ids: dict[str, str]) -> str:
    for name, value in ids.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def without(answer: Any, ids: dict[str, str]) -> str:
    """An answer without the ids that were asked for, and the request's own."""
    if isinstance(answer, dict):
        answer.pop("request_id", None)
    text = json.dumps(answer)
    for name, value in sorted(ids.items(), key=lambda item: -len(item[1])):
        text = text.replace(value, f"<{name}>").replace(value.lower(), f"<{name}>") if value else text
    return text


async def stream_id(stream: SocketRecorder) -> str:
    await stream.wait_ready()
    found: str = stream.named("hello")[0].data["stream"]
    return found


async def test_streams_live_replayed_and_from_a_snapshot_carry_only_ones_own(
    tenants: tuple[Tenant, Tenant], stack: AsyncExitStack
) -> None:
    red, blue = tenants
    queries: list[dict[str, str | int]] = [{}, {"since": "earliest"}, {"snapshot": 1}, {"type": "build.finished"}]
    streams = [
        await stack.enter_async_context(record(red.api.base_url, query, headers=red.headers)) for query in queries
    ]
    for stream in streams:
        await stream.wait_ready()

    await blue.api.create(f"{MARK} live")
    await blue.api.publish({"type": "build.finished", "data": {"by": MARK}})
    await blue.api.publish({"type": "build.finished", "data": {"by": MARK}, "transient": True})
    last = (await red.api.create("plain live"))["event_id"]
    ours = (await red.api.publish({"type": "build.finished", "data": {}}))[0]

    for stream, awaited in zip(streams, [last, last, last, ours], strict=True):
        await stream.wait_id(awaited)
        shown = json.dumps([frame.data for frame in stream.frames])
        assert betrayed(blue, shown) == [], stream.transcript()


async def test_a_position_of_it_is_none_here(tenants: tuple[Tenant, Tenant], stack: AsyncExitStack) -> None:
    red, blue = tenants
    headers = {**red.headers, "Last-Event-ID": blue.ids["position"]}
    stream = await stack.enter_async_context(record(red.api.base_url, headers=headers))
    await stream.wait_ready()
    assert stream.named("reset")[0].data["reason"] == "epoch_changed"
    assert stream.events == []

    cursor = await red.send("GET", f"/api/v1/tickets?limit=1&show_completed=true&cursor={blue.ids['cursor']}")
    assert (cursor.status, cursor.json["code"]) == (400, "bad_parameter")
    audit = (await blue.api.get("/api/v1/audit?limit=1"))["next_cursor"]
    assert (await red.send("GET", f"/api/v1/audit?limit=1&cursor={audit}")).status == 400


async def test_what_the_engine_does_for_it_does_not_show(tenants: tuple[Tenant, Tenant], stack: AsyncExitStack) -> None:
    red, blue = tenants
    own = await stack.enter_async_context(record(red.api.base_url, headers=red.headers))
    await own.wait_ready()
    before = await red.api.get("/events/debug")
    async with AsyncExitStack() as others:
        for _ in range(3):
            stream = await others.enter_async_context(record(blue.api.base_url, {"limit": 1}, headers=blue.headers))
            await stream.wait_ready()
        await blue.api.create(f"{MARK} for three")
        await stream.wait_end()
        lost = {**blue.headers, "Last-Event-ID": "aaaaaaaa-1"}
        await (await others.enter_async_context(record(blue.api.base_url, headers=lost))).wait_ready()
        after = await red.api.get("/events/debug")

    assert betrayed(blue, json.dumps(after)) == []
    counted = ("connected_clients", "events_sent", "streams_opened", "lagged", "resets", "last_event_time")
    assert {name: after[name] for name in counted} == {name: before[name] for name in counted}
    # Ends of Red's own streams of other tests may be noticed meanwhile.
    assert [channel["workspace"] for each in after["instances"] for channel in each["channels"]] == ["red"]
    assert after["instances"][0]["relay"]["announced"] is None


async def test_a_key_of_idempotency_is_ones_own(tenants: tuple[Tenant, Tenant]) -> None:
    red, blue = tenants
    body, header = {"summary": "the same"}, {"Idempotency-Key": "k-1"}
    theirs = await blue.send("POST", "/api/v1/tickets", body, **header)
    ours = await red.send("POST", "/api/v1/tickets", body, **header)
    event = {"type": "build.finished", "data": {}}
    published = [(await each.send("POST", "/events", event, **header)).json for each in (blue, red)]

    assert theirs.json["key"].startswith("BL-")
    assert ours.json["key"].startswith("RE-")
    assert not ours.json["replayed"]
    assert not published[1]["replayed"]
    assert published[0]["id"] != published[1]["id"]


async def test_an_import_reaches_nothing_of_it(tenants: tuple[Tenant, Tenant]) -> None:
    red, blue = tenants
    before = await blue.api.all_tickets()
    row = json.dumps({"key": blue.ids["ticket"], "summary": "mine now"}) + "\n"
    headers = {"Content-Type": "application/x-ndjson"}
    taken = await red.api.request("POST", "/api/v1/import", data=row, headers=headers)

    assert taken.json["updated"] == 0
    assert await blue.api.all_tickets() == before


async def test_tools_resources_and_completions_know_nothing_of_it(tenants: tuple[Tenant, Tenant]) -> None:
    red, blue = tenants
    key, unknown = blue.ids["ticket"], never_was(blue.ids["ticket"])
    for tool, arguments in (
        ("get_ticket_list", {"show_completed": True}),
        ("get_ticket_list", {"query": "again"}),
        ("get_board", {}),
        ("get_users", {}),
        ("get_events", {"after": "earliest"}),
    ):
        answer = await red.tool(tool, **arguments)
        assert not answer["result"].get("isError"), answer
        assert betrayed(blue, json.dumps(answer)) == [], tool
    for tool, name, more in (
        ("get_ticket_detail", "ticket_id", {}),
        ("claim_ticket", "ticket_id", {}),
        ("update_ticket", "ticket_id", {"summary": "mine now"}),
        ("add_ticket_history", "ticket_id", {"comment": "x"}),
        ("delete_ticket", "ticket_id", {}),
    ):
        real = await red.tool(tool, **{name: key}, **more)
        none = await red.tool(tool, **{name: unknown}, **more)
        assert real["result"]["isError"], real
        assert json.dumps(real).replace(key, "") == json.dumps(none).replace(unknown, ""), tool
    for uri in ("taskhub://board", "taskhub://events?after=earliest"):
        assert betrayed(blue, json.dumps(await red.mcp("resources/read", uri, uri=uri))) == []
    gone = [await red.mcp("resources/read", u, uri=u) for u in (f"taskhub://tickets/{k}" for k in (key, unknown))]
    assert json.dumps(gone[0]).replace(key, "") == json.dumps(gone[1]).replace(unknown, "")
    assert betrayed(blue, json.dumps(await red.mcp("resources/list"))) == []
    template = {"type": "ref/resource", "uri": "taskhub://tickets/{key}"}
    offered = await red.mcp(
        "completion/complete", "taskhub://tickets/{key}", ref=template, argument={"name": "key", "value": ""}
    )
    assert offered["result"]["completion"]["values"]
    assert betrayed(blue, json.dumps(offered)) == []


async def test_a_subscription_hears_nothing_of_it(tenants: tuple[Tenant, Tenant]) -> None:
    red, blue = tenants
    key = f"taskhub://tickets/{blue.ids['ticket']}"
    async with listening(red, key, "taskhub://board") as heard:
        acknowledged = await anext(heard)
        await blue.api.change(blue.ids["ticket"], priority="high")
        await red.api.create("plain heard")
        update = await anext(heard)

    assert "acknowledged" in acknowledged["method"]
    assert update["params"]["uri"] == "taskhub://board"


async def test_a_session_is_ones_own(tenants: tuple[Tenant, Tenant]) -> None:
    red, blue = tenants
    legacy = {"MCP-Protocol-Version": "2025-11-25", "Accept": "application/json, text/event-stream"}
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": about}
    session = (await blue.send("POST", "/mcp", hello, **legacy)).headers["Mcp-Session-Id"]
    asked = {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
    made_up = session[:-4] + ("AAAA" if session[-4:] != "AAAA" else "BBBB")
    used, invented = [
        await red.send("POST", "/mcp", asked, **legacy, **{"Mcp-Session-Id": named}) for named in (session, made_up)
    ]

    assert used.status == 404
    assert (used.status, used.body) == (invented.status, invented.body)


@asynccontextmanager
async def listening(tenant: Tenant, *uris: str) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The messages of a `subscriptions/listen`."""
    params = {"notifications": {"resourceSubscriptions": list(uris)}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN}
    headers |= {"Mcp-Method": "subscriptions/listen", **tenant.headers}
    timeout = aiohttp.ClientTimeout(total=DEADLINE_S)

    async def messages(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
        async for line in response.content:
            if line.startswith(b"data:") and line[5:].strip():
                yield json.loads(line[5:])

    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.post(f"{tenant.api.base_url}/mcp", json=body, headers=headers) as response,
    ):
        yield messages(response)
