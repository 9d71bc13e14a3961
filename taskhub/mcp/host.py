"""The MCP transports over HTTP: Streamable HTTP in both eras, and the older pair of one stream and posted messages."""

import asyncio
import random
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.sse import SseServerTransport
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types.version import (
    HANDSHAKE_PROTOCOL_VERSIONS,
    LATEST_HANDSHAKE_VERSION,
    LATEST_MODERN_VERSION,
    MODERN_PROTOCOL_VERSIONS,
)

from taskhub.auth.principal import Caller, Principal, Scope
from taskhub.limits.limits import Limits, TooManyStreams
from taskhub.mcp.bridge import (
    BODY_READ_TIMEOUT_S,
    Application,
    Exchange,
    Receive,
    RefusedBody,
    Send,
    error_response,
    read_body,
)
from taskhub.mcp.context import CURRENT, CallContext
from taskhub.mcp.door import STOPPING, PassOn, Transport
from taskhub.mcp.failures import OnForbidden
from taskhub.mcp.headers import READ_ONLY_HEADER, SESSION_HEADER, TOOLSETS_HEADER, VERSION_HEADER
from taskhub.mcp.modern import ModernCall, ModernEndpoint
from taskhub.mcp.opened import OpenedStreams
from taskhub.mcp.prompts import Prompts
from taskhub.mcp.registry import ToolRegistry
from taskhub.mcp.resources import Resources
from taskhub.mcp.server import build_server
from taskhub.mcp.sessions import MAX_SESSIONS, HttpSessions, asks_nothing, initializing_client, malformed
from taskhub.mcp.step_up import StepUp
from taskhub.mcp.streams import CallsInFlight, CountedWriter, ResumingReader
from taskhub.mcp.subscriptions import Subscriptions
from taskhub.mcp.tools import tool_registry
from taskhub.mcp.uris import FORMS
from taskhub.mcp.wakeups import Watch
from taskhub.metrics.meters import Meters
from taskhub.tickets.api import Tickets

MESSAGE_PATH: Final = "/message"
NO_SESSION: Final = (
    f"Missing session ID: POST `initialize` first and send the {SESSION_HEADER} of its answer with every request, "
    f"or send {VERSION_HEADER}: {LATEST_MODERN_VERSION}, which needs no session"
)
MAX_STREAMS: Final = 2 * MAX_SESSIONS
CLOSING_S: Final = 1.0
"""How long listen streams have at least to send their last frame when the server stops; it takes them an instant."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What clients find. `eras`: how a session begins → protocol versions; `scopes`: those that a tool needs."""

    eras: dict[str, list[str]]
    tools: list[str]
    scopes: frozenset[Scope]
    resources: list[str]
    prompts: list[str]
    subscriptions: bool


class McpHost:
    """Serves the tools to MCP clients. `start()` before the first request, `stop()` after the last.

    `secret` signs session ids and seals the state of calls. A GET stream lasts `max_age_s` at most. `allowed_hosts`
    may be given with or without a port. `registry` replaces the tools of `tickets`. `draining`: it is stopping, and
    opens no further streams. `tickets` is what its tools call. `watch` tells of changes; without it there are no
    subscriptions. `pass_on` shows messages to the other processes. `opened` learns what is open, where others have to
    know before there is a host. `limits`: what each caller may have of this process. A body may take `body_read_s` to
    arrive. `on_forbidden` is told of callers who lack the scope of what they ask for.
    """

    def __init__(
        self,
        tickets: Tickets,
        *,
        secret: bytes,
        transports: Collection[Transport],
        allowed_hosts: Sequence[str],
        allowed_origins: Sequence[str],
        max_age_s: float,
        version: str,
        registry: ToolRegistry | None = None,
        watch: Watch | None = None,
        pass_on: PassOn | None = None,
        opened: OpenedStreams | None = None,
        limits: Limits | None = None,
        body_read_s: float | None = BODY_READ_TIMEOUT_S,
        meters: Meters | None = None,
        on_forbidden: OnForbidden | None = None,
    ) -> None:
        self.tickets = tickets
        self.registry = registry or tool_registry(tickets)
        self._limits = limits or Limits()
        self.registry.before_write = self._limits.write
        self._body_read_s = body_read_s
        self.transports = frozenset(transports)
        self._max_age_s = max_age_s
        # To the SDK `name:*` is any port, but not the name alone.
        self._security = TransportSecuritySettings(
            allowed_hosts=[form for host in allowed_hosts for form in (host, f"{host.removesuffix(':*')}:*")],
            allowed_origins=[form for origin in allowed_origins for form in (origin, origin.removesuffix(":*"))],
        )
        self.subscriptions = None if watch is None else Subscriptions(watch, Resources(tickets), self._age)
        self.server = build_server(
            tickets,
            self.registry,
            version=version,
            secret=secret,
            meters=meters,
            subscriptions=self.subscriptions,
            on_forbidden=on_forbidden,
        )
        self._sessions = HttpSessions(
            self.server, secret=secret, security=self._security, on_stream=self._stream_opened, pass_on=pass_on
        )
        self._modern = ModernEndpoint(self.server, self._security)
        self._step_up = StepUp(self.registry, Prompts(tickets))
        self._sse = SseServerTransport(MESSAGE_PATH, security_settings=self._security)
        self._streams: set[Exchange] = set()
        self._listening: set[ModernCall] = set()
        self._sse_streams: dict[Exchange, CallsInFlight] = {}
        self.opened = OpenedStreams() if opened is None else opened
        self._running = 0
        self._finished = asyncio.Event()
        self.draining = False
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    @property
    def offer(self) -> Offer:
        """What clients find here, as `/capabilities` tells."""
        eras = {"initialize": list(HANDSHAKE_PROTOCOL_VERSIONS)}
        if "http" in self.transports:  # the older transport has sessions only
            eras["sessionless"] = list(MODERN_PROTOCOL_VERSIONS)
        tools = self.registry.tools
        return Offer(
            eras,
            [tool.name for tool in tools],
            frozenset(tool.scope for tool in tools),
            list(FORMS),
            list(Prompts(self.tickets).sources),
            self.subscriptions is not None,
        )

    async def start(self) -> None:
        """Open for requests."""
        started = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(started), name="mcp sessions")
        await asyncio.wait((self._task, started), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task

    async def _run(self, started: asyncio.Future[None]) -> None:
        async with self._sessions.run():
            started.set_result(None)
            await self._stopping.wait()

    async def stop(self, grace_s: float) -> None:
        """End the streams, let running calls finish within `grace_s` seconds, then end the sessions."""
        self.draining = True
        deadline = asyncio.get_running_loop().time() + grace_s
        for stream in list(self._streams):
            stream.end()
        if self.subscriptions is not None:
            self.subscriptions.close()
        await self._wait_until(lambda: self._running == 0, deadline)
        for stream, calls in list(self._sse_streams.items()):
            await calls.wait_until_none(max(0.0, deadline - asyncio.get_running_loop().time()))
            stream.end()
        await self._wait_until(lambda: not self._streams and not self._sse_streams, deadline)
        soon = asyncio.get_running_loop().time() + CLOSING_S
        await self._wait_until(lambda: not self._listening, max(deadline, soon))
        for call in list(self._listening):
            call.end()
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def _wait_until(self, done: Callable[[], bool], deadline: float) -> None:
        while not done():
            self._finished.clear()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._finished.wait()
            except TimeoutError:
                return

    async def handle_mcp(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """GET, POST and DELETE /mcp. Raises Forbidden when the caller could ask for a token with which it may."""
        if self._opens_older_stream(request):
            return await self.handle_sse(request, caller)
        if "http" not in self.transports:
            return error_response(404, "this server does not offer Streamable HTTP")
        try:
            body = await read_body(request, timeout_s=self._body_read_s)
        except RefusedBody as refused:
            return error_response(refused.status, str(refused))
        self._step_up.check(caller, body)
        versions = request.headers.getall(VERSION_HEADER, ())
        if versions and not (len(versions) == 1 and versions[0] in HANDSHAKE_PROTOCOL_VERSIONS):
            return await self._serve_modern(request, body, self._context(request, caller))
        exchange = Exchange(request, body)
        given = request.headers.get(SESSION_HEADER)
        client = initializing_client(exchange.body) if request.method == "POST" else None
        if given is None and client is None and _lacks_only_a_session(request, exchange.body):
            return error_response(400, NO_SESSION)
        if given is None or client is not None:
            application = self._sessions.opening(caller.principal, client)
            return await self._serve(exchange, application, self._context(request, caller), to_its_end=True)
        session = self._sessions.find(given, caller.principal)
        if session is None:
            return error_response(404, "Session not found")
        application = self._sessions.continuing(exchange, session, given)
        context = self._context(request, caller, session.client)
        async with self._sessions.asking(session, body) as alone:
            if not alone:
                return error_response(400, "a request of this id is being answered in this session: take another id")
            return await self._serve(exchange, application, context, to_its_end=asks_nothing(body))

    async def handle_sse(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """GET /sse: the stream of the older transport. Its first event says where to post messages."""
        if "sse" not in self.transports:
            return error_response(404, "this server does not offer HTTP+SSE")
        if self.draining or len(self._sse_streams) >= MAX_SESSIONS:
            return error_response(503, "no further streams at the moment", retry_after_s=5)
        try:
            place = self._limits.stream(caller.principal, request.remote)
        except TooManyStreams as refused:
            return _too_many(refused)
        exchange = Exchange(request, b"")
        calls = self._sse_streams[exchange] = CallsInFlight()

        async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            scope["user"] = _user(caller.principal)
            try:
                async with self._sse.connect_sse(scope, receive, send) as (reading, writing):
                    options = self.server.create_initialization_options()
                    await self.server.run(ResumingReader(reading, calls), CountedWriter(writing, calls), options)
            except ValueError:
                if not exchange.started:  # else the SDK has answered that it refuses, and raises this besides
                    raise

        ageing = asyncio.create_task(self._end_between_calls(exchange, calls), name="mcp stream age")
        with _current(self._context(request, caller)):
            serving = asyncio.create_task(exchange.run(application), name="mcp stream")
        try:
            with self.opened.by(caller, "sse", exchange.end):
                return await asyncio.shield(serving)
        finally:
            # A client that leaves ends the stream in the same way: cancelled, the SDK would leave its queues open.
            exchange.end()
            ageing.cancel()
            await asyncio.wait((ageing, serving))
            del self._sse_streams[exchange]
            place.leave()
            self._finished.set()

    async def handle_message(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        """POST /message?session_id=: a message for an older stream; what it leads to comes on that stream.

        Raises Forbidden, as `handle_mcp` does."""
        if "sse" not in self.transports:
            return error_response(404, "this server does not offer HTTP+SSE")
        try:
            exchange = Exchange(request, await read_body(request, timeout_s=self._body_read_s))
        except RefusedBody as refused:
            return error_response(refused.status, str(refused))
        self._step_up.check(caller, exchange.body)

        async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            scope["user"] = _user(caller.principal)
            await self._sse.handle_post_message(scope, receive, send)

        # The SDK hands the message on after it has said that it accepts it, which is when clients leave.
        return await self._serve(exchange, application, self._context(request, caller), to_its_end=True)

    def _opens_older_stream(self, request: web.Request) -> bool:
        """A client configured with `"type": "sse"` at `/mcp` asks for the stream before anything else; when it asks
        again, after the stream has ended, it knows the version."""
        return (
            request.method == "GET"
            and "sse" in self.transports
            and SESSION_HEADER not in request.headers
            and request.headers.get(VERSION_HEADER, LATEST_HANDSHAKE_VERSION) in HANDSHAKE_PROTOCOL_VERSIONS
            and "text/event-stream" in request.headers.get("Accept", "").lower()
        )

    def _context(self, request: web.Request, caller: Caller, client: str | None = None) -> CallContext:
        asked = request.headers.get(TOOLSETS_HEADER)
        toolsets = frozenset(name.strip() for name in asked.lower().split(",") if name.strip()) if asked else None
        return CallContext(
            caller,
            unnamed=caller.principal.owner is None,
            client=client,
            read_only=request.headers.get(READ_ONLY_HEADER, "").strip().lower() == "true",
            toolsets=None if not toolsets or "all" in toolsets else toolsets,
        )

    async def _serve(
        self, exchange: Exchange, application: Application, context: CallContext, *, to_its_end: bool = False
    ) -> web.StreamResponse:
        if self._closed:
            return error_response(503, STOPPING, retry_after_s=2)
        if exchange.method == "GET":
            return await self._serve_stream(exchange, application, context)
        self._running += 1
        try:
            with _current(context):
                serving = exchange.run(application)
                return await (_finished(serving) if to_its_end else serving)
        finally:
            self._running -= 1
            self._finished.set()

    async def _serve_stream(
        self, exchange: Exchange, application: Application, context: CallContext
    ) -> web.StreamResponse:
        if self.draining or len(self._streams) >= MAX_STREAMS:
            return error_response(503, "no further streams at the moment", retry_after_s=5)
        try:
            place = self._limits.stream(context.caller.principal, exchange.address)
        except TooManyStreams as refused:
            return _too_many(refused)
        self._streams.add(exchange)
        # Each call is answered on a response of its own, so this stream may end at any moment.
        ageing = asyncio.get_running_loop().call_later(self._age(), exchange.end)
        try:
            with _current(context), self.opened.by(context.caller, "session", exchange.end):
                return await exchange.run(application)
        finally:
            ageing.cancel()
            place.leave()
            self._streams.discard(exchange)
            self._finished.set()

    async def _serve_modern(self, request: web.Request, body: bytes, context: CallContext) -> web.StreamResponse:
        asked = self._modern.recognise(request, body)
        if asked is None:
            return await self._serve(Exchange(request, body), self._sessions.sessionless, context)
        call = self._modern.open(request, asked)
        if asked.listens:
            return await self._serve_listening(call, context, request.remote)
        if self._closed:
            return error_response(503, STOPPING, retry_after_s=2)
        self._running += 1
        token = CURRENT.set(context)
        try:
            return await call.run()
        finally:
            CURRENT.reset(token)
            self._running -= 1
            self._finished.set()

    async def _serve_listening(self, call: ModernCall, context: CallContext, address: str | None) -> web.StreamResponse:
        """A request that lasts until its client leaves, or the subscriptions end it."""
        if self._task is None or self.draining:
            return error_response(503, "no further streams at the moment", retry_after_s=5)
        try:
            place = self._limits.stream(context.caller.principal, address)
        except TooManyStreams as refused:
            return _too_many(refused)
        self._listening.add(call)
        try:
            with _current(context), self.opened.by(context.caller, "listen", call.end):
                return await call.run()
        finally:
            place.leave()
            self._listening.discard(call)
            self._finished.set()

    async def take(self, message: bytes) -> None:
        """A message of the older era that reached another process of the server, and was passed on by it."""
        if self._task is not None and not self._stopping.is_set():
            await self._sessions.take(message)

    @property
    def _closed(self) -> bool:
        return self._task is None or self._task.done() or self._stopping.is_set()

    def scopes_changed(self, credentials: Iterable[str]) -> None:
        """Callers with these credentials may do something else than before, so their lists have changed."""
        if self.subscriptions is not None:
            self.subscriptions.lists.changed(credentials)

    def _stream_opened(self, session_id: str) -> None:
        if self.subscriptions is not None:
            self.subscriptions.stream_opened(session_id)

    async def _end_between_calls(self, exchange: Exchange, calls: CallsInFlight) -> None:
        await asyncio.sleep(self._age())
        await calls.wait_until_none()
        exchange.end()

    def _age(self) -> float:
        # Spread, so that streams that began together (after a restart) do not all come back together.
        return self._max_age_s * random.uniform(0.9, 1)  # noqa: S311  # nothing secret depends on it


async def _finished(serving: Coroutine[Any, Any, web.StreamResponse]) -> web.StreamResponse:
    """Await it to its end, also when the client leaves. Clients do so as soon as they have read the answer that opens a
    session, and the SDK would throw the session away if its last step were cancelled then; or the message that they
    posted to a stream."""
    task = asyncio.create_task(serving, name="mcp answer")
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait((task,))
        raise


def _too_many(refused: TooManyStreams) -> web.Response:
    return error_response(429, str(refused), retry_after_s=max(1, refused.retry_ms // 1000))


def _lacks_only_a_session(request: web.Request, body: bytes) -> bool:
    """Whether a POST would be served if it named a session; of any other fault the SDK tells."""
    accept = request.headers.get("Accept", "*/*").lower()
    readable = "*/*" in accept or ("application/json" in accept and "text/event-stream" in accept)
    return request.method == "POST" and readable and not malformed(body)


@contextmanager
def _current(context: CallContext) -> Iterator[None]:
    token = CURRENT.set(context)
    try:
        yield
    finally:
        CURRENT.reset(token)


def _user(principal: Principal) -> AuthenticatedUser:
    """The principal in the form by which the SDK keeps others out of a session."""
    return AuthenticatedUser(AccessToken(token="", client_id=principal.actor, scopes=[], subject=principal.workspace))
