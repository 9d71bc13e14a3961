"""Stream consumers as others write them: a browser, a Node program, a Python program, a shell.

Each gives what its library dispatched, in one shape: `{"event": name, "id": last event id, "data": decoded JSON}`. They
listen to the documented event names, and to `message`, where a phantom event would show up.
"""

import asyncio
import contextlib
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

import httpx
from httpx_sse import aconnect_sse
from playwright.async_api import Page

from tests.e2e.harness.browser import LISTEN, browser_page, other_origin
from tests.e2e.harness.frames import CONTROL_FRAMES
from tests.e2e.harness.streams import record_with_curl
from tests.e2e.harness.tools import E2E, node
from tests.e2e.harness.waiting import DEADLINE_S, until

NAMES: Final = sorted(CONTROL_FRAMES)
Dispatched = list[dict[str, Any]]


class Consumer(Protocol):
    """A program that listens to a stream."""

    async def seen(self) -> Dispatched:
        """What it was given so far."""


async def wait_for_event(consumer: Consumer, event_id: str, deadline_s: float = DEADLINE_S) -> Dispatched:
    """Wait until the consumer was given the frame with this id; return all it was given."""

    async def found() -> Dispatched:
        seen = await consumer.seen()
        return seen if any(e["id"] == event_id and e["event"] in ("message", "batch_update") for e in seen) else []

    seen: Dispatched = await until(found, f"event {event_id}", deadline_s)
    return seen


class BrowserConsumer:
    """An EventSource in a page."""

    def __init__(self, page: Page) -> None:
        self._page = page

    async def seen(self) -> Dispatched:
        found: Dispatched = await self._page.evaluate("window.seen")
        return found


class ListConsumer:
    """A consumer that fills a list."""

    def __init__(self) -> None:
        self.entries: Dispatched = []

    async def seen(self) -> Dispatched:
        return list(self.entries)


@contextlib.asynccontextmanager
async def chromium_consumer(url: str) -> AsyncIterator[Consumer]:
    """The browser's own EventSource, in a page of another origin."""
    async with other_origin() as origin, browser_page() as page:
        await page.goto(origin)
        await page.evaluate(LISTEN, {"url": url, "names": NAMES})
        yield BrowserConsumer(page)


@contextlib.asynccontextmanager
async def node_consumer(url: str) -> AsyncIterator[Consumer]:
    """npm's `eventsource` in a Node process."""
    consumer = ListConsumer()
    process = await asyncio.create_subprocess_exec(
        str(node()), str(E2E / "eventsource_client.mjs"), url, *NAMES, stdin=PIPE, stdout=PIPE, limit=2**24
    )

    async def read() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            consumer.entries.append(json.loads(line))

    task = asyncio.create_task(read())
    try:
        yield consumer
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await task


@contextlib.asynccontextmanager
async def httpx_consumer(url: str) -> AsyncIterator[Consumer]:
    """`httpx-sse` on httpx."""
    consumer = ListConsumer()

    async def read() -> None:
        async with httpx.AsyncClient(timeout=DEADLINE_S) as client, aconnect_sse(client, "GET", url) as source:
            async for event in source.aiter_sse():
                entry = {"event": event.event, "id": event.id, "data": json.loads(event.data)}
                consumer.entries.append(entry)

    task = asyncio.create_task(read())
    try:
        yield consumer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@contextlib.asynccontextmanager
async def curl_consumer(url: str) -> AsyncIterator[Consumer]:
    """curl, read with the strict parser; the id is the last one seen, as in the other clients."""
    async with record_with_curl(url) as recorder:

        class CurlConsumer:
            async def seen(self) -> Dispatched:
                last = ""
                entries: Dispatched = []
                for frame in recorder.frames:
                    last = frame.id or last
                    entries.append({"event": frame.event, "id": last, "data": frame.data})
                return entries

        yield CurlConsumer()
