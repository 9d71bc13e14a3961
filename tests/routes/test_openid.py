"""Signing in through an OpenID provider: who gets in, who does not, and what they are told."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import pytest
from aiohttp import web
from cryptography.hazmat.primitives import serialization

import taskhub.oauth.issuer
import taskhub.oauth.openid
from routes.keys import API_KEYS, AUDIT, DATABASE, TICKETS
from taskhub.audit.log import AuditEntry, AuditQuery
from taskhub.audit.record import Action
from taskhub.oauth.issuer import RemoteKeySet
from taskhub.oauth.openid import OpenIdProvider
from taskhub.storage.schema import identities
from taskhub.tickets.reference_inputs import NewUser, UserChange
from tests.issuer import Issuer
from tests.routes.conftest import Answer, Hub, Start
from tests.servers import free_port
from tests.signing import elliptic, segment
from tests.taskhub.world import ALICE, rows

BEGIN = "/login/openid"
CALLBACK = "/login/openid/callback"


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer(subject="olga-at-the-provider") as issuer:
        yield issuer


Open = Callable[..., Awaitable[Hub]]


@pytest.fixture
def open_hub(start: Start, issuer: Issuer) -> Open:
    """Start a hub whose people sign in at the issuer."""
    port = free_port()

    async def open_hub(**settings: Any) -> Hub:
        given = {
            "auth": "api_key", "port": port, "public_url": f"http://127.0.0.1:{port}",
            "openid_issuer": issuer.url, "openid_client_id": "taskhub", "openid_client_secret": "s3cret & more",
        }  # fmt: skip
        return await start(**{**given, **settings})

    return open_hub


@pytest.fixture
async def hub(open_hub: Open) -> Hub:
    """A hub with Olga, who operates it."""
    hub = await open_hub()
    await add(hub, "Olga", "olga@example.org")
    return hub


async def add(hub: Hub, name: str, email: str | None, role: Any = "operator", kind: Any = "human") -> None:
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name=name, email=email, role=role, kind=kind))


@dataclass(eq=False)
class Browser:
    """What a browser does with redirects and cookies. `hub` may change under way: a proxy is in front."""

    hub: Hub
    issuer: Issuer
    cookies: dict[str, str] = field(default_factory=dict)
    host: str = ""

    def __post_init__(self) -> None:
        self.host = f"127.0.0.1:{self.hub.port}"

    async def get(self, path: str, **headers: str) -> Answer:
        kept = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {"Host": self.host, "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", **headers}
        answer = await self.hub.get(path, allow_redirects=False, headers={**sent, **({"Cookie": kept} if kept else {})})
        for line in answer.headers.getall("Set-Cookie", []):
            for name, cookie in SimpleCookie(line).items():
                assert cookie["httponly"]
                assert cookie["samesite"] == "Lax"
                self.cookies.pop(name, None)
                if cookie["max-age"] != "0":
                    self.cookies[name] = cookie.value
        return answer

    async def begin(self, query: str = "") -> str:
        """Where the provider sends one back to, once one has signed in there."""
        answer = await self.get(f"{BEGIN}?{query}", **{"Sec-Fetch-Site": "same-origin"})
        assert answer.status == 303, answer
        return await self.at_provider(answer.headers["Location"])

    async def at_provider(self, address: str) -> str:
        assert address.startswith(self.issuer.url), address
        async with self.hub.session.get(address, allow_redirects=False) as response:
            back = urlsplit(response.headers["Location"])
        assert f"{back.scheme}://{back.netloc}{back.path}" == f"http://{self.host}{CALLBACK}"
        return f"{back.path}?{back.query}"

    async def sign_in(self, query: str = "") -> str:
        """What the page to sign in at is told in the end: nothing, when it worked."""
        return told(await self.get(await self.begin(query)))

    async def me(self) -> Answer:
        return await self.get("/api/v1/me", **{"Sec-Fetch-Site": "same-origin"})


@pytest.fixture
def browser(hub: Hub, issuer: Issuer) -> Browser:
    return Browser(hub, issuer)


def told(answer: Answer) -> str:
    assert answer.status == 303, answer
    address = urlsplit(str(answer.headers["Location"]))
    assert (address.netloc, address.path) == ("", "/login")
    text: str = parse_qs(address.query).get("trouble", [""])[0]
    return text


def altered(address: str, **parameters: str | None) -> str:
    path, _, query = address.partition("?")
    given = {**dict(parse_qsl(query)), **parameters}
    return f"{path}?{urlencode({name: value for name, value in given.items() if value is not None})}"


def ask_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have hubs that start now ask the provider as often as they want to."""
    monkeypatch.setattr(taskhub.oauth.issuer, "RemoteKeySet", partial(RemoteKeySet, refetch_s=0.0))


async def recorded(hub: Hub, action: Action) -> list[AuditEntry]:
    page = await hub.app[AUDIT].page(ALICE, AuditQuery(action=[action]))
    return page.entries


async def test_who_has_the_verified_address_is_signed_in_as_that_user(hub: Hub, browser: Browser) -> None:
    back = await browser.begin("next=%2Ffeed%3Ftype%3Dx")
    assert list(browser.cookies) == [f"taskhub_openid_{hub.port}"]
    answer = await browser.get(back)

    assert answer.headers["Location"] == "/login?next=%2Ffeed%3Ftype%3Dx"
    assert answer.headers["Cache-Control"] == "no-store"
    assert list(browser.cookies) == [f"taskhub_session_{hub.port}"]
    me = (await browser.me()).json
    assert (me["actor"], me["user"]["name"]) == ("user:olga", "Olga")
    session = await browser.get("/api/v1/session")
    assert session.json["session"]["by"] == "openid"


async def test_the_provider_is_asked_for_a_code_with_all_that_binds_it_to_this_sign_in(
    hub: Hub, browser: Browser
) -> None:
    asked = []
    for _ in range(2):
        answer = await browser.get(BEGIN)
        asked.append(dict(parse_qsl(urlsplit(answer.headers["Location"]).query)))

    assert asked[0] | {"state": "", "nonce": "", "code_challenge": ""} == {
        "response_type": "code", "client_id": "taskhub", "redirect_uri": f"{hub.url}{CALLBACK}",
        "scope": "openid email profile", "code_challenge_method": "S256", "state": "", "nonce": "",
        "code_challenge": "",
    }  # fmt: skip
    for name in ("state", "nonce", "code_challenge"):
        assert asked[0][name] != asked[1][name]
        assert len(asked[0][name]) >= 43
    (kept,) = browser.cookies.values()
    assert not any(value in kept for value in asked[1].values())


async def test_a_link_is_to_who_somebody_is_and_not_to_what_their_address_is(
    hub: Hub, browser: Browser, issuer: Issuer
) -> None:
    assert await browser.sign_in() == ""
    # The address goes to somebody else, at the provider.
    issuer.person["email"] = "olga.new@example.org"
    assert await browser.sign_in() == ""
    assert (await browser.me()).json["user"]["id"] == "olga"
    issuer.person["email"], issuer.subject = "olga@example.org", "another-olga"

    newcomer = Browser(hub, issuer)
    assert await newcomer.sign_in() == "unknown"
    assert (await newcomer.me()).code == "unauthenticated"


async def test_case_makes_no_difference_to_an_address_and_letters_that_look_alike_do(
    hub: Hub, browser: Browser, issuer: Issuer
) -> None:
    await add(hub, "Kim", "kim@example.org")
    issuer.subject, issuer.person["email"] = "k-1", "\N{KELVIN SIGN}im@example.org"
    assert await browser.sign_in() == "unverified"
    issuer.person["email"] = "KIM@Example.org"
    assert await browser.sign_in() == ""


async def test_an_address_of_nobody_or_several_or_somebody_out_of_use_lets_nobody_in(
    hub: Hub, browser: Browser, issuer: Issuer
) -> None:
    for name, email in [("Twin", "twin@example.org"), ("Other twin", "Twin@example.org"), ("Gone", "gone@example.org")]:
        await add(hub, name, email)
    await add(hub, "Robot", "robot@example.org", kind="agent")
    await hub.app[TICKETS].change_reference(ALICE, "users", "gone", UserChange(active=False))

    for who in ("nobody", "twin", "gone", "robot"):
        issuer.subject, issuer.person["email"] = f"{who}-1", f"{who}@example.org"
        assert await browser.sign_in() == "unknown", who
    assert await rows(hub.app[DATABASE], identities.select()) == []


async def test_who_is_taken_out_of_use_or_removed_does_not_get_in_again(
    hub: Hub, browser: Browser, issuer: Issuer
) -> None:
    assert await browser.sign_in() == ""
    await hub.app[TICKETS].change_reference(ALICE, "users", "olga", UserChange(active=False))
    assert await browser.sign_in() == "unknown"
    await hub.app[TICKETS].remove_reference(ALICE, "users", "olga")
    assert await browser.sign_in() == "unknown"
    assert await rows(hub.app[DATABASE], identities.select()) == []


@pytest.mark.parametrize("verified", [False, None, "true", 1])
async def test_an_address_that_is_not_verified_is_nobodys(browser: Browser, issuer: Issuer, verified: Any) -> None:
    issuer.person["email_verified"] = verified

    assert await browser.sign_in() == "unverified"


async def test_with_a_role_for_them_new_people_are_added_once(open_hub: Open, issuer: Issuer) -> None:
    hub = await open_hub(openid_new_user_role="requester", openid_domains="example.org")
    await add(hub, "Kim", None)
    await add(hub, "Gone", "gone@example.org")
    await hub.app[TICKETS].change_reference(ALICE, "users", "gone", UserChange(active=False))
    issuer.person |= {"name": "Kim", "email": "kim.two@example.org"}
    browsers = [Browser(hub, issuer) for _ in range(3)]
    backs = [await browser.begin() for browser in browsers]

    answers = await asyncio.gather(*(browser.get(back) for browser, back in zip(browsers, backs, strict=True)))

    assert [told(answer) for answer in answers] == ["", "", ""]
    seen = [(await browser.me()).json["user"] for browser in browsers]
    # The name is another Kim's, who has no address.
    assert {(user["name"], user["role"]) for user in seen} == {("kim.two@example.org", "requester")}
    assert len(await recorded(hub, "identity.linked")) == 1
    issuer.subject, issuer.person["email"] = "gone-1", "gone@example.org"
    assert await browsers[0].sign_in() == "unknown"
    issuer.subject, issuer.person["email"] = "evil-1", "evil@example.com"
    assert await browsers[0].sign_in() == "domain"
    issuer.subject, issuer.person["email"] = "evil-2", "evil@example.org.example.com"
    assert await browsers[0].sign_in() == "domain"
    issuer.subject, issuer.person["email_verified"] = "evil-3", False
    assert await browsers[0].sign_in() == "domain"


async def test_nobody_is_added_to_a_workspace_that_a_link_names(open_hub: Open, issuer: Issuer) -> None:
    hub = await open_hub(openid_new_user_role="requester")

    assert await Browser(hub, issuer).sign_in("workspace=acme") == "unknown"


HOSTILE: dict[str, Callable[[dict[str, Any], Issuer], str]] = {
    "another nonce": lambda claims, issuer: issuer.signer.signed({**claims, "nonce": "x" * 43}),
    "no nonce": lambda claims, issuer: issuer.signer.signed({**claims, "nonce": None}),
    "another audience": lambda claims, issuer: issuer.signer.signed({**claims, "aud": "other"}),
    "audiences": lambda claims, issuer: issuer.signer.signed({**claims, "aud": ["taskhub", "other"], "azp": "taskhub"}),
    "another party": lambda claims, issuer: issuer.signer.signed({**claims, "azp": "other"}),
    "another issuer": lambda claims, issuer: issuer.signer.signed({**claims, "iss": "https://accounts.google.com"}),
    "the issuer with a slash": lambda claims, issuer: issuer.signer.signed({**claims, "iss": f"{issuer.url}/"}),
    "expired": lambda claims, issuer: issuer.signer.signed({**claims, "exp": claims["iat"] - 60}),
    "from the future": lambda claims, issuer: issuer.signer.signed({**claims, "iat": claims["iat"] + 120}),
    "no end": lambda claims, issuer: issuer.signer.signed({**claims, "exp": None}),
    "nobody": lambda claims, issuer: issuer.signer.signed({**claims, "sub": None}),
    "an endless name": lambda claims, issuer: issuer.signer.signed({**claims, "sub": "x" * 256}),
    "an access token": lambda claims, issuer: issuer.signer.signed(claims, {"typ": "at+jwt"}),
    "an extension": lambda claims, issuer: issuer.signer.signed(claims, {"crit": ["b64"], "b64": False}),
    "another's key": lambda claims, issuer: elliptic(issuer.signer.kid).signed(claims),
    "a key in the header": lambda claims, issuer: (other := elliptic("other")).signed(claims, {"jwk": other.jwk}),
    "no signature": lambda claims, issuer: f"{segment({'alg': 'none'})}.{segment(claims)}.",
    "no signature, as a text": lambda claims, issuer: f"{segment({'alg': 'none'})}.{segment(claims)}.eA",
    "the client's secret": lambda claims, issuer: shared(claims, issuer.clients["taskhub"].encode()),
    "the public key as a secret": lambda claims, issuer: shared(claims, public_pem(issuer)),
    "no token": lambda claims, issuer: "",
    "no JSON": lambda claims, issuer: "a.b.c",
    "a list": lambda claims, issuer: issuer.signer.signed(claims).replace(".", ".e30."),
}


def public_pem(issuer: Issuer) -> bytes:
    pem: bytes = issuer.signer.private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def shared(claims: dict[str, Any], secret: bytes) -> str:
    """Signed with a secret that both sides have, which is none to whoever has read it."""
    signed = f"{segment({'alg': 'HS256', 'typ': 'JWT'})}.{segment(claims)}"
    return f"{signed}.{segment(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


async def test_a_token_that_is_not_just_right_lets_nobody_in(hub: Hub, browser: Browser, issuer: Issuer) -> None:
    for name, made in HOSTILE.items():
        issuer.id_token = lambda claims, made=made: made(claims, issuer)
        assert await browser.sign_in() == "refused", name
        assert browser.cookies == {}, name
    issuer.id_token = None
    assert await browser.sign_in() == ""
    assert len(await recorded(hub, "session.opened")) == 1


async def test_an_audience_may_be_a_list_of_this_client_alone(browser: Browser, issuer: Issuer) -> None:
    issuer.id_token = lambda claims: issuer.signer.signed({**claims, "aud": ["taskhub"], "azp": "taskhub"})

    assert await browser.sign_in() == ""


async def test_only_the_browser_that_began_comes_back_and_only_once(hub: Hub, browser: Browser, issuer: Issuer) -> None:
    attacker = Browser(hub, issuer)
    # Login CSRF: a code of the attacker's, in a browser that began nothing, or something else.
    lure = await attacker.begin()
    assert told(await browser.get(lure)) == "expired"
    own = await browser.begin()
    kept = dict(browser.cookies)
    assert told(await browser.get(lure)) == "expired"
    assert browser.cookies == {}  # what was begun is over as well
    browser.cookies = dict(kept)
    assert told(await browser.get(altered(own, state=None))) == "expired"
    browser.cookies = {name: value[:-2] + ("AA" if value[-2:] != "AA" else "BB") for name, value in kept.items()}
    assert told(await browser.get(own)) == "expired"
    browser.cookies = dict(kept)
    assert told(await browser.get(own)) == ""
    assert told(await browser.get(own)) == "expired"
    # Even who kept a copy has a code that was used.
    copy = Browser(hub, issuer, dict(kept))
    assert told(await copy.get(own)) == "refused"
    assert (await copy.me()).code == "unauthenticated"


async def test_a_code_of_another_sign_in_or_client_is_worth_nothing(hub: Hub, browser: Browser, issuer: Issuer) -> None:
    stolen = dict(parse_qsl(urlsplit(await Browser(hub, issuer).begin()).query))["code"]
    assert told(await browser.get(altered(await browser.begin(), code=stolen))) == "refused"

    issuer.clients["other"] = "x"
    answer = await browser.get(BEGIN)
    elsewhere = altered(answer.headers["Location"], client_id="other")
    assert told(await browser.get(await browser.at_provider(elsewhere))) == "refused"
    assert told(await browser.get(altered(await browser.begin(), code=None))) == "refused"
    assert told(await browser.get(altered(await browser.begin(), code="x" * 3000))) == "refused"


async def test_another_provider_does_not_answer_for_this_one(browser: Browser, issuer: Issuer) -> None:
    assert told(await browser.get(altered(await browser.begin(), iss="https://evil.example.com"))) == "refused"
    # This one promises to name itself.
    assert told(await browser.get(altered(await browser.begin(), iss=None))) == "refused"


async def test_a_provider_that_never_names_itself_need_not(open_hub: Open, issuer: Issuer) -> None:
    issuer.metadata["authorization_response_iss_parameter_supported"] = None
    hub = await open_hub()
    await add(hub, "Olga", "olga@example.org")
    browser = Browser(hub, issuer)

    assert told(await browser.get(altered(await browser.begin(), iss=None))) == ""
    assert told(await browser.get(altered(await browser.begin(), iss="https://evil.example.com"))) == "refused"


async def test_what_the_provider_says_is_told_in_words_of_the_server(browser: Browser) -> None:
    said = {"code": None, "error_description": "<b>Call 555-1234</b>"}
    declined = await browser.get(altered(await browser.begin("next=%2Ffeed"), error="access_denied", **said))
    failed = await browser.get(altered(await browser.begin(), error="server_error", **said))

    assert declined.headers["Location"] == "/login?next=%2Ffeed&trouble=declined"
    assert failed.headers["Location"] == "/login?trouble=refused"


async def test_another_page_does_not_sign_anybody_in(browser: Browser) -> None:
    answer = await browser.get(f"{BEGIN}?next=%2Ffeed", **{"Sec-Fetch-Site": "cross-site"})

    assert answer.headers["Location"] == "/login?next=%2Ffeed"
    assert browser.cookies == {}


async def test_a_provider_that_is_away_or_odd_is_told_of_and_passwords_still_work(
    open_hub: Open, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at_once(monkeypatch)
    monkeypatch.setattr(taskhub.oauth.openid, "OpenIdProvider", partial(OpenIdProvider, timeout_s=0.5))
    await issuer.stop()
    hub = await open_hub()
    await add(hub, "Olga", "olga@example.org")
    browser = Browser(hub, issuer)
    assert told(await browser.get(BEGIN)) == "unavailable"
    assert (await hub.get("/login")).status == 200

    await issuer.start()
    back = await browser.begin()
    odd: list[Callable[[web.Request], web.Response]] = [
        lambda request: web.Response(status=307, headers={"Location": f"{issuer.url}/elsewhere"}),
        lambda request: web.Response(status=503),
        lambda request: web.Response(text="<html>"),
        lambda request: web.Response(body=b"x" * 300_000),
        lambda request: web.json_response([]),
    ]
    for answer in odd:
        issuer.answer = lambda request, answer=answer: answer(request) if request.path == "/token" else None  # type: ignore[misc]  # a default of its own
        assert told(await browser.get(back)) == "unavailable"
        back = await browser.begin()
    assert issuer.asked["/elsewhere"] == 0
    issuer.answer = lambda request: None
    issuer.open.clear()
    assert told(await browser.get(back)) == "unavailable"
    issuer.open.set()
    assert await browser.sign_in() == ""


async def test_a_sign_in_goes_on_at_another_instance_and_after_a_restart(
    open_hub: Open, hub: Hub, browser: Browser, issuer: Issuer
) -> None:
    back = await browser.begin("next=%2Ffeed")
    other = await open_hub(port=0)
    await hub.runner.cleanup()
    browser.hub = other

    answer = await browser.get(back)

    assert answer.headers["Location"] == "/login?next=%2Ffeed"
    assert (await browser.me()).json["user"]["id"] == "olga"


async def test_what_takes_too_long_is_begun_again(hub: Hub, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taskhub.oauth.openid, "FLOW_S", -1)

    assert await browser.sign_in() == "expired"


async def test_the_keys_may_change_and_a_withdrawn_one_counts_no_more(
    open_hub: Open, issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask_at_once(monkeypatch)
    hub = await open_hub()
    await add(hub, "Olga", "olga@example.org")
    browser = Browser(hub, issuer)
    assert await browser.sign_in() == ""
    old = issuer.rotate()
    assert await browser.sign_in() == ""
    issuer.id_token = old.signed

    assert await browser.sign_in() == "refused"


async def test_the_session_before_ends_with_the_new_one_and_all_is_in_the_audit_log(hub: Hub, browser: Browser) -> None:
    assert await browser.sign_in() == ""
    before = dict(browser.cookies)
    assert await browser.sign_in() == ""
    old = Browser(hub, browser.issuer, before)

    assert (await old.me()).code == "unauthenticated"
    (linked,) = await recorded(hub, "identity.linked")
    assert (linked.target, linked.details["email"]) == ("olga", "olga@example.org")
    opened = await recorded(hub, "session.opened")
    assert [(entry.actor, entry.details["by"]) for entry in opened] == [("user:olga", "openid")] * 2
    assert all(entry.address == "127.0.0.1" and entry.request_id for entry in opened)


async def test_a_server_without_a_provider_has_no_such_page(start: Start) -> None:
    hub = await start(auth="api_key")

    for path in (BEGIN, CALLBACK):
        assert (await hub.get(path)).code == "no_such_resource"
    assert API_KEYS in hub.app
    assert b"data-openid" not in (await hub.get("/login")).body


async def test_over_https_the_cookie_is_for_this_host_alone(open_hub: Open, issuer: Issuer) -> None:
    hub = await open_hub(
        public_url="https://hub.example.org", trusted_proxies="127.0.0.1", allowed_hosts="hub.example.org"
    )
    browser = Browser(hub, issuer)
    browser.host = "hub.example.org"
    answer = await browser.get(BEGIN, **{"X-Forwarded-Proto": "https"})

    assert list(browser.cookies) == ["__Host-taskhub_openid"]
    assert "Secure" in answer.headers["Set-Cookie"]
    asked = parse_qs(urlsplit(answer.headers["Location"]).query)
    assert asked["redirect_uri"] == [f"https://hub.example.org{CALLBACK}"]
