"""Signing in at the board through an OpenID provider, in a browser."""

from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from tests.e2e.harness.pages import Window, launched, window
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.signing_in import sign_in_link
from tests.e2e.harness.waiting import DEADLINE_S
from tests.issuer import Issuer
from tests.servers import free_port

# One server and one browser for all tests, so one loop as well.
pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="module")]

expect.set_options(timeout=DEADLINE_S * 1000)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(subject="olga-1", asks=True) as issuer:
        issuer.person["name"] = "Olga"
        yield issuer


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server(
    tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess], issuer: Issuer
) -> AsyncIterator[TaskHubProcess]:
    """A server whose people sign in at the issuer, and are added when it knows them."""
    hub = TaskHubProcess(tmp_path_factory.mktemp("openid") / "taskhub", name="openid")
    hub.port = free_port()
    hub.configure(
        auth="oauth", public_url=hub.url, openid_issuer=issuer.url, openid_client_id="taskhub",
        openid_client_secret="s3cret & more", openid_name="Example", openid_new_user_role="manager",
        openid_domains="example.org", oauth_registration="true",
    )  # fmt: skip
    hubs.append(hub)
    yield await hub.start()
    hub.dispose()
    hubs.remove(hub)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chrome() -> AsyncIterator[Browser]:
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="module")
async def pages(chrome: Browser, server: TaskHubProcess) -> AsyncIterator[Window]:
    async with window(chrome, server.url) as pages:
        yield pages


async def go_on(page: Page) -> None:
    """As whoever the provider knows."""
    await page.get_by_role("button", name="Go on as").click()


async def test_people_sign_in_at_the_provider_and_come_back_to_where_they_wanted_to_go(
    pages: Window, server: TaskHubProcess
) -> None:
    page = await pages.open("/feed?type=ticket.*")
    await expect(page.get_by_label("Name")).to_be_focused()
    # By the keyboard: after the button of the form.
    await page.get_by_role("button", name="Sign in", exact=True).focus()
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Sign in with Example")).to_be_focused()
    await page.keyboard.press("Enter")
    await go_on(page)

    await expect(page).to_have_url(f"{server.url}/feed?type=ticket.*")
    await expect(page.locator("connection-state")).to_have_attribute("data-state", "live")
    await expect(page.locator("button.account")).to_have_text("Olga")
    assert await page.evaluate("document.cookie") == ""


async def test_nobody_is_led_to_another_server(pages: Window, server: TaskHubProcess) -> None:
    evil = [
        "//evil.example",
        "/.//evil.example",
        "https://evil.example/",
        "/\\evil.example",
        "/\t/evil.example",
        "http://",
    ]
    page = await pages.open(f"/login?{urlencode({'next': evil[0]})}")
    await page.get_by_role("link", name="Sign in with Example").click()
    await go_on(page)
    await expect(page).to_have_url(f"{server.url}/")

    for next_ in evil:
        left = await pages.open(f"/login?{urlencode({'next': next_})}")
        await left.wait_for_url(lambda address: "/login" not in address, wait_until="commit")
        assert left.url.startswith(f"{server.url}/"), next_
        await left.close()


async def test_a_restart_in_the_middle_of_it_is_not_noticed(pages: Window, server: TaskHubProcess) -> None:
    page = await pages.open("/login")
    await page.get_by_role("link", name="Sign in with Example").click()
    await expect(page.get_by_role("button", name="Go on as")).to_be_visible()
    await server.stop()
    await server.start()
    await go_on(page)

    await expect(page.locator("button.account")).to_have_text("Olga")


async def test_who_does_not_get_in_is_told_why_and_has_other_ways(
    chrome: Browser, server: TaskHubProcess, issuer: Issuer
) -> None:
    issuer.person["email"], issuer.subject = "mallory@example.com", "mallory-1"
    try:
        async with window(chrome, server.url, locale="ja", color_scheme="dark") as pages:
            page = await pages.open("/login?next=%2Ffeed")
            await page.get_by_role("link", name="Example でサインイン").click()
            await go_on(page)

            await expect(page.get_by_role("alert")).to_have_text(
                "この Example アカウントは組織のものではありません。別のアカウントを選んでください。"
            )
            issuer.person["email"], issuer.subject = "olga@example.org", "olga-1"
            await page.get_by_role("link", name="Example でサインイン").click()
            await go_on(page)
            await expect(page).to_have_url(f"{server.url}/feed")
    finally:
        issuer.person["email"], issuer.subject = "olga@example.org", "olga-1"


async def test_a_page_whose_session_is_over_goes_on_when_another_tab_has_come_back(
    pages: Window, server: TaskHubProcess
) -> None:
    page = await pages.open("/login")
    await page.get_by_role("link", name="Sign in with Example").click()
    await go_on(page)
    await expect(page.locator("connection-state")).to_have_attribute("data-state", "live")
    await run_taskhub("users", "sign-out", "Olga", environment=server.environment)
    asked = page.get_by_role("dialog", name="You are signed out")

    async with pages.context.expect_page() as opened:
        await asked.get_by_role("link", name="Sign in with Example").click()
    other = await opened.value
    await go_on(other)

    await expect(asked).to_have_count(0)
    await expect(page.locator("connection-state")).to_have_attribute("data-state", "live")


async def test_an_application_is_let_in_by_who_comes_from_the_provider(pages: Window, server: TaskHubProcess) -> None:
    registered = await pages.context.request.post(
        f"{server.url}/oauth/register", data={"redirect_uris": ["http://127.0.0.1/back"], "client_name": "Robot"}
    )
    client = (await registered.json())["client_id"]
    asked = (
        f"/oauth/authorize?response_type=code&client_id={client}&redirect_uri=http%3A%2F%2F127.0.0.1%2Fback"
        f"&code_challenge={'c' * 43}&code_challenge_method=S256&state=s&scope=tickets%3Aread"
    )
    page = await pages.open(asked)
    await page.get_by_role("link", name="Sign in with Example").click()
    await go_on(page)

    await expect(page.get_by_text("Robot").first).to_be_visible()
    assert page.url.startswith(f"{server.url}/oauth/authorize?"), page.url


async def test_without_the_provider_a_link_still_lets_people_in(
    pages: Window, server: TaskHubProcess, issuer: Issuer
) -> None:
    await issuer.stop()
    await server.stop()
    await server.start()
    try:
        page = await pages.open("/login")
        await page.get_by_role("link", name="Sign in with Example").click()
        await expect(page.get_by_role("alert")).to_contain_text("Example does not answer.")
        link = await sign_in_link(server, "Lena", "viewer")
        page = await pages.open(link.removeprefix(server.url))
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("heading")).to_have_text("Welcome, Lena")
    finally:
        await issuer.start()
