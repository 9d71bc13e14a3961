"""What stream tokens open: who is behind one is judged each time, and a stream of a token ends with it.

The stream itself is opened in the name of the credential that the token was made with, so whatever ends that credential
ends the stream, here and on every other instance.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import structlog

from broadcaster.engine import Broadcaster
from broadcaster.subscriber import Subscriber
from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import Caller, Principal
from taskhub.auth.secret import digest, well_formed
from taskhub.credentials.holder import Holder
from taskhub.settings.model import Settings
from taskhub.storage.times import Clock, utc_now
from taskhub.stream_tokens.model import IssuedToken, Parameters, StreamToken
from taskhub.stream_tokens.store import WITHOUT_AUTHENTICATION, StreamTokenStore

WARNING_S: Final = 60.0
"""How long before its token ends a stream is told so."""
LOOK_AGAIN_S: Final = 1.0
"""Until a stream that is not live yet can be told."""
REPLACED_RETRY_MS: Final = 60_000
"""Two clients that share a token take it from each other no more often."""

log = structlog.get_logger("taskhub.stream")


@dataclass(slots=True, eq=False)
class _Open:
    subscriber: Subscriber
    timer: asyncio.TimerHandle | None = None


class StreamAccess:
    """The tokens in use on this instance. Call `look` now and then, `closed` at the end of each stream that was
    `opened`, and `stop` at the end.

    `holder_of` is who has a stored credential now, if it is good. `issuer` vouches for callers without one.
    `end_elsewhere` says goodbye to the stream of a token on whichever other instance has it.
    """

    def __init__(
        self,
        store: StreamTokenStore,
        broadcaster: Broadcaster,
        *,
        issuer: str,
        holder_of: Callable[[str], Awaitable[Holder | None]],
        end_elsewhere: Callable[[str, str], Awaitable[None]],
        clock: Clock = utc_now,
    ) -> None:
        self.store = store
        self._broadcaster = broadcaster
        self._issuer = issuer
        self._holder_of = holder_of
        self._end_elsewhere = end_elsewhere
        self._clock = clock
        self._open: dict[str, _Open] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def issue(self, caller: Caller, parameters: Parameters) -> IssuedToken:
        """A token for one stream of this caller. Raises StorageBusy."""
        return await self.store.create(caller, self._issuer, parameters)

    async def find(self, secret: str) -> StreamToken:
        """The token, with its principal as it is now. Raises Unauthenticated and StorageBusy."""
        token = await self.store.find(secret) if well_formed(secret) else None
        principal = None if token is None else await self._judged(token)
        if token is None or principal is None:
            raise Unauthenticated("the stream token is none, or over; POST /events/tokens makes another one")
        return replace(token, principal=principal)

    async def _judged(self, token: StreamToken) -> Principal | None:
        principal = token.principal
        if principal.credential is None:
            return principal if token.issuer == self._issuer else None
        # Without authentication nobody looks after credentials.
        holder = None if self._issuer == WITHOUT_AUTHENTICATION else await self._holder_of(principal.credential)
        if holder is None:
            return None
        scopes = holder.principal.scopes & principal.scopes
        if principal.owner is None:
            return replace(holder.principal, scopes=scopes)
        return replace(holder.principal, scopes=scopes, actor=principal.actor, owner=holder.principal.actor)

    def replace_here(self, token: StreamToken) -> None:
        """A client comes back with this token: the connection that it had before is dead, whatever it looks like."""
        if (before := self._open.get(token.id)) is not None:
            self.end_replaced(before.subscriber)

    def end_replaced(self, subscriber: Subscriber) -> None:
        """Say goodbye to a stream that another one took the place of."""
        self._broadcaster.end(subscriber, "replaced", retry_ms=REPLACED_RETRY_MS)

    async def opened(self, token: StreamToken, subscriber: Subscriber) -> None:
        """A stream was admitted. Raises Unauthenticated when the token has ended meanwhile, and StorageBusy."""
        instance = self._broadcaster.options.instance
        try:
            before = await self.store.opened(token.id, subscriber.id, instance)
        except LookupError:
            raise Unauthenticated("the stream token is over; POST /events/tokens makes another one") from None
        self.replace_here(token)
        if before is not None and before[1] != instance:
            # Nobody waits for it: that instance may be gone.
            task = asyncio.create_task(self._end_there(subscriber.workspace, before[0]), name="end a replaced stream")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        opened = self._open[token.id] = _Open(subscriber)
        left_s = (datetime.fromisoformat(token.expires_at) - self._clock()).total_seconds()
        if left_s < 2 * self._broadcaster.options.max_age_s:  # else it ends by its age long before
            self._plan(opened, left_s - WARNING_S, lambda: self._warn(opened, left_s))

    def closed(self, token: StreamToken, subscriber: Subscriber) -> None:
        """The stream has ended."""
        opened = self._open.get(token.id)
        if opened is not None and opened.subscriber is subscriber:
            del self._open[token.id]
            if opened.timer is not None:
                opened.timer.cancel()

    async def look(self) -> None:
        """Keep the tokens of open streams. Raises StorageBusy."""
        await self.store.still_open(self._open.keys())

    async def stop(self) -> None:
        """Nothing is under way after this."""
        for opened in self._open.values():
            if opened.timer is not None:
                opened.timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end_there(self, workspace: str, stream: str) -> None:
        try:
            await self._end_elsewhere(workspace, stream)
        except Exception:
            log.exception("a replaced stream could not be ended", stream=stream)

    def _plan(self, opened: _Open, seconds: float, do: Callable[[], None]) -> None:
        opened.timer = asyncio.get_running_loop().call_later(max(0.0, seconds), do)

    def _warn(self, opened: _Open, left_s: float) -> None:
        subscriber = opened.subscriber
        if subscriber.ended():
            return
        wait_s = min(left_s, WARNING_S)
        if subscriber.state != "live" and wait_s > LOOK_AGAIN_S:
            self._plan(opened, LOOK_AGAIN_S, lambda: self._warn(opened, wait_s - LOOK_AGAIN_S))
            return
        self._broadcaster.warn(subscriber, "the token of this stream ends within a minute")
        self._plan(opened, wait_s, lambda: self._broadcaster.end(subscriber, "auth_expired"))


def issuer_of(settings: Settings) -> str:
    """What vouches for callers that have no stored credential: nobody, or the key that was set at the start; with
    another such key, tokens that were made with this one open nothing."""
    if settings.auth_mode == "none":
        return WITHOUT_AUTHENTICATION
    key = "" if settings.api_key is None else settings.api_key.get_secret_value()
    return f"key:{digest(digest(key))[:32]}"
