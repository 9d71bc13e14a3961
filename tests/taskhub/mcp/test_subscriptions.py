"""Subscriptions: who is woken by what, in both eras; how streams end, and that nothing is left of them."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import pytest
from mcp.client.client import Client
from mcp.client.subscriptions import Subscription
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import ResourceUpdated
from mcp_types import INVALID_PARAMS, INVALID_REQUEST, ResourceUpdatedNotification

import taskhub.mcp.modern
from taskhub.mcp import subscriptions, wakeups
from taskhub.mcp.headers import VERSION_HEADER
from taskhub.mcp.uris import BOARD, EVENTS, ticket_uri
from taskhub.tickets.service import TicketService
from tests.clock import LoopClock
from tests.taskhub.mcp.live import SCOPES, WORKSPACE, Live, open_live
from tests.taskhub.mcp.wire import ACCEPT, Wire, in_session
from tests.taskhub.mcp.world import DEADLINE_S, MODERN, Served, serve_mcp, until

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

STREAM: Final = {"Accept": "text/event-stream"}


@pytest.fixture
async def live(database_file: Path) -> AsyncIterator[Live]:
    async with open_live(database_file) as opened:
        yield opened


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        yield session


class Woken:
    """An older client's updates, counted by URI."""

    def __init__(self) -> None:
        self.uris: Counter[str] = Counter()

    async def __call__(self, message: Any) -> None:
        if isinstance(message, ResourceUpdatedNotification):
            self.uris[message.params.uri] += 1
        await anyio.lowlevel.checkpoint()

    async def wait(self, *uris: str) -> None:
        await until(lambda: all(self.uris[uri] for uri in uris))


def older(live: Live, mode: str = "legacy", **options: Any) -> tuple[Client, Woken]:
    """A client of the older era and what it is woken for."""
    woken = Woken()
    client = live.served.client(mode, **options)
    client.message_handler = woken
    return client, woken


async def next_uri(subscription: Subscription) -> str:
    async with asyncio.timeout(DEADLINE_S):
        event = await anext(subscription)
    assert isinstance(event, ResourceUpdated)
    return event.uri


async def uris_until(subscription: Subscription, *expected: str) -> list[str]:
    """Read until all of these came; everything that came."""
    found: list[str] = []
    while not set(expected) <= set(found):
        found.append(await next_uri(subscription))
    return found


class ListenStream:
    """A listen request as bytes: the messages of its stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def message(self) -> dict[str, Any]:
        """The next message, comments skipped. Raises StopAsyncIteration at the end."""
        async with asyncio.timeout(DEADLINE_S):
            while line := await self.response.content.readline():
                if line.startswith(b"data:"):
                    found: dict[str, Any] = json.loads(line[5:])
                    return found
        raise StopAsyncIteration


@asynccontextmanager
async def listening(
    http: aiohttp.ClientSession, served: Served, *uris: str, number: int | str = 7, **headers: str
) -> AsyncIterator[ListenStream]:
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"notifications": {"resourceSubscriptions": list(uris)}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": number, "method": "subscriptions/listen", "params": params}
    sent = {"Accept": ACCEPT, VERSION_HEADER: MODERN, "Mcp-Method": "subscriptions/listen", **headers}
    async with http.post(f"{served.url}/mcp", json=body, headers=sent) as response:
        yield ListenStream(response)


# What wakes whom


async def test_a_listen_stream_is_woken_for_its_ticket_the_board_and_the_events(live: Live) -> None:
    key = await live.create()
    mine = ticket_uri(key)
    async with (
        live.served.client(MODERN) as client,
        client.listen(resource_subscriptions=[mine, BOARD, EVENTS]) as subscription,
    ):
        assert subscription.honored.resource_subscriptions == [mine, BOARD, EVENTS]
        await live.change(key, priority="high")

        assert set(await uris_until(subscription, mine, BOARD, EVENTS)) == {mine, BOARD, EVENTS}


@pytest.mark.parametrize("mode", ["legacy", "sse"])
async def test_an_older_client_is_woken_for_its_ticket_the_board_and_the_events(live: Live, mode: str) -> None:
    key = await live.create()
    client, woken = older(live, mode, path="/sse" if mode == "sse" else "/mcp")
    async with client:
        for uri in (ticket_uri(key), BOARD, EVENTS):
            await client.subscribe_resource(uri)
        await live.change(key, priority="high")

        await woken.wait(ticket_uri(key), BOARD, EVENTS)


async def test_a_change_of_another_ticket_wakes_nobody_but_the_board(live: Live) -> None:
    mine, other = await live.create(), await live.create()
    client, woken = older(live)
    async with (
        client,
        live.served.client(MODERN) as modern,
        modern.listen(resource_subscriptions=[ticket_uri(mine), BOARD]) as subscription,
    ):
        await client.subscribe_resource(ticket_uri(mine))
        await client.subscribe_resource(BOARD)
        await live.change(other, priority="high")
        await woken.wait(BOARD)
        found = await uris_until(subscription, BOARD)
        await live.change(mine, priority="low")  # whatever the other one led to came before this
        await woken.wait(ticket_uri(mine))
        found += await uris_until(subscription, ticket_uri(mine))

        assert woken.uris[ticket_uri(mine)] == found.count(ticket_uri(mine)) == 1


async def test_an_update_carries_the_address_as_it_was_subscribed_to(live: Live) -> None:
    key = await live.create()
    spelled = [f"taskhub://tickets/{key.lower()}", f"{EVENTS}?after=now"]
    client, woken = older(live)
    async with (
        client,
        live.served.client(MODERN) as modern,
        modern.listen(resource_subscriptions=spelled) as subscription,
    ):
        for uri in spelled:
            await client.subscribe_resource(uri)
        await live.change(key, priority="high")

        assert set(await uris_until(subscription, *spelled)) == set(spelled)
        await woken.wait(*spelled)


async def test_many_changes_together_wake_each_resource_once_or_twice(live: Live) -> None:
    keys = [await live.create(str(number)) for number in range(30)]
    client, woken = older(live)
    async with (
        client,
        live.served.client(MODERN) as modern,
        modern.listen(resource_subscriptions=[BOARD, ticket_uri(keys[0])]) as subscription,
    ):
        await client.subscribe_resource(BOARD)
        feed = next(iter(live.served.host.subscriptions.wakeups._feeds.values()))  # type: ignore[union-attr]  # is there
        # The SDK's clients join equal updates that wait, so what is sent is counted before them.
        sent: list[str] = []
        feed.add(wakeups.Want(BOARD, BOARD, sent.append))
        events = await live.broadcaster._log.read("default", 0, 30)

        for _ in range(10):
            feed.observe(events)

        found = await uris_until(subscription, BOARD, ticket_uri(keys[0]))
        await woken.wait(BOARD)
        # All of it was said in one turn of the loop: one flush, so one wake-up.
        assert Counter(found) == {BOARD: 1, ticket_uri(keys[0]): 1}
        assert woken.uris == {BOARD: 1}
        assert sent == [BOARD]


async def test_an_event_of_a_clients_own_wakes_the_events_alone(live: Live) -> None:
    async with (
        live.served.client(MODERN) as client,
        client.listen(resource_subscriptions=[EVENTS, BOARD]) as subscription,
    ):
        await live.emit("build.finished")
        found = await uris_until(subscription, EVENTS)
        await live.create()
        found += await uris_until(subscription, BOARD)

        assert found.count(BOARD) == 1


async def test_a_log_that_begins_anew_wakes_every_subscription(live: Live) -> None:
    key = await live.create()
    async with (
        live.served.client(MODERN) as client,
        client.listen(resource_subscriptions=[ticket_uri(key), BOARD, EVENTS]) as subscription,
    ):
        for channel in live.broadcaster._channels:
            channel._tell_observers(None)

        assert set(await uris_until(subscription, ticket_uri(key), BOARD, EVENTS))


async def test_who_unsubscribes_is_woken_no_more(live: Live) -> None:
    key = await live.create()
    client, woken = older(live)
    async with client:
        await client.subscribe_resource(BOARD)
        await client.subscribe_resource(ticket_uri(key))
        await client.unsubscribe_resource(BOARD)
        await client.unsubscribe_resource(EVENTS)  # was not subscribed to
        await live.change(key, priority="high")
        await woken.wait(ticket_uri(key))

        assert woken.uris == {ticket_uri(key): 1}


async def test_another_workspace_is_not_heard(live: Live) -> None:
    await live.add_workspace("another")
    async with AsyncExitStack() as stack:
        subscriptions_of = []
        for headers in ({}, {WORKSPACE: "another"}):
            client = await stack.enter_async_context(live.served.client(MODERN, headers=headers))
            subscription = await stack.enter_async_context(client.listen(resource_subscriptions=[BOARD, EVENTS]))
            subscriptions_of.append(subscription)
        here, there = subscriptions_of

        await live.create()
        await uris_until(here, BOARD, EVENTS)
        await live.emit("build.finished", workspace="another")

        # The ticket would have woken it for the board first.
        assert await next_uri(there) == EVENTS


# Who may, and what is refused


async def test_only_what_a_caller_may_read_is_acknowledged(live: Live) -> None:
    asked = ["taskhub://tickets/TH-1", BOARD, EVENTS, "taskhub://nothing"]
    for scope, honoured in (("tickets:read", asked[:2]), ("events:read", [EVENTS]), ("events:publish", None)):
        async with (
            live.served.client(MODERN, headers={SCOPES: scope}) as client,
            client.listen(
                resource_subscriptions=asked, tools_list_changed=True, resources_list_changed=True
            ) as subscription,
        ):
            assert (subscription.honored.resource_subscriptions or None) == honoured
            assert not subscription.honored.tools_list_changed
            assert not subscription.honored.resources_list_changed


async def test_an_older_subscription_says_what_is_wrong_with_its_address(live: Live) -> None:
    client, _ = older(live, headers={SCOPES: "tickets:read"})
    async with client:
        for uri, code, word in (
            ("taskhub://nothing", -32002, "there is no resource"),
            ("taskhub://tickets/TH-99", -32002, "TH-99"),
            (EVENTS, INVALID_REQUEST, "events:read"),
        ):
            with pytest.raises(MCPError, match=word) as caught:
                await client.subscribe_resource(uri)
            assert caught.value.code == code


async def test_a_subscription_has_a_bound(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_URIS", 2)
    keys = [await live.create() for _ in range(3)]
    client, _ = older(live)
    async with client, live.served.client(MODERN) as modern:
        with pytest.raises(MCPError, match="at most 2 resources, not 3"):
            async with modern.listen(resource_subscriptions=[ticket_uri(key) for key in keys]):
                pass
        for key in keys[:2]:
            await client.subscribe_resource(ticket_uri(key))
            await client.subscribe_resource(ticket_uri(key))
        with pytest.raises(MCPError, match="at most 2 subscriptions"):
            await client.subscribe_resource(ticket_uri(keys[2]))


async def test_streams_have_a_bound_and_one_that_ends_makes_room(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "MAX_LISTENING", 1)
    async with live.served.client(MODERN) as client:
        async with client.listen(resource_subscriptions=[BOARD]):
            with pytest.raises(MCPError, match="no further subscriptions"):
                async with client.listen(resource_subscriptions=[BOARD]):
                    pass
        await until(lambda: live.left_behind == 0)
        async with client.listen(resource_subscriptions=[BOARD]):
            pass


async def test_a_session_that_is_not_known_here_is_told_that_it_cannot_subscribe(
    live: Live, http: aiohttp.ClientSession, database_file: Path
) -> None:
    session = await Wire(http, f"{live.served.url}/mcp").open()
    async with open_live(database_file) as another:
        wire = Wire(http, f"{another.served.url}/mcp")

        refused = await wire.send("resources/subscribe", {"uri": BOARD}, **in_session(session))

        assert refused.message["error"]["code"] == INVALID_REQUEST
        assert "initialize again" in refused.message["error"]["message"]
        assert another.left_behind == 0


# What is declared


async def test_capabilities_say_what_there_is(live: Live, tickets: TicketService) -> None:
    async with serve_mcp(tickets) as deaf:
        for served, offered in ((live.served, True), (deaf, False)):
            for mode in ("legacy", "auto"):
                async with served.client(mode) as client:
                    assert (client.protocol_version == MODERN) == (mode == "auto")
                    found = client.server_capabilities
                    assert found is not None
                    assert found.resources is not None
                    assert found.prompts is not None
                    assert found.tools is not None
                    assert bool(found.resources.subscribe) is offered
                    # No list changes while a client is connected.
                    assert not (found.resources.list_changed)
                    assert not (found.prompts.list_changed)
                    assert not (found.tools.list_changed)
                    assert found.completions is not None


async def test_without_a_hub_there_are_no_subscriptions(served: Served) -> None:
    async with served.client(MODERN) as client:
        with pytest.raises(MCPError, match="Method not found"):
            async with client.listen(resource_subscriptions=[BOARD]):
                pass
    async with served.client("legacy") as client:
        with pytest.raises(MCPError, match="Method not found"):
            await client.subscribe_resource(BOARD)


# On the wire


async def test_a_listen_stream_on_the_wire_acknowledges_first_and_marks_each_message(
    live: Live, http: aiohttp.ClientSession
) -> None:
    async with listening(http, live.served, BOARD, "taskhub://nothing") as stream:
        acknowledged = await stream.message()
        await live.create()
        updated = await stream.message()

    assert stream.response.headers["Content-Type"].startswith("text/event-stream")
    assert acknowledged["method"] == "notifications/subscriptions/acknowledged"
    assert acknowledged["params"]["notifications"] == {"resourceSubscriptions": [BOARD]}
    assert updated["method"] == "notifications/resources/updated"
    assert updated["params"]["uri"] == BOARD
    for message in (acknowledged, updated):
        assert message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == 7


async def test_listen_streams_are_kept_alive_by_a_comment(
    live: Live, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert taskhub.mcp.modern.KEEP_ALIVE_S == 15
    monkeypatch.setattr(taskhub.mcp.modern, "KEEP_ALIVE_S", 0.01)
    async with listening(http, live.served, BOARD) as stream:
        await stream.message()
        lines = [await stream.response.content.readline() for _ in range(4)]

    assert lines.count(b":\n") >= 3


async def test_an_older_session_hears_on_its_stream_and_after_a_gap_of_all_it_subscribed_to(
    live: Live, http: aiohttp.ClientSession
) -> None:
    wire = Wire(http, f"{live.served.url}/mcp")
    session = await wire.open()
    opening = {**STREAM, **in_session(session)}
    key = await live.create()
    for uri in (ticket_uri(key), BOARD):
        assert (await wire.send("resources/subscribe", {"uri": uri}, **in_session(session))).result == {}
    await live.change(key, priority="high")  # while it has no stream

    async with http.get(wire.url, headers=opening) as response:
        stream = ListenStream(response)
        first = {(await stream.message())["params"]["uri"] for _ in range(2)}
        await live.change(key, priority="low")
        second = {(await stream.message())["params"]["uri"] for _ in range(2)}

    assert first == second == {ticket_uri(key), BOARD}


# How they end


async def test_a_listen_stream_past_its_age_ends_by_its_result(
    database_file: Path, http: aiohttp.ClientSession
) -> None:
    clock = LoopClock()
    async with open_live(database_file, max_age_s=100) as live, listening(http, live.served, BOARD) as stream:
        await stream.message()

        clock.advance(120)

        last = await stream.message()
        assert (last["id"], last["result"]["_meta"]["io.modelcontextprotocol/subscriptionId"]) == (7, 7)
        with pytest.raises(StopAsyncIteration):
            await stream.message()
        await until(lambda: live.left_behind == 0)


@pytest.mark.parametrize("grace_s", [0, 2 * DEADLINE_S])
async def test_stopping_ends_listen_streams_by_their_result_and_opens_no_more(
    live: Live, http: aiohttp.ClientSession, grace_s: float
) -> None:
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(http, live.served, BOARD)) for _ in range(5)]
        for stream in streams:
            await stream.message()

        await live.served.host.stop(grace_s)

        for stream in streams:
            assert (await stream.message())["id"] == 7
            with pytest.raises(StopAsyncIteration):
                await stream.message()
        async with listening(http, live.served, BOARD) as late:
            assert late.response.status == 503
    await until(lambda: live.left_behind == 0)


async def test_the_sdks_client_sees_a_stop_as_a_graceful_end(live: Live) -> None:
    async with live.served.client(MODERN) as client, client.listen(resource_subscriptions=[BOARD]) as subscription:
        await live.served.host.stop(0)

        async with asyncio.timeout(DEADLINE_S):
            assert [event async for event in subscription] == []


async def test_clients_that_leave_leave_nothing_behind(live: Live, http: aiohttp.ClientSession) -> None:
    key = await live.create()
    wire = Wire(http, f"{live.served.url}/mcp")

    async def all_of(count: int) -> None:
        async with AsyncExitStack() as stack:
            for number in range(count):
                stream = await stack.enter_async_context(listening(http, live.served, BOARD, ticket_uri(key)))
                await stream.message()
                if number % 5 == 0:
                    session = await wire.open()
                    await stack.enter_async_context(http.get(wire.url, headers={**STREAM, **in_session(session)}))
                    await wire.send("resources/subscribe", {"uri": BOARD}, **in_session(session))
                    stack.push_async_callback(http.delete, wire.url, headers=in_session(session))
            assert live.left_behind > 2 * count
            await live.change(key, remarks=str(count))

    # One that stays: nothing may hide in what all streams of a workspace share.
    async with listening(http, live.served, BOARD) as staying:
        await staying.message()
        alone = live.left_behind
        await all_of(1)
        await until(lambda: live.left_behind == alone)
        before = await _settled(lambda: len(asyncio.all_tasks()))

        await all_of(50)

        await until(lambda: live.left_behind == alone)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        await until(lambda: wants_in_memory() == 1)
    await until(lambda: live.left_behind == 0)
    await until(lambda: not live.served.host.subscriptions._connections)  # type: ignore[union-attr]  # is there
    await until(lambda: not live.served.host._listening)


def wants_in_memory() -> int:
    gc.collect()
    return len([thing for thing in gc.get_objects() if isinstance(thing, wakeups.Want)])


async def _settled(count: Callable[[], int]) -> int:
    """A number once it no longer falls."""
    lowest = count()
    for _ in range(50):
        await asyncio.sleep(0.002)
        lowest = min(lowest, count())
    return lowest


async def test_a_client_that_takes_nothing_is_let_go(
    live: Live, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wakeups, "WAKE_INTERVAL_S", 0)
    monkeypatch.setattr("taskhub.mcp.bridge.WRITE_TIMEOUT_S", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", int(live.served.url.rpartition(":")[2]), limit=64)
    asked = [f"{EVENTS}?after={number}" for number in range(150)]
    meta = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    params = {"notifications": {"resourceSubscriptions": asked}, "_meta": meta}
    body = json.dumps(
        {"jsonrpc": "2.0", "id": "n" * 200_000, "method": "subscriptions/listen", "params": params}
    ).encode()
    head = (
        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: {ACCEPT}\r\nContent-Type: application/json\r\n"
        f"{VERSION_HEADER}: {MODERN}\r\nMcp-Method: subscriptions/listen\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await until(lambda: live.left_behind > 0)

    # Each update carries the long id, so a few fill the socket; its client reads none of them.
    key = await live.create()
    for number in range(20):
        await live.change(key, remarks=str(number))

    await until(lambda: live.left_behind == 0)
    writer.close()


async def test_a_refused_listen_request_leaves_nothing_behind(live: Live, http: aiohttp.ClientSession) -> None:
    async with listening(http, live.served, *(["taskhub://nothing"] * 201)) as stream:
        body = json.loads(await stream.response.read())

    assert body["error"]["code"] == INVALID_PARAMS
    await until(lambda: live.left_behind == 0)
