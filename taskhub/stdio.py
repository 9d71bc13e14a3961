"""`taskhub stdio`: the same tools for one client, over this process's standard input and output."""

import asyncio
import io
import os
import secrets
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final, Self, cast

import anyio
import structlog
from mcp.server.stdio import stdio_server

from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.auth.providers import DEFAULT_WORKSPACE, actor_of
from taskhub.mcp.context import CURRENT, CallContext
from taskhub.mcp.resources import Resources
from taskhub.mcp.server import build_server
from taskhub.mcp.streams import CallsInFlight, CountedReader, CountedWriter
from taskhub.mcp.subscriptions import Subscriptions
from taskhub.mcp.tools import tool_registry
from taskhub.mcp.wakeups import Watch
from taskhub.tickets.api import Tickets

log = structlog.get_logger(__name__)

MAX_LINE_BYTES: Final = 4 * 1024 * 1024
MAX_LINES_AHEAD: Final = 64
LINGER_S: Final = 10.0
_CHUNK_BYTES: Final = 65_536


async def run_stdio(
    tickets: Tickets,
    *,
    version: str,
    actor: str | None = None,
    read_only: bool = False,
    toolsets: frozenset[str] | None = None,
    watch: Watch | None = None,
) -> None:
    """Serve until the client closes standard input, or SIGTERM or SIGINT; answer the calls in flight before returning.

    `actor` names the caller; without it the client's own name does. `read_only` and `toolsets` narrow the tools as the
    headers do over HTTP. `watch` tells of changes. While it runs, descriptor 1 leads to standard error, so that nothing
    but the protocol reaches the client.
    """
    named = actor_of(actor or "")
    principal = Principal(named or "user:local", DEFAULT_WORKSPACE, ALL_SCOPES, authenticated=False)
    caller = Caller(principal, "mcp_tool")
    CURRENT.set(CallContext(caller, unnamed=named is None, read_only=read_only, toolsets=toolsets))
    subscriptions = None if watch is None else Subscriptions(watch, Resources(tickets))
    # Of this process alone, like its one connection: nobody goes on with a call of it elsewhere.
    secret = secrets.token_bytes(32)
    server = build_server(tickets, tool_registry(tickets), version=version, secret=secret, subscriptions=subscriptions)
    calls = CallsInFlight()
    with ExitStack() as stack:
        source, sink = stack.enter_context(_descriptors())
        lines = _Lines(source, asyncio.get_running_loop())
        stack.enter_context(_ending_on_signals(lines))
        writer = anyio.wrap_file(io.TextIOWrapper(os.fdopen(sink, "wb", closefd=False), encoding="utf-8", newline="\n"))
        log.info("serving on standard input and output", actor=named)
        async with stdio_server(cast(Any, lines), writer) as (reading, writing):
            options = server.create_initialization_options()
            await server.run(CountedReader(reading, calls, linger_s=LINGER_S), CountedWriter(writing, calls), options)
    log.info("standard input ended")


class _Lines:
    """The lines of a descriptor, read by a thread of its own; async iteration ends with the input, or after `end()`.

    The thread is a daemon that reads the bare descriptor: neither a read that never returns nor a lock of `sys.stdin`
    can keep the process from ending, which a thread of the event loop's pool would.
    """

    def __init__(self, descriptor: int, loop: asyncio.AbstractEventLoop) -> None:
        self._descriptor = descriptor
        self._loop = loop
        self._lines: deque[str] = deque()
        self._changed = asyncio.Event()
        self._ended = False
        self._room = threading.Semaphore(MAX_LINES_AHEAD)
        self._thread: threading.Thread | None = None

    def end(self) -> None:
        self._ended = True
        self._changed.set()

    def __aiter__(self) -> Self:
        if self._thread is None:
            self._thread = threading.Thread(target=self._read, name="stdin", daemon=True)
            self._thread.start()
        return self

    async def __anext__(self) -> str:
        while not self._lines and not self._ended:
            self._changed.clear()
            await self._changed.wait()
        if not self._lines:
            raise StopAsyncIteration
        self._room.release()
        return self._lines.popleft()

    def _read(self) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody is left to tell
            for line in _lines_of(self._descriptor):
                self._room.acquire()
                self._loop.call_soon_threadsafe(self._add, line.decode("utf-8", "replace"))
            self._loop.call_soon_threadsafe(self.end)

    def _add(self, line: str) -> None:
        self._lines.append(line)
        self._changed.set()


def _lines_of(descriptor: int) -> Iterator[bytes]:
    """Lines without their ends, empty ones left out. One that is over the limit is dropped, and the log says so."""
    held = bytearray()
    skipping = False
    while True:
        try:
            chunk = os.read(descriptor, _CHUNK_BYTES)
        except OSError:
            chunk = b""
        if not chunk:
            break
        first, *others = chunk.split(b"\n")
        if not skipping:
            held += first
        for part in others:
            if held.strip():
                yield bytes(held)
            held = bytearray(part)
            skipping = False
        if len(held) > MAX_LINE_BYTES:
            log.warning("a message is longer than allowed and was dropped", limit=MAX_LINE_BYTES)
            held.clear()
            skipping = True
    if held.strip():
        yield bytes(held)


@contextmanager
def _descriptors() -> Iterator[tuple[int, int]]:
    """Private copies of descriptors 0 and 1. Meanwhile 0 is at its end, and 1 is standard error: a stray `print` is not
    a message to the client."""
    source, sink = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    sys.stdout.flush()
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    os.close(nothing)
    try:
        yield source, sink
    finally:
        sys.stdout.flush()
        os.dup2(source, 0)
        os.dup2(sink, 1)
        # `source` stays open: the thread may still read it, and the number must not come to mean another file.
        os.close(sink)


@contextmanager
def _ending_on_signals(lines: _Lines) -> Iterator[None]:
    """SIGTERM and SIGINT end the input, and so the service, in good order; a second one has its usual effect."""
    loop = asyncio.get_running_loop()
    handled: list[signal.Signals] = []

    def release() -> None:
        while handled:
            loop.remove_signal_handler(handled.pop())

    def end() -> None:
        lines.end()
        release()

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):  # Windows
            loop.add_signal_handler(number, end)
            handled.append(number)
    try:
        yield
    finally:
        release()
