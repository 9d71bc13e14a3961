"""Boards that were away for longer than events are kept, and pages elsewhere that follow the stream."""

import re
import sqlite3
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.browser import other_origin
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import becomes, is_live, window
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.proxy import Proxy
from tests.e2e.harness.waiting import until

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]

KEY = "e2e-key-" + "k" * 24
LONG_AGO = "2020-01-01T00:00:00.000000Z"

FOLLOW = """async ([base, key]) => {
  const { openStream } = await import(`${base}/static/stream.js`);
  window.heard = [];
  const stream = openStream({ url: `${base}/events/stream?type=ticket.*`, headers: key ? { "X-API-Key": key } : {} });
  stream.addEventListener("events", ({ detail }) => window.heard.push(...detail.events));
  stream.addEventListener("state", ({ detail }) => window.streamState = detail.name);
  window.stream = stream;
}"""


REMEMBER_STATES = """() => {
  const state = document.querySelector("connection-state");
  window.said = [];
  new MutationObserver(() => window.said.push(state.dataset.state)).observe(state, {attributes: true});
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def network(server: TaskHubProcess) -> AsyncIterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


async def test_a_board_that_slept_longer_than_events_are_kept_shows_what_is_true_now(
    chrome: Browser, server: TaskHubProcess, network: Proxy
) -> None:
    async with api(server.url) as rest:
        moved, gone = (await rest.create("Moved meanwhile"))["key"], (await rest.create("Deleted meanwhile"))["key"]
        async with window(chrome, network.through(server.url)) as pages:
            page = await pages.open()
            card = page.locator("board-column:not(.tinted) li[data-key]")
            await expect(card).to_have_count(2)
            await is_live(page)
            await page.evaluate(REMEMBER_STATES)
            network.refuse()
            await expect(page.locator("connection-state")).to_have_attribute(
                "data-state", re.compile("reconnecting|stale")
            )
            await rest.change(moved, status="in_progress")
            assert (await rest.request("DELETE", f"/api/v1/tickets/{gone}")).status == 204
            written = (await rest.create("Written meanwhile"))["key"]
            await purge(server, rest)
            network.heal()

            await expect(page.locator(f"#column-in_progress li[data-key='{moved}']")).to_be_visible()
            await expect(page.locator(f"#column-received li[data-key='{written}']")).to_be_visible()
            await expect(card).to_have_count(2)
            await becomes(page, "window.said.includes('resynced')")
            await is_live(page)
            later = (await api_create(server, "Written after"))["key"]
            await expect(page.locator(f"#column-received li[data-key='{later}']")).to_be_visible()


async def purge(server: TaskHubProcess, rest: Api) -> None:
    """Let years go by: the log forgets all that it has."""
    first = (await rest.log())[0]["id"]
    await server.stop()
    (database,) = server.data_dir.glob("*.db")
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE events SET time = ?", (LONG_AGO,))
    connection.close()
    server.configure(retention_min_events="0")
    await server.start()

    async def forgotten() -> bool:
        async with api(server.url) as again:
            return (await again.request("GET", "/api/v1/events", params={"after": first})).status == 410

    await until(forgotten, "events that are gone")


async def api_create(server: TaskHubProcess, summary: str) -> dict[str, object]:
    async with api(server.url) as rest:
        return await rest.create(summary)


async def test_a_page_of_another_allowed_origin_follows_with_the_module_and_a_key(
    chrome: Browser, make_hub: MakeHub
) -> None:
    async with other_origin() as origin, window(chrome, origin) as pages:
        hub = await make_hub(environment={"TASKHUB_ALLOWED_ORIGINS": origin, "TASKHUB_API_KEY": KEY}).start()
        page = await pages.open()
        await page.evaluate(FOLLOW, [hub.url, KEY])
        await becomes(page, "window.streamState === 'live'")
        async with api(hub.url, {"X-API-Key": KEY}) as rest:
            key = (await rest.create("Told elsewhere"))["key"]
            await becomes(page, f"window.heard.some(event => event.subject === '{key}')")
        # A worker cannot be started from there: the tabs of that origin share it among themselves.
        assert await page.evaluate("window.stream.sharing") in ("lock", "none")

        await page.evaluate("window.stream.close()")
        await page.evaluate(FOLLOW, [hub.url, "not-the-key"])
        await becomes(page, "window.streamState === 'signed_out'")
