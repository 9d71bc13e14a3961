"""A person who lets applications in, without a browser: what the pages send is sent."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from html import unescape
from urllib.parse import parse_qs, urlsplit

import aiohttp

from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.signing_in import sign_in_link
from tests.e2e.harness.waiting import DEADLINE_S

NAVIGATING = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"}


class Person:
    """Somebody who is signed in."""

    def __init__(self, hub: TaskHubProcess, session: aiohttp.ClientSession, secret: str) -> None:
        self.hub = hub
        self._session = session
        self._secret = secret

    def _cookie(self, address: str) -> dict[str, str]:
        # Instances behind one address have one cookie; here each has a port, and a name of the cookie, of its own.
        return {"Cookie": f"taskhub_session_{urlsplit(address).port}={self._secret}"}

    async def page(self, address: str) -> str:
        """What is shown where a client sends people."""
        headers = {**NAVIGATING, **self._cookie(address)}
        async with self._session.get(address, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 200, (answer.status, answer.headers.get("Location"), await answer.text())
            return await answer.text()

    async def allow(self, page: str, hub: TaskHubProcess | None = None) -> str:
        """Say yes to all of it, perhaps to another instance; where the browser is sent."""
        url = (hub or self.hub).url
        sealed = re.search(r'name="request" value="([^"]*)"', page)
        assert sealed is not None
        form = [("request", unescape(sealed[1])), ("answer", "allow")]
        form += [("scope", scope) for scope in re.findall(r'name="scope" value="([^"]*)"', page)]
        headers = {"Origin": url, "Sec-Fetch-Site": "same-origin", **self._cookie(url)}
        address = f"{url}/oauth/authorize"
        async with self._session.post(address, data=form, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 303, (answer.status, await answer.text())
            return answer.headers["Location"]

    async def lets_in(self, address: str) -> str:
        """From where a client sends people to where they are sent back."""
        return await self.allow(await self.page(address))

    async def sent_on(self, address: str) -> str:
        """Where the browser is sent at once, without a question."""
        headers = {**NAVIGATING, **self._cookie(address)}
        async with self._session.get(address, headers=headers, allow_redirects=False) as answer:
            assert answer.status == 303, (answer.status, await answer.text())
            return answer.headers["Location"]

    async def goes_back(self, address: str) -> None:
        """Let a client in, and go back to it, as browsers do."""
        back = await self.lets_in(address)
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    async with self._session.get(back) as answer:
                        assert answer.status < 400, await answer.text()
                        return
                except aiohttp.ClientConnectorError:  # it says where before it listens there
                    await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def person(hub: TaskHubProcess, name: str = "Olga", role: str = "operator") -> AsyncIterator[Person]:
    """Somebody who signs in, and is added with this role if need be."""
    secret = (await sign_in_link(hub, name, role)).partition("#link=")[2]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        headers = {"Origin": hub.url}
        async with session.post(f"{hub.url}/api/v1/session", json={"link": secret}, headers=headers) as answer:
            assert answer.status == 201, await answer.text()
            (cookie,) = answer.cookies.values()
        yield Person(hub, session, cookie.value)


def told(address: str) -> dict[str, str]:
    """What the query of an address says."""
    return {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
