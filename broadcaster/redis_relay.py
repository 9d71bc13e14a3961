"""The relay over Redis pub/sub: one channel per workspace, heard only while somebody here listens to it.

Pub/sub is at most once, and that is enough: what is lost on the way, the tail reads from the log. So nothing here waits
for Redis, and everything here outlives it.
"""

import asyncio
import contextlib
import logging
import math
import random
import re
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from broadcaster.relay import Announcement, RelayListener, RelayState, RelayStatistics
from broadcaster.relay_message import InvalidMessage, decode_message, encode_messages
from broadcaster.relayed_control import CarrierAway

_MIN_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0
# What one turn of a task may do before the loop breathes: a flood must not starve the streams.
_MESSAGES_PER_TURN: Final = 256
_SEEN_TRANSIENT: Final = 8192
_FLUSH_S: Final = 2.0
_TRANSIENT_PATIENCE_S: Final = 5.0
# Messages that others send by this connection (see `send`), waiting at most. They never wait for long.
_MAX_LETTERS: Final = 64
_SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")
_SENTINEL_PORT: Final = 26379

logger = logging.getLogger(__name__)


class RedisRelay:
    """A Relay between all instances that share a Redis and a channel prefix.

    `url` is `redis://`, `rediss://` (TLS) or `unix://` as redis-py reads it, or for a master found by Sentinel
    `redis+sentinel://[user:password@]host:port,host:port/service[/db]`. `instance` must differ between all instances:
    it is how an instance knows its own echo. Up to `queue_limit` announcements wait while Redis is slow or away, then
    the oldest are dropped; transient events wait five seconds. A connection that has been silent for
    `ping_interval_s` is asked for a sign of life, and given up after as long again. It carries the messages of the
    control path besides (relayed_control.Carrier). Raises ValueError when the URL is none.
    """

    def __init__(
        self,
        url: str,
        *,
        channel_prefix: str,
        instance: str,
        queue_limit: int = 10_000,
        ping_interval_s: float = 3.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = redact(url)
        self._client, self._sentinels = _client(url, timeout_s=ping_interval_s)
        self._make_connection: Callable[[], AbstractConnection] = self._client.connection_pool.make_connection
        self._prefix = channel_prefix
        self._instance = instance
        self._queue_limit = queue_limit
        self._ping_interval_s = ping_interval_s
        self._clock = clock
        self._listener: RelayListener | None = None
        self._state: RelayState = "connecting"
        self._watched: set[str] = set()
        self._watched_changed = asyncio.Event()
        self._up = asyncio.Event()
        self._queue: deque[tuple[float, Announcement]] = deque()
        self._carried: dict[bytes, Callable[[bytes], None]] = {}
        self._letters: deque[tuple[str, bytes, asyncio.Future[int]]] = deque()
        self._queued = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushed.set()
        self._seen: dict[str, None] = {}
        self._last_heard = -math.inf
        self._warned = False
        self._trouble: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._announced = 0
        self._received = 0
        self._dropped = 0
        self._ups = 0

    def __repr__(self) -> str:
        return f"<RedisRelay {self._url} {self._state}>"

    async def start(self, listener: RelayListener) -> None:
        """Begin to connect. Returns at once; `listener.relay_changed` tells how it went."""
        self._listener = listener
        self._tasks = [
            asyncio.create_task(self._keep_going(self._listen), name="relay listener"),
            asyncio.create_task(self._keep_going(self._publish), name="relay publisher"),
        ]

    async def stop(self) -> None:
        """Send what is queued, if Redis takes it within two seconds, then end both tasks and close the connections."""
        if self._up.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_S):
                    await self._flushed.wait()
        self._listener = None
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for client in (self._client, *self._sentinels):
            await client.aclose()

    def announce(self, announcement: Announcement) -> None:
        """Queue for the other instances. Drops the oldest when the queue is full."""
        if not announcement.transient and not self._up.is_set():
            # Redis may be away for long, and events may be large: the others read them from the log.
            announcement = replace(announcement, events=())
        # Who is live hears a transient event; who connects after the outage must not take it for news.
        until = self._clock() + _TRANSIENT_PATIENCE_S if announcement.transient else math.inf
        self._queue.append((until, announcement))
        self._trim()
        self._flushed.clear()
        self._queued.set()

    def carry(self, name: str, hear: Callable[[bytes], None]) -> None:
        """Hear messages under a name that is no workspace's (Carrier)."""
        self._carried[self._letter_channel(name).encode()] = hear

    async def send(self, name: str, message: bytes) -> int:
        """Send one message under such a name; how many connections received it (Carrier). Raises CarrierAway."""
        if not self._up.is_set() or len(self._letters) >= _MAX_LETTERS:
            raise CarrierAway(f"the relay {self._url} is {self._state}, {len(self._letters)} messages wait")
        received: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._letters.append((self._letter_channel(name), message, received))
        self._queued.set()
        return await received

    def watch(self, workspace: str) -> None:
        """Subscribe to the workspace's channel, now or as soon as there is a connection."""
        self._watched.add(workspace)
        self._watched_changed.set()

    def unwatch(self, workspace: str) -> None:
        self._watched.discard(workspace)
        self._watched_changed.set()

    def statistics(self) -> RelayStatistics:
        return RelayStatistics(
            self._state, self._announced, self._received, self._dropped, max(self._ups - 1, 0), self._trouble
        )

    async def _keep_going(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run `work` anew whenever it fails, after a while that grows with the failures in a row."""
        failures = 0
        while True:
            began = self._clock()
            try:
                await work()
            except Exception as error:
                # What had worked for a while may be tried again soon.
                failures = 0 if self._clock() - began > _MAX_BACKOFF_S else min(failures + 1, 16)
                if not self._up.is_set():
                    self._trouble = _summary(error)
                if not _is_connection_trouble(error):
                    logger.exception("the relay failed; trying again")
                elif failures <= 1:
                    logger.warning("the relay %s is away: %s; trying again", self._url, _summary(error))
            if self._listener is None:
                return  # a failure at the same time as the cancellation was raised in its place
            ceiling: float = min(_MIN_BACKOFF_S * 2**failures, _MAX_BACKOFF_S)
            await asyncio.sleep(ceiling * random.uniform(0.5, 1.0))  # noqa: S311  # spreads retries, guards nothing

    # Both directions use redis-py's connections (which know of TLS, passwords and Sentinel) without its client and its
    # `PubSub` above them: these cost several times as much per message as all the rest.

    async def _connect(self, connection: AbstractConnection) -> None:
        async with asyncio.timeout(self._ping_interval_s):
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py annotates most, not all

    async def _listen(self) -> None:
        """One connection's life: subscribe, receive, follow what is watched, and see that the far side is alive."""
        connection = self._make_connection()
        subscribed: set[str] = set()
        self._last_heard = -math.inf
        try:
            await self._connect(connection)
            if self._carried:
                await _send(connection, "SUBSCRIBE", *(channel.decode() for channel in self._carried))
            await self._subscribe(connection, subscribed)
            # Redis answers in order: this pong comes when all subscriptions stand.
            asked = self._clock()
            await _send(connection, "PING")
            if self._listener is None:
                return  # a task group that failed may leave this task marked as cancelled, and never cancelled again
            async with asyncio.TaskGroup() as session:
                session.create_task(self._receive(connection), name="relay receiver")
                session.create_task(self._follow_watched(connection, subscribed), name="relay subscriptions")
                session.create_task(self._expect_life(connection, asked), name="relay pings")
        finally:
            self._set_up(False)
            await connection.disconnect(nowait=True)

    async def _receive(self, connection: AbstractConnection) -> None:
        while True:
            batch: list[Announcement] = []
            try:
                self._take(await connection.read_response(timeout=math.inf), batch)
                taken = 1
                # What has already arrived goes on together: the hub then writes it in one flush.
                while taken < _MESSAGES_PER_TURN and await connection.can_read():
                    reply = await connection.read_response(timeout=0.0)
                    if reply is None:  # only a part of it has arrived
                        break
                    self._take(reply, batch)
                    taken += 1
            finally:
                self._hand_on(batch)
            if taken == _MESSAGES_PER_TURN:
                await asyncio.sleep(0)

    def _take(self, reply: Any, batch: list[Announcement]) -> None:
        """One reply of the listening connection: `PONG` alone as long as there is no subscription, else a list, such as
        [b"message", channel, body]."""
        self._last_heard = self._clock()
        if not isinstance(reply, list) or reply[0] != b"message":
            if not self._up.is_set() and (reply == b"PONG" or reply[0] == b"pong"):
                self._set_up(True)
            return
        _, channel, body = reply
        if (hear := self._carried.get(channel)) is not None:
            hear(body)
            return
        try:
            announcement = decode_message(body, self._instance)
            if announcement is None or announcement.workspace not in self._watched:
                return
            if channel != self._channel(announcement.workspace).encode():
                raise InvalidMessage("about another workspace than its channel's")
        except InvalidMessage as error:
            # One warning, for whoever sends one such message sends thousands.
            logger.log(logging.DEBUG if self._warned else logging.WARNING, "a relay message is ignored: %s", error)
            self._warned = True
            return
        if announcement.transient:
            announcement = replace(announcement, events=tuple(e for e in announcement.events if self._is_new(e.id)))
            if not announcement.events:
                return
        self._received += 1
        batch.append(announcement)

    def _is_new(self, transient_id: str) -> bool:
        if transient_id in self._seen:
            return False
        self._seen[transient_id] = None
        if len(self._seen) > _SEEN_TRANSIENT:
            del self._seen[next(iter(self._seen))]
        return True

    def _hand_on(self, batch: Sequence[Announcement]) -> None:
        if not batch or self._listener is None:
            return
        try:
            self._listener.announced(batch)
        except Exception:
            logger.exception("announcements of other instances could not be handled")

    async def _follow_watched(self, connection: AbstractConnection, subscribed: set[str]) -> None:
        while True:
            await self._watched_changed.wait()
            await self._subscribe(connection, subscribed)

    async def _subscribe(self, connection: AbstractConnection, subscribed: set[str]) -> None:
        """Make the connection's subscriptions those that are watched."""
        self._watched_changed.clear()
        wanted, unwanted = self._watched - subscribed, subscribed - self._watched
        subscribed |= wanted
        subscribed -= unwanted
        if wanted:
            await _send(connection, "SUBSCRIBE", *map(self._channel, sorted(wanted)))
        if unwanted:
            await _send(connection, "UNSUBSCRIBE", *map(self._channel, sorted(unwanted)))

    async def _expect_life(self, connection: AbstractConnection, asked: float) -> None:
        """Ping, and raise when nothing was heard since the last ping (the first went out at `asked`): Redis is paused,
        or the path to it died without a word."""
        while True:
            await asyncio.sleep(self._ping_interval_s)
            if self._last_heard < asked:
                raise RedisTimeoutError(f"not a word in {self._ping_interval_s:g} s")
            asked = self._clock()
            await _send(connection, "PING")

    def _set_up(self, up: bool) -> None:
        before, self._state = self._state, "up" if up else "down"
        if up:
            self._ups += 1
            self._trouble = None
            self._up.set()
        else:
            self._up.clear()
            self._return_letters()
        if self._state == before or self._listener is None:
            return
        logger.info("the relay %s is %s", self._url, self._state)
        try:
            self._listener.relay_changed(up)
        except Exception:
            logger.exception("a change of the relay could not be handled")

    async def _publish(self) -> None:
        """One connection's life: send what is queued. It is given up when an answer takes too long."""
        connection = self._make_connection()
        clock = asyncio.get_running_loop().time
        try:
            async with asyncio.timeout(None) as patience:
                while self._listener is not None:
                    await self._queued.wait()
                    await self._up.wait()
                    # Servers and networks close connections on which nothing happens.
                    if not connection.is_connected or await connection.can_read():
                        await connection.disconnect(nowait=True)
                        await self._connect(connection)
                    patience.reschedule(clock() + self._ping_interval_s)
                    await self._send_queued(connection)
                    patience.reschedule(None)
        finally:
            await connection.disconnect(nowait=True)

    async def _send_queued(self, connection: AbstractConnection) -> None:
        batch = [self._queue.popleft() for _ in range(min(len(self._queue), _MESSAGES_PER_TURN))]
        now = self._clock()
        timely = [announcement for until, announcement in batch if now <= until]
        self._dropped += len(batch) - len(timely)
        letters = [self._letters.popleft() for _ in range(len(self._letters))]
        try:
            # All that gathered while the last batch was on its way leaves in one round trip.
            messages = encode_messages(timely, self._instance)
            packed = [
                piece
                for workspace, message, _ in messages
                for piece in connection.pack_command("PUBLISH", self._channel(workspace), message)
            ]
            for channel, letter, _ in letters:
                packed += connection.pack_command("PUBLISH", channel, letter)
            await connection.send_packed_command(packed, check_health=False)
            for _ in messages:
                await connection.read_response(timeout=math.inf)
            for _, _, received in letters:
                count = int(await connection.read_response(timeout=math.inf))
                if not received.done():
                    received.set_result(count)
        except BaseException:
            self._letters.extendleft(reversed(letters))
            self._return_letters()
            # Some may have arrived; hearing an event twice does no harm, not hearing it costs a poll.
            self._queue.extendleft(reversed(batch))
            self._trim()
            raise
        self._announced += len(timely)
        if not self._queue:
            self._flushed.set()
            if not self._letters:
                self._queued.clear()

    def _trim(self) -> None:
        while len(self._queue) > self._queue_limit:
            self._queue.popleft()
            self._dropped += 1

    def _return_letters(self) -> None:
        """Tell who waits for them that they did not arrive, as far as anybody knows."""
        while self._letters:
            _, _, received = self._letters.popleft()
            if not received.done():
                received.set_exception(CarrierAway(f"the relay {self._url} is {self._state}"))

    def _channel(self, workspace: str) -> str:
        return f"{self._prefix}:{workspace}"

    def _letter_channel(self, name: str) -> str:
        return f"{self._prefix}/{name}"


async def _send(connection: AbstractConnection, *command: str) -> None:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)


def redact(url: str) -> str:
    """`url` without its passwords, for logs."""
    url = re.sub(r"(://[^:@/]*:).*@", r"\1***@", url)
    return re.sub(r"([?&][^=&]*password=)[^&]*", r"\1***", url)


def _client(url: str, timeout_s: float) -> tuple[Redis, list[Redis]]:
    """The client of a URL, and the clients of the Sentinels that it asks. Nothing connects yet. Raises ValueError."""
    options: dict[str, Any] = {
        # Waiting for answers is this module's, too. redis-py would start a task and a timer for each, with
        # `asyncio.wait_for`, which on Python 3.11 forgets a cancellation that comes together with the result.
        "socket_timeout": None,
        "socket_connect_timeout": timeout_s,
        # Version 3 of the protocol has nothing for pub/sub, and costs a log record per message in this client.
        "protocol": 2,
        # Reconnecting is this module's, which has to tell of it.
        "retry": Retry(NoBackoff(), 0, supported_errors=()),
    }
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SENTINEL_SCHEMES:
            return Redis.from_url(url, **options), []
        hosts = [_host_and_port(text) for text in parts.netloc.rpartition("@")[2].split(",")]
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise ValueError("names no service")
        timeouts = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s, "retry": options["retry"]}
        sentinel = Sentinel(  # type: ignore[no-untyped-call]  # redis-py annotates most, not all
            hosts,
            sentinel_kwargs=timeouts,
            **options,
            db=int(database or 0),
            username=unquote(parts.username) if parts.username else None,
            password=unquote(parts.password) if parts.password else None,
            ssl=parts.scheme.startswith("rediss"),
        )
        return sentinel.master_for(service), sentinel.sentinels
    except ValueError:
        # The error's own text may hold a piece of the password.
        raise ValueError(f"not a Redis URL: {redact(url)}") from None


def _host_and_port(text: str) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or _SENTINEL_PORT


def _is_connection_trouble(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_connection_trouble(inner) for inner in error.exceptions)
    return isinstance(error, RedisError | OSError)


def _summary(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
