"""The board in a browser, while tools, programs and other people change what it shows."""

import asyncio
import re
import shutil
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Locator, Page, Route, expect

from tests.e2e.harness.clients import Api, api, mcp_http
from tests.e2e.harness.pages import Window, becomes, is_live, window
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import until

pytestmark = [pytest.mark.needs("chromium"), pytest.mark.asyncio(loop_scope="session")]

# Follows a stream in a page, and keeps what it hears in `window.heard`.
FOLLOW = """async ([module, options]) => {
  const { openStream } = await import(module);
  window.heard = [];
  window.stream = openStream(options);
  window.stream.addEventListener("events", ({ detail }) => window.heard.push(...detail.events));
  await new Promise(resolve => window.stream.addEventListener("begin", resolve));
}"""


@pytest_asyncio.fixture(loop_scope="session")
async def rest(server: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(server.url) as client:
        yield client


def card(page: Page, key: str, column: str = "") -> Locator:
    return page.locator(f"board-column{f'#column-{column}' if column else ':not(.tinted)'} li[data-key='{key}']")


def state(page: Page) -> Locator:
    return page.locator("connection-state")


async def streams(rest: Api) -> int:
    count: int = (await rest.get("/events/debug"))["connected_clients"]
    return count


async def test_a_change_that_a_tool_makes_is_on_every_page(pages: Window, server: TaskHubProcess) -> None:
    both = [await pages.open(), await pages.open()]
    for page in both:
        await is_live(page)
    async with mcp_http(server.url) as client:
        created = await client.call_tool("create_ticket", {"summary": "Fan is <b>loud</b>"})
        assert created.structured_content is not None
        key = created.structured_content["key"]
        for page in both:
            await expect(card(page, key, "received")).to_contain_text("Fan is <b>loud</b>")

        await client.call_tool("update_task_status", {"task_id": key, "status": "verifying"})

    for page in both:
        await expect(card(page, key, "verifying")).to_be_visible()
        await expect(card(page, key, "received")).to_have_count(0)


async def test_counts_are_those_of_the_server(pages: Window, rest: Api) -> None:
    page = await pages.open()
    await is_live(page)
    key = (await rest.create("Counted"))["key"]
    await expect(card(page, key)).to_be_visible()
    await rest.change(key, status="in_progress")
    await expect(card(page, key, "in_progress")).to_be_visible()
    answer = await rest.request("DELETE", f"/api/v1/tickets/{key}")
    assert answer.status == 204
    await expect(card(page, key)).to_have_count(0)
    counts = {column["status"]["id"]: column["count"] for column in (await rest.get("/api/v1/board"))["columns"]}

    for status, count in counts.items():
        await expect(page.locator(f"#column-{status} .fold .count")).to_have_text(str(count))


async def test_a_cut_stream_comes_back_with_what_happened_meanwhile(pages: Window, rest: Api) -> None:
    page = await pages.open()
    await is_live(page)
    key = (await rest.create("Cut off"))["key"]
    await expect(card(page, key)).to_be_visible()
    for stream in (await rest.get("/events/debug?streams=50"))["instances"][0]["streams"]:
        await rest.request("DELETE", f"/events/debug/streams/{stream['id']}")
    await expect(state(page)).to_have_attribute("data-state", "reconnecting")

    await rest.change(key, status="in_progress")

    await expect(card(page, key, "in_progress")).to_be_visible()
    await is_live(page)


async def test_a_board_outlives_the_server(pages: Window, server: TaskHubProcess) -> None:
    page = await pages.open()
    await is_live(page)
    await server.kill()
    await expect(state(page)).to_have_attribute("data-state", re.compile("reconnecting|stale"))
    await server.restart()
    async with api(server.url) as rest:
        key = (await rest.create("After the restart"))["key"]

    await expect(card(page, key)).to_be_visible()
    await is_live(page)


async def test_after_a_reset_the_board_is_read_anew_and_says_so(pages: Window, server: TaskHubProcess) -> None:
    async with api(server.url) as rest:
        key = (await rest.create("Lost with its log"))["key"]
    page = await pages.open()
    await expect(card(page, key)).to_be_visible()
    await is_live(page)
    await page.evaluate(
        """() => { window.said = []; const state = document.querySelector("connection-state");
        new MutationObserver(() => window.said.push(state.dataset.state)).observe(state, {attributes: true}); }"""
    )
    await server.kill()
    shutil.rmtree(server.data_dir)
    await server.restart()

    await expect(page.locator(".board-empty")).to_be_visible()
    await expect(card(page, key)).to_have_count(0)
    await becomes(page, "window.said.includes('resynced')")
    async with api(server.url) as rest:
        await expect(page.locator(".board-empty pre")).to_contain_text(f"curl {server.url}/api/v1/tickets")
        key = (await rest.create("First of the new log"))["key"]
    await expect(card(page, key)).to_be_visible()


async def test_two_people_change_a_ticket_and_both_changes_stay(pages: Window, rest: Api) -> None:
    key = (await rest.create("Merge me", description="Old", priority="low"))["key"]
    page = await pages.open(f"/?ticket={key}")
    await page.get_by_role("button", name="Edit", exact=True).click()
    await page.get_by_label("Description").fill("Mine")
    await page.get_by_label("Remarks").fill("Only mine")
    await rest.change(key, description="Theirs", priority="high")
    await page.get_by_role("button", name="Save").click()

    conflict = page.locator(".conflict")
    await expect(conflict).to_contain_text("Low")
    await expect(conflict).to_contain_text("High")
    await expect(conflict).to_be_focused()
    await conflict.get_by_label("Both").check()
    await page.get_by_role("button", name="Save").click()
    await expect(page.locator(".editor")).to_have_count(0)

    ticket = (await rest.get(f"/api/v1/tickets/{key}"))["ticket"]
    assert ticket["description"].split("\n\n") == ["Theirs", "Mine"]
    assert (ticket["priority"], ticket["remarks"]) == ("high", "Only mine")


async def test_everything_goes_by_keyboard(pages: Window, rest: Api) -> None:
    other = (await rest.create("The one before"))["key"]
    page = await pages.open()
    await is_live(page)
    keys = page.keyboard
    await keys.press("c")
    await page.locator("dialog input[name=summary]").wait_for()
    await keys.type("Typed alone")
    await keys.press("Control+Enter")
    toast = page.locator(".toast", has_text="was created")
    key = (await toast.inner_text()).split()[0]
    await expect(card(page, key, "received").locator("a")).to_be_focused()

    await keys.press("m")
    await page.get_by_role("menuitemradio", name="In Progress").focus()
    await keys.press("Enter")
    await expect(card(page, key, "in_progress").locator("a")).to_be_focused()

    await keys.press("z")
    await expect(card(page, key, "received").locator("a")).to_be_focused()
    assert (await rest.get(f"/api/v1/tickets/{key}"))["ticket"]["status"]["id"] == "received"

    await keys.press("Enter")
    await expect(page.locator("#drawer-title")).to_have_text("Typed alone")
    assert f"ticket={key}" in page.url
    await keys.press("Escape")
    await expect(page.locator(".drawer")).to_be_hidden()
    await expect(card(page, key).locator("a")).to_be_focused()

    await keys.press("j")
    await expect(card(page, other, "received").locator("a")).to_be_focused()
    await keys.press("k")
    await expect(card(page, key).locator("a")).to_be_focused()

    await keys.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("Next and previous card")
    await keys.press("Escape")
    await keys.press("/")
    await keys.type("Typed")
    await expect(page.locator("li[data-key]")).to_have_count(1)
    assert "q=Typed" in page.url


async def test_what_is_typed_at_once_is_not_lost(pages: Window, server: TaskHubProcess, rest: Api) -> None:
    key = (await rest.create("Old words"))["key"]
    await rest.request("POST", "/api/v1/users", json={"name": "Zoe"})
    lists = re.compile("/api/v1/(users|accounts|categories|statuses)$")
    tickets = re.compile(f"/api/v1/tickets/{key}[?]")
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await pages.context.route(lists, hold)
    await pages.context.route(tickets, hold)
    page = await pages.open()
    await expect(card(page, key)).to_be_visible()
    keys = page.keyboard
    await keys.press("c")
    await keys.type("Accents and mazes")
    await expect(page.get_by_label("Summary")).to_have_value("Accents and mazes")
    held.set()
    await page.get_by_label("Assignee").select_option("zoe")
    await keys.press("Control+Enter")
    await expect(page.locator("board-column:not(.tinted) li", has_text="Accents and mazes")).to_be_visible()

    held.clear()
    await card(page, key).locator("a").focus()
    await keys.press("e")
    await keys.press("Control+a")
    await keys.type("Amazing, ")
    held.set()
    await expect(page.locator(".editor [name=summary]")).to_be_focused()
    await keys.type("new")
    await keys.press("Control+Enter")
    await expect(page.locator("#drawer-title")).to_have_text("Amazing, new")
    await pages.context.unroute_all()


async def test_who_is_faster_than_the_rest_of_the_page_sees_the_cards_and_loses_nothing(
    pages: Window, rest: Api
) -> None:
    key = (await rest.create("There first"))["key"]
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        await held.wait()
        await route.continue_()

    await pages.context.route("**/work.js", hold)
    page = await pages.open()
    await expect(card(page, key)).to_be_visible()
    await page.keyboard.press("c")
    await page.keyboard.type("Cheap jam")
    await expect(page.get_by_role("dialog")).to_have_count(0)
    held.set()

    await expect(page.get_by_label("Summary")).to_have_value("Cheap jam")
    await pages.context.unroute_all()


async def test_what_a_page_could_not_load_it_says_and_loads_when_it_is_wanted_again(pages: Window, rest: Api) -> None:
    key = (await rest.create("Without the rest"))["key"]
    await pages.context.route("**/work.js", lambda route: route.abort())
    page = await pages.open()
    await card(page, key).locator("a").click()
    await expect(page.locator(".toast.error")).to_contain_text("does not answer")

    await pages.context.unroute_all()
    await card(page, key).locator("a").click()

    await expect(page.locator("#drawer-title")).to_have_text("Without the rest")


async def test_after_more_changes_than_anybody_can_follow_the_board_shows_what_is_true(
    pages: Window, rest: Api
) -> None:
    keys = [(await rest.create(f"Busy {n}"))["key"] for n in range(12)]
    page = await pages.open()
    await is_live(page)
    for turn in range(9):
        items = [
            {"ticket_id": key, "status": ("in_progress", "verifying", "received")[(turn + n) % 3]}
            for n, key in enumerate(keys)
        ]
        assert (await rest.request("POST", "/api/v1/tickets/bulk", json={"items": items})).status == 200

    columns = (await rest.get("/api/v1/board?limit=5"))["columns"]
    for column in columns:
        shown = [ticket["key"] for ticket in column["tickets"]]
        there = f"#column-{column['status']['id']}"
        await expect(page.locator(f"{there} .fold .count")).to_have_text(str(column["count"]))
        for place, key in enumerate(shown, start=1):
            await expect(page.locator(f"{there} li[aria-posinset='{place}']")).to_have_attribute("data-key", key)


async def test_a_ticket_that_is_read_before_its_change_is_heard_counts_once(pages: Window, rest: Api) -> None:
    page = await pages.open("/version")
    counts = await page.evaluate(
        """async () => {
          const { Tickets } = await import("/static/tickets.js");
          const received = { id: "received", name: "Received" }, done = { id: "done", name: "Done" };
          const ticket = (status, phase, version) =>
            ({ key: "TH-1", version, status, phase, labels: [], updated_at: `2026-01-01T00:00:0${version}Z` });
          const [before, after] = [ticket(received, "todo", 1), ticket(done, "done", 2)];
          const tickets = new Tickets();
          tickets.load({ columns: [
            { status: received, phase: "todo", count: 1, tickets: [before] },
            { status: done, phase: "done", count: 0, tickets: [] },
          ] }, { group: "status", words: String });
          tickets.add([after]);
          const changes = { status: ["received", "done"] };
          tickets.apply([{ type: "ticket.status_changed", data: { ticket: after, changes } }]);
          return tickets.columns.map(({ count }) => count);
        }"""
    )
    assert counts == [0, 1]


async def test_a_ticket_that_cannot_be_read_or_written_says_why_and_can_be_tried_again(
    pages: Window, rest: Api
) -> None:
    key = (await rest.create("Out of reach"))["key"]
    page = await pages.open()
    await expect(card(page, key)).to_be_visible()
    await pages.context.route("**/api/v1/tickets**", lambda route: route.abort())
    await card(page, key).locator("a").click()
    drawer = page.locator(".drawer")
    await expect(drawer.get_by_role("alert")).to_contain_text("does not answer")
    await drawer.get_by_role("button", name="Close").click()
    await page.keyboard.press("c")
    await page.keyboard.type("Kept")
    await page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("alert")).to_contain_text("does not answer")

    await pages.context.unroute_all()
    await page.keyboard.press("Enter")
    await expect(dialog).to_have_count(0)
    await expect(page.locator("board-column:not(.tinted) li", has_text="Kept")).to_be_visible()


async def test_a_card_is_dragged_to_another_column(pages: Window, rest: Api) -> None:
    key = (await rest.create("Drag me"))["key"]
    page = await pages.open()
    await card(page, key).drag_to(page.locator("#column-in_progress .column-body"))

    await expect(card(page, key, "in_progress")).to_be_visible()
    await page.locator(".toast", has_text="moved to In Progress").get_by_role("button", name="Undo").click()
    await expect(card(page, key, "received")).to_be_visible()


async def test_a_ticket_that_an_agent_holds_is_taken_over_before_it_moves(pages: Window, rest: Api) -> None:
    key = (await rest.create("Held"))["key"]
    agent = {"X-TaskHub-Actor": "agent:claude"}
    assert (await rest.request("PUT", f"/api/v1/tickets/{key}/lease", headers=agent)).status == 200
    page = await pages.open()
    await expect(card(page, key).locator(".lease")).to_contain_text(re.compile(r"claude\d+:\d\d"))
    await card(page, key).drag_to(page.locator("#column-verifying .column-body"))
    refused = page.locator(".toast.error")
    await expect(refused).to_contain_text("Take it over first")
    await expect(card(page, key, "in_progress")).to_be_visible()

    await refused.get_by_role("button", name="Take over").click()
    await page.get_by_role("dialog").get_by_role("button", name="Take over").click()

    await expect(card(page, key, "verifying")).to_be_visible()


async def test_filters_are_in_the_address_and_hold_for_what_comes(pages: Window, rest: Api) -> None:
    urgent = (await rest.create("Urgent one", priority="urgent"))["key"]
    low = (await rest.create("Low one", priority="low"))["key"]
    page = await pages.open()
    await page.get_by_role("button", name="Filter").click()
    await page.get_by_role("checkbox", name="Urgent").check()
    await page.keyboard.press("Escape")
    await expect(card(page, low)).to_have_count(0)
    await expect(card(page, urgent)).to_be_visible()
    assert "priority=urgent" in page.url

    await rest.change(low, priority="urgent")
    await rest.change(urgent, priority="low")

    await expect(card(page, low)).to_be_visible()
    await expect(card(page, urgent)).to_have_count(0)


async def test_a_column_is_in_the_order_that_the_address_names(pages: Window, rest: Api) -> None:
    made = {
        name: (await rest.create(name, labels=["ordered"], **fields))["key"]
        for name, fields in (
            ("low", {"priority": "low", "scheduled_completion_date": "2031-01-02"}),
            ("urgent", {"priority": "urgent"}),
            ("high", {"priority": "high", "scheduled_completion_date": "2031-01-01"}),
        )
    }

    async def order(page: Page) -> list[str]:
        shown = await page.locator("#column-received li[data-key]").evaluate_all("all => all.map(e => e.dataset.key)")
        return [name for key in shown for name, its in made.items() if its == key]

    page = await pages.open("/?label=ordered")
    await is_live(page)
    await expect(card(page, made["high"])).to_be_visible()
    assert await order(page) == ["high", "urgent", "low"]
    await page.get_by_role("button", name="Filter", exact=True).click()
    await page.get_by_role("radio", name="Due next").check()
    await until(lambda: _is(order(page), ["high", "low", "urgent"]), "order by date")
    await page.get_by_role("radio", name="Most urgent").check()
    await until(lambda: _is(order(page), ["urgent", "high", "low"]), "order by priority")
    assert "sort=priority" in page.url

    await rest.change(made["low"], priority="urgent")
    await until(lambda: _is(order(page), ["urgent", "low", "high"]), "changed order")

    await page.reload()
    await until(lambda: _is(order(page), ["urgent", "low", "high"]), "order of the address")


async def _is(reading: Any, wanted: list[str]) -> bool:
    return bool(await reading == wanted)


async def test_an_address_that_names_nobody_says_so_and_leads_back(pages: Window, rest: Api) -> None:
    key = (await rest.create("Still there"))["key"]
    page = await pages.open("/?assignee=gone")
    refused = page.locator(".toast.error")
    await expect(refused).to_contain_text("gone")

    await refused.get_by_role("button", name="Clear filters").click()

    await expect(card(page, key)).to_be_visible()
    assert "gone" not in page.url


async def test_what_waits_for_the_person_comes_first(pages: Window, rest: Api) -> None:
    answer = await rest.request("POST", "/api/v1/users", json={"name": "Alice"})
    assert answer.status == 201, answer
    key = (await rest.create("Alice, please look", person_in_charge="alice", status="in_progress"))["key"]
    page = await pages.open()
    await page.get_by_label("Who are you?").select_option("alice")
    await expect(card(page, key, "in_progress")).to_be_visible()
    await expect(card(page, key, "needs-you")).to_have_count(0)

    await rest.change(key, status="verifying")

    await expect(card(page, key, "needs-you")).to_be_visible()
    await expect(page).to_have_title(re.compile(r"^\(1\) Board"))


async def test_a_comment_reaches_who_reads_the_ticket(pages: Window, rest: Api) -> None:
    key = (await rest.create("Talk"))["key"]
    writer, reader = await pages.open(f"/?ticket={key}"), await pages.open(f"/?ticket={key}")
    await expect(reader.locator(".comments, .drawer-body .quiet").first).to_be_visible()
    await is_live(reader)
    await writer.get_by_label("Write a comment").fill("Is it <i>plugged in</i>?")
    await writer.get_by_label("Kind of comment").select_option("question")
    await writer.get_by_role("button", name="Comment", exact=True).click()

    await expect(reader.locator(".comment.question")).to_contain_text("Is it <i>plugged in</i>?")


async def test_a_change_by_others_leaves_what_is_unfolded_where_it_is(pages: Window, rest: Api) -> None:
    key = (await rest.create("Unfolded"))["key"]
    page = await pages.open(f"/?ticket={key}")
    drawer = page.locator(".drawer")
    await drawer.locator(".adder summary").first.click()
    await drawer.locator(".adder input").first.fill("TH-1")
    await is_live(page)
    await rest.change(key, summary="Unfolded, still")

    await expect(page.locator("#drawer-title")).to_have_text("Unfolded, still")
    await expect(drawer.locator(".adder")).to_have_count(2)
    await expect(drawer.locator(".adder input").first).to_have_value("TH-1")
    await drawer.locator("details summary").last.click()
    await expect(drawer.locator(".raw pre").first).to_contain_text("ticket.created")


async def test_a_comment_that_is_half_written_waits_while_another_ticket_is_read(pages: Window, rest: Api) -> None:
    key, other = (await rest.create("Written about"))["key"], (await rest.create("Looked up meanwhile"))["key"]
    page = await pages.open(f"/?ticket={key}")
    text, kind = page.get_by_label("Write a comment"), page.get_by_label("Kind of comment")
    await text.fill("As I was saying")
    await kind.select_option("decision")
    await card(page, other).locator("a").click()
    await expect(page.locator("#drawer-title")).to_have_text("Looked up meanwhile")
    await expect(text).to_have_value("")
    await page.keyboard.press("Escape")
    await card(page, key).locator("a").click()
    await expect(page.locator("#drawer-title")).to_have_text("Written about")

    await expect(text).to_have_value("As I was saying")
    await expect(kind).to_have_value("decision")
    await page.get_by_role("button", name="Comment", exact=True).click()
    await expect(page.locator(".comment.decision")).to_contain_text("As I was saying")
    await expect(text).to_have_value("")


async def test_a_ticket_is_deleted_after_a_question_and_restored(pages: Window, rest: Api) -> None:
    key = (await rest.create("Delete me"))["key"]
    page = await pages.open()
    await card(page, key).hover()
    await card(page, key).locator(".card-menu").click()
    await page.get_by_role("menuitem", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(card(page, key)).to_have_count(0)

    await page.locator(".toast", has_text="was deleted").get_by_role("button", name="Restore").click()

    await expect(card(page, key)).to_be_visible()


async def test_the_board_shows_any_past_moment(pages: Window, rest: Api) -> None:
    first = (await rest.get("/api/v1/tickets?sort_by=created&sort_order=asc&show_completed=true&limit=1"))["tickets"]
    later = (await rest.create("Later than the first"))["key"]
    page = await pages.open()
    await expect(card(page, later)).to_be_visible()
    await page.get_by_role("button", name="The board as it was").click()
    await expect(page.get_by_label("Moment")).to_be_focused()
    await page.keyboard.press("Home")

    await expect(card(page, later)).to_have_count(0)
    if first:
        await expect(card(page, first[0]["key"])).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(card(page, later)).to_be_visible()


async def test_a_long_column_has_only_the_cards_in_sight_and_all_of_them(pages: Window, rest: Api) -> None:
    lines = "".join(f'{{"external_ticket_id":"many-{i}","summary":"Row {i}","labels":["many"]}}\n' for i in range(180))
    imported = await rest.request(
        "POST", "/api/v1/import", data=lines.encode(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert imported.json["created"] == 180, imported
    page = await pages.open("/?label=many")
    column = page.locator("#column-received")
    await expect(column.locator(".fold .count")).to_have_text("180")
    assert await column.locator("li[data-key]").count() < 40

    async def bottom() -> bool:
        await column.locator(".column-body").evaluate("body => { body.scrollTop = body.scrollHeight }")
        return await column.locator("li[aria-posinset='180']").count() == 1

    await until(bottom, "last card")
    assert await column.locator("li[data-key]").count() < 40
    keys = await column.locator("li[data-key]").evaluate_all("found => found.map(each => each.dataset.key)")
    assert len(set(keys)) == len(keys)


async def test_a_search_leaves_what_it_finds_of_many_cards_in_many_columns(pages: Window, rest: Api) -> None:
    statuses = ("received", "in_progress", "verifying", "completed")
    lines = "".join(
        f'{{"external_ticket_id":"crowd-{i}","summary":"Crowd {i:02}","labels":["crowd"],'
        f'"status":"{statuses[i % 4]}"}}\n'
        for i in range(80)
    )
    imported = await rest.request(
        "POST", "/api/v1/import", data=lines.encode(), headers={"Content-Type": "application/x-ndjson"}
    )
    assert imported.json["created"] == 80, imported
    page = await pages.open("/?label=crowd")
    for status in statuses:
        await expect(page.locator(f"#column-{status} .fold .count")).to_have_text("20")
    # A machine so slow that a frame has time for one column.
    await page.evaluate("(now => { let more = 0; performance.now = () => now() + (more += 10) })(() => Date.now())")
    # Its card is out of sight, in the column that is drawn last.
    await page.locator("#search").fill("Crowd 03")

    found = page.locator("board-column:not(.tinted) li[data-key]")
    await expect(found).to_have_text([re.compile(r"Crowd 03")])


async def test_twenty_tabs_share_a_stream_that_outlives_the_first(pages: Window, rest: Api) -> None:
    before = await streams(rest)
    first, last = await pages.open(), await pages.open()
    for page in (first, last):
        await is_live(page)
    # The others are pages with the stream alone: that is what is shared, and twenty boards take a small machine long.
    module = await first.evaluate(
        "performance.getEntriesByType('resource').find(e => e.name.endsWith('stream.js')).name"
    )
    others = [await pages.open("/version") for _ in range(18)]
    for tab in others:
        await tab.evaluate(FOLLOW, [module, {"url": "/events/stream?batch=100&coalesce=ticket"}])
    assert await streams(rest) == before + 1

    await first.close()
    key = (await rest.create("Seen by nineteen"))["key"]

    await expect(card(last, key)).to_be_visible()
    for tab in others:
        await becomes(tab, f"window.heard.some(event => event.subject === '{key}')")
    assert await streams(rest) == before + 1
    for tab in (last, *others):
        await tab.close()
    await until(lambda: _are(streams(rest), before), "closed stream")


async def test_a_tab_that_hears_late_is_told_where_the_stream_stands(pages: Window, rest: Api) -> None:
    first, second = await pages.open("/version"), await pages.open("/version")
    follow = ["/static/stream.js", {"url": "/events/stream?type=late.*"}]
    await first.evaluate(FOLLOW, follow)
    # As on a busy machine: the worker hears of the tab before the channel between them is open.
    await second.evaluate(
        """() => {
          globalThis.BroadcastChannel = class extends BroadcastChannel {
            set onmessage(hear) { setTimeout(() => (super.onmessage = hear), 400); }
          };
        }"""
    )
    await second.evaluate(FOLLOW, follow)
    await rest.publish({"type": "late.said", "data": {}})
    for tab in (first, second):
        await becomes(tab, "window.heard.length === 1")


async def test_tabs_go_on_when_the_worker_that_listens_for_them_ends(chrome: Browser, pages: Window, rest: Api) -> None:
    tabs = [await pages.open(), await pages.open()]
    for tab in tabs:
        await is_live(tab)
    devtools = await chrome.new_browser_cdp_session()
    targets = (await devtools.send("Target.getTargets"))["targetInfos"]
    (worker,) = (each["targetId"] for each in targets if each["type"] == "shared_worker")
    await devtools.send("Target.closeTarget", {"targetId": worker})
    missed = (await rest.create("While nobody listened"))["key"]

    for tab in tabs:
        # As when somebody looks at it again: else it finds out a little later.
        await tab.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    for tab in tabs:
        await expect(card(tab, missed)).to_be_visible()
        await is_live(tab)
    heard = (await rest.create("Heard again"))["key"]
    for tab in tabs:
        await expect(card(tab, heard)).to_be_visible()


async def _are(counting: Any, wanted: int) -> bool:
    return bool(await counting == wanted)


async def test_without_workers_another_tab_goes_on_when_the_one_that_listened_closes(pages: Window, rest: Api) -> None:
    tabs = [await pages.open("/version") for _ in range(3)]
    for tab in tabs:
        await tab.evaluate(FOLLOW, ["/static/stream.js", {"url": "/events/stream?type=shared.*", "share": "lock"}])
    await rest.publish(*({"type": "shared.counted", "data": {"n": n}} for n in range(10)))
    await becomes(tabs[2], "window.heard.length >= 10")

    async with asyncio.TaskGroup() as group:
        group.create_task(tabs[0].close())
        for n in range(10, 30):
            await rest.publish({"type": "shared.counted", "data": {"n": n}})

    for tab in tabs[1:]:
        await becomes(tab, "window.heard.length >= 30")
        assert await tab.evaluate("window.heard.map(event => event.data.n)") == list(range(30))


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_a_narrow_screen_scrolls_one_way_and_its_targets_are_big_enough(
    chrome: Browser, server: TaskHubProcess, rest: Api, scheme: Any
) -> None:
    key = (await rest.create("A narrow ticket with a rather long summary", labels=["one", "two"]))["key"]
    size = {"width": 320, "height": 640}
    async with window(chrome, server.url, viewport=size, color_scheme=scheme) as pages:
        page = await pages.open()
        await expect(card(page, key)).to_be_visible()
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        small = """found => found.filter(each => each.checkVisibility({visibilityProperty: true})).map(each => {
          const {width, height} = each.getBoundingClientRect();
          return width && (width < 24 || height < 24) ? `${each.outerHTML.slice(0, 90)} ${width}x${height}` : null;
        }).filter(Boolean)"""
        assert await page.locator("button, select, nav a, input").evaluate_all(small) == []
        await card(page, key).locator("a").click()
        await expect(page.locator("#drawer-title")).to_contain_text("A narrow ticket")
        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        assert await page.locator(".drawer :is(button, select, textarea)").evaluate_all(small) == []


async def test_every_word_there_is_in_english_there_is_in_japanese(chrome: Browser, server: TaskHubProcess) -> None:
    async with window(chrome, server.url, locale="ja") as pages:
        page = await pages.open()
        await expect(page.locator("nav a").first).to_have_text("ボード")
        await expect(page.locator("html")).to_have_attribute("lang", "ja")
        found = await page.evaluate(
            """async () => Promise.all(["en", "ja"].map(async language =>
            Object.keys((await import(`/static/words-${language}.js`)).default).sort()))"""
        )
        await page.locator(".shell-tools select").first.select_option("en")
        await expect(page.locator("nav a").first).to_have_text("Board")

    assert found[0] == found[1]
