"""The pages for people, as they are sent."""

import re

import pytest

from broadcaster.event import SYSTEM_TYPES, TICKET_TYPES
from routes.assets import DIRECTORY
from routes.dashboard import NAVIGATION
from tests.routes.conftest import Hub, Start

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_a_browser_gets_the_board_and_a_program_the_endpoints(hub: Hub) -> None:
    page = await hub.get("/", headers=BROWSER)
    text = await hub.get("/", headers={"Accept": "*/*"})

    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert b'data-page="board"' in page.body
    assert text.headers["Content-Type"].startswith("text/plain")
    assert b"/events/stream" in text.body
    assert b"/mcp" in text.body
    assert page.headers["Vary"].startswith("Accept")
    assert text.headers["Vary"].startswith("Accept")


async def test_a_page_has_nothing_that_its_policy_refuses_and_all_it_names_is_there(hub: Hub) -> None:
    answer = await hub.get("/", headers=BROWSER)
    page = answer.body.decode()

    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert not re.search(r"<script>|<style|\son[a-z]+=|\sstyle=", page)
    for path in re.findall(r'(?:src|href)="(/[^"]*)"', page):
        assert (await hub.get(path, headers=BROWSER)).status == 200, path


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_feed_has_words_for_every_type_of_event(language: str) -> None:
    words = (DIRECTORY / f"words-{language}.js").read_text()

    assert [each for each in (*TICKET_TYPES, *SYSTEM_TYPES) if f'"feed.{each}":' not in words] == []


async def test_the_address_of_the_operators_figures_is_a_page_for_browsers_alone(start: Start) -> None:
    hub = await start(api_key="k-secret")
    page = await hub.get("/events/debug", headers=BROWSER)
    refused = await hub.get("/events/debug", headers={"Accept": "*/*"})
    figures = await hub.get("/events/debug", headers={"X-API-Key": "k-secret"})
    shown = await hub.get("/events/debug", headers={**BROWSER, "X-API-Key": "k-secret"})

    assert b'data-page="operator"' in page.body
    assert page.body == shown.body
    assert (refused.status, refused.code) == (401, "unauthenticated")
    assert figures.json["connected_clients"] == 0
    assert page.headers["Vary"].startswith("Accept")
    assert figures.headers["Vary"].startswith("Accept")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/events/debug/test"),
        ("GET", "/events/debug/explain"),
        ("DELETE", "/events/debug/streams/st_1"),
        ("GET", "/events/stream"),
        ("GET", "/api/v1/tickets"),
    ],
)
async def test_asking_for_a_page_lets_nobody_in_where_there_is_none(start: Start, method: str, path: str) -> None:
    hub = await start(api_key="k-secret")

    assert (await hub.request(method, path, headers=BROWSER)).status == 401


async def test_every_place_that_the_pages_lead_to_exists(hub: Hub) -> None:
    for path, _, _ in NAVIGATION:
        assert (await hub.get(path, headers=BROWSER)).status == 200, path


@pytest.mark.parametrize(("site", "origin"), [("same-origin", "dashboard"), ("cross-site", "rest_api")])
async def test_what_a_page_of_this_server_changes_is_told_as_such(hub: Hub, site: str, origin: str) -> None:
    answer = await hub.post("/api/v1/tickets", {"summary": "From a page"}, headers={"Sec-Fetch-Site": site})
    key = answer.json["key"]

    (created,) = (await hub.get(f"/api/v1/tickets/{key}/history")).json["items"]
    assert created["origin"] == origin


@pytest.mark.parametrize(("settings", "said"), [({}, "none"), ({"api_key": "k-secret"}, "api_key")])
async def test_a_page_says_whether_a_key_is_needed_and_never_which(
    start: Start, settings: dict[str, str], said: str
) -> None:
    page = (await (await start(**settings)).get("/", headers=BROWSER)).body.decode()

    assert f'data-auth="{said}"' in page
    assert "k-secret" not in page
