"""Telling clients that their lists of tools, prompts and resources have changed, in both eras.

A list depends on what its caller may do, and so changes when the role behind an API key does. A listen stream that asks
for it hears so, and before 2026 every connection that has asked for a list.
"""

import asyncio
import contextvars
from collections.abc import Callable, Iterable
from typing import Any, Final

import structlog
from mcp.server.connection import Connection
from mcp.server.context import ServerRequestContext
from mcp.server.subscriptions import PromptsListChanged, ResourcesListChanged, ServerEvent, ToolsListChanged
from mcp_types import SubscriptionFilter

from taskhub.mcp.context import CURRENT

log = structlog.get_logger(__name__)

_EVENTS: Final = (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged())
_STATE: Final = "taskhub lists"


class ListChanges:
    """Who wants to hear of it, by credential."""

    def __init__(self) -> None:
        self._listeners: dict[str, dict[Callable[[], None], None]] = {}

    def changed(self, credentials: Iterable[str]) -> None:
        """Callers with these credentials may do something else than before."""
        for credential in credentials:
            for listener in list(self._listeners.get(credential, ())):
                listener()

    def add(self, credential: str, listener: Callable[[], None]) -> Callable[[], None]:
        """Call it at each change, until what is returned is called."""
        self._listeners.setdefault(credential, {})[listener] = None

        def remove() -> None:
            listeners = self._listeners.get(credential, {})
            listeners.pop(listener, None)
            if not listeners:
                self._listeners.pop(credential, None)

        return remove

    def subscribe(self, listener: Callable[[ServerEvent], None]) -> Callable[[], None]:
        """Tell a listen stream of the caller at hand."""
        if (credential := credential_at_hand()) is None:
            return lambda: None

        def tell() -> None:
            for event in _EVENTS:
                listener(event)

        return self.add(credential, tell)

    def follow(self, connection: Connection) -> None:
        """Tell a connection of an older era, from now to its end."""
        credential = credential_at_hand()
        if credential is None or not connection.has_standalone_channel or _STATE in connection.state:
            return
        follower = connection.state[_STATE] = _Follower(connection)
        remove = self.add(credential, follower.changed)

        async def end() -> None:
            remove()
            await follower.close()

        connection.exit_stack.push_async_callback(end)


class _Follower:
    """A connection of an older era that has seen a list."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._task: asyncio.Task[None] | None = None

    def changed(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(
                self._send(), name="mcp list changes", context=contextvars.Context()
            )

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _send(self) -> None:
        try:
            await self._connection.send_tool_list_changed()
            await self._connection.send_prompt_list_changed()
            await self._connection.send_resource_list_changed()
        except Exception:
            log.exception("mcp_list_change_failed")  # its client reads the lists anew when their hint runs out
        finally:
            self._task = None


def credential_at_hand() -> str | None:
    """The credential of the request at hand, whose scopes can change; None where nothing can."""
    context = CURRENT.get(None)
    return None if context is None else context.caller.principal.credential


def acknowledged(asked: SubscriptionFilter, uris: list[str]) -> SubscriptionFilter:
    """What a listen stream of the caller at hand will hear of: these resources, and its lists where they can change."""
    if credential_at_hand() is None:
        return SubscriptionFilter(resource_subscriptions=uris)
    return asked.model_copy(update={"resource_subscriptions": uris})


def connection_of(context: ServerRequestContext[Any, Any]) -> Connection:
    """The connection of a request, which what lasts longer than the request belongs to."""
    return context.session._connection  # the SDK has no public way to it
