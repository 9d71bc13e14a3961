"""What a browser gets."""

from tests.routes.conftest import Hub, Start

BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def test_in_front_of_another_server_the_endpoints_are_a_page_or_text(start: Start) -> None:
    hub = await start(api_base_url="http://127.0.0.1:9")
    page = await hub.get("/", headers=BROWSER)
    text = await hub.get("/", headers={"Accept": "*/*"})

    assert page.headers["Content-Type"].startswith("text/html")
    assert text.headers["Content-Type"].startswith("text/plain")
    for answer in (page, text):
        assert b"/mcp" in answer.body
        assert b"/events/stream" not in answer.body
        assert b"<script" not in answer.body
        assert "default-src 'self'" in answer.headers["Content-Security-Policy"]


async def test_the_endpoints_link_only_to_what_a_browser_can_show(start: Start) -> None:
    hub = await start(api_base_url="http://127.0.0.1:9")
    page = (await hub.get("/", headers=BROWSER)).body.decode()
    links = [part.partition('"')[0] for part in page.split('href="')[1:]]

    assert "/docs" in links
    assert not {"/mcp", "/sse"} & set(links)
    for link in links:
        assert (await hub.get(link, headers=BROWSER)).status == 200


async def test_a_browser_at_the_address_for_mcp_clients_is_told_what_it_is_for(hub: Hub) -> None:
    answer = await hub.get("/mcp", headers=BROWSER)

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert f"{hub.url}/mcp".encode() in answer.body
    assert b"mcpServers" in answer.body
    assert b"x-api-key" not in answer.body
    assert answer.headers["Vary"] == "Accept"


async def test_where_a_key_is_needed_the_snippet_has_a_place_for_it_and_not_the_key(start: Start) -> None:
    hub = await start(api_key="k-secret")
    answer = await hub.get("/mcp", headers={**BROWSER, "X-API-Key": "k-secret"})

    assert b"${TASKHUB_API_KEY}" in answer.body
    assert b"k-secret" not in answer.body
    assert (await hub.get("/mcp", headers=BROWSER)).status == 401


async def test_where_streamable_http_is_off_the_snippet_is_the_older_form(start: Start) -> None:
    hub = await start(mcp_transports=("sse",))

    assert b"&quot;sse&quot;" in (await hub.get("/mcp", headers=BROWSER)).body
