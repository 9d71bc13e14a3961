"""Pages of other origins: what they may call, and which headers they see."""

import pytest

from tests.routes.conftest import Hub, Start

PAGE = "http://localhost:3000"


@pytest.mark.parametrize("path", ["/events/stream?limit=1&timeout=0.1", "/api/v1/tickets", "/api/v1/events",
                                  "/api/v1/tickets/TH-99", "/events/stream?nonsense=1"])  # fmt: skip
async def test_a_page_of_an_allowed_origin_may_read_answers_errors_and_streams(hub: Hub, path: str) -> None:
    answer = await hub.get(path, headers={"Origin": PAGE})
    exposed = answer.headers["Access-Control-Expose-Headers"]

    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "Origin" in answer.headers["Vary"]
    assert {"TaskHub-Position", "TaskHub-Stream", "ETag", "Retry-After"} <= set(exposed.split(", "))


@pytest.mark.parametrize("path", ["/health", "/", "/version"])
async def test_other_paths_are_shared_with_nobody(hub: Hub, path: str) -> None:
    assert "Access-Control-Allow-Origin" not in (await hub.get(path, headers={"Origin": PAGE})).headers


async def test_a_page_of_the_same_origin_needs_no_cors(hub: Hub) -> None:
    answer = await hub.get("/api/v1/tickets", headers={"Origin": hub.url})

    assert answer.status == 200
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("path", "method", "methods"),
    [
        ("/api/v1/tickets", "POST", {"GET", "HEAD", "OPTIONS", "POST"}),
        ("/api/v1/tickets/TH-1", "PATCH", {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH"}),
        ("/events", "POST", {"OPTIONS", "POST"}),
        ("/events/stream", "GET", {"GET", "HEAD", "OPTIONS"}),
        ("/mcp", "POST", {"DELETE", "GET", "OPTIONS", "POST"}),
        ("/sse", "GET", {"GET", "OPTIONS"}),
        ("/message", "POST", {"OPTIONS", "POST"}),
    ],
)
async def test_a_preflight_is_answered_without_credentials(
    start: Start, path: str, method: str, methods: set[str]
) -> None:
    hub = await start(api_key="k-secret")
    answer = await hub.request(
        "OPTIONS", path, headers={"Origin": PAGE, "Access-Control-Request-Method": method,
                                  "Access-Control-Request-Headers": "x-api-key"}
    )  # fmt: skip
    allowed = answer.headers["Access-Control-Allow-Headers"].lower()

    assert answer.status == 204
    assert set(answer.headers["Access-Control-Allow-Methods"].split(", ")) == methods
    assert answer.headers["Access-Control-Allow-Origin"] == PAGE
    assert "x-api-key" in allowed
    assert "authorization" in allowed
    assert "content-type" in allowed


async def test_mcp_allows_the_protocols_own_headers_and_a_tools_parameters(hub: Hub) -> None:
    answer = await hub.request(
        "OPTIONS", "/mcp", headers={"Origin": PAGE, "Access-Control-Request-Method": "POST",
                                    "Access-Control-Request-Headers": "mcp-param-ticket-id, x-evil"}
    )  # fmt: skip
    allowed = set(answer.headers["Access-Control-Allow-Headers"].lower().split(", "))

    assert {"mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name", "last-event-id"} <= allowed
    assert "mcp-param-ticket-id" in allowed
    assert "x-evil" not in allowed
    assert "Mcp-Session-Id" in answer.headers["Access-Control-Expose-Headers"]


async def test_a_preflight_of_a_foreign_origin_is_refused(hub: Hub) -> None:
    answer = await hub.request(
        "OPTIONS", "/api/v1/tickets", headers={"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    )

    assert (answer.status, answer.code) == (403, "forbidden_origin")


async def test_in_production_only_listed_origins_are_allowed(start: Start) -> None:
    hub = await start(env="production", api_key="k-secret", allowed_origins=("https://board.example.org",))
    headers = {"X-API-Key": "k-secret"}
    listed = await hub.get("/api/v1/tickets", headers={**headers, "Origin": "https://board.example.org"})
    loopback = await hub.get("/api/v1/tickets", headers={**headers, "Origin": PAGE})

    assert listed.headers["Access-Control-Allow-Origin"] == "https://board.example.org"
    assert loopback.status == 403


async def test_options_without_a_preflight_tells_the_methods(hub: Hub) -> None:
    answer = await hub.request("OPTIONS", "/api/v1/tickets")

    assert (answer.status, answer.headers["Allow"]) == (204, "GET, HEAD, OPTIONS, POST")
    assert (await hub.request("OPTIONS", "/nowhere")).code == "no_such_resource"
