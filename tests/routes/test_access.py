"""Credentials, client addresses, request ids, and headers of every response."""

import pytest

from routes.access import OPEN, networks
from tests.routes.conftest import Hub, Start

KEY = {"X-API-Key": "k-secret"}


@pytest.mark.parametrize("path", ["/api/v1/tickets", "/events/stream", "/events/debug", "/api/v1/events", "/mcp"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "k-guess"}, {"Authorization": "Basic azpz"}])
async def test_without_the_key_nobody_gets_in(start: Start, path: str, headers: dict[str, str]) -> None:
    hub = await start(api_key="k-secret")
    answer = await hub.get(path, headers=headers)

    assert (answer.status, answer.code) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    assert b"k-secret" not in answer.body
    assert b"k-guess" not in answer.body


@pytest.mark.parametrize("headers", [KEY, {"Authorization": "Bearer k-secret"}])
async def test_the_key_opens_in_either_header(start: Start, headers: dict[str, str]) -> None:
    hub = await start(api_key="k-secret")

    assert (await hub.get("/api/v1/tickets", headers=headers)).status == 200
    async with hub.stream("limit=1", **headers) as stream:
        assert (await stream.frame()).event == "hello"


@pytest.mark.parametrize("path", sorted(OPEN))
async def test_what_tells_how_to_get_in_is_open(start: Start, path: str) -> None:
    public, issuer = "https://taskhub.example.org", "https://login.example.org"
    hub = await start(auth="oauth", public_url=public, oauth_issuer=issuer, api_key="k-secret")

    # Where no provider is named, nobody signs in through one, which needs no credential to learn.
    there_is = not path.startswith("/login/openid")
    assert (await hub.get(path)).status in ((200, 204) if there_is else (404,))


async def test_what_does_not_exist_is_told_without_a_key(start: Start) -> None:
    hub = await start(api_key="k-secret")

    assert (await hub.get("/events/strem")).code == "no_such_resource"
    assert (await hub.request("PUT", "/events/stream")).code == "method_not_allowed"


async def test_the_actor_of_a_change_is_the_one_the_caller_names(hub: Hub) -> None:
    async with hub.stream() as stream:
        await stream.until("ready")
        await hub.post("/api/v1/tickets", {"summary": "One"}, headers={"X-TaskHub-Actor": "Triage-Bot"})
        event = (await stream.until("message")).data

    assert (event["actor"], event["origin"]) == ("agent:triage_bot", "rest_api")


@pytest.mark.parametrize(
    ("given", "actor"),
    [
        ("alice", "agent:alice"),
        ("user:alice", "user:alice"),
        ("SERVICE:Build-1.2", "service:build-1.2"),
        ("佐藤", "agent:佐藤"),
        ("", "user:local"),
    ],
)
async def test_a_name_that_an_actor_can_have_is_taken(hub: Hub, given: str, actor: str) -> None:
    await hub.post("/api/v1/tickets", {"summary": "One"}, headers={"X-TaskHub-Actor": given})

    assert (await hub.get("/api/v1/events?after=earliest")).json["events"][0]["actor"] == actor


@pytest.mark.parametrize(
    ("given", "instead"),
    [
        ("Triage Bot", "agent:triage_bot"),
        ("user:alice/x", "user:alice_x"),
        ("robot:x", "agent:robot_x"),
        ("user:alice@example.org", "user:alice_example.org"),
        ("x" * 101, "agent:" + "x" * 100),
        ("user:", None),
        ("///", None),
        ("a<b>", "agent:a_b"),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/tickets", "/mcp"])
async def test_a_name_that_no_actor_can_have_is_refused_and_not_rewritten(
    hub: Hub, path: str, given: str, instead: str | None
) -> None:
    answer = await hub.post(path, {"summary": "One"}, headers={"X-TaskHub-Actor": given})

    assert (answer.status, answer.code) == (400, "bad_header")
    assert answer.named["X-TaskHub-Actor"].get("did_you_mean") == instead
    assert "letters, digits" in answer.json["detail"]
    assert (await hub.get("/api/v1/events?after=earliest")).json["events"] == []


async def test_two_names_are_refused_and_bytes_that_are_no_text_too(hub: Hub) -> None:
    head = b"GET /api/v1/tickets HTTP/1.1\r\nHost: localhost\r\nX-TaskHub-Actor: "
    twice, _, _ = await hub.raw(head + b"user:a\r\nX-TaskHub-Actor: user:b\r\n\r\n")
    bytes_, _, body = await hub.raw(head + b"user:a\xff\r\n\r\n")

    assert (twice, bytes_) == (400, 400)
    assert b'"bad_header"' in body


async def test_where_the_key_names_the_caller_the_header_does_not_count(start: Start) -> None:
    hub = await start(api_key="k-secret")

    assert (await hub.get("/api/v1/tickets", headers={**KEY, "X-TaskHub-Actor": "no / name"})).status == 200


@pytest.mark.parametrize("given", ["abc-123", "7f:9.x_Y"])
async def test_a_sane_request_id_is_kept(hub: Hub, given: str) -> None:
    assert (await hub.get("/version", headers={"X-Request-ID": given})).headers["X-Request-ID"] == given


async def test_requests_that_bring_no_id_get_one_each(hub: Hub, start: Start) -> None:
    other = await start()
    answers = [await each.get("/version") for each in (hub, hub, other, other)]

    assert len({answer.headers["X-Request-ID"] for answer in answers}) == 4


@pytest.mark.parametrize("given", ["", "two words", "x" * 101, "<script>"])
async def test_any_other_request_id_is_replaced(hub: Hub, given: str) -> None:
    answer = await hub.get("/version", headers={"X-Request-ID": given})

    assert answer.headers["X-Request-ID"] not in ("", given)


async def test_every_response_forbids_framing_sniffing_and_foreign_scripts(hub: Hub) -> None:
    answers = [await hub.get("/version"), await hub.get("/nowhere"), await hub.get("/events/stream?nonsense=1")]
    async with hub.stream("limit=1") as stream:
        headers = [*(answer.headers for answer in answers), stream.response.headers]

    for given in headers:
        assert "default-src 'self'" in given["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in given["Content-Security-Policy"]
        assert given["X-Content-Type-Options"] == "nosniff"
        assert given["Referrer-Policy"] == "no-referrer"
        assert given["Server"] == "TaskHub"
        assert given["X-Request-ID"]


@pytest.mark.parametrize(
    "path", ["/api/v1/tickets/TH-1%2Fhistory", "/api/v1/tickets/%00", "/%2e%2e%5cetc", "/a%0d%0ab"]
)
async def test_encoded_slashes_and_control_characters_in_a_path_are_refused(hub: Hub, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
    status, _, body = await hub.raw(head)

    assert status == 400
    assert b'"bad_path"' in body


async def test_a_query_over_4_kib_is_refused(hub: Hub) -> None:
    answer = await hub.get("/events/stream?type=" + "a" * 4100)

    assert (answer.status, answer.code) == (414, "query_too_long")


@pytest.mark.parametrize("size", [257, 15_000])
async def test_an_oversized_last_event_id_is_refused(hub: Hub, size: int) -> None:
    answer = await hub.get("/events/stream", headers={"Last-Event-ID": "x" * size})

    assert (answer.status, answer.code) == (431, "headers_too_large")


async def test_a_last_event_id_of_a_mebibyte_is_refused(hub: Hub) -> None:
    head = b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + b"x" * 2**20 + b"\r\n\r\n"
    status, _, _ = await hub.raw(head)

    assert 400 <= status < 500


@pytest.mark.parametrize(
    ("headers", "address"),
    [
        ({}, "127.0.0.1"),
        ({"X-Forwarded-For": "192.0.2.7"}, "192.0.2.7"),
        ({"X-Forwarded-For": "198.51.100.1, 192.0.2.7, 10.0.0.3"}, "192.0.2.7"),
        ({"X-Forwarded-For": "192.0.2.7:4711"}, "192.0.2.7"),
        ({"X-Forwarded-For": "[2001:db8::1]:4711"}, "2001:db8::1"),
        ({"X-Forwarded-For": "unknown"}, "127.0.0.1"),
        ({"Forwarded": 'for="[2001:db8::1]:99";proto=https, for=10.0.0.3'}, "2001:db8::1"),
    ],
)
async def test_behind_a_trusted_proxy_the_client_is_the_last_hop_that_is_none(
    start: Start, headers: dict[str, str], address: str
) -> None:
    hub = await start(api_key="k-secret", trusted_proxies=("127.0.0.1", "10.0.0.0/8"))
    async with hub.stream(**KEY, **headers) as stream:
        await stream.until("ready")
        debug = await hub.get("/events/debug", headers=KEY)

    assert [stream["address"] for stream in debug.json["instances"][0]["streams"]] == [address]


async def test_from_anybody_else_forwarded_headers_count_for_nothing(start: Start) -> None:
    hub = await start(api_key="k-secret")
    async with hub.stream(**KEY, **{"X-Forwarded-For": "192.0.2.7"}) as stream:
        await stream.until("ready")
        debug = await hub.get("/events/debug", headers=KEY)

    assert debug.json["instances"][0]["streams"][0]["address"] == "127.0.0.1"


def test_a_trusted_proxy_that_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="proxy"):
        networks(["proxy.example.org"])
