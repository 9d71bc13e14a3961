"""Streamable HTTP sessions of the older era, served also where they are not known; and the 2026 era, which has none."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings

from taskhub.auth.principal import Principal
from taskhub.mcp.bridge import Application, Exchange, Message, Receive, Send
from taskhub.mcp.door import PassOn
from taskhub.mcp.session_ids import Session, SessionIds

SESSION_IDLE_TIMEOUT_S: Final = 600
MAX_SESSIONS: Final = 2000
MAX_ENDED_SESSIONS: Final = 10_000
MAX_PASSED_ON: Final = 16_000
"""Bytes of what other processes are shown, which a question to them can hold: an answer to a form without fields is
short."""
ENDING_S: Final = 1.0
"""For the end of a request whose answer may be read already."""
_HEADER: Final = b"mcp-session-id"
_PASSED_ON: Final = ("host", "origin", "content-type", "accept", "mcp-protocol-version")


class HttpSessions:
    """The SDK's session managers behind ids of our own, signed with `secret`: whoever has it accepts them."""

    def __init__(
        self,
        server: Server[Any],
        *,
        secret: bytes,
        security: TransportSecuritySettings,
        on_stream: Callable[[str], None] = lambda inner: None,
        pass_on: PassOn | None = None,
    ) -> None:
        """`on_stream` is called with the SDK's id of a session that has its GET stream now. `pass_on` shows a message
        to the other processes, which `take` it: one of them may know its session."""
        self._ids = SessionIds(secret)
        self._on_stream = on_stream
        self._pass_on = pass_on
        self._known = _manager(server, security, stateless=False)
        # For sessions that another process knows, or this one before a restart: a tool call needs nothing they held.
        self._unknown = _manager(server, security, stateless=True)
        # A session that its client ended stays ended here. The oldest are forgotten, which makes them merely unknown.
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._under_way: dict[tuple[str, str], asyncio.Event] = {}
        """By session and id of the request: set when it is over."""

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Serve until left, in the task that entered: the SDK's managers hold cancel scopes."""
        async with self._known.run(), self._unknown.run():
            yield

    def find(self, given: str, principal: Principal) -> Session | None:
        """The session of this id; None when the id was not issued to this principal, or its client ended it."""
        session = self._ids.read(given, principal)
        return None if session is None or session.inner in self._ended else session

    @asynccontextmanager
    async def asking(self, session: Session, body: bytes) -> AsyncIterator[bool]:
        """While the request in this body is answered; whether it is, for to the SDK a second one of the same id in a
        session takes the place of the first, which then would never be answered, nor end. Some clients take an id again
        as soon as they have read the answer, so a second one waits a little for the first to end."""
        asked = _id_of(body)
        if asked is None:
            yield True
            return
        mark = (session.inner, asked)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ENDING_S):
                while (ended := self._under_way.get(mark)) is not None:
                    await ended.wait()
        if mark in self._under_way:
            yield False
            return
        ended = self._under_way[mark] = asyncio.Event()
        try:
            yield True
        finally:
            del self._under_way[mark]
            ended.set()

    @property
    def sessionless(self) -> Application:
        """Serves a request of the 2026 era, which the SDK tells by its protocol header."""
        return self._known.handle_request

    def opening(self, principal: Principal, client: str | None) -> Application:
        """Serves a request that may open a session. `client`: the name it gives, which the id will carry."""

        async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            def issue(inner: str) -> str:
                return self._ids.issue(inner, principal, client)

            await self._known.handle_request(_with_session(scope, None), receive, _renaming(send, issue))

        return application

    def continuing(self, exchange: Exchange, session: Session, given: str) -> Application:
        """Serves a request in a session: by it, or without it where this process does not know it."""

        async def application(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            renaming = _renaming(send, lambda inner: given)
            unknown = False

            async def unless_unknown(message: Message) -> None:
                nonlocal unknown
                if message["type"] == "http.response.start" and message["status"] == 404:
                    unknown = True
                if not unknown:
                    await renaming(message)
                if message["type"] == "http.response.start" and scope["method"] == "GET" and message["status"] == 200:
                    self._on_stream(session.inner)

            await self._known.handle_request(_with_session(scope, session.inner), receive, unless_unknown)
            if scope["method"] == "DELETE":
                self._end(session)
                if unknown:
                    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
                    await send({"type": "http.response.body", "body": b""})
            elif unknown:
                if self._pass_on is not None and is_for_its_session(exchange.body):
                    packed = _packed(session.inner, scope, exchange.body)
                    if len(packed) <= MAX_PASSED_ON:
                        await self._pass_on(packed)
                await self._unknown.handle_request(_with_session(scope, None), exchange.receiver(), send)

        return application

    async def take(self, packed: bytes) -> None:
        """A message that another process passed on; nothing happens unless its session is known here."""
        message = orjson.loads(packed)
        if message["session"] in self._ended:
            return
        headers = [(name.encode(), value.encode()) for name, value in message["headers"].items()]
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}
        body, said = message["body"].encode(), False

        async def receive() -> Message:
            nonlocal said
            if said:
                await asyncio.Event().wait()
            said = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(answer: Message) -> None:
            """Who sent the message is answered where it was sent."""

        await self._known.handle_request(_with_session(scope, message["session"]), receive, send)

    def _end(self, session: Session) -> None:
        self._ended[session.inner] = None
        if len(self._ended) > MAX_ENDED_SESSIONS:
            self._ended.popitem(last=False)


def _id_of(body: bytes) -> str | None:
    """The id of the request in a body, as the SDK tells requests apart; None where there is none."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    asked = message.get("id") if isinstance(message, dict) and "method" in message else None
    return str(asked) if isinstance(asked, int | str) else None


def asks_nothing(body: bytes) -> bool:
    """Whether the message, a notification or an answer, has none itself: the SDK accepts it before it hands it on."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(message, dict) and not ("method" in message and "id" in message)


def is_for_its_session(body: bytes) -> bool:
    """Whether the message means something only where its session is: the answer to a question that was asked on it, or
    the end of a call in it."""
    if b'"method"' in body and b'"notifications/cancelled"' not in body:
        return False
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    if not isinstance(message, dict):
        return False
    return message.get("method") == "notifications/cancelled" or ("method" not in message and "id" in message)


def _packed(inner: str, scope: MutableMapping[str, Any], body: bytes) -> bytes:
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    kept = {name: headers[name] for name in _PASSED_ON if name in headers}
    return orjson.dumps({"session": inner, "headers": kept, "body": body.decode()})


def initializing_client(body: bytes) -> str | None:
    """The name of the client, possibly empty, when the body is an `initialize` request; None for any other."""
    if b'"initialize"' not in body:
        return None
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(message, dict) or message.get("method") != "initialize":
        return None
    parameters = message.get("params")
    information = parameters.get("clientInfo") if isinstance(parameters, dict) else None
    name = information.get("name") if isinstance(information, dict) else None
    return name if isinstance(name, str) else ""


def malformed(body: bytes) -> bool:
    """Whether the body is no JSON-RPC message that asks or tells something; the SDK says what is wrong with it."""
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        return True
    return not isinstance(message, dict) or not isinstance(message.get("method"), str)


def _manager(
    server: Server[Any], security: TransportSecuritySettings, *, stateless: bool
) -> StreamableHTTPSessionManager:
    return StreamableHTTPSessionManager(
        server,
        event_store=None,
        json_response=False,
        stateless=stateless,
        security_settings=security,
        session_idle_timeout=SESSION_IDLE_TIMEOUT_S,
        max_sessions=MAX_SESSIONS,
    )


def _with_session(scope: MutableMapping[str, Any], inner: str | None) -> dict[str, Any]:
    headers = [pair for pair in scope["headers"] if pair[0] != _HEADER]
    if inner is not None:
        headers.append((_HEADER, inner.encode("latin-1")))
    return {**scope, "headers": headers}


def _renaming(send: Send, outer: Callable[[str], str]) -> Send:
    """`send` with the SDK's session id replaced by what `outer` makes of it; left out where the request was refused."""

    async def renaming(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = []
            for name, value in message["headers"]:
                if name.lower() != _HEADER:
                    headers.append((name, value))
                elif message["status"] < 400:
                    headers.append((name, outer(value.decode("latin-1")).encode("latin-1")))
            message = {**message, "headers": headers}
        await send(message)

    return renaming
