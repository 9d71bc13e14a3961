"""Where people may be sent back to, and what only looks like it."""

import pytest

from taskhub.oauth.redirects import form_targets, matches, shown, unusable, with_answer


@pytest.mark.parametrize(
    "uri",
    [
        "https://client.example.org/cb",
        "https://client.example.org:8443/cb?tenant=1",
        "http://127.0.0.1/cb",
        "http://127.0.0.1:49152/cb",
        "http://[::1]:8080/cb",
        "http://localhost:3334/oauth/callback",
        "cursor://anysphere.cursor-retrieval/oauth/callback",
        "org.example.app:/cb",
    ],
)
def test_a_client_may_have_addresses_that_are_its_own(uri: str) -> None:
    assert unusable(uri) is None
    assert matches(uri, uri)


@pytest.mark.parametrize(
    "uri",
    [
        "javascript:alert(1)", "JavaScript:alert(1)", "data:text/html,hello", "vbscript:msgbox", "file:///etc/passwd",
        "blob:https://client.example.org/1", "about:blank", "ftp://client.example.org/cb", "//client.example.org/cb",
        "/cb", "", "client.example.org/cb", "https:client.example.org", "https:///cb", "https://",
        "https://user@client.example.org/cb", "https://user:word@client.example.org/cb", "https://@client.example.org/",
        "https://client.example.org\\@evil.example/cb", "https://client.example.org/cb#there", "https://client.example.org/#",
        "https://client.example.org/cb/../x", "https://client.example.org/cb/%2e%2e/x", "https://client.example.org/cb/%2E./x",
        "https://client.example.org/cb/%2f..", "https://client.example.org/cb%5c..", "https://client.example.org/cb%00",
        "https://client.example.org/c b", "https://client.example.org/cb\n", "https://client.example.org/\u00fcber",
        "https://client.example.org:0/cb", "https://client.example.org:99999/cb", "https://client.example.org/%zz",
        "http://client.example.org/cb", "http://127.0.0.1.evil.example/cb", "http://127.0.0.2/cb", "http://127.1/cb",
        "http://2130706433/cb", "http://0x7f.1/cb", "http://0.0.0.0/cb", "http://localhost.evil.example/cb",
        "http://localhost@evil.example/cb", "http://127.0.0.1:80@evil.example/cb", "http://[::ffff:127.0.0.1]/cb",
        "http://LOCALHOST/cb", "http://localhost./cb", "HTTP://127.0.0.1/cb", "HTTPS://client.example.org/cb",
        "https://client.example.org/" + "a" * 1000,
    ],
)  # fmt: skip
def test_an_address_that_may_lead_elsewhere_cannot_be_a_clients(uri: str) -> None:
    assert unusable(uri)


@pytest.mark.parametrize(
    "given",
    [
        "https://client.example.org/cb/", "https://client.example.org/CB", "https://client.example.org/cb?",
        "https://client.example.org/cb?x=1", "https://client.example.org/cb/../cb", "https://client.example.org:443/cb",
        "https://CLIENT.example.org/cb", "https://client.example.org/cb%2f..", "https://evil.example/cb",
        "https://client.example.org.evil.example/cb", "https://client.example.org@evil.example/cb",
        "http://client.example.org/cb", "https://client.example.org/%63b",
    ],
)  # fmt: skip
def test_an_address_is_compared_as_it_was_written(given: str) -> None:
    assert not matches("https://client.example.org/cb", given)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "localhost"])
@pytest.mark.parametrize("port", ["", ":1", ":3334", ":65535"])
def test_on_loopback_the_port_is_the_clients_choice_at_each_start(host: str, port: str) -> None:
    assert matches(f"http://{host}/cb", f"http://{host}{port}/cb")
    assert matches(f"http://{host}:8080/cb", f"http://{host}{port}/cb")


@pytest.mark.parametrize(
    "given",
    [
        "http://127.0.0.1:3334/CB", "http://127.0.0.1:3334/", "http://127.0.0.1:3334/cb?x=1", "http://localhost:3334/cb",
        "http://[::1]:3334/cb", "http://127.0.0.1:3334@evil.example/cb", "http://127.0.0.1:0/cb",
        "http://127.0.0.1:65536/cb", "https://127.0.0.1:3334/cb", "http://127.0.0.1:/cb", "http://127.0.0.1.evil.example/cb",
    ],
)  # fmt: skip
def test_on_loopback_nothing_but_the_port_may_differ(given: str) -> None:
    assert not matches("http://127.0.0.1:8080/cb", given)


def test_people_are_shown_where_an_address_leads() -> None:
    assert shown("https://Client.example.org/cb?next=https://bank.example") == "client.example.org"
    assert shown("http://127.0.0.1:3334/cb") == "127.0.0.1:3334"
    assert shown("cursor://anysphere.cursor-retrieval/cb") == "cursor:"


def test_the_answer_is_added_to_what_the_query_says() -> None:
    assert with_answer("https://c.example/cb", {"code": "a b"}) == "https://c.example/cb?code=a+b"
    assert with_answer("https://c.example/cb?t=1", {"code": "&"}) == "https://c.example/cb?t=1&code=%26"


@pytest.mark.parametrize(
    ("uri", "targets"),
    [
        ("https://c.example/cb", "https:"),
        ("http://localhost:1/cb", "http://127.0.0.1:* http://localhost:* https:"),
        ("http://[::1]:1/cb", "http: https:"),
        ("cursor://x/cb", "cursor: https:"),
    ],
)
def test_a_form_may_lead_to_the_address_and_on_from_there(uri: str, targets: str) -> None:
    assert form_targets(uri) == targets
