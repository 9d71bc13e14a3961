"""The feed in a browser: events as they come, and the log behind them."""

import json
import re
import shlex
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from aiohttp import ClientSession
from playwright.async_api import Browser, Locator, Page, expect

from broadcaster.filters import FILTER_NAMES
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import Window, window
from tests.e2e.harness.process import TaskHubProcess

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]


@pytest_asyncio.fixture(loop_scope="session")
async def rest(server: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(server.url) as client:
        yield client


def lines(page: Page) -> Locator:
    return page.locator(".feed > li")


async def is_live(page: Page) -> None:
    """The stream is open and the log behind it is read."""
    await expect(page.locator("connection-state")).to_have_attribute("data-state", re.compile("live|resynced"))
    await expect(page.locator(".end")).not_to_have_text("Loading…")


async def published(rest: Api, *types: str) -> list[str]:
    """Publish events, whose subjects are `n/0`, `n/1`, …; their ids."""
    return await rest.publish(*({"type": each, "subject": f"n/{i}", "data": {}} for i, each in enumerate(types)))


async def test_it_says_which_command_makes_an_event_until_there_is_one(pages: Window, rest: Api) -> None:
    page = await pages.open("/feed?subject=n/none")
    await is_live(page)
    await expect(page.locator(".empty pre")).to_contain_text("/api/v1/tickets")
    await rest.publish({"type": "first.one", "subject": "n/none", "data": {}})

    await expect(lines(page)).to_have_count(1)
    await expect(page.locator(".empty")).to_be_hidden()


async def test_a_change_is_told_in_words_and_shown_as_it_was_sent(pages: Window, rest: Api) -> None:
    page = await pages.open("/feed")
    await is_live(page)
    key = (await rest.create("Fan is <b>loud</b>"))["key"]
    await rest.change(key, status="in_progress", person_in_charge=None)
    newest = lines(page).first
    await expect(newest).to_contain_text(f"moved {key} from Received to In Progress")
    await expect(newest).to_contain_text("Fan is <b>loud</b>")
    await expect(lines(page).nth(1)).to_contain_text(f"created {key}")
    await expect(newest.get_by_role("link", name=key)).to_have_attribute("href", f"/?ticket={key}")

    await newest.get_by_role("button", name="Raw event").click()

    raw = json.loads(await newest.locator("pre").inner_text())
    assert (raw["subject"], raw["data"]["changes"]["status"]) == (key, ["received", "in_progress"])


async def test_what_comes_during_a_pause_waits_with_its_number(pages: Window, rest: Api) -> None:
    page = await pages.open("/feed?type=pause.*")
    await is_live(page)
    await published(rest, "pause.before")
    await expect(lines(page)).to_have_count(1)
    await page.get_by_role("button", name="Pause", exact=True).click()
    await published(rest, *["pause.during"] * 12)
    await expect(page.get_by_role("button", name="12 new")).to_be_visible()
    await expect(lines(page)).to_have_count(1)

    await page.get_by_role("button", name="12 new").click()

    await expect(lines(page)).to_have_count(13)
    await expect(lines(page).first).to_contain_text("n/11")
    await expect(lines(page).last).to_contain_text("n/0")


async def test_filters_are_those_of_the_stream_and_stay_in_the_address(pages: Window, rest: Api) -> None:
    page = await pages.open("/feed?subject=n/*")
    await is_live(page)
    names = await page.get_by_label("Filter by").locator("option").all_inner_texts()
    assert names == list(FILTER_NAMES)
    await page.get_by_label("Value").fill("filter.wanted")
    await page.get_by_role("button", name="Add filter").click()
    await expect(page).to_have_url(re.compile(r"type=filter\.wanted"))
    await is_live(page)

    await published(rest, "filter.other", "filter.wanted")

    await expect(lines(page)).to_have_count(1)
    await expect(lines(page)).to_contain_text("filter.wanted")
    await page.get_by_role("button", name="Remove the filter type=filter.wanted").click()
    await expect(lines(page).filter(has_text="filter.other")).to_have_count(1)
    await page.go_back()
    await expect(lines(page).filter(has_text="filter.other")).to_have_count(0)


async def test_what_is_wrong_with_a_filter_is_said_and_mended(pages: Window, rest: Api) -> None:
    page = await pages.open("/feed?tipe=mend.*&status=nowhere&since=yesterday")
    notice = page.get_by_role("alert").filter(has_text="tipe")
    await expect(notice).to_contain_text("there is no such parameter")
    await expect(notice).to_contain_text("there is no status 'nowhere'")
    await expect(notice).to_contain_text("Received, In Progress")
    await expect(notice).to_contain_text("RFC 3339")

    await notice.get_by_role("button", name="Leave out status").click()
    await notice.get_by_role("button", name="Leave out since").click()
    await notice.get_by_role("button", name="Use type").click()

    await expect(page).to_have_url(re.compile(r"/feed\?type=mend\.\*$"))
    await is_live(page)
    await published(rest, "mend.ed")
    await expect(lines(page)).to_have_count(1)


async def test_an_id_leads_to_its_event_and_the_way_leads_back_to_now(pages: Window, rest: Api) -> None:
    ids = await published(rest, *["jump.there"] * 500)
    ids += await published(rest, *["jump.there"] * 100)
    page = await pages.open("/feed?type=jump.*")
    await is_live(page)
    await page.get_by_label("Begin at").fill(ids[0])
    await page.get_by_role("button", name="Go", exact=True).click()
    await expect(page.locator(".feed > li.marked")).to_have_attribute("data-id", ids[0])
    await expect(page.locator(".past")).to_be_visible()
    await published(rest, "jump.later")
    await expect(lines(page).filter(has_text="jump.later")).to_have_count(0)

    await page.get_by_role("button", name="Newer").click()

    await expect(page.locator(".past")).to_be_hidden()
    await expect(lines(page)).to_have_count(601)
    await expect(lines(page).first).to_contain_text("jump.later")
    await published(rest, "jump.live")
    await expect(lines(page).first).to_contain_text("jump.live")


async def test_older_events_are_read_without_a_hole_and_no_more_are_kept_than_promised(
    pages: Window, rest: Api
) -> None:
    ids = [each for _ in range(5) for each in await published(rest, *["deep.one"] * 500)]
    page = await pages.open("/feed?type=deep.*")
    await is_live(page)

    for count in (1000, 1500, 2000):
        await page.get_by_role("button", name="Older").click()
        await expect(lines(page)).to_have_count(count)
    shown = await lines(page).evaluate_all("lines => lines.map(line => line.dataset.id)")
    assert shown == ids[-2000:][::-1]

    await page.get_by_role("button", name="Older").click()
    await expect(lines(page).last).to_have_attribute("data-id", ids[0])
    await expect(lines(page)).to_have_count(2000)
    await expect(page.locator(".past")).to_be_visible()


async def test_the_copied_command_shows_the_same_stream(pages: Window, rest: Api) -> None:
    await published(rest, "curl.a", "curl.b", "curl.c")
    page = await pages.open("/feed?type=curl.*,!curl.b&since=1h")
    await expect(lines(page)).to_have_count(2)
    await page.get_by_role("button", name="Copy as curl").click()
    await expect(page.locator(".toast")).to_contain_text("copied")
    command = shlex.split(await page.evaluate("navigator.clipboard.readText()"))

    assert command[:2] == ["curl", "-N"]
    async with ClientSession() as session, session.get(f"{command[2]}&limit=2") as answer:
        told = re.findall(r'"type":"(curl\.\w)"', await answer.text())
    assert told == ["curl.a", "curl.c"]


async def test_a_cut_stream_leaves_no_hole(pages: Window, rest: Api, server: TaskHubProcess) -> None:
    page = await pages.open("/feed?type=cut.*")
    await is_live(page)
    await published(rest, "cut.before")
    await expect(lines(page)).to_have_count(1)
    await server.kill()
    await expect(page.locator("connection-state")).to_have_attribute("data-state", re.compile("reconnecting|stale"))
    await server.restart()
    async with api(server.url) as again:
        await published(again, "cut.meanwhile", "cut.after")

    await expect(lines(page)).to_have_count(3)
    await is_live(page)


async def test_it_goes_by_keyboard(pages: Window, rest: Api) -> None:
    await published(rest, "keys.a", "keys.b")
    page = await pages.open("/feed?type=keys.*")
    await expect(lines(page)).to_have_count(2)
    await page.keyboard.press("j")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(lines(page).nth(1).locator("pre")).to_contain_text('"keys.a"')
    await page.keyboard.press("p")
    await expect(page.get_by_role("button", name="Go on")).to_have_attribute("aria-pressed", "true")
    await page.keyboard.press("/")
    await expect(page.get_by_label("Value")).to_be_focused()


async def test_it_fits_a_narrow_screen_in_japanese(chrome: Browser, server: TaskHubProcess, rest: Api) -> None:
    await rest.create("狭い画面")
    narrow = {"width": 320, "height": 700}
    async with window(chrome, server.url, viewport=narrow, locale="ja", color_scheme="dark") as pages:
        page = await pages.open("/feed?type=ticket.created")
        await expect(lines(page).first).to_contain_text("を作成")
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        small = await page.locator("main :is(button, a, input, select):visible").evaluate_all(
            "all => all.filter(e => Math.min(e.offsetHeight, e.offsetWidth) < 24).map(e => e.outerHTML)"
        )
        assert small == []
