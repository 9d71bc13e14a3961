"""The operator page in a browser: what the engine does, and what can be tried."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import Window, window
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.signing_in import sign_in
from tests.e2e.harness.streams import SocketRecorder, record

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]

SECRET = "operator-" + "k" * 24
KEY = {"X-API-Key": SECRET}


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    """A server that asks for a key; not started yet."""
    hub = TaskHubProcess(
        tmp_path_factory.mktemp("operator") / "taskhub", name="operator", environment={"TASKHUB_API_KEY": SECRET}
    )
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def server(locked: TaskHubProcess) -> TaskHubProcess:
    return await locked.start()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def cookies(chrome: Browser, server: TaskHubProcess) -> Any:
    """What the browser of an operator keeps."""
    context = await chrome.new_context()
    await sign_in(context, server)
    found = await context.cookies()
    await context.close()
    return found


@pytest_asyncio.fixture(loop_scope="session")
async def pages(module_window: Window, cookies: Any) -> AsyncIterator[Window]:
    await module_window.context.add_cookies(cookies)
    yield module_window
    await module_window.tidy()


@pytest_asyncio.fixture(loop_scope="session")
async def root(server: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(server.url, KEY) as client:
        yield client


async def signed_in(pages: Window) -> Page:
    """The operator page of somebody who may see it."""
    return await pages.open("/events/debug")


def row(page: Page, stream: str) -> Locator:
    return page.locator(f".streams tr[data-id='{stream}']")


async def opened(listening: SocketRecorder) -> str:
    """The id of a stream, once it is live."""
    await listening.wait_ready()
    found: str = listening.named("hello")[0].data["stream"]
    return found


async def test_it_tells_who_listens(pages: Window, root: Api, server: TaskHubProcess) -> None:
    page = await signed_in(pages)
    async with record(server.url, {"type": "ticket.*", "status": "received", "batch": "100"}, headers=KEY) as listening:
        stream = await opened(listening)
        listed = row(page, stream)
        await expect(listed).to_contain_text("type=ticket.*")
        await expect(listed).to_contain_text("status=received")
        await expect(listed).to_contain_text("127.0.0.1")
        await expect(listed).to_contain_text("live, batched")
        for figure, said in (("lag", "^0$"), ("buffered", "^0 B$"), ("sent", "B$"), ("age", " s$")):
            await expect(listed.locator(f"[data-figure={figure}]")).to_have_text(re.compile(said))
        await root.create("For the figures")
        await listening.wait_events(1)

        figures = await root.get("/events/debug")
        sent = page.locator(".totals > div").filter(has_text="Events sent").locator("dd")
        await expect(sent).not_to_have_text("0")
        assert figures["events_sent"] >= 1
        assert SECRET not in page.url

    await expect(listed).to_have_count(0)
    await expect(page.get_by_text("Nobody listens")).to_contain_text("x-api-key: $TASKHUB_API_KEY")


async def test_the_charts_go_on(pages: Window) -> None:
    page = await signed_in(pages)
    line = page.locator(".chart").first.locator("path.line")
    await expect(line).to_have_attribute("d", re.compile("L.*L"))
    await expect(page.locator(".chart")).to_have_count(4)


async def test_instances_tell_of_their_database_and_relay(pages: Window) -> None:
    page = await signed_in(pages)
    instances = page.get_by_role("region", name="Instances").locator("tbody tr")
    await expect(instances).to_have_count(1)
    await expect(instances.locator(".health.good").filter(has_text="up")).to_be_visible()
    await expect(instances.locator(".health.good").filter(has_text="local")).to_be_visible()
    await expect(page.get_by_text("Not all instances answered")).to_be_hidden()


async def test_that_not_all_have_answered_is_said(pages: Window) -> None:
    page = await pages.context.new_page()

    async def partial(route: Route) -> None:
        if "text/html" in route.request.headers.get("accept", ""):
            return await route.continue_()
        answer = await route.fetch()
        found = await answer.json()
        down = {"state": "down", "announced": 7, "received": 0, "dropped": 2, "reconnects": 3, "trouble": "refused"}
        second = {**found["instances"][0], "instance": "b2", "database": "away: locked", "relay": down, "streams": []}
        return await route.fulfill(
            response=answer, json={**found, "partial": True, "instances": [*found["instances"], second]}
        )

    await page.route("**/events/debug*", partial)
    await page.goto(pages.url + "/events/debug")

    await expect(page.get_by_text("Not all instances answered")).to_be_visible()
    second = page.get_by_role("region", name="Instances").locator("tbody tr", has_text="b2")
    await expect(second.locator(".health.bad")).to_have_text(["away: locked", "down · refused"])
    await expect(page.locator(".counters li")).to_have_text(["b2: Database away: locked", "b2: Relay refused"])


async def test_a_stream_is_told_goodbye_after_a_question(pages: Window, server: TaskHubProcess) -> None:
    page = await signed_in(pages)
    async with record(server.url, headers=KEY) as listening:
        stream = await opened(listening)
        await row(page, stream).get_by_role("button", name="Say goodbye").click()
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        await expect(row(page, stream)).to_be_visible()
        await row(page, stream).get_by_role("button", name="Say goodbye").click()
        await page.get_by_role("dialog").get_by_role("button", name="Say goodbye").click()

        assert (await listening.wait_frame("goodbye")).data["reconnect"] is True
    await expect(row(page, stream)).to_have_count(0)
    await expect(page.locator(".counts").filter(has_text="rotate")).to_be_visible()


async def test_a_test_event_goes_round_and_its_figures_are_shown(pages: Window, root: Api) -> None:
    page = await signed_in(pages)
    await page.get_by_role("button", name="Send a test event").click()

    told = page.locator(".tripped")
    await expect(told).to_contain_text(re.compile(r"[\d.,]+ ms in all, [\d.,]+ ms of it"))
    found = re.search(r"\((\S+),", await told.inner_text())
    assert found is not None
    assert (await root.log())[-1]["id"] == found[1]


async def test_why_a_stream_got_an_event_or_not_is_told_in_words(
    pages: Window, root: Api, server: TaskHubProcess
) -> None:
    page = await signed_in(pages)
    async with record(server.url, {"type": "why.this"}, headers=KEY) as listening:
        stream = await opened(listening)
        wanted, other = await root.publish({"type": "why.this", "data": {}}, {"type": "why.other", "data": {}})
        await listening.wait_id(wanted)
        await row(page, stream).get_by_role("button", name="Explain").click()
        await expect(page.get_by_label("Event id")).to_be_focused()
        await page.keyboard.type(wanted)
        await page.keyboard.press("Enter")
        await expect(page.locator(".verdict")).to_contain_text("It was sent.")

        await page.get_by_label("Event id").fill(other)
        await page.keyboard.press("Enter")
        await expect(page.locator(".verdict")).to_contain_text("the filter does not let it pass")
        await expect(page.locator(".verdict li")).to_have_text("type=why.this does not let it pass")

        await page.get_by_label("Event id").fill("nonsense")
        await page.keyboard.press("Enter")
        await expect(page.locator(".verdict")).to_contain_text("must be the id of a stored event")


async def test_who_may_not_is_told_so(pages: Window, server: TaskHubProcess) -> None:
    await pages.context.clear_cookies()
    await sign_in(pages.context, server, "Reader", "viewer")
    page = await pages.open("/events/debug")

    await expect(page.get_by_role("alert")).to_contain_text("for operators (the scope admin)")
    await expect(page.locator(".figures")).to_be_hidden()


async def test_nobody_is_asked_while_nobody_looks(chrome: Browser, server: TaskHubProcess, cookies: Any) -> None:
    look = """(state) => {
        Object.defineProperty(document, "visibilityState", {value: state, configurable: true});
        document.dispatchEvent(new Event("visibilitychange"));
    }"""
    # A window of its own: it keeps the clock that it is given.
    async with window(chrome, server.url) as pages:
        await pages.context.add_cookies(cookies)
        await pages.context.clock.install()
        page = await signed_in(pages)
        await expect(page.locator(".totals")).to_be_visible()
        await page.clock.pause_at(await page.evaluate("Date.now() + 60_000"))
        await page.wait_for_load_state("networkidle")
        await page.evaluate(look, "hidden")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        for _ in range(5):
            await page.clock.run_for(2000)
        assert asked == []

        async with page.expect_request("**/events/debug?*"):
            await page.evaluate(look, "visible")


async def test_it_outlives_the_server(pages: Window, server: TaskHubProcess) -> None:
    page = await signed_in(pages)
    state = page.locator("connection-state")
    await expect(state).to_have_attribute("data-state", "live")
    await server.kill()
    await expect(state).to_have_attribute("data-state", re.compile("reconnecting|stale"))
    await expect(page.get_by_role("alert")).to_contain_text("does not answer")
    await server.restart()

    await expect(state).to_have_attribute("data-state", "live")
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_it_fits_a_narrow_screen_in_japanese(chrome: Browser, server: TaskHubProcess, cookies: Any) -> None:
    narrow = {"width": 320, "height": 700}
    async with (
        window(chrome, server.url, viewport=narrow, locale="ja", color_scheme="dark") as pages,
        record(server.url, {"type": "ticket.*"}, headers=KEY) as listening,
    ):
        await listening.wait_ready()
        await pages.context.add_cookies(cookies)
        page = await signed_in(pages)
        await expect(page.locator(".streams tbody tr")).to_contain_text("切断")
        assert await page.evaluate("document.documentElement.scrollWidth") == 320
        small = await page.locator("main :is(button, a, input, select):visible").evaluate_all(
            "all => all.filter(e => Math.min(e.offsetHeight, e.offsetWidth) < 24).map(e => e.outerHTML)"
        )
        assert small == []
