"""Signing in and out at a browser, and what becomes of a page whose session is over."""

import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.e2e.harness.axe import judge
from tests.e2e.harness.browser import other_origin
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import Window, window
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.signing_in import sign_in, sign_in_link
from tests.e2e.harness.waiting import DEADLINE_S

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]

expect.set_options(timeout=DEADLINE_S * 1000)

PASSWORD = "correct horse battery"
KEY = {"X-API-Key": "login-" + "k" * 24}

# Tries to create a ticket as whoever is signed in: with requests of a script, then with a form.
FORGE = """async address => {
  const body = '{"summary": "Forged"}';
  for (const headers of [{}, {"Content-Type": "application/json"}]) {
    await fetch(address, {method: "POST", credentials: "include", headers, body}).catch(() => {});
  }
  document.body.innerHTML = `<form method=post enctype=text/plain action=${address}><input></form>`;
  document.querySelector("input").name = '{"summary": "Forged", "description": "';
  document.querySelector("input").value = '"}';
  document.forms[0].submit();
}"""


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    """A server that asks who calls; not started yet."""
    hub = TaskHubProcess(
        tmp_path_factory.mktemp("login") / "taskhub", name="login", environment={"TASKHUB_API_KEY": KEY["X-API-Key"]}
    )
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def server(locked: TaskHubProcess) -> TaskHubProcess:
    return await locked.start()


@pytest_asyncio.fixture(loop_scope="session")
async def pages(chrome: Browser, server: TaskHubProcess) -> AsyncIterator[Window]:
    async with window(chrome, server.url) as pages:
        yield pages


@pytest_asyncio.fixture(loop_scope="session")
async def rest(server: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(server.url, KEY) as client:
        yield client


async def with_password(server: TaskHubProcess, name: str) -> None:
    """Have somebody who can sign in by this name and PASSWORD."""
    await run_taskhub("users", "add", name, "--role", "operator", environment=server.environment)
    async with api(server.url) as client:
        link = (await sign_in_link(server, name)).partition("#link=")[2]
        page = {"Origin": server.url}
        opened = await client.request("POST", "/api/v1/session", json={"link": link}, headers=page)
        cookie = opened.headers["Set-Cookie"].partition(";")[0]
        changed = await client.request(
            "PUT", "/api/v1/session/password", json={"password": PASSWORD}, headers={**page, "Cookie": cookie}
        )
        assert changed.status == 204, changed


async def fill_in(place: Page | Locator, name: str, password: str = PASSWORD) -> None:
    await place.get_by_label("Name").fill(name)
    await place.get_by_label("Password").fill(password)
    await place.get_by_role("button", name="Sign in").click()


async def is_live(page: Page) -> None:
    await expect(page.locator("connection-state")).to_have_attribute("data-state", "live")


async def choose(page: Page, item: str) -> None:
    """In the menu of who is signed in."""
    await page.locator("button.account").click()
    await page.get_by_role("menuitem", name=item, exact=True).click()


async def test_a_link_leads_to_a_password_and_back_to_where_one_wanted_to_go(
    pages: Window, server: TaskHubProcess, rest: Api
) -> None:
    key = (await rest.create("Behind the door", labels=["urgent"]))["key"]
    page = await pages.open("/?label=urgent")
    await expect(page).to_have_url(f"{server.url}/login?next=%2F%3Flabel%3Durgent")
    await expect(page.get_by_label("Name")).to_be_focused()
    link = await sign_in_link(server, "Lena")
    # As somebody pastes a link into the address line of this tab.
    await page.goto(link.replace("/login#", "/login?next=%2F%3Flabel%3Durgent#"))
    await expect(page).to_have_url(f"{server.url}/login?next=%2F%3Flabel%3Durgent")
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.get_by_role("heading")).to_have_text("Welcome, Lena")
    await page.get_by_label("New password").fill(PASSWORD)
    await page.keyboard.press("Enter")

    await expect(page).to_have_url(f"{server.url}/?label=urgent")
    await expect(page.locator(f"board-column li[data-key='{key}']").first).to_be_visible()
    await is_live(page)
    await expect(page.locator("button.account")).to_have_text("Lena")
    assert await page.evaluate("document.cookie") == ""
    assert await page.evaluate("JSON.stringify([sessionStorage, localStorage])") == "[{},{}]"

    used = await pages.open(link.removeprefix(server.url))
    await used.get_by_role("button", name="Sign in").click()
    await expect(used.get_by_role("alert")).to_contain_text("was used before or has ended")


async def test_signing_out_leaves_no_way_back_but_the_password(pages: Window, server: TaskHubProcess) -> None:
    await with_password(server, "Mara")
    page = await pages.open("/feed?type=ticket.*")
    await fill_in(page, "Mara", "wrong horse battery")
    await expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
    await fill_in(page, "Mara")
    await expect(page).to_have_url(f"{server.url}/feed?type=ticket.*")
    await is_live(page)

    await choose(page, "Sign out")
    await expect(page).to_have_url(f"{server.url}/login")
    await page.go_back()
    await expect(page.get_by_role("button", name="Sign in")).to_be_visible()

    await page.goto(server.url + "/events/debug")
    await fill_in(page, "mara")
    await expect(page).to_have_url(f"{server.url}/events/debug")
    await expect(page.get_by_role("region", name="Instances")).to_be_visible()


async def test_who_is_signed_out_while_writing_goes_on_where_they_were(
    pages: Window, server: TaskHubProcess, rest: Api
) -> None:
    await with_password(server, "Nora")
    await sign_in(pages.context, server, "Nora")
    key = (await rest.create("Being edited"))["key"]
    page = await pages.open(f"/?ticket={key}")
    await is_live(page)
    await page.get_by_role("button", name="Edit").first.click()
    await page.get_by_label("Description").fill("Half a sentence")

    await run_taskhub("users", "sign-out", "Nora", environment=server.environment)

    asked = page.get_by_role("dialog", name="You are signed out")
    await expect(asked).to_contain_text("what you were writing is still here")
    await expect(page.locator("connection-state")).to_have_text("signed out")
    await page.keyboard.press("Escape")
    await expect(asked.get_by_label("Name")).to_have_value("Nora")
    await asked.get_by_label("Password").fill(PASSWORD)
    await page.keyboard.press("Enter")

    await expect(asked).to_have_count(0)
    await is_live(page)
    await expect(page.get_by_label("Description")).to_have_value("Half a sentence")
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".drawer")).to_contain_text("Half a sentence")
    changed = await rest.get(f"/api/v1/tickets/{key}")
    assert changed["ticket"]["description"] == "Half a sentence"
    await rest.change(key, status="in_progress")
    await expect(page.locator(f"#column-in_progress li[data-key='{key}']")).to_be_visible()


async def test_a_session_that_expires_says_so_and_a_link_in_another_tab_brings_it_back(
    pages: Window, server: TaskHubProcess
) -> None:
    await sign_in(pages.context, server, "Otto")
    page = await pages.open("/feed")
    await is_live(page)

    file = server.data_dir / "taskhub.db"
    with contextlib.closing(sqlite3.connect(file, timeout=DEADLINE_S)) as database, database:
        database.execute("UPDATE sessions SET expires_at = '2020-01-01T00:00:00.000Z' WHERE user_id = 'otto'")
        database.execute("UPDATE deployment SET credentials_version = credentials_version + 1")

    asked = page.get_by_role("dialog", name="You are signed out")
    await expect(asked).to_be_visible()
    other = await pages.open((await sign_in_link(server, "Otto")).removeprefix(server.url))
    await other.get_by_role("button", name="Sign in").click()
    await expect(asked).to_have_count(0)
    await is_live(page)


async def test_signing_out_everywhere_reaches_every_browser(
    chrome: Browser, pages: Window, server: TaskHubProcess
) -> None:
    await sign_in(pages.context, server, "Petra")
    page = await pages.open("/")
    async with window(chrome, server.url) as elsewhere:
        await sign_in(elsewhere.context, server, "Petra")
        other = await elsewhere.open("/")
        await is_live(other)

        await choose(page, "Sign out everywhere")
        await page.get_by_role("dialog").get_by_role("button", name="Sign out everywhere").click()

        await expect(page).to_have_url(f"{server.url}/login")
        await expect(other.get_by_role("dialog", name="You are signed out")).to_be_visible()
        await other.get_by_role("link", name="Leave this page").click()
        await expect(other).to_have_url(f"{server.url}/login?next=%2F")


async def test_somebody_else_who_signs_in_gets_a_page_of_their_own(pages: Window, server: TaskHubProcess) -> None:
    await sign_in(pages.context, server, "Quinn")
    page = await pages.open("/")
    await is_live(page)
    other = await pages.open((await sign_in_link(server, "Rosa")).removeprefix(server.url))
    await other.get_by_role("button", name="Sign in").click()

    await expect(page.locator("button.account")).to_have_text("Rosa")
    await is_live(page)


async def test_a_password_is_changed_at_the_board(pages: Window, server: TaskHubProcess) -> None:
    await with_password(server, "Sven")
    page = await pages.open("/")
    await fill_in(page, "Sven")
    await choose(page, "Change password…")
    dialog = page.get_by_role("dialog", name="Change password")
    await dialog.get_by_label("Current password").fill("wrong horse battery")
    await dialog.get_by_label("New password").fill("staple " + PASSWORD)
    await dialog.get_by_role("button", name="Save").click()
    await expect(dialog.get_by_role("alert")).to_have_text("That is not your current password.")
    await dialog.get_by_label("Current password").fill(PASSWORD)
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("Your password is changed")).to_be_visible()

    await choose(page, "Sign out")
    await fill_in(page, "Sven", "staple " + PASSWORD)
    await expect(page.locator("button.account")).to_have_text("Sven")


async def test_one_sees_where_one_is_signed_in_and_ends_it_there(
    chrome: Browser, pages: Window, server: TaskHubProcess
) -> None:
    await sign_in(pages.context, server, "Ulla")
    page = await pages.open("/feed")
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    async with window(chrome, server.url, user_agent=firefox) as elsewhere:
        await sign_in(elsewhere.context, server, "Ulla")
        other = await elsewhere.open("/feed")
        await is_live(other)

        await page.locator("button.account").focus()
        await page.keyboard.press("Enter")
        await page.get_by_role("menuitem", name="Where I am signed in").focus()
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Where you are signed in")
        rows = dialog.get_by_role("listitem")
        await expect(rows).to_have_count(2)
        await expect(rows.filter(has_text="this browser").get_by_role("button")).to_have_count(0)
        await expect(rows.filter(has_text="Firefox on Linux")).to_contain_text("by link")
        await dialog.get_by_role("button", name="Sign out: Firefox on Linux").focus()
        await page.keyboard.press("Enter")

        await expect(other.get_by_role("dialog", name="You are signed out")).to_be_visible()
        await expect(rows).to_have_count(1)
        await expect(dialog.get_by_role("button", name="Close")).to_be_focused()
        await page.keyboard.press("Escape")
        await expect(page.locator("button.account")).to_be_focused()
        await is_live(page)


@pytest.mark.needs("npm packages")
async def test_nothing_serious_is_wrong_with_signing_in_and_the_account(
    chrome: Browser, server: TaskHubProcess
) -> None:
    size = {"width": 320, "height": 640}
    async with window(chrome, server.url, viewport=size, reduced_motion="reduce") as narrow:
        page = await narrow.open("/login")
        await expect(page.get_by_label("Name")).to_be_focused()
        found = await judge(page, "sign in")
        await sign_in(narrow.context, server, "Vera")
        page = await narrow.open("/feed")
        await page.locator("button.account").click()
        found += await judge(page, "menu")
        await page.get_by_role("menuitem", name="Where I am signed in").click()
        await expect(page.get_by_role("dialog").get_by_role("listitem")).to_have_count(1)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        found += await judge(page, "sessions")

    assert "\n".join(found) == ""


async def test_a_page_of_another_origin_changes_nothing(pages: Window, server: TaskHubProcess, rest: Api) -> None:
    await sign_in(pages.context, server, "Tilda")
    before = len(await rest.all_tickets())
    # Another port of one host: to SameSite that is the same site, so the cookie comes along.
    async with other_origin() as origin:
        page = await pages.context.new_page()
        await page.goto(origin)
        await page.evaluate(FORGE, f"{server.url}/api/v1/tickets")
        await expect(page).to_have_url(f"{server.url}/api/v1/tickets")
        await expect(page.locator("body")).to_contain_text("not_same_origin")
    assert len(await rest.all_tickets()) == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_narrow_screen_and_a_keyboard_are_enough(chrome: Browser, server: TaskHubProcess, scheme: Any) -> None:
    size = {"width": 320, "height": 640}
    async with window(chrome, server.url, viewport=size, color_scheme=scheme) as narrow:
        page = await narrow.open("/login")
        await expect(page.get_by_label("Name")).to_be_focused()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        await page.keyboard.type("Nobody")
        await page.keyboard.press("Tab")
        await page.keyboard.type("wrong horse battery")
        await page.keyboard.press("Enter")
        password = page.get_by_label("Password")
        await expect(page.get_by_role("alert")).to_have_text("The name or the password is wrong.")
        await expect(password).to_be_focused()
        await expect(password).to_have_attribute("aria-invalid", "true")
        kinds = await page.locator("form input").evaluate_all("found => found.map(each => each.autocomplete)")
        assert kinds == ["username", "current-password"]


async def test_it_speaks_japanese(chrome: Browser, server: TaskHubProcess) -> None:
    async with window(chrome, server.url, locale="ja") as tokyo:
        page = await tokyo.open("/login")
        await expect(page.get_by_role("heading")).to_have_text("TaskHub にサインイン")
        await expect(page).to_have_title("サインイン · TaskHub")
