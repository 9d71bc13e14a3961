"""EventSource of a page elsewhere, which has a token and no key, across two instances."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.consumers import Consumer, chromium_consumer, wait_for_event
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.proxy import Proxy
from tests.e2e.harness.streams import SocketRecorder, record
from tests.e2e.harness.waiting import until
from tests.servers import RedisServer

ROTATIONS = 3
PAIR = {"TASKHUB_AUTH": "api_key"}


@pytest.fixture
async def pair(module_pair: list[TaskHubProcess]) -> list[TaskHubProcess]:
    """Two servers on one PostgreSQL and one Redis. Streams of the first rotate every other second."""
    module_pair[0].configure(sse_max_age_s="2")
    await asyncio.gather(*(hub.start() for hub in module_pair if not hub.running))
    return module_pair


@pytest.fixture
async def root(pair: list[TaskHubProcess]) -> AsyncIterator[Api]:
    """An operator at the second instance, with a key made on the command line."""
    made = await run_taskhub("keys", "create", "--user", "root", "--role", "operator", environment=pair[0].environment)
    async with api(pair[1].url, {"x-api-key": made.strip()}) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def way(pair: list[TaskHubProcess]) -> Iterator[Proxy]:
    """To one instance or the other."""
    proxy = Proxy(pair[0].port)
    yield proxy
    proxy.close()


async def make_key(root: Api) -> tuple[str, str]:
    """A new key: its id, and the key."""
    answer = await root.request("POST", "/api/v1/keys", json={"user": "root", "name": "of a page"})
    assert answer.status == 201, answer
    return answer.json["key"]["id"], answer.json["secret"]


async def make_token(url: str, secret: str, **asked: Any) -> str:
    async with api(url, {"x-api-key": secret}) as client:
        answer = await client.request("POST", "/events/tokens", json=asked)
        assert answer.status == 201, answer
        token: str = answer.json["token"]
        return token


async def hellos(page: Consumer) -> list[dict[str, Any]]:
    return [entry for entry in await page.seen() if entry["event"] == "hello"]


async def publish(root: Api) -> str:
    (made,) = await root.publish({"type": "build.finished", "data": {}})
    return made


async def opened(url: str, stack: AsyncExitStack, token: str) -> SocketRecorder:
    stream = await stack.enter_async_context(record(url, {"token": token}))
    await stream.wait_ready()
    return stream


@pytest.mark.needs("chromium")
async def test_a_page_elsewhere_listens_over_rotations_a_restart_and_another_instance_until_its_key_is_revoked(
    pair: list[TaskHubProcess], root: Api, way: Proxy, stack: AsyncExitStack
) -> None:
    key, secret = await make_key(root)
    token = await make_token(pair[0].url, secret, type="build.*")
    page = await stack.enter_async_context(
        chromium_consumer(f"http://127.0.0.1:{way.port}/events/stream?token={token}")
    )

    async def hello_after(count: int) -> bool:
        return len(await hellos(page)) > count

    wanted = []
    for number in range(ROTATIONS + 1):
        await until(partial(hello_after, number), f"hello after {number} rotations")
        wanted.append(await publish(root))
    rotated = [entry["data"]["reason"] for entry in await page.seen() if entry["event"] == "goodbye"]

    assert await pair[0].stop() == 0
    wanted.append(await publish(root))
    await pair[0].restart()
    await wait_for_event(page, wanted[-1])

    way.lead_to(pair[1].port)
    way.cut()
    wanted.append(await publish(root))
    await wait_for_event(page, wanted[-1])
    served_by = [entry["data"]["instance"] for entry in await hellos(page)]

    assert (await root.request("DELETE", f"/api/v1/keys/{key}")).status == 204

    async def closed() -> bool:
        return any(entry["event"] == "(error)" and entry["data"]["state"] == 2 for entry in await page.seen())

    await until(closed, "the end of the EventSource")
    seen = await page.seen()
    assert [entry["id"] for entry in seen if entry["event"] == "message"] == wanted
    assert rotated == ["rotate"] * len(rotated)
    assert len(rotated) >= ROTATIONS
    assert len(set(served_by)) == 3  # the first, its successor, the second
    resumed = [entry["data"]["resume"] for entry in await hellos(page)]
    assert resumed == ["none"] + ["complete"] * (len(resumed) - 1)


async def test_the_revocation_of_a_key_ends_the_streams_of_its_tokens_on_every_instance(
    pair: list[TaskHubProcess], root: Api, stack: AsyncExitStack
) -> None:
    key, secret = await make_key(root)
    tokens = [await make_token(hub.url, secret) for hub in pair]
    # Each on the other instance than the one that made it.
    streams = [await opened(hub.url, stack, token) for hub, token in zip(reversed(pair), tokens, strict=True)]

    assert (await root.request("DELETE", f"/api/v1/keys/{key}")).status == 204

    for stream in streams:
        await stream.wait_end()
        # One may have rotated at that moment, and then finds its token over.
        assert stream.named("goodbye")[0].data["reason"] in ("revoked", "rotate")
    for hub in pair:
        async with api(hub.url) as client:
            for token in tokens:
                assert (await client.request("GET", f"/events/stream?token={token}")).status == 401


async def test_a_stream_of_the_same_token_on_another_instance_ends_the_one_before(
    pair: list[TaskHubProcess], root: Api, stack: AsyncExitStack
) -> None:
    _, secret = await make_key(root)
    token = await make_token(pair[0].url, secret)
    before = await opened(pair[1].url, stack, token)

    await opened(pair[0].url, stack, token)

    await before.wait_end()
    goodbye = before.named("goodbye")[0].data
    assert (goodbye["reason"], goodbye["reconnect"]) == ("replaced", False)


async def test_without_redis_the_stream_of_a_token_ends_with_its_key_by_the_poll(
    pair: list[TaskHubProcess], root: Api, module_redis: RedisServer, stack: AsyncExitStack
) -> None:
    key, secret = await make_key(root)
    stream = await opened(pair[1].url, stack, await make_token(pair[0].url, secret))
    kept = await opened(pair[1].url, stack, await make_token(pair[0].url, (await make_key(root))[1]))
    module_redis.kill()
    try:
        await run_taskhub("keys", "revoke", key, environment=pair[0].environment)

        await stream.wait_end()
        assert stream.named("goodbye")[0].data["reason"] == "revoked"
        assert not kept.ended
    finally:
        module_redis.start()
