"""The page that describes the API, in a browser."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import Window, window
from tests.e2e.harness.process import TaskHubProcess

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def docs(pages: Window) -> Page:
    return await pages.open("/docs")


@pytest_asyncio.fixture(loop_scope="session")
async def rest(server: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(server.url) as client:
        yield client


async def test_the_filter_leaves_what_has_all_its_words(docs: Page) -> None:
    everything = await docs.locator(".operation").count()
    await docs.fill("#filter", "History GET")

    assert await docs.locator(".operation:visible").evaluate_all("found => found.map(each => each.id)") == [
        "list_history"
    ]
    assert await docs.locator("section:visible").count() == 1

    await docs.fill("#filter", "")

    assert await docs.locator(".operation:visible").count() == everything


async def test_an_operation_can_be_tried_where_it_is_described(docs: Page, rest: Api) -> None:
    key = (await rest.create("Printer <b>is</b> on fire"))["key"]
    await docs.click("#get_ticket > summary")
    await docs.fill("#get_ticket .try input", f"/api/v1/tickets/{key}")
    await docs.click("#get_ticket .try button")
    await expect(docs.locator("#get_ticket .result")).to_contain_text("200 OK")

    assert "Printer <b>is</b> on fire" in await docs.locator("#get_ticket .result").inner_text()


async def test_a_link_to_an_operation_opens_it(docs: Page) -> None:
    assert await docs.locator("#update_ticket").get_attribute("open") is None

    await docs.evaluate("location.hash = 'update_ticket'")
    await docs.wait_for_selector("#update_ticket[open]")

    assert await docs.locator("#update_ticket .curl").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_narrow_screen_shows_everything_without_scrolling_sideways(docs: Page, scheme: str) -> None:
    await docs.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    await docs.set_viewport_size({"width": 320, "height": 800})
    await docs.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")

    assert await docs.evaluate("document.documentElement.scrollWidth") <= 320
    background = await docs.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")


async def test_the_bar_is_in_the_language_of_the_reader(chrome: Browser, server: TaskHubProcess) -> None:
    async with window(chrome, server.url, locale="ja") as pages:
        page = await pages.open("/docs")

        await expect(page.locator("nav a").first).to_have_text("ボード")
        await expect(page.locator("html")).to_have_attribute("lang", "ja")
        await expect(page.locator("main")).to_have_attribute("lang", "en")
