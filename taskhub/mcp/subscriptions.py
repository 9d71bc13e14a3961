"""Subscriptions to resources, in both eras of the protocol.

Since 2026 a subscription is a request of its own whose answer is a stream (`subscriptions/listen`); before, it is a
URI added to a connection (`resources/subscribe`), which tells of changes on its one stream. Both only wake: a client
reads the resource afterwards, so nothing is lost when one wake-up stands for several changes.
"""

import asyncio
import contextvars
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import ListenHandler, ResourceUpdated, ServerEvent
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_REQUEST,
    EmptyResult,
    SubscribeRequestParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)

from broadcaster.errors import LogUnavailable
from taskhub.mcp.context import CURRENT
from taskhub.mcp.list_changes import ListChanges, acknowledged, connection_of
from taskhub.mcp.protocol_errors import invalid
from taskhub.mcp.resources import Resources
from taskhub.mcp.uris import address_of
from taskhub.mcp.wakeups import Feed, Wakeups, Want, Watch

log = structlog.get_logger(__name__)

MAX_LISTENING: Final = 4000
MAX_URIS: Final = 200
"""Resources of one subscription. All of them may change at once, and fit into the backlog of its stream."""
MAX_BUFFERED: Final = 256
_STATE: Final = "taskhub subscriptions"

Context = ServerRequestContext[Any, Any]


class Subscriptions:
    """The handlers of subscriptions over `watch`. `close` ends the streams of the 2026 era in good order; those of
    older connections end with the connection. A listen stream lasts `age()` seconds, or as its connection does."""

    def __init__(self, watch: Watch, resources: Resources, age: Callable[[], float] | None = None) -> None:
        self.wakeups = Wakeups(watch)
        self.lists = ListChanges()
        self._resources = resources
        self._age = age
        self._listening: set[ListenHandler] = set()
        self._connections: dict[str, _Subscriber] = {}
        self._closing = False

    @property
    def listening(self) -> int:
        """How many listen streams are open."""
        return len(self._listening)

    def close(self) -> None:
        """Let every listen stream end by its result. No further ones are opened."""
        self._closing = True
        for handler in list(self._listening):
            handler.close()

    def stream_opened(self, session_id: str) -> None:
        """A session has a stream again: what it had no stream for may have changed."""
        if (subscriber := self._connections.get(session_id)) is not None:
            subscriber.wake_for_all()

    # The 2026 era

    async def listen(self, context: Context, params: SubscriptionsListenRequestParams) -> SubscriptionsListenResult:
        """`subscriptions/listen`. What the caller may not read, and what never changes, is not acknowledged."""
        caller = CURRENT.get().caller
        asked = params.notifications.resource_subscriptions or []
        if len(asked) > MAX_URIS:
            raise invalid(f"one subscription has at most {MAX_URIS} resources, not {len(asked)}: open several")
        topics: dict[str, str] = {}
        for uri in asked:
            address = address_of(uri)
            if address is not None and address.scope in caller.principal.scopes:
                topics[uri] = address.topic
        workspace = caller.principal.workspace
        feed = await self._join(workspace)
        try:
            if self._closing or len(self._listening) >= MAX_LISTENING:
                raise _unavailable("no further subscriptions at the moment; try again later")
            # One for each stream, so that each can be closed at its own age.
            handler = ListenHandler(
                _Bus(feed, topics, self.lists), max_subscriptions=1, max_buffered_events=MAX_BUFFERED
            )
            self._listening.add(handler)
            ageing = None if self._age is None else asyncio.get_running_loop().call_later(self._age(), handler.close)
            try:
                honoured = acknowledged(params.notifications, list(topics))
                return await handler(context, params.model_copy(update={"notifications": honoured}))
            finally:
                if ageing is not None:
                    ageing.cancel()
                self._listening.discard(handler)
        finally:
            self.wakeups.leave(workspace)

    # Before it

    async def subscribe(self, context: Context, params: SubscribeRequestParams) -> EmptyResult:
        """`resources/subscribe`: wake this connection when the resource changes."""
        caller = CURRENT.get().caller
        address = await self._resources.check(caller, params.uri, version=context.protocol_version)
        connection = connection_of(context)
        if not connection.has_standalone_channel:
            raise MCPError(
                INVALID_REQUEST,
                "this session was opened before a restart, or at another process of the server, which cannot tell it "
                "of changes: initialize again, or poll with get_events",
                {"code": "unavailable", "retryable": False},
            )
        subscriber: _Subscriber | None = connection.state.get(_STATE)
        if subscriber is None:
            workspace = caller.principal.workspace
            feed = await self._join(workspace)
            if (subscriber := connection.state.get(_STATE)) is not None:  # by another request meanwhile
                self.wakeups.leave(workspace)
            else:
                subscriber = connection.state[_STATE] = _Subscriber(connection, feed)
                if connection.session_id is not None:
                    self._connections[connection.session_id] = subscriber
                connection.exit_stack.push_async_callback(self._end, subscriber, workspace)
        subscriber.add(params.uri, address.topic)
        return EmptyResult()

    async def unsubscribe(self, context: Context, params: UnsubscribeRequestParams) -> EmptyResult:
        """`resources/unsubscribe`: wake it no more. What was not subscribed to is no error."""
        subscriber: _Subscriber | None = connection_of(context).state.get(_STATE)
        if subscriber is not None:
            subscriber.remove(params.uri)
        return EmptyResult()

    async def _end(self, subscriber: "_Subscriber", workspace: str) -> None:
        if (session_id := subscriber.connection.session_id) is not None:
            self._connections.pop(session_id, None)
        await subscriber.close()
        self.wakeups.leave(workspace)

    async def _join(self, workspace: str) -> Feed:
        try:
            return await self.wakeups.join(workspace)
        except LogUnavailable:
            raise _unavailable("the event log cannot be read now; try again later") from None


class _Bus:
    """What one listen stream hears of a feed and of its lists (the SDK's SubscriptionBus). `topics`: of each URI that
    it asked for."""

    def __init__(self, feed: Feed, topics: Mapping[str, str], lists: ListChanges) -> None:
        self._feed = feed
        self._topics = topics
        self._lists = lists

    async def publish(self, event: ServerEvent) -> None:
        """Wake everybody who wants that resource, as if the hub had told of it."""
        if isinstance(event, ResourceUpdated) and (address := address_of(event.uri)) is not None:
            self._feed.touch(address.topic)

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        def wake(uri: str) -> None:
            listener(ResourceUpdated(uri))

        wants = [Want(topic, uri, wake) for uri, topic in self._topics.items()]
        for want in wants:
            self._feed.add(want)

        end_of_lists = self._lists.subscribe(listener)

        def unsubscribe() -> None:
            end_of_lists()
            for want in wants:
                self._feed.remove(want)

        return unsubscribe


class _Subscriber:
    """A connection of an older era and the URIs it subscribed to. Its backlog is a set of them, so it has an end."""

    def __init__(self, connection: Connection, feed: Feed) -> None:
        self.connection = connection
        self._feed = feed
        self._wants: dict[str, Want] = {}
        self._backlog: dict[str, None] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, uri: str, topic: str) -> None:
        if uri in self._wants:
            return
        if len(self._wants) >= MAX_URIS:
            raise invalid(f"one connection has at most {MAX_URIS} subscriptions: unsubscribe from some first")
        want = self._wants[uri] = Want(topic, uri, self._wake)
        self._feed.add(want)

    def remove(self, uri: str) -> None:
        self._backlog.pop(uri, None)
        if (want := self._wants.pop(uri, None)) is not None:
            self._feed.remove(want)

    def wake_for_all(self) -> None:
        for uri in self._wants:
            self._wake(uri)

    async def close(self) -> None:
        for uri in list(self._wants):
            self.remove(uri)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _wake(self, uri: str) -> None:
        self._backlog[uri] = None
        if self._task is None:
            # There while there is something to send: most connections are idle most of the time.
            self._task = asyncio.get_running_loop().create_task(
                self._send(), name="mcp subscriptions", context=contextvars.Context()
            )

    async def _send(self) -> None:
        try:
            while self._backlog:
                uri = next(iter(self._backlog))
                del self._backlog[uri]
                await self.connection.send_resource_updated(uri)
        except Exception:
            # Its client is woken by the next change; the streams of the others must not suffer.
            log.exception("mcp_wake_up_failed")
        finally:
            self._task = None


def _unavailable(message: str) -> MCPError:
    return MCPError(INTERNAL_ERROR, message, {"code": "unavailable", "retryable": True})
