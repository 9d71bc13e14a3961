"""TaskHub's pages in a browser: what they complain about fails the test."""

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright, expect

from tests.e2e.harness.browser import ARGUMENTS
from tests.e2e.harness.tools import chromium
from tests.e2e.harness.waiting import DEADLINE_S, until

expect.set_options(timeout=DEADLINE_S * 1000)

# What a browser says by itself while nobody listens on the port, and of refusals that the page tells the person.
EXPECTED = re.compile(r"net::ERR_|status of (400|401|403|404|409|410|412|422)")


@dataclass
class Window:
    """Tabs with storage of their own."""

    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str = "/") -> Page:
        page = await self.context.new_page()
        page.set_default_timeout(DEADLINE_S * 1000)
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(self.url + path)
        return page

    async def tidy(self) -> None:
        """Close the tabs, and have nothing left of what they kept; raises AssertionError when one has complained."""
        *others, last = self.context.pages or [await self.context.new_page()]
        for page in others:
            await page.close()
        if last.url.startswith(self.url):
            await last.evaluate("localStorage.clear()")
        await self.context.clear_cookies()
        await last.close()
        complaints, self.complaints = self.complaints, []
        assert complaints == []

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not EXPECTED.search(text):
            self.complaints.append(text)


@contextlib.asynccontextmanager
async def launched() -> AsyncIterator[Browser]:
    """A fresh headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(chromium()), args=ARGUMENTS, timeout=DEADLINE_S * 1000
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def window(browser: Browser, url: str, **options: Any) -> AsyncIterator[Window]:
    """A window of that browser; leaving it fails when a page complained."""
    context = await browser.new_context(**{"locale": "en", "viewport": {"width": 1400, "height": 800}, **options})
    opened = Window(context, url)
    try:
        yield opened
    finally:
        await context.close()
    assert opened.complaints == []


async def becomes(page: Page, expression: str) -> None:
    """Wait until a page says so. Playwright's own wait evaluates text in the page, which the page's policy forbids."""
    await until(lambda: page.evaluate(expression), expression)


async def is_live(page: Page) -> None:
    await expect(page.locator("connection-state")).to_have_attribute("data-state", re.compile("live|resynced"))
