"""Redis and PostgreSQL fail in every way there is, with streams open on two servers and writers going on."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

import pytest

from tests.chaos.invariants import check_writes, marker_of
from tests.chaos.writers import Writers
from tests.e2e.harness.clients import Answer, api, call_failing, mcp_http
from tests.e2e.harness.cluster import Cluster
from tests.e2e.harness.exactness import NotExact, read_log
from tests.e2e.harness.followers import Follower, all_have, following
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import until

_SEEDS: Final = itertools.count(1)
_QUERIES: Final[tuple[dict[str, str], ...]] = ({}, {"type": "ticket.*", "status": "received,in_progress"})


@pytest.fixture(scope="module")
def module_cluster(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[Cluster]:
    try:
        cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    except FileNotFoundError as missing:
        pytest.skip(f"missing {missing}")
    try:
        # Once, on a loop of its own: where this fails, the tests that follow do not wait for it again.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, cluster.start()).result()
        hubs += cluster.hubs.values()
        yield cluster
    finally:
        hubs[:] = [hub for hub in hubs if hub not in cluster.hubs.values()]
        cluster.close()


@pytest.fixture
async def cluster(module_cluster: Cluster) -> Cluster:
    """Servers that all tests here share, in good health."""
    await module_cluster.healthy()
    return module_cluster


@dataclass(frozen=True, slots=True)
class Busy:
    """Streams on both servers, and the writers."""

    followers: list[Follower]
    writers: Writers

    async def told(self, code: str, server: str = "") -> None:
        """Wait until each stream (of one server) was told so last."""
        concerned = [follower for follower in self.followers if follower.name.startswith(server)]
        await until(lambda: all(code in follower.notices[-1:] for follower in concerned), f"notice {code}")

    async def writing(self, count: int = 12) -> None:
        """Wait until so many more writes were answered."""
        goal = self.answered + count
        await until(lambda: self.answered >= goal, f"{count} more answered writes", explain=lambda: str(self.writers))

    async def arriving(self, count: int = 12) -> None:
        """Wait until so many more events came on each stream that takes all."""
        concerned = [follower for follower in self.followers if not follower.query]
        goal = {follower.name: len(follower.got) + count for follower in concerned}
        await until(lambda: all(len(f.got) >= goal[f.name] for f in concerned), f"{count} more events on each stream")

    @property
    def answered(self) -> int:
        return sum(write.event_id is not None for write in self.writers.writes)


@contextlib.asynccontextmanager
async def busy(cluster: Cluster) -> AsyncIterator[Busy]:
    """Streams on both servers and writers through both, until the block is left. Then everything is counted: the
    streams were never closed and have each event once and in order, and each write was made once."""
    followers = [
        Follower(f"{name} {number}", [hub.url], query, random.Random(number), silent_s=120)
        for name, hub in cluster.hubs.items()
        for number, query in enumerate(_QUERIES)
    ]
    writers = Writers(cluster.urls, next(_SEEDS), pause_s=0.02)
    async with following(followers):
        for follower in followers:
            await follower.connected()
        tasks = [asyncio.create_task(writers.run(number)) for number in range(4)]
        state = Busy(followers, writers)
        try:
            await state.writing()
            yield state
            writers.stop()
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        log = await read_log(cluster.database_url)
        await all_have(followers, log)
    own = [event for event in log if (marker_of(event) or "").startswith(f"{writers.seed}-")]
    check_writes(own, writers.writes)
    assert [follower.connections for follower in followers] == [1] * len(followers)
    assert not any(follower.goodbyes or follower.resets for follower in followers)


async def test_redis_drops_its_subscribers_or_its_memory_under_load_and_nobody_notices(cluster: Cluster) -> None:
    async with busy(cluster) as state:
        for command in (("CLIENT", "KILL", "TYPE", "pubsub"), ("FLUSHALL",), ("CLIENT", "KILL", "TYPE", "normal")):
            await asyncio.to_thread(cluster.tell_redis, *command)
            await state.arriving()
            await state.writing()


@contextlib.contextmanager
def redis_killed(cluster: Cluster) -> Iterator[None]:
    cluster.redis.kill()
    try:
        yield
    finally:
        cluster.redis.start()


@contextlib.contextmanager
def redis_stopped(cluster: Cluster) -> Iterator[None]:
    cluster.redis.pause()
    try:
        yield
    finally:
        cluster.redis.resume()


@contextlib.contextmanager
def redis_paused(cluster: Cluster) -> Iterator[None]:
    """It takes connections and commands, and answers none."""
    cluster.tell_redis("CLIENT", "PAUSE", 600_000)
    try:
        yield
    finally:
        cluster.redis.kill()
        cluster.redis.start()


@contextlib.contextmanager
def links_refusing(cluster: Cluster, service: str) -> Iterator[None]:
    for name in cluster.hubs:
        cluster.links[f"{name} {service}"].refuse()
    try:
        yield
    finally:
        for name in cluster.hubs:
            cluster.links[f"{name} {service}"].heal()


@contextlib.contextmanager
def postgres_killed(cluster: Cluster) -> Iterator[None]:
    cluster.postgres.kill()
    try:
        yield
    finally:
        cluster.postgres.start()


@contextlib.contextmanager
def postgres_stopped(cluster: Cluster) -> Iterator[None]:
    cluster.postgres.pause()
    try:
        yield
    finally:
        cluster.postgres.resume()


Fault = Callable[[Cluster], contextlib.AbstractContextManager[None]]


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(redis_killed, id="kill -9"),
        pytest.param(redis_stopped, id="SIGSTOP"),
        pytest.param(redis_paused, id="CLIENT PAUSE"),
        pytest.param(partial(links_refusing, service="redis"), id="connections refused"),
    ],
)
async def test_without_redis_streams_stay_open_are_told_and_get_the_same_events(cluster: Cluster, fault: Fault) -> None:
    async with busy(cluster) as state:
        with fault(cluster):
            await state.told("degraded")
            await state.arriving()
            for hub in cluster.hubs.values():
                async with api(hub.url) as client:
                    ready = await client.get("/readyz")
                    metrics = await client.request("GET", "/metrics")
                assert (ready["status"], ready["checks"]["relay"]) == ("degraded", "degraded")
                assert b"\ntaskhub_relay_up 0\n" in metrics.body
        await state.told("recovered")
        await state.arriving()


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(postgres_killed, id="kill -9"),
        pytest.param(postgres_stopped, id="SIGSTOP"),
        pytest.param(partial(links_refusing, service="database"), id="connections refused"),
    ],
)
async def test_without_the_database_calls_say_try_again_and_streams_wait(cluster: Cluster, fault: Fault) -> None:
    async with busy(cluster) as state:
        with fault(cluster):
            await asyncio.gather(*(check_refusals(hub) for hub in cluster.hubs.values()))
            await state.told("degraded")
        await state.told("recovered")
        await state.writing()


async def check_refusals(hub: TaskHubProcess) -> None:
    """Every face of a server without a database says that the same call may work later, and the process lives."""
    new = {"summary": "not now"}
    async with api(hub.url) as client, mcp_http(hub.url) as tools:
        read, write, ready, live, metrics, error = await asyncio.gather(
            client.request("GET", "/api/v1/tickets"),
            client.request("POST", "/api/v1/tickets", json=new, headers={"Idempotency-Key": "not-now"}),
            client.request("GET", "/readyz"),
            client.request("GET", "/healthz"),
            client.request("GET", "/metrics"),
            call_failing(tools, "create_ticket", **new, idempotency_key="not-now"),
        )
    check_retryable(read)
    check_retryable(write)
    assert "idempotency key" in write.json["hint"]
    assert (ready.status, ready.json["status"], live.status) == (503, "unavailable", 200)
    assert ready.json["checks"]["database"] not in ("ok", "degraded")
    assert (metrics.status, b"\ntaskhub_ready 0\n" in metrics.body) == (200, True)
    assert error["code"] == "storage_busy"
    assert error["retryable"] is True


def check_retryable(answer: Answer) -> None:
    assert answer.status == 503, answer
    assert answer.json["code"] == "storage_busy"
    assert answer.json["retryable"] is True
    assert int(answer.headers["Retry-After"]) > 0


async def test_connections_cut_while_committing_leave_each_write_made_once(cluster: Cluster) -> None:
    async with busy(cluster) as state:
        for _ in range(15):
            for name in cluster.hubs:
                await asyncio.to_thread(cluster.links[f"{name} database"].cut)
            await state.writing(3)


async def test_a_server_cut_off_from_everything_catches_up_on_what_the_other_committed(cluster: Cluster) -> None:
    links = [cluster.links[f"first {service}"] for service in ("database", "redis")]
    async with busy(cluster) as state:
        for link in links:
            await asyncio.to_thread(link.blackhole)
        try:
            await check_refusals(cluster.hubs["first"])
            await state.told("degraded", "first")
            await state.writing(4)
            # The control: what the count would say if this were the end of it.
            log = await read_log(cluster.database_url)
            with pytest.raises(NotExact):
                state.followers[0].check(log)
        finally:
            for link in links:
                await asyncio.to_thread(link.heal)
        await state.told("recovered", "first")
        await state.arriving()
