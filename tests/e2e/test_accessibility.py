"""What axe, which judges pages by WCAG, says of all that people see; and everything that goes without a mouse."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, expect

from tests.e2e.harness.axe import judge
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import Window, becomes, is_live, window
from tests.e2e.harness.process import TaskHubProcess

pytestmark = [pytest.mark.needs("chromium", "npm packages"), pytest.mark.asyncio(loop_scope="session")]

SOME_OF_EACH_METHOD: Final = """() => {
  const seen = {};
  for (const each of document.querySelectorAll(".operation:not([open])")) {
    const method = each.querySelector("summary").textContent.trim().split(/\\s/)[0];
    if ((seen[method] = (seen[method] ?? 0) + 1) > 2) each.remove();
  }
}"""
TABS: Final = 150
"""More controls than a page has."""


@pytest_asyncio.fixture(loop_scope="session")
async def rest(server: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(server.url) as client:
        yield client


async def full_ticket(rest: Api) -> str:
    """A ticket with everything that a card and the drawer can show; its key."""
    await rest.request("POST", "/api/v1/users", json={"name": "Alice"})
    other = (await rest.create("Before it"))["key"]
    key: str = (
        await rest.create(
            "Has everything", description="See https://example.com/a", priority="urgent", labels=["one", "two"],
            person_in_charge="alice", scheduled_completion_date="2024-05-06",
        )
    )["key"]  # fmt: skip
    answer = await rest.request("PUT", f"/api/v1/tickets/{key}/lease", headers={"X-TaskHub-Actor": "agent:claude"})
    assert answer.status == 200, answer
    for path, body in (
        ("relations", {"relation": "blocked_by", "other": other}),
        ("attachments", {"file_name": "log.txt", "url": "https://example.com/log.txt"}),
        ("comments", {"comment": "Is it plugged in?", "kind": "question"}),
    ):
        answer = await rest.request("POST", f"/api/v1/tickets/{key}/{path}", json=body)
        assert answer.status < 300, answer
    return key


WIDE: Final = {"viewport": {"width": 1400, "height": 800}, "locale": "en"}
NARROW: Final = {"viewport": {"width": 320, "height": 640}, "locale": "ja"}
SIZES: Final = pytest.mark.parametrize("options", [WIDE, NARROW], ids=["wide-english", "narrow-japanese"])


@SIZES
async def test_nothing_serious_is_wrong_with_the_board(
    chrome: Browser, server: TaskHubProcess, rest: Api, options: Any
) -> None:
    key = await full_ticket(rest)
    found: list[str] = []
    async with window(chrome, server.url, reduced_motion="reduce", **options) as pages:
        page = await pages.open()
        await expect(page.locator(f"li[data-key='{key}']")).to_be_attached()
        await is_live(page)
        found += await judge(page, "board")

        async def shows(press: str, what: str, where: str) -> None:
            nonlocal found
            await page.keyboard.press(press)
            await expect(page.locator(what).first).to_be_visible()
            found += await judge(page, where)
            await page.keyboard.press("Escape")
            await expect(page.locator(what)).to_have_count(0)

        await shows("c", "dialog .fields", "new ticket")
        await shows("?", "dialog.help", "help")
        column = page.locator(".column-picker button[data-column=in_progress]")
        if await column.is_visible():
            await column.click()
        await page.locator(f"li[data-key='{key}'] a").focus()
        await shows("m", "[role=menu]", "menu")
        await page.locator(".bar button[aria-haspopup=dialog]").focus()
        await shows("Enter", ".filters", "filters")
        await page.locator(f"li[data-key='{key}'] a").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator(".comments li")).to_have_count(1)
        for each in await page.locator(".drawer details").all():
            await each.evaluate("each => each.open = true")
        await expect(page.locator(".raw pre").first).to_be_attached()
        found += await judge(page, "drawer")
        await page.keyboard.press("e")
        await expect(page.locator(".editor")).to_be_visible()
        found += await judge(page, "editing")
        await rest.change(key, priority="low")
        await page.locator(".editor [name=priority]").select_option("high")
        await page.keyboard.press("Control+Enter")
        await expect(page.locator(".conflict, .toast.error").first).to_be_visible()
        found += await judge(page, "conflict")
        await page.goto(f"{server.url}/?q=nowhere+to+be+found")
        await expect(page.locator(".board-empty")).to_be_visible()
        found += await judge(page, "empty")
        await page.goto(f"{server.url}/?assignee=gone")
        await expect(page.locator(".toast.error")).to_be_visible()
        found += await judge(page, "error")

    assert "\n".join(found) == ""


@pytest.mark.parametrize(
    ("path", "options"),
    [
        ("/feed", WIDE),
        ("/feed?type=never.*", NARROW),
        ("/events/debug", WIDE),
        ("/events/debug", NARROW),
        ("/docs", NARROW),
    ],
)
async def test_nothing_serious_is_wrong_with_the_other_pages(
    chrome: Browser, server: TaskHubProcess, rest: Api, options: Any, path: str
) -> None:
    await rest.create("To be told of")
    ready: dict[str, Callable[[Page], Awaitable[object]]] = {
        "/feed": lambda page: expect(page.locator(".feed > li").first).to_be_visible(),
        "/feed?type=never.*": lambda page: expect(page.locator(".empty pre")).to_be_visible(),
        "/events/debug": lambda page: expect(page.locator(".totals")).to_be_visible(),
        "/docs": lambda page: expect(page.locator(".operation").first).to_be_visible(),
    }
    async with window(chrome, server.url, reduced_motion="reduce", **options) as pages:
        page = await pages.open(path)
        await ready[path](page)
        if path == "/feed":
            await page.locator(".feed > li button").first.click()
        if path == "/docs":
            await page.locator("#create_ticket > summary").click()
            await page.evaluate(SOME_OF_EACH_METHOD)  # a hundred that are drawn alike take axe long
        found = await judge(page, path)

    assert "\n".join(found) == ""


async def reach(page: Page, control: Locator, key: str = "Tab") -> None:
    """Go there by keyboard alone. Raises AssertionError where that does not lead to it."""
    await expect(control.first).to_be_visible()
    for _ in range(TABS):
        if await control.first.evaluate("each => each === document.activeElement"):
            return
        await page.keyboard.press(key)
    raise AssertionError(f"{key} does not lead to {control}")


def focused(page: Page) -> Locator:
    return page.locator("*:focus")


async def test_every_action_of_the_board_goes_without_a_mouse(pages: Window, rest: Api) -> None:
    await rest.request("POST", "/api/v1/users", json={"name": "Bob"})
    page = await pages.open()
    await is_live(page)
    keys = page.keyboard
    main = page.locator("main")

    async def choose(words: str) -> None:
        await reach(page, page.get_by_role("menu").locator("button", has_text=words), "ArrowDown")
        await keys.press("Enter")

    async def told(words: str) -> None:
        await expect(page.locator(".toast", has_text=words).first).to_be_visible()

    # Write one, in the bar and by its key.
    await reach(page, page.get_by_role("button", name="New ticket"))
    await keys.press("Enter")
    await expect(page.get_by_label("Summary")).to_be_focused()
    await keys.type("By hand")
    await keys.press("Control+Enter")
    one = (await page.locator(".toast", has_text="was created").inner_text()).split()[0]
    link = page.locator(f"board-column:not(.tinted) li[data-key='{one}'] a")
    await expect(link).to_be_focused()
    await keys.press("c")
    await expect(page.get_by_label("Summary")).to_be_focused()
    await keys.type("Second one")
    await keys.press("Control+Enter")
    await expect(page.locator(".toast", has_text="was created")).to_have_count(2)
    await expect(focused(page)).to_contain_text("Second one")
    await keys.press("j")
    await expect(link).to_be_focused()

    # Priority, assignee, status, with and without a reason; undo.
    await keys.press("p")
    await choose("Urgent")
    await told("Urgent")
    await keys.press("a")
    await choose("Bob")
    await told("assigned to Bob")
    await keys.press("m")
    await choose("Waiting")
    await expect(page.get_by_role("dialog").locator("input")).to_be_focused()
    await keys.type("an answer")
    await keys.press("Enter")
    await expect(page.locator(f"#column-waiting li[data-key='{one}'] a")).to_be_focused()
    await keys.press("z")
    await expect(page.locator(f"#column-received li[data-key='{one}'] a")).to_be_focused()

    # Claim, give back, take over, delete, restore.
    await keys.press("m")
    await choose("Claim")
    await told("is yours now")
    await expect(page.locator(f"li[data-key='{one}'] .lease").first).to_be_visible()
    await keys.press("m")
    await choose("Release")
    await told("given back")
    await expect(page.locator(f"li[data-key='{one}'] .lease")).to_have_count(0)
    assert (
        await rest.request("PUT", f"/api/v1/tickets/{one}/lease", headers={"X-TaskHub-Actor": "agent:x"})
    ).status == 200
    await expect(page.locator(f"li[data-key='{one}'] .lease").first).to_be_visible()
    await keys.press("m")
    await choose("Take over")
    await reach(page, page.get_by_role("dialog").get_by_role("button", name="Take over"))
    await keys.press("Enter")
    await expect(page.locator(f"li[data-key='{one}'] .lease").first).to_contain_text("local")
    # The change may be told before the call that made it is answered, with the token that the next one needs.
    await becomes(page, f"localStorage.getItem('taskhub.leases')?.includes('{one}')")
    await link.focus()
    await keys.press("m")
    await choose("Delete")
    await reach(page, page.get_by_role("dialog").get_by_role("button", name="Delete"))
    await keys.press("Enter")
    await expect(page.locator(f"li[data-key='{one}']")).to_have_count(0)
    await keys.press("z")
    await expect(link).to_be_attached()

    # Columns: fold and unfold; across.
    fold = page.locator("#column-received .fold")
    await reach(page, fold, "Shift+Tab")
    await keys.press("Enter")
    await expect(fold).to_have_attribute("aria-expanded", "false")
    await keys.press("Enter")
    await expect(fold).to_have_attribute("aria-expanded", "true")

    # The drawer: read, edit, its tools, relate, attach, comment.
    await link.focus()
    await keys.press("Enter")
    drawer = page.locator(".drawer")
    await expect(page.locator("#drawer-title")).to_have_text("By hand")
    await reach(page, drawer.get_by_role("button", name="Edit", exact=True))
    await keys.press("Enter")
    await expect(page.locator(".editor [name=summary]")).to_be_focused()
    await keys.press("End")
    await keys.type(", edited")
    await keys.press("Control+Enter")
    await expect(page.locator("#drawer-title")).to_have_text("By hand, edited")
    for tool, words in (("status", "In Progress"), ("priority", "Low"), ("assignee", "Nobody")):
        await reach(page, drawer.locator(f"[data-keep={tool}]"))
        await keys.press("Enter")
        await choose(words)
        await expect(drawer.locator(f"[data-keep={tool}]")).to_contain_text(words)
    await reach(page, drawer.locator("summary").first)
    await keys.press("Enter")
    await reach(page, drawer.locator(".adder").first.locator("input"))
    await keys.type((await rest.create("Related"))["key"])
    await keys.press("Enter")
    untie = drawer.locator(".ties li button").first
    await expect(untie).to_be_visible()
    await reach(page, drawer.locator("summary").nth(1))
    await keys.press("Enter")
    await reach(page, drawer.locator(".adder").nth(1).locator("input").first)
    await keys.type("log.txt")
    await keys.press("Tab")
    await keys.type("https://example.com/log.txt")
    await keys.press("Enter")
    await expect(drawer.locator(".ties")).to_have_count(2)
    await reach(page, untie, "Shift+Tab")
    await keys.press("Enter")
    await expect(drawer.locator(".ties")).to_have_count(1)
    await reach(page, drawer.locator("details summary").last)
    await keys.press("Enter")
    await expect(drawer.locator(".raw pre").first).to_contain_text("ticket.created")
    await reach(page, drawer.get_by_label("Write a comment"))
    await keys.type("Done by keyboard")
    await keys.press("Control+Enter")
    await expect(drawer.locator(".comments")).to_contain_text("Done by keyboard")
    await reach(page, drawer.get_by_role("button", name="Close"), "Shift+Tab")
    await keys.press("Enter")
    await expect(drawer).to_be_hidden()
    await expect(page.locator(f"#column-in_progress li[data-key='{one}'] a")).to_be_focused()

    # Search, filters, their chips, the order, what columns are; the past.
    await keys.press("/")
    await keys.type("edited")
    await expect(page.locator("board-column:not(.tinted) li[data-key]")).to_have_count(1)
    await keys.press("Escape")
    await expect(page).not_to_have_url(re.compile("q="))
    await reach(page, main.get_by_role("button", name="Filter", exact=True))
    await keys.press("Enter")
    await reach(page, page.get_by_role("checkbox", name="Low"))
    await keys.press("Space")
    await expect(page.locator("board-column:not(.tinted) li", has_text="Second one")).to_have_count(0)
    await reach(page, page.get_by_role("radio", name="By status"))
    await keys.press("ArrowDown")
    await expect(page.locator("#column-active")).to_be_visible()
    await reach(page, page.get_by_role("radio", name="Last changed"))
    await keys.press("ArrowDown")
    await expect(page).to_have_url(re.compile("sort=priority"))
    await keys.press("Escape")
    await expect(main.get_by_role("button", name="Filter", exact=True)).to_be_focused()
    await reach(page, page.get_by_role("button", name="Remove the filter"))
    await keys.press("Enter")
    await expect(page).not_to_have_url(re.compile("priority=low"))
    await reach(page, page.get_by_role("button", name="The board as it was"))
    await keys.press("Enter")
    await expect(page.get_by_label("Moment")).to_be_focused()
    await keys.press("Home")
    await expect(page.locator(f"li[data-key='{one}']")).to_have_count(0)
    await reach(page, page.get_by_role("button", name="Now"))
    await keys.press("Enter")
    await expect(page.locator(f"li[data-key='{one}']")).to_be_attached()

    # Who one is, the language, another page, past all of it to the content.
    await reach(page, page.get_by_label("Who are you?"))
    await reach(page, page.get_by_label("Language"), "Shift+Tab")
    await reach(page, page.get_by_role("link", name="Feed"), "Shift+Tab")
    await reach(page, page.get_by_role("link", name="Skip to the content"), "Shift+Tab")
    await keys.press("Enter")
    await expect(main).to_be_focused()
