"""The relay: what instances send each other, and that it outlives everything a Redis can do."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from redis.asyncio.connection import AbstractConnection

from broadcaster import redis_relay
from broadcaster.event import Event, EventDraft
from broadcaster.memory_log import MemoryEventLog
from broadcaster.redis_relay import RedisRelay, redact
from broadcaster.relay import Announcement, LocalRelay, Relay
from broadcaster.relay_message import CARRY_LIMIT_BYTES, InvalidMessage, decode_message, encode_messages
from tests.e2e.harness.waiting import DEADLINE_S, until
from tests.servers import RedisServer, free_port

PREFIX = "taskhub:test"
WORKSPACE = "default"


class Ear:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.batches: list[list[Announcement]] = []
        self.changes: list[bool] = []

    def announced(self, announcements: Sequence[Announcement]) -> None:
        self.batches.append(list(announcements))

    def relay_changed(self, up: bool) -> None:
        self.changes.append(up)

    @property
    def heard(self) -> list[Announcement]:
        return [announcement for batch in self.batches for announcement in batch]

    @property
    def ids(self) -> list[str]:
        return [event.id for announcement in self.heard for event in announcement.events]


class DeafEar(Ear):
    """A listener with a fault."""

    def announced(self, announcements: Sequence[Announcement]) -> None:
        super().announced(announcements)
        raise RuntimeError("deaf")


class Publisher:
    """A log whose appended events come as announcements."""

    def __init__(self, workspace: str = WORKSPACE) -> None:
        self._workspace = workspace
        self._log = MemoryEventLog()

    def announcement(self, count: int = 1, size: int = 10) -> Announcement:
        data = json.dumps({"text": "x" * size}).encode()
        drafts = [EventDraft("build.finished", "user:alice", "rest_api", data)] * count
        events = self._log.append(self._workspace, drafts)
        return Announcement(self._workspace, events[0].epoch, events[0].seq, events[-1].seq, tuple(events))


def transient(id: str, size: int = 10) -> Announcement:
    data = json.dumps({"text": "x" * size}).encode()
    event = Event(
        workspace=WORKSPACE, epoch="", seq=0, id=id, time="2026-11-20T09:12:03.123Z", type="build.log", subject=None,
        actor="user:alice", origin="rest_api", ticket_version=None, data=data,
    )  # fmt: skip
    return Announcement(WORKSPACE, "", 0, 0, (event,))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.kill()


@pytest.fixture
def operator(server: RedisServer) -> Iterator["redis.Redis"]:
    """A connection of somebody else to the same Redis; it blocks the event loop, so what it does happens at once."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@asynccontextmanager
async def instance(
    url: str,
    name: str,
    ear: Ear | None = None,
    *,
    watch: str | None = WORKSPACE,
    queue_limit: int = 2000,
    ping_interval_s: float = 30.0,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[RedisRelay, Ear]]:
    """A relay that runs. Only a Redis that is away for good is away to it, unless it pings more often."""
    ear = ear or Ear()
    relay = RedisRelay(
        url,
        channel_prefix=PREFIX,
        instance=name,
        queue_limit=queue_limit,
        ping_interval_s=ping_interval_s,
        clock=clock,
    )
    if watch is not None:
        relay.watch(watch)
    await relay.start(ear)
    try:
        yield relay, ear
    finally:
        await relay.stop()


async def is_up(*relays: RedisRelay) -> None:
    await until(lambda: all(relay.statistics().state == "up" for relay in relays), "relay that is up")


async def hears(ear: Ear, wanted: Callable[[Ear], object]) -> None:
    await until(lambda: wanted(ear), "announcement", explain=lambda: f"heard: {ear.batches}")


# What a message says


def test_a_message_says_what_was_announced() -> None:
    announcement = Publisher().announcement(3)

    [(workspace, message, count)] = encode_messages([announcement], "a")
    heard = decode_message(message, "b")

    assert (workspace, count) == (WORKSPACE, 1)
    assert heard is not None
    assert (heard.epoch, heard.first, heard.last) == (announcement.epoch, 1, 3)
    assert [e.encoded for e in heard.events] == [e.encoded for e in announcement.events]
    assert [(e.seq, e.position) for e in heard.events] == [(e.seq, e.position) for e in announcement.events]
    assert decode_message(message, "a") is None


def test_announcements_that_continue_each_other_share_a_message() -> None:
    publisher, other = Publisher(), Publisher("other")
    announcements = [
        publisher.announcement(),
        other.announcement(),
        publisher.announcement(2),
        publisher.announcement(),
    ]

    messages = encode_messages(announcements, "a")

    assert {(workspace, count) for workspace, _, count in messages} == {(WORKSPACE, 3), ("other", 1)}
    heard = decode_message({workspace: message for workspace, message, _ in messages}[WORKSPACE], "b")
    assert heard is not None
    assert (heard.first, heard.last, len(heard.events)) == (1, 4, 4)


def test_announcements_with_a_hole_of_another_epoch_or_transient_do_not_share_a_message() -> None:
    publisher = Publisher()
    first, lost, third = (publisher.announcement() for _ in range(3))
    new_epoch = Publisher().announcement()

    messages = encode_messages([first, third, transient("t1"), transient("t2"), new_epoch], "a")

    heard = [decode_message(message, "b") for _, message, _ in messages]
    assert lost.first == 2
    assert [(h.first, h.last, len(h.events)) for h in heard if h] == [(1, 1, 1), (3, 3, 1), (0, 0, 2), (1, 1, 1)]


def test_large_events_are_announced_without_being_carried_unless_nobody_could_read_them() -> None:
    publisher = Publisher()
    small, large = publisher.announcement(), publisher.announcement(size=CARRY_LIMIT_BYTES)

    messages = encode_messages([small, large, transient("t", size=CARRY_LIMIT_BYTES)], "a")

    heard = [decode_message(message, "b") for _, message, _ in messages]
    assert [(h.first, h.last, len(h.events)) for h in heard if h] == [(1, 1, 1), (2, 2, 0), (0, 0, 1)]


def test_a_message_takes_announcements_only_up_to_its_limit() -> None:
    publisher = Publisher()
    announcements = [publisher.announcement(size=1000) for _ in range(100)]

    messages = encode_messages(announcements, "a")

    assert sum(count for *_, count in messages) == 100
    assert all(len(message) < CARRY_LIMIT_BYTES + 500 for _, message, _ in messages)
    assert len(messages) < 6


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b'{"instance":"b","workspace":"default","epoch":"e","first":2,"last":1}',
        b'{"instance":"b","workspace":"default","epoch":"e","first":-1,"last":1}',
        b'{"instance":"b","workspace":"default","epoch":"e","first":"1","last":1}',
        b'{"instance":"b","workspace":7,"epoch":"e","first":1,"last":1}',
        b'{"instance":"b","workspace":"default","epoch":"e","first":1,"last":2}\n{}',
        b'{"instance":"b","workspace":"default","epoch":"e","first":1,"last":1}\n{}',
        b'{"instance":"b","workspace":"default","epoch":"e","first":1,"last":1}\n[]',
    ],
)
def test_a_message_that_is_none_is_told_from_one(message: bytes) -> None:
    with pytest.raises(InvalidMessage):
        decode_message(message, "a")


def test_an_event_of_another_workspace_cannot_ride_along() -> None:
    [(_, message, _)] = encode_messages([Publisher("secret").announcement()], "a")

    with pytest.raises(InvalidMessage):
        decode_message(message.replace(b'"workspace":"secret"', b'"workspace":"default"', 1), "b")


# The relay itself


async def test_an_announcement_reaches_the_other_instances_and_not_its_own(server: RedisServer) -> None:
    async with instance(server.url, "a") as (a, ear_a), instance(server.url, "b") as (b, ear_b):
        await is_up(a, b)
        announcement = Publisher().announcement(2)

        a.announce(announcement)
        await hears(ear_b, lambda ear: ear.heard)
        b.announce(transient("t1"))
        await hears(ear_a, lambda ear: ear.heard)

        assert ear_b.ids == [event.id for event in announcement.events]
        assert ear_a.ids == ["t1"]
        assert b.statistics().received == 1
        await until(lambda: a.statistics().announced == 1, "word of Redis that it went out")


async def test_a_relay_is_a_relay_whether_local_or_redis(server: RedisServer) -> None:
    for relay in (LocalRelay(), RedisRelay(server.url, channel_prefix=PREFIX, instance="a")):
        used: Relay = relay
        ear = Ear()
        used.watch(WORKSPACE)
        await used.start(ear)
        used.announce(Publisher().announcement())
        used.unwatch(WORKSPACE)
        await used.stop()

        assert ear.heard == []
        assert used.statistics().dropped == 0


async def test_a_transient_event_is_handed_on_once_however_often_it_arrives(
    server: RedisServer, operator: "redis.Redis"
) -> None:
    [(_, message, _)] = encode_messages([transient("t1")], "elsewhere")
    [(_, last, _)] = encode_messages([transient("t2")], "elsewhere")
    async with instance(server.url, "a") as (a, ear):
        await is_up(a)

        for body in (message, message, last):
            operator.publish(f"{PREFIX}:{WORKSPACE}", body)
        await hears(ear, lambda ear: "t2" in ear.ids)

        assert ear.ids == ["t1", "t2"]


async def test_messages_that_have_arrived_are_handed_on_together(server: RedisServer, operator: "redis.Redis") -> None:
    publisher = Publisher()
    messages = [encode_messages([publisher.announcement()], "elsewhere")[0][1] for _ in range(100)]
    async with instance(server.url, "a") as (a, ear):
        await is_up(a)

        # The event loop does not run meanwhile: all of them wait in the socket.
        for message in messages:
            operator.publish(f"{PREFIX}:{WORKSPACE}", message)
        await hears(ear, lambda ear: len(ear.heard) == 100)

        assert [announcement.first for announcement in ear.heard] == list(range(1, 101))
        assert len(ear.batches) < 10


async def test_a_message_that_arrives_in_parts_is_heard_whole_and_in_its_place(
    server: RedisServer, operator: "redis.Redis"
) -> None:
    ids = [f"t{number}" for number in range(6)]
    async with instance(server.url, "a") as (a, ear):
        await is_up(a)

        for number, name in enumerate(ids):
            size = 10 if number % 2 else 300_000  # far more than one read of a socket takes
            operator.publish(f"{PREFIX}:{WORKSPACE}", encode_messages([transient(name, size)], "elsewhere")[0][1])
        await hears(ear, lambda ear: len(ear.ids) == len(ids))

        assert ear.ids == ids
        assert ear.changes == [True]


async def test_announcements_made_in_one_turn_travel_in_one_message(
    server: RedisServer, operator: "redis.Redis"
) -> None:
    publisher = Publisher()
    async with instance(server.url, "a") as (a, _), instance(server.url, "b") as (b, ear):
        await is_up(a, b)

        for _ in range(50):
            a.announce(publisher.announcement())
        await hears(ear, lambda ear: sum(len(heard.events) for heard in ear.heard) == 50)

        assert len(ear.heard) == 1
        await until(lambda: a.statistics().announced == 50, "word of Redis that they went out")


async def test_only_what_is_watched_is_heard(server: RedisServer, operator: "redis.Redis") -> None:
    def channels() -> set[bytes]:
        return {bytes(name) for name in operator.pubsub_channels(f"{PREFIX}:*") if isinstance(name, bytes)}

    async with instance(server.url, "a", watch=None) as (a, _), instance(server.url, "b", watch=None) as (b, ear):
        await is_up(a, b)
        assert channels() == set()

        b.watch("one")
        b.watch("two")
        await until(lambda: channels() == {f"{PREFIX}:one".encode(), f"{PREFIX}:two".encode()}, "subscription")
        a.announce(Publisher("other").announcement())
        a.announce(Publisher("one").announcement())
        await hears(ear, lambda ear: ear.heard)
        b.unwatch("one")
        await until(lambda: channels() == {f"{PREFIX}:two".encode()}, "end of a subscription")
        a.announce(Publisher("one").announcement())
        a.announce(Publisher("two").announcement())
        await hears(ear, lambda ear: len(ear.heard) == 2)

        # One that was on its way when its workspace was left: the event loop does not run between these lines.
        b.unwatch("two")
        b.watch("three")
        operator.publish(f"{PREFIX}:two", encode_messages([Publisher("two").announcement()], "elsewhere")[0][1])
        await until(lambda: channels() == {f"{PREFIX}:three".encode()}, "change of subscription")
        a.announce(Publisher("three").announcement())
        await hears(ear, lambda ear: len(ear.heard) == 3)

        assert [heard.workspace for heard in ear.heard] == ["one", "two", "three"]


async def test_a_redis_that_was_killed_is_found_again_and_the_listener_is_told(server: RedisServer) -> None:
    publisher = Publisher()
    async with instance(server.url, "a") as (a, ear_a), instance(server.url, "b") as (b, ear_b):
        await is_up(a, b)

        server.kill()
        await until(lambda: ear_a.changes == ear_b.changes == [True, False], "loss")
        waiting = publisher.announcement()
        a.announce(waiting)
        server.start()
        await is_up(a, b)
        a.announce(publisher.announcement())
        await hears(ear_b, lambda ear: any(heard.last == 2 for heard in ear.heard))

        assert ear_b.changes == [True, False, True]
        assert b.statistics().reconnects == 1
        assert a.statistics().dropped == 0


async def test_a_paused_redis_is_noticed_though_its_connections_stay_open(server: RedisServer) -> None:
    async with (
        instance(server.url, "a", ping_interval_s=1.0) as (a, ear_a),
        instance(server.url, "b", ping_interval_s=1.0) as (b, ear_b),
    ):
        await is_up(a, b)

        server.pause()
        await until(lambda: a.statistics().state == b.statistics().state == "down", "loss")
        server.resume()
        await is_up(a, b)
        a.announce(Publisher().announcement())
        await hears(ear_b, lambda ear: ear.heard)

        for ear in (ear_a, ear_b):
            assert ear.changes[:3] == [True, False, True]


async def test_a_publishing_connection_without_answers_is_given_up_and_loses_no_announcement(
    server: RedisServer, operator: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    async with instance(server.url, "a", ping_interval_s=1.0) as (a, _), instance(server.url, "b") as (b, ear_b):
        await is_up(a, b)

        with caplog.at_level(logging.WARNING, "broadcaster"):
            operator.client_pause(600_000, all=False)  # what publishes hangs, what listens does not
            a.announce(Publisher().announcement())
            await until(lambda: "TimeoutError" in caplog.text, "loss of patience")
        operator.client_unpause()
        await hears(ear_b, lambda ear: ear.heard)

        assert a.statistics().dropped == 0
        assert ear_b.changes == [True]


async def test_killed_subscriptions_come_back(server: RedisServer, operator: "redis.Redis") -> None:
    publisher = Publisher()
    async with instance(server.url, "a") as (a, _), instance(server.url, "b") as (b, ear):
        await is_up(a, b)

        for _ in range(3):
            before = ear.changes.count(True)
            operator.client_kill_filter(_type="pubsub")
            await until(partial(_has_returned, ear, before), "return")
        await is_up(a, b)
        a.announce(publisher.announcement())
        await hears(ear, lambda ear: ear.heard)

        assert ear.changes == [True, False] * 3 + [True]


async def test_a_killed_publishing_connection_loses_no_announcement(
    server: RedisServer, operator: "redis.Redis"
) -> None:
    publisher = Publisher()
    async with instance(server.url, "a") as (a, ear_a), instance(server.url, "b") as (b, ear):
        await is_up(a, b)
        a.announce(publisher.announcement())
        await hears(ear, lambda ear: ear.heard)

        operator.client_kill_filter(_type="normal", skipme=True)
        a.announce(publisher.announcement())
        await hears(ear, lambda ear: any(heard.last == 2 for heard in ear.heard))

        assert a.statistics().dropped == 0
        assert ear_a.changes == [True]


async def test_without_a_redis_announcing_drops_the_oldest_and_never_waits() -> None:
    server = RedisServer()
    publisher = Publisher()
    async with instance(server.url, "a", queue_limit=10) as (a, ear_a):
        await until(lambda: ear_a.changes == [False], "first failure")
        for _ in range(25):
            a.announce(publisher.announcement())
        assert (a.statistics().state, a.statistics().dropped) == ("down", 15)
        # Ranges wait, not events: those would be any amount of memory, and are in the log.
        assert not any(waiting.events for _, waiting in a._queue)

        with contextlib.closing(_Running(server)):
            await until(lambda: a.statistics().announced == 10, "delivery of what is left")

        assert ear_a.changes[:2] == [False, True]


async def test_a_transient_event_that_waited_long_for_redis_is_news_to_nobody() -> None:
    server = RedisServer()
    ahead_s = 0.0
    async with instance(server.url, "a", clock=lambda: time.monotonic() + ahead_s) as (a, ear_a):
        await until(lambda: ear_a.changes == [False], "first failure")
        a.announce(transient("old"))
        ahead_s = 60.0
        a.announce(transient("new"))
        with contextlib.closing(_Running(server)):
            async with instance(server.url, "b") as (b, ear_b):
                await is_up(b)
                await until(lambda: a.statistics().announced == 1, "delivery of what is left")

                assert a.statistics().dropped == 1
                assert not _has_heard("old", ear_b)


async def test_stopping_sends_what_is_queued_and_leaves_no_task(server: RedisServer) -> None:
    tasks = asyncio.all_tasks()
    async with instance(server.url, "b") as (b, ear):
        async with instance(server.url, "a") as (a, _):
            await is_up(a, b)
            a.announce(Publisher().announcement(3))
        await hears(ear, lambda ear: len(ear.ids) == 3)

    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("turns", range(8))
async def test_stopping_ends_while_a_ping_is_on_its_way(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    tasks, pings, send = asyncio.all_tasks(), 0, redis_relay._send

    async def seen(connection: AbstractConnection, *command: str) -> None:
        nonlocal pings
        pings += command == ("PING",)
        await send(connection, *command)

    monkeypatch.setattr(redis_relay, "_send", seen)
    async with instance(server.url, "a", ping_interval_s=0.2) as (a, _):
        await is_up(a)
        before = pings
        while pings == before:
            await asyncio.sleep(0)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(DEADLINE_S):
            await a.stop()

    assert asyncio.all_tasks() == tasks


async def test_stopping_does_not_wait_for_a_redis_that_is_away(server: RedisServer) -> None:
    tasks = asyncio.all_tasks()
    async with instance(server.url, "a") as (a, ear):
        await is_up(a)
        server.kill()
        await until(lambda: ear.changes == [True, False], "loss")
        a.announce(Publisher().announcement())

    assert asyncio.all_tasks() == tasks


async def test_nonsense_on_the_channel_is_ignored(
    server: RedisServer, operator: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    [(_, elsewhere, _)] = encode_messages([Publisher("other").announcement()], "elsewhere")
    [(_, good, _)] = encode_messages([transient("t1")], "elsewhere")
    async with instance(server.url, "a") as (a, ear):
        a.watch("other")
        await is_up(a)

        with caplog.at_level(logging.WARNING, "broadcaster"):
            for body in (b"", b"\xff\x00", b"[]", b'{"instance":"b"}', elsewhere, good):
                operator.publish(f"{PREFIX}:{WORKSPACE}", body)
            await hears(ear, lambda ear: ear.heard)

        assert ear.ids == ["t1"]
        assert ear.changes == [True]
        assert len(caplog.records) == 1


async def test_a_fault_of_the_listener_does_not_end_the_relay(
    server: RedisServer, operator: "redis.Redis", caplog: pytest.LogCaptureFixture
) -> None:
    async with instance(server.url, "a", DeafEar()) as (a, ear):
        await is_up(a)

        for name in ("t1", "t2"):
            operator.publish(f"{PREFIX}:{WORKSPACE}", encode_messages([transient(name)], "elsewhere")[0][1])
            await hears(ear, partial(_has_heard, name))

        assert ear.changes == [True]
        assert "RuntimeError: deaf" in caplog.text


async def test_a_password_is_used_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    server = RedisServer("--requirepass", "s3cret/word")
    with contextlib.closing(_Running(server)), caplog.at_level(logging.DEBUG, "broadcaster"):
        right = f"redis://:s3cret%2Fword@127.0.0.1:{server.port}/0"
        wrong = f"redis://:wr0ng@127.0.0.1:{server.port}/0"
        async with instance(right, "a") as (a, _), instance(wrong, "b") as (b, ear_b):
            await is_up(a)
            await until(lambda: ear_b.changes == [False], "refusal")
            shown = repr(a) + repr(b) + caplog.text

    assert "s3cret" not in shown
    assert "wr0ng" not in shown
    assert f":***@127.0.0.1:{server.port}/0" in shown


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@ss@host/0", "redis://u:***@host/0"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("unix:///run/redis.sock?db=1&password=p", "unix:///run/redis.sock?db=1&password=***"),
        ("redis+sentinel://:p@h1:1,h2:2/main", "redis+sentinel://:***@h1:1,h2:2/main"),
    ],
)
def test_passwords_are_redacted(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url", ["http://host", "redis://u:secret@host:port/0", "redis+sentinel://h1,h2", "redis+sentinel://:secret@/main"]
)
def test_a_url_that_is_none_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(ValueError, match="not a Redis URL") as refused:
        RedisRelay(url, channel_prefix=PREFIX, instance="a")

    assert "secret" not in str(refused.value)


async def test_a_master_is_found_by_its_sentinel(server: RedisServer, tmp_path: Path) -> None:
    configuration = tmp_path / "sentinel.conf"
    configuration.write_text(f"dir {tmp_path}\nsentinel monitor main 127.0.0.1 {server.port} 1\n")
    sentinel = RedisServer(str(configuration), "--sentinel")
    with contextlib.closing(_Running(sentinel)):
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{sentinel.port}/main/0"
        async with instance(url, "a") as (a, _), instance(server.url, "b") as (b, ear):
            await is_up(a, b)
            a.announce(transient("t1"))
            await hears(ear, lambda ear: ear.ids == ["t1"])


def _has_returned(ear: Ear, before: int) -> bool:
    return ear.changes.count(True) > before


def _has_heard(id: str, ear: Ear) -> bool:
    return id in ear.ids


class _Running:
    """A server from here to `close`."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        server.start()

    def close(self) -> None:
        self._server.kill()
