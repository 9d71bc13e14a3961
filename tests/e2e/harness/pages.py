"""TaskHub's pages in a browser: what they complain about fails the test."""

import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.e2e.harness.browser import ARGUMENTS
from tests.e2e.harness.tools import chromium
from tests.e2e.harness.waiting import DEADLINE_S

# What a browser says by itself while nobody listens on the port, and of refusals that the page tells the person.
EXPECTED = re.compile(r"net::ERR_|status of (400|401|403|404|410|422)")


@dataclass
class Window:
    """Tabs with storage of their own."""

    context: BrowserContext
    url: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str) -> Page:
        page = await self.context.new_page()
        page.set_default_timeout(DEADLINE_S * 1000)
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(self.url + path)
        return page

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
