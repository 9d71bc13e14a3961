"""Host and Origin: the rules, and that every route keeps to them."""

import pytest

from routes.hosts import HostRules, same_origin, target_authority
from tests.routes.conftest import Hub, Start

LOOPBACK = HostRules.of((), ("https://board.example.org",), loopback_hosts=True, loopback_origins=True)
PUBLIC = HostRules.of(("hub.example.org", "other.example.org:8443"), (), loopback_hosts=False, loopback_origins=False)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.0.0.9:1", "[::1]:8000", "[::1]"])
def test_a_loopback_bind_accepts_names_of_loopback(host: str) -> None:
    assert LOOPBACK.host_allowed(host)
    assert not PUBLIC.host_allowed(host)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1.evil", "localhost.evil.example", "evil.example", "0.0.0.0", "", "localhost:", "localhost:x",
     "localhost:\u0661", "localhost.", "localhost@evil", "[::1", "::1", "localhost/..", "127.1", "2130706433",
     "localhost\x00"],
)  # fmt: skip
def test_a_loopback_bind_refuses_every_other_name(host: str) -> None:
    assert not LOOPBACK.host_allowed(host)


def test_an_allowed_host_with_a_port_is_allowed_on_that_port_alone() -> None:
    assert PUBLIC.host_allowed("hub.example.org")
    assert PUBLIC.host_allowed("Hub.Example.Org:444")
    assert PUBLIC.host_allowed("other.example.org:8443")
    assert not PUBLIC.host_allowed("other.example.org")
    assert not PUBLIC.host_allowed("other.example.org:8000")


def test_an_origin_is_allowed_when_it_is_the_host_itself_or_listed_or_on_loopback_in_development() -> None:
    assert LOOPBACK.origin_allowed("http://localhost:8000", "localhost:8000")
    assert LOOPBACK.origin_allowed("http://[::1]:3000", "localhost:8000")
    assert LOOPBACK.origin_allowed("https://board.example.org", "localhost:8000")
    assert PUBLIC.origin_allowed("https://hub.example.org", "hub.example.org")
    assert not PUBLIC.origin_allowed("http://localhost:3000", "hub.example.org")


@pytest.mark.parametrize(
    "origin",
    ["null", "", "https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil", "file://",
     "http://board.example.org", "https://board.example.org.evil", "https://board.example.org:444",
     "chrome-extension://abc", "http://localhost@evil.example", "http://localhost:1/path"],
)  # fmt: skip
def test_every_other_origin_is_refused(origin: str) -> None:
    assert not LOOPBACK.origin_allowed(origin, "localhost:8000")


def test_the_default_port_of_an_origin_is_that_of_its_scheme() -> None:
    assert same_origin("https://hub.example.org", "hub.example.org:443")
    assert same_origin("http://hub.example.org:80", "hub.example.org")
    assert not same_origin("http://hub.example.org", "hub.example.org:8000")


def test_the_authority_of_an_absolute_target_is_found() -> None:
    assert target_authority("/a?b=http://c") is None
    assert target_authority("*") is None
    assert target_authority("http://evil.example/a") == "evil.example"
    assert target_authority("evil.example:443") == "evil.example:443"


@pytest.mark.parametrize("path", ["/", "/health", "/version", "/capabilities", "/api/v1/tickets", "/events/stream",
                                  "/events/debug", "/mcp", "/sse", "/nowhere"])  # fmt: skip
async def test_every_route_refuses_a_foreign_host(hub: Hub, path: str) -> None:
    answer = await hub.get(path, headers={"Host": "127.0.0.1.evil"})

    assert (answer.status, answer.code) == (421, "misdirected_request")


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_probes_name_no_host(hub: Hub, path: str) -> None:
    answer = await hub.get(path, headers={"Host": "10.1.2.3:8000"})

    assert answer.status == 200


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "http://127.0.0.1.evil"])
async def test_a_foreign_origin_is_refused(hub: Hub, origin: str) -> None:
    answer = await hub.get("/api/v1/tickets", headers={"Origin": origin})

    assert (answer.status, answer.code) == (403, "forbidden_origin")
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET /version HTTP/1.1\r\n\r\n", 400),
        (b"GET http://evil.example/version HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (b"GET http://localhost/version HTTP/1.1\r\nHost: evil.example\r\n\r\n", 421),
        (b"GET http://localhost/version HTTP/1.1\r\nHost: localhost\r\n\r\n", 200),
        (b"GET http://user@evil.example/version HTTP/1.1\r\nHost: localhost\r\n\r\n", 421),
        (b"GET /version HTTP/1.0\r\nHost: localhost\r\n\r\n", 200),
        (b"GET /version HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", 403),
        (
            b"GET /version HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nOrigin: http://evil.example\r\n\r\n",
            403,
        ),
    ],
)
async def test_hosts_and_targets_that_disagree_are_refused(hub: Hub, head: bytes, status: int) -> None:
    answered, _, _ = await hub.raw(head)

    assert answered == status


@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For", "X-Forwarded-Proto", "Via"])
async def test_without_authentication_a_request_through_a_proxy_is_refused(hub: Hub, header: str) -> None:
    answer = await hub.get("/api/v1/tickets", headers={header: "for=192.0.2.1"})
    probe = await hub.get("/healthz", headers={header: "for=192.0.2.1"})

    assert (answer.status, answer.code) == (403, "proxied_request")
    assert probe.status == 200


async def test_with_authentication_a_proxy_may_stand_in_front(start: Start) -> None:
    hub = await start(api_key="k-secret")
    headers = {"X-API-Key": "k-secret", "X-Forwarded-For": "192.0.2.1", "Via": "1.1 proxy"}

    assert (await hub.get("/api/v1/tickets", headers=headers)).status == 200
