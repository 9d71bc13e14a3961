"""The pictures of the README, made again: `python -m tests.e2e.screenshots`.

A server with example tickets is opened in a browser, and what it shows becomes `config/screenshots/*.webp`. The words
and colours are always the same; the times are those of the day. Needs a Japanese font.
"""

import asyncio
import base64
import contextlib
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from playwright.async_api import Browser, Page, expect

from tests.e2e.harness.clients import api
from tests.e2e.harness.pages import is_live, launched
from tests.e2e.harness.process import ROOT, TaskHubProcess
from tests.e2e.harness.streams import record

DIRECTORY: Final = ROOT / "config/screenshots"
QUALITY: Final = 60
WIDE: Final = {"width": 1280, "height": 720}
LISTENED: Final = ({"type": "ticket.*", "batch": "100"}, {"status": "in_progress,verifying"}, {"actor": "agent:*"})
POINTS: Final = 12
"""What a chart has to show before it is worth a picture: it gets one every two seconds."""


def main() -> int:
    fonts = shutil.which("fc-list") and subprocess.run(["fc-list", ":lang=ja"], capture_output=True, check=False).stdout
    if not fonts:
        sys.stderr.write("no Japanese font is installed: the words of some tickets would be boxes\n")
        return 1
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    asyncio.run(all_of_them())
    return 0


async def all_of_them() -> None:
    with tempfile.TemporaryDirectory(prefix="taskhub-screenshots-") as name:
        hub = await TaskHubProcess(Path(name) / "taskhub", "--demo").start()
        try:
            async with launched() as browser:
                await pictures(browser, hub)
        finally:
            hub.dispose()


async def pictures(browser: Browser, hub: TaskHubProcess) -> None:
    async with api(hub.url) as rest:
        tickets = await rest.all_tickets()
        shown = next(key for key, ticket in tickets.items() if ticket["summary"].startswith("Login fails"))
    board = await opened(browser, hub.url + "/", colour="light")
    await board.get_by_label("Who are you?").select_option("alice")
    await is_live(board)
    await expect(board.locator("board-column li[data-key]").first).to_be_visible()
    await kept(board, "board")

    drawer = await opened(browser, f"{hub.url}/?ticket={shown}", colour="dark")
    await is_live(drawer)
    await expect(drawer.locator(".comments li").first).to_be_visible()
    await kept(drawer, "ticket-dark")

    feed = await opened(browser, f"{hub.url}/feed", colour="dark")
    await is_live(feed)
    await expect(feed.locator(".feed > li").first).to_be_visible()
    await kept(feed, "feed-dark")

    operator = await opened(browser, f"{hub.url}/events/debug", colour="light")
    line = operator.locator(".chart").first.locator("path.line")
    async with contextlib.AsyncExitStack() as listeners:
        for filters in LISTENED:
            await listeners.enter_async_context(record(hub.url, filters))
        busy = asyncio.create_task(bustle(hub))
        await expect(line).to_have_attribute("d", re.compile("L.*" * POINTS))
        await kept(operator, "operator")
        busy.cancel()


async def bustle(hub: TaskHubProcess) -> None:
    """Something happens, now more and now less."""
    async with api(hub.url) as rest:
        for number in itertools.count():
            await rest.publish(
                *({"type": "build.finished", "subject": f"build/{number}", "data": {}},) * (number * 7 % 11 + 1)
            )
            await asyncio.sleep(0.5)


async def opened(browser: Browser, address: str, *, colour: Any, size: Any = WIDE) -> Page:
    context = await browser.new_context(
        viewport=size, color_scheme=colour, reduced_motion="reduce", locale="en", timezone_id="UTC"
    )
    page = await context.new_page()
    await page.goto(address)
    return page


async def kept(page: Page, name: str) -> None:
    """Write the picture of a page, small."""
    devtools = await page.context.new_cdp_session(page)
    taken = await devtools.send("Page.captureScreenshot", {"format": "webp", "quality": QUALITY})
    file = DIRECTORY / f"{name}.webp"
    file.write_bytes(base64.b64decode(taken["data"]))
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")  # noqa: T201 - a command line prints
    await page.context.close()


if __name__ == "__main__":
    sys.exit(main())
