"""The system's Chromium, and pages on an origin of their own."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from playwright.async_api import Page, async_playwright

from tests.e2e.harness.tools import chromium
from tests.e2e.harness.waiting import DEADLINE_S

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

LISTEN = """
({url, names}) => {
  const seen = [];
  const source = new EventSource(url);
  for (const name of names) {
    source.addEventListener(name, event => seen.push(
      {event: event.type, id: event.lastEventId, data: JSON.parse(event.data)}));
  }
  // `error` without data is the browser's own word for a lost connection.
  source.onerror = () => seen.push({event: "(error)", id: "", data: {state: source.readyState}});
  window.seen = seen;
  window.source = source;
}
"""
"""Opens an EventSource in the page and keeps what it dispatches in `window.seen`."""


@contextlib.asynccontextmanager
async def browser_page() -> AsyncIterator[Page]:
    """An empty page in a fresh headless Chromium."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=str(chromium()), args=ARGUMENTS, timeout=DEADLINE_S * 1000
        )
        try:
            page = await browser.new_page()
            page.set_default_timeout(DEADLINE_S * 1000)
            yield page
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def other_origin(host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve an empty page on a port of its own; yields its origin."""

    async def page(request: web.Request) -> web.Response:
        return web.Response(text="<!doctype html><title>another origin</title>", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, 0)
        await site.start()
        port = runner.addresses[0][1]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
