"""The board in a browser: how soon it is there among 5000 tickets, and how it bears 200 changes a second."""

import atexit
import functools
import itertools
import json
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import CDPSession, Error, Page, sync_playwright

from tests.benchmarks.hub import Hub
from tests.benchmarks.load import RunFailed
from tests.benchmarks.peers import TaskHub
from tests.benchmarks.processes import NotHere, Server
from tests.benchmarks.scenario import Column, Row, Scenario, Variant
from tests.benchmarks.tickets import command, rows
from tests.e2e.harness.browser import ARGUMENTS
from tests.e2e.harness.tools import Missing, chromium

TICKETS: Final = 5000
CHANGES_PER_S: Final = 200
CHANGES_AT_ONCE: Final = 20
SECONDS: Final = 8.0
TIMEOUT_MS: Final = 60_000
# Nobody is asked for a key: what is measured is the board.
OPEN: Final = {"TASKHUB_API_KEY": "", "TASKHUB_AUTH": "none"}
SETTLED_CPU_S: Final = 0.03
SETTLED_AFTER: Final = 2
LOOK_EVERY_S: Final = 0.4
PRIORITIES: Final = ("none", "low", "medium", "high", "urgent")
STATUSES: Final = ("received", "in_progress", "verifying")

WATCH: Final = """
  window.longTasks = [];
  new PerformanceObserver(list => window.longTasks.push(...list.getEntries().map(each => each.duration)))
    .observe({type: "longtask"});
  new MutationObserver((_, observer) => {
    if (!document.querySelector("li[data-key]")) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => window.firstCards = performance.now()));
  }).observe(document, {childList: true, subtree: true});
"""
"""Keeps the page's long tasks (ms), and when cards were first painted (ms after the page was asked for)."""

NARROWED: Final = """async (words) => {
  const search = document.querySelector("#search");
  const shown = () => [...document.querySelectorAll("board-column:not(.tinted) li[data-key]")];
  const began = performance.now();
  search.value = words;
  search.dispatchEvent(new Event("input"));
  // Not by frames: of those a page that nobody looks at gets none.
  while (shown().length !== 1 && performance.now() - began < 30_000) await new Promise(done => setTimeout(done, 5));
  return shown().length === 1 ? performance.now() - began : null;
}"""
"""How long a search takes to leave the one ticket that it finds: milliseconds, or null when it never does."""


def board(kind: str) -> Row:
    """A first visit; then, `still` or `changing`, a while of looking. Raises RunFailed, NotHere."""
    try:
        program = chromium()
    except Missing as missing:
        raise NotHere(str(missing)) from missing
    with tempfile.TemporaryDirectory(prefix="taskhub-bench-") as name:
        peer = TaskHub(settings=OPEN, data_dir=Path(name))
        command(peer, Path(name), "restore", str(_tickets()))
        with peer.serve() as server, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=str(program), args=ARGUMENTS)
            try:
                # Once before, as a browser that is in use has its own programs in memory.
                browser.new_page().goto(f"http://127.0.0.1:{server.port}/version")
                context = browser.new_context(viewport={"width": 1400, "height": 860}, locale="en")
                page = context.new_page()
                page.set_default_timeout(TIMEOUT_MS)
                whole = browser.new_browser_cdp_session()
                _settle(whole)
                return _visit(page, context.new_cdp_session(page), whole, server, changing=kind == "changing")
            except Error as error:
                raise RunFailed(str(error)) from error
            finally:
                browser.close()


@functools.cache
def _tickets() -> Path:
    """A backup with the tickets, kept until this process ends."""
    directory = tempfile.TemporaryDirectory(prefix="taskhub-bench-")
    atexit.register(directory.cleanup)
    file, backup = Path(directory.name) / "tickets.jsonl", Path(directory.name) / "backup.db"
    with file.open("w") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in itertools.islice(rows(), TICKETS))
    peer = TaskHub(settings=OPEN, data_dir=Path(directory.name))
    command(peer, Path(directory.name), "import", str(file))
    command(peer, Path(directory.name), "backup", str(backup))
    return backup


def _settle(whole: CDPSession) -> None:
    """Wait until the browser has its new window ready: it makes pages of its own for each, which take a second of CPU
    and more, and have nothing to do with the one that is asked for."""
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    quiet = 0
    while quiet < SETTLED_AFTER:
        before = _browser_cpu_s(whole)
        time.sleep(LOOK_EVERY_S)
        quiet = quiet + 1 if _browser_cpu_s(whole) - before < SETTLED_CPU_S else 0
        if time.monotonic() > deadline:
            raise RunFailed("the browser did not come to rest before the page was asked for")


def _browser_cpu_s(whole: CDPSession) -> float:
    """CPU seconds of all processes of the browser."""
    return float(sum(each["cpuTime"] for each in whole.send("SystemInfo.getProcessInfo")["processInfo"]))


def _visit(page: Page, devtools: CDPSession, whole: CDPSession, server: Server, *, changing: bool) -> Row:
    port = server.port
    received: list[float] = []
    devtools.send("Network.enable")
    devtools.send("Performance.enable")
    devtools.on("Network.loadingFinished", lambda told: received.append(told["encodedDataLength"]))
    page.add_init_script(WATCH)
    browser_s, server_s = _browser_cpu_s(whole), server.usage().cpu_s
    page.goto(f"http://127.0.0.1:{port}/")
    _wait(page, "window.firstCards")
    _wait(page, "document.querySelector('connection-state').dataset.state === 'live'")
    opening = _work(devtools)
    browser_s, server_s = _browser_cpu_s(whole) - browser_s, server.usage().cpu_s - server_s
    # What comes only after the first sight belongs to the visit, too.
    _wait(page, "document.body.dataset.started")
    transferred, requests = sum(received), len(received)
    first = page.evaluate("window.firstCards")
    longest_of_opening = page.evaluate("Math.max(0, ...window.longTasks.splice(0))")
    if changing:
        keys = page.evaluate("[...document.querySelectorAll('li[data-key]')].map(each => each.dataset.key)")
        changed = _change(port, keys, page)
    else:
        changed = 0.0
        page.wait_for_timeout(SECONDS * 1000)
    during = {name: value - opening[name] for name, value in _work(devtools).items()}
    long_tasks = page.evaluate("window.longTasks.splice(0)")
    narrowed = page.evaluate(NARROWED, "needle-4321")
    if narrowed is None:
        raise RunFailed("the search did not come down to the one ticket that has these words")
    return {
        "first_cards_ms": first,
        "transferred_kb": transferred / 1000,
        "requests": requests,
        "opening_script_ms": 1000 * opening["ScriptDuration"],
        "opening_layout_ms": 1000 * (opening["LayoutDuration"] + opening["RecalcStyleDuration"]),
        "opening_task_ms": 1000 * opening["TaskDuration"],
        "opening_browser_ms": 1000 * browser_s,
        "opening_server_ms": 1000 * server_s,
        "opening_longest_ms": longest_of_opening,
        "narrowed_ms": narrowed,
        "changes_per_s": changed / SECONDS,
        "longest_ms": max(long_tasks, default=0.0),
        "long_tasks": len(long_tasks),
        "script": during["ScriptDuration"] / SECONDS,
        "layout": (during["LayoutDuration"] + during["RecalcStyleDuration"]) / SECONDS,
        "busy": during["TaskDuration"] / SECONDS,
    }


def _wait(page: Page, expression: str) -> None:
    # Playwright's own wait evaluates text in the page, which the page's policy forbids.
    deadline = time.monotonic() + TIMEOUT_MS / 1000
    while not page.evaluate(expression):
        if time.monotonic() > deadline:
            raise RunFailed(f"never: {expression}")


def _work(devtools: CDPSession) -> dict[str, float]:
    """CPU seconds that the page's main thread has used, by what for."""
    metrics: list[dict[str, Any]] = devtools.send("Performance.getMetrics")["metrics"]
    return {metric["name"]: metric["value"] for metric in metrics if metric["name"].endswith("Duration")}


def _change(port: int, shown: list[str], page: Page) -> float:
    """Change tickets, half of them ones that are in sight; how many were changed."""
    dice = random.Random(11)
    changed = 0
    failures: list[RunFailed] = []
    ended = threading.Event()

    def change() -> None:
        nonlocal changed
        hub = Hub(port)
        began = time.monotonic()
        try:
            while not ended.wait(max(0.0, began + changed / CHANGES_PER_S - time.monotonic())):
                keys = {dice.choice(shown) for _ in range(CHANGES_AT_ONCE // 2)}
                while len(keys) < CHANGES_AT_ONCE:
                    keys.add(f"TH-{dice.randint(1, TICKETS)}")
                items = [
                    {"ticket_id": key, "status": dice.choice(STATUSES), "priority": dice.choice(PRIORITIES)}
                    for key in keys
                ]
                hub.call("POST", "/api/v1/tickets/bulk", {"items": items})
                changed += len(items)
        except RunFailed as failure:
            failures.append(failure)

    thread = threading.Thread(target=change, daemon=True)
    thread.start()
    page.wait_for_timeout(SECONDS * 1000)
    ended.set()
    thread.join()
    if failures:
        raise failures[0]
    return changed


FIRST_CARDS: Final = Column("first_cards_ms", "first cards ms", ",.0f", "from the address asked for to cards painted")
TRANSFERRED: Final = Column("transferred_kb", "kB", ",.0f", "all that a first visit loads, as it is sent")
LONGEST: Final = Column("longest_ms", "longest task ms", ",.0f", "meanwhile; 0: none was over 50 ms")
PAGE: Final = Scenario(
    "page",
    f"the board in a browser: {TICKETS:,} tickets, nothing happens, or {CHANGES_PER_S} changes/s".replace(",", " ", 1),
    (
        FIRST_CARDS,
        TRANSFERRED,
        Column("requests", "requests", ",.0f", "of a first visit"),
        Column("opening_script_ms", "script ms", ",.0f", "CPU of the page's scripts until it is live"),
        Column("opening_layout_ms", "layout ms", ",.0f", "CPU of style and layout until then"),
        Column("opening_task_ms", "tasks ms", ",.0f", "CPU of the page's main thread until then"),
        Column("opening_browser_ms", "browser ms", ",.0f", "CPU of all processes of the browser until then"),
        Column("opening_server_ms", "server ms", ",.0f", "CPU of the server until then"),
        Column("opening_longest_ms", "longest of opening ms", ",.0f", "task of the page's main thread until then"),
        Column("narrowed_ms", "search ms", ",.0f", "from words typed to only what they find, 200 ms of it waiting"),
        Column("changes_per_s", "changes/s", ",.0f", "tickets changed per second meanwhile"),
        LONGEST,
        Column("long_tasks", "over 50 ms", ",.0f", "tasks of the main thread, meanwhile"),
        Column("script", "script", ".1%", "share of a core that scripts take meanwhile"),
        Column("layout", "layout", ".1%", "share of a core that style and layout take meanwhile"),
        Column("busy", "busy", ".1%", "share of a core that the page's main thread takes meanwhile"),
    ),
    [Variant(kind, functools.partial(board, kind)) for kind in ("still", "changing")],
)
