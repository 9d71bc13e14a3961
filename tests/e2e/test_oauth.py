"""MCP clients that sign in at TaskHub's own authorization server: real ones, in a browser, over restarts."""

import asyncio
import contextlib
import re
import webbrowser
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from aiohttp import web
from fastmcp import Client as FastMcpClient
from fastmcp.client.auth import OAuth
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata, OAuthToken
from playwright.async_api import expect
from pydantic import AnyUrl

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.consenting import Person, person, told
from tests.e2e.harness.pages import launched, window
from tests.e2e.harness.process import TaskHubProcess, clean_environment
from tests.e2e.harness.signing_in import sign_in_link
from tests.e2e.harness.tools import NODE_MODULES, node
from tests.e2e.harness.waiting import DEADLINE_S, until
from tests.oauth_client import Kept
from tests.servers import PostgresServer, RedisServer, free_port
from tests.taskhub.oauth.flow import CHALLENGE, VERIFIER
from tests.taskhub.oauth.web import site

expect.set_options(timeout=DEADLINE_S * 1000)

CALLBACK = "http://127.0.0.1:9/callback"


@pytest.fixture
async def hub(issuing: TaskHubProcess) -> TaskHubProcess:
    return issuing if issuing.running else await issuing.start()


@pytest.fixture
async def olga(hub: TaskHubProcess) -> AsyncIterator[Person]:
    async with person(hub) as olga:
        yield olga


@pytest.fixture
async def anonymous(hub: TaskHubProcess) -> AsyncIterator[Api]:
    async with api(hub.url) as client:
        yield client


async def register(client: Api, *redirect_uris: str) -> str:
    answer = await client.request("POST", "/oauth/register", json={"redirect_uris": list(redirect_uris)})
    assert answer.status == 201, answer
    client_id: str = answer.json["client_id"]
    return client_id


def question(hub: TaskHubProcess, client_id: str, **parameters: str) -> str:
    """Where a client sends people."""
    asked = {
        "response_type": "code", "client_id": client_id, "redirect_uri": CALLBACK, "state": "s-1",
        "code_challenge": CHALLENGE, "code_challenge_method": "S256", **parameters,
    }  # fmt: skip
    return str(httpx2.URL(f"{hub.url}/oauth/authorize", params=asked))


async def redeem(client: Api, client_id: str, code: str, **parameters: str) -> Any:
    form = {"grant_type": "authorization_code", "client_id": client_id, "code": code, "code_verifier": VERIFIER}
    return await client.request("POST", "/oauth/token", data={**form, **parameters})


async def refresh(client: Api, client_id: str, token: str) -> Any:
    form = {"grant_type": "refresh_token", "client_id": client_id, "refresh_token": token}
    return await client.request("POST", "/oauth/token", data=form)


class SdkSignIn:
    """The handlers of the SDK's client, with a person behind them."""

    def __init__(self, person: Person) -> None:
        self._person = person
        self._back = ""

    async def redirect(self, address: str) -> None:
        self._back = await self._person.lets_in(address)

    async def callback(self) -> AuthorizationCodeResult:
        answer = told(self._back)
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer["iss"])


async def use_sdk(hub: TaskHubProcess, olga: Person, kept: Kept, metadata_url: str | None = None) -> None:
    """Sign in with the SDK's client, and make a ticket."""
    handlers = SdkSignIn(olga)
    metadata = OAuthClientMetadata(client_name="SDK", redirect_uris=[AnyUrl(CALLBACK)])
    auth = OAuthClientProvider(
        f"{hub.url}/mcp", metadata, kept, handlers.redirect, handlers.callback, client_metadata_url=metadata_url
    )
    async with (
        httpx2.AsyncClient(auth=auth, timeout=DEADLINE_S) as http,
        Client(streamable_http_client(f"{hub.url}/mcp", http_client=http)) as client,
    ):
        made = await client.call_tool("create_ticket", {"summary": "Made after signing in"})
        assert not made.is_error, made


async def test_the_sdks_client_registers_signs_in_and_refreshes(hub: TaskHubProcess, olga: Person) -> None:
    kept = Kept()
    await use_sdk(hub, olga, kept)
    assert kept.client is not None
    assert kept.client.client_id.startswith("cli_")
    assert kept.tokens is not None
    first = kept.tokens

    # A new process has the refresh token alone, so to speak: its access token is over.
    kept.tokens = first.model_copy(update={"access_token": "ey.over.x"})
    async with api(hub.url) as client:
        answer = await refresh(client, kept.client.client_id, str(first.refresh_token))
    assert answer.status == 200
    kept.tokens = OAuthToken.model_validate(answer.json)
    await use_sdk(hub, olga, kept)
    assert kept.tokens.refresh_token != first.refresh_token


async def test_without_registration_a_client_is_known_by_its_document(tmp_path: Path, make_hub: Any) -> None:
    port = free_port()
    async with site(tmp_path) as there:
        environment = {
            "TASKHUB_AUTH": "oauth",
            "TASKHUB_PUBLIC_URL": f"http://127.0.0.1:{port}",
            "TASKHUB_OAUTH_DOCUMENT_NETWORKS": "127.0.0.1/32",
            "SSL_CERT_FILE": str(there.authority),
        }
        hub = make_hub(environment=environment, name="documents")
        hub.port = port
        await hub.start()
        async with person(hub) as olga:
            kept = Kept()
            client_id = there.client("/client.json", redirect_uris=["http://127.0.0.1/callback"])
            await use_sdk(hub, olga, kept, client_id)

            assert kept.client is not None
            assert kept.client.client_id == client_id
            assert there.asked == ["/client.json"]
            async with api(hub.url) as client:
                refused = await client.request("POST", "/oauth/register", json={"redirect_uris": [CALLBACK]})
            assert refused.status == 403
        await hub.stop()


@pytest.mark.filterwarnings("ignore:Using in-memory token storage:UserWarning")
async def test_fastmcps_client_signs_in(hub: TaskHubProcess, olga: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    going: list[asyncio.Task[None]] = []

    def opened(address: str) -> bool:
        going.append(asyncio.create_task(olga.goes_back(address)))
        return True

    monkeypatch.setattr(webbrowser, "open", opened)
    async with FastMcpClient(f"{hub.url}/mcp", auth=OAuth(callback_timeout=DEADLINE_S)) as client:
        made = await client.call_tool("create_ticket", {"summary": "Made with FastMCP"})

    assert made.structured_content["key"]
    (done,) = going
    await done


@pytest.mark.needs("npm packages")
async def test_mcp_remote_signs_in(hub: TaskHubProcess, olga: Person, tmp_path: Path) -> None:
    script = NODE_MODULES / "mcp-remote/dist/proxy.js"
    environment = clean_environment(
        {
            "HOME": str(tmp_path),
            "MCP_REMOTE_CONFIG_DIR": str(tmp_path / "kept"),
            "BROWSER": "true",
            "PATH": "/usr/bin:/bin",
        }
    )
    process = await asyncio.create_subprocess_exec(
        str(node()), str(script), f"{hub.url}/mcp", "--transport", "http-only",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment,
    )  # fmt: skip
    said: list[str] = []
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    async def listen(stderr: asyncio.StreamReader) -> None:
        while line := await stderr.readline():
            said.append(line.decode())

    def address() -> str | None:
        found = re.search(rf"{re.escape(hub.url)}/oauth/authorize\?\S+", "".join(said))
        return None if found is None else found[0]

    following = asyncio.create_task(listen(process.stderr))
    try:
        hello = (
            b'{"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-11-25", '
            b'"capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}}\n'
        )
        process.stdin.write(hello)
        await olga.goes_back(await until(address, "the address to sign in at", explain=lambda: "".join(said)))
        async with asyncio.timeout(DEADLINE_S):
            answer = await process.stdout.readline()
        assert b'"TaskHub"' in answer or b'"taskhub"' in answer, "".join(said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.stdin.close()
        await asyncio.gather(process.wait(), following)


@pytest.mark.needs("npm packages")
async def test_the_conformance_suite_finds_no_fault_with_the_authorization_server(
    hub: TaskHubProcess, olga: Person, anonymous: Api, tmp_path: Path
) -> None:
    suite = NODE_MODULES / "@modelcontextprotocol/conformance/dist/index.js"
    client_id = await register(anonymous, "http://127.0.0.1/callback")
    process = await asyncio.create_subprocess_exec(
        str(node()), str(suite), "authorization", "--url", hub.url, "--client-id", client_id,
        "--resource", f"{hub.url}/mcp", "--port", str(free_port()),
        cwd=tmp_path, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env=clean_environment(),
    )  # fmt: skip
    assert process.stdout is not None
    said = ""
    try:
        async with asyncio.timeout(4 * DEADLINE_S):
            async for line in process.stdout:
                said += line.decode()
                if line.startswith(f"{hub.url}/oauth/authorize?".encode()):
                    await olga.goes_back(line.decode().strip())
            assert await process.wait() == 0, said
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()

    assert not re.search(r"FAILURE|WARNING|SKIPPED|[1-9]\d* failed", said), said


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[tuple[str, list[dict[str, str]]]]:
    """A program that waits for a browser on its own machine: its address, and what it is told."""
    came: list[dict[str, str]] = []

    async def callback(request: web.Request) -> web.Response:
        came.append(dict(request.query))
        return web.Response(
            text="<!doctype html><title>Back</title><p>You can close this page.", content_type="text/html"
        )

    app = web.Application()
    app.router.add_get("/callback", callback)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/callback", came
    finally:
        await runner.cleanup()


@pytest.mark.needs("chromium")
async def test_a_browser_signs_in_agrees_and_is_sent_back(hub: TaskHubProcess, anonymous: Api) -> None:
    client_id = await register(anonymous, "http://127.0.0.1/callback")
    link = await sign_in_link(hub, "Brigitte", "agent")
    async with launched() as browser, listening() as (back, came), window(browser, hub.url) as pages:
        asked = question(hub, client_id, redirect_uri=back, scope="tickets:read events:read").removeprefix(hub.url)
        page = await pages.open(asked)
        await expect(page).to_have_url(re.compile("/login"))
        # The link is opened in this very page: the address that follows stays.
        await page.evaluate("link => { location.hash = link }", link.partition("#")[2])
        await page.get_by_role("button", name="Sign in").click()
        await page.get_by_role("button", name="Not now").click()

        await expect(page.get_by_role("heading", name="Let an application in?")).to_be_visible()
        await expect(page.locator("dd code")).to_have_text(back.removeprefix("http://").removesuffix("/callback"))
        await expect(page.get_by_role("checkbox")).to_have_count(2)
        await page.get_by_role("checkbox", name="follow what happens").uncheck()
        await page.get_by_role("button", name="Allow").click()
        await expect(page).to_have_title("Back")

        again = await pages.open(asked)
        await again.get_by_role("button", name="Deny").click()
        await expect(again).to_have_title("Back")

    assert [told.get("error") for told in came] == [None, "access_denied"]
    assert {told["state"] for told in came} == {"s-1"}
    assert {told["iss"] for told in came} == {hub.url}
    got = await redeem(anonymous, client_id, came[0]["code"], redirect_uri=back)
    assert got.json["scope"] == "tickets:read"


@pytest.mark.needs("chromium")
@pytest.mark.parametrize(("locale", "scheme"), [("en", "light"), ("ja", "dark")])
async def test_the_question_can_be_read_on_a_small_screen(
    hub: TaskHubProcess, anonymous: Api, locale: str, scheme: Any
) -> None:
    client_id = await register(anonymous, "https://a-long-name-of-a-client-that-is-somewhere.example.org/callback")
    asked = question(
        hub, client_id, redirect_uri="https://a-long-name-of-a-client-that-is-somewhere.example.org/callback"
    )
    options: dict[str, Any] = {"viewport": {"width": 320, "height": 700}, "locale": locale, "color_scheme": scheme}
    async with launched() as browser, window(browser, hub.url, **options) as pages:
        secret = (await sign_in_link(hub, "Brigitte", "agent")).partition("#link=")[2]
        await pages.context.request.post(
            f"{hub.url}/api/v1/session", data={"link": secret}, headers={"Origin": hub.url}
        )
        page = await pages.open(asked.removeprefix(hub.url))
        await expect(page.locator("html")).to_have_attribute("lang", locale)
        allow = page.get_by_role("button", name={"en": "Allow", "ja": "許可"}[locale], exact=True)
        await expect(allow).to_be_visible()

        assert await page.evaluate("document.documentElement.scrollWidth") <= 320
        untranslated = "[...document.querySelectorAll('[data-t]')].filter(e => e.textContent === e.dataset.t).length"
        assert await page.evaluate(untranslated) == 0


@pytest.fixture(scope="module")
def module_pair(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, hubs: list[TaskHubProcess]
) -> Iterator[list[TaskHubProcess]]:
    redis = RedisServer()
    redis.start()
    ports = free_port(), free_port()
    environment = {
        "TASKHUB_DATABASE_URL": postgres.create_migrated(),
        "TASKHUB_REDIS_URL": redis.url,
        "TASKHUB_AUTH": "oauth",
        # What clients see of both, as behind a proxy.
        "TASKHUB_PUBLIC_URL": f"http://127.0.0.1:{ports[0]}",
        "TASKHUB_OAUTH_REGISTRATION": "true",
    }
    directory = tmp_path_factory.mktemp("pair")
    pair = []
    for name, port in zip(("first", "second"), ports, strict=True):
        hub = TaskHubProcess(directory / name, environment=environment, name=name)
        hub.port = port
        pair.append(hub)
    hubs += pair
    yield pair
    for hub in pair:
        hub.dispose()
        hubs.remove(hub)
    redis.kill()


async def test_a_flow_goes_on_at_another_instance_and_after_a_restart(module_pair: list[TaskHubProcess]) -> None:
    first, second = module_pair
    await first.start()
    await second.start()
    async with person(first) as olga, api(first.url) as here, api(second.url) as there:
        client_id = await register(here, CALLBACK)
        page = await olga.page(question(second, client_id))
        await first.kill()
        await second.kill()
        await asyncio.gather(first.start(), second.start())
        code = told(await olga.allow(page, second))["code"]
        await second.kill()
        got = await redeem(here, client_id, code)
        assert got.status == 200, got
        await second.start()
        bearer = {"Authorization": f"Bearer {got.json['access_token']}"}
        assert (await there.request("GET", "/api/v1/me", headers=bearer)).status == 200
        again = await refresh(there, client_id, got.json["refresh_token"])
        assert again.status == 200, again
        again = await refresh(here, client_id, again.json["refresh_token"])
        assert again.status == 200, again

        replayed = await redeem(there, client_id, code)

        assert (replayed.status, replayed.json["error"]) == (400, "invalid_grant")
        bearer = {"Authorization": f"Bearer {again.json['access_token']}"}
        for client in (here, there):
            assert (await client.request("GET", "/api/v1/me", headers=bearer)).status == 401
    for hub in module_pair:
        assert "PRIVATE" not in hub.log
        assert "thr_" not in hub.log
        assert "thc_" not in hub.log
        await hub.stop()
