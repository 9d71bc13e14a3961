"""A site over TLS, where clients of tests say what they are."""

import contextlib
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from taskhub.oauth.guard import Guard
from tests.certificates import make_certificates

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True, eq=False)
class Site:
    """`pages`: what is answered, by path. `asked`: the paths that were asked for."""

    port: int = 0
    guard: Guard = field(default_factory=Guard)
    """Trusts the site's certificate, and may reach it."""
    authority: Path = field(default_factory=Path)
    pages: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def address(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"

    def client(self, path: str = "/client.json", /, **said: object) -> str:
        """Let a client say what it is; its id."""
        client_id = self.address(path)
        document = {"client_id": client_id, "client_name": "A client", "redirect_uris": ["http://127.0.0.1/cb"], **said}
        self.pages[path] = answering({name: value for name, value in document.items() if value is not None})
        return client_id


def answering(document: object, **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(document, headers=headers)

    return answer


@contextlib.asynccontextmanager
async def site(directory: Path) -> AsyncIterator[Site]:
    made = make_certificates(directory)
    served = Site(authority=made.authority)

    async def handle(request: web.Request) -> web.StreamResponse:
        served.asked.append(request.path)
        if request.path not in served.pages:
            raise web.HTTPNotFound
        return await served.pages[request.path](request)

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    own = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    own.load_cert_chain(made.certificate, made.key)
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=own).start()
    served.port = runner.addresses[0][1]
    served.guard = Guard(
        [ipaddress.ip_network("127.0.0.1/32")], tls=ssl.create_default_context(cafile=str(made.authority))
    )
    try:
        yield served
    finally:
        await runner.cleanup()
