"""Serving an application on a socket until it is told to stop, and stopping within the drain time."""

import asyncio
import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Final

import structlog
from aiohttp import web

from routes.connection import HttpRunner
from routes.keys import BROADCASTER, HELD, LIFECYCLE, MCP
from taskhub import server_file
from taskhub.control import Control, StopReason
from taskhub.listening import BACKLOG, url_of
from taskhub.process_limits import raise_descriptor_limit, settle_collector
from taskhub.settings.model import Settings

logger = structlog.stdlib.get_logger(__name__)

LINGER_S: Final = 2.0
"""For how long what is left of a refused body is read, so that its client sees the answer and no reset connection."""
DEVELOPMENT_DRAIN_S: Final = 1.0
"""Nobody waits eight seconds for Ctrl-C; production keeps streams' reconnections apart instead."""

# What may take so much of the drain time, one after the other; what is left is for the database and the relay. Requests
# that hang count twice: once until they are cancelled, once until they have noticed.
STREAMS_SHARE: Final = 0.5
MCP_SHARE: Final = 0.15
REQUESTS_SHARE: Final = 0.1

RELOAD_LINGER_S: Final = 0.2
"""For requests on connections that were accepted before the successor took over; they get their answers from here."""


async def serve(
    app: web.Application,
    settings: Settings,
    sock: socket.socket,
    *,
    on_ready: Callable[[str], None],
    control: Control | None = None,
    listed: bool = True,
) -> None:
    """Serve until SIGINT, SIGTERM or the supervisor says stop; then drain. `on_ready` is called with the server's URL.

    Unless it is not `listed`, the data directory says meanwhile where it is: for a worker its supervisor says so.
    Exceptions of the application's start come out of here. A second signal ends the process at once, and so does a
    drain that takes longer than DRAIN_S.
    """
    stop = _stop_requests()
    runner = HttpRunner(
        app,
        handler_cancellation=True,
        access_log=None,
        auto_decompress=False,  # who packs a body is refused: nothing of it is worth unpacking
        keepalive_timeout=settings.keep_alive_s,  # of a head that does not come to its end as well
        max_line_size=settings.header_bytes,
        max_field_size=settings.header_bytes,
        lingering_time=LINGER_S,
        shutdown_timeout=settings.drain_s * REQUESTS_SHARE,
    )
    supervision = asyncio.create_task(_follow(control, stop)) if control else None
    url = url_of(sock)
    pid = os.getpid()
    with contextlib.ExitStack() as drain_time:
        try:
            raise_descriptor_limit()
            await runner.setup()
            settle_collector()
            site = web.SockSite(runner, sock, backlog=BACKLOG)
            await site.start()
            if listed:
                server_file.write(settings.data_dir, server_file.RunningServer(pid, url, settings.auth_mode))
            on_ready(url)
            if control is not None:
                control.ready(url)
            reason = await stop
            drain_time.enter_context(_deadline(settings.drain_s))
            if reason == "reload":
                await site.stop()  # the successor has the same socket: from now on it alone accepts
            await _drain(app, settings, reload=reason == "reload")
        finally:
            if listed:
                server_file.remove(settings.data_dir, pid)
            await runner.cleanup()
            if supervision is not None:
                supervision.cancel()
                await asyncio.gather(supervision, return_exceptions=True)


def _stop_requests() -> asyncio.Future[StopReason]:
    """A future that the first SIGINT or SIGTERM resolves. The second one exits."""
    loop = asyncio.get_running_loop()
    stop: asyncio.Future[StopReason] = loop.create_future()

    def requested(number: int) -> None:
        if stop.done():
            os._exit(128 + number)
        logger.info("stopping", signal=signal.Signals(number).name)
        stop.set_result("signal")

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, requested, number)
    return stop


async def _follow(control: Control, stop: asyncio.Future[StopReason]) -> None:
    reason = await control.wait()
    if not stop.done():
        stop.set_result(reason)


async def _drain(app: web.Application, settings: Settings, *, reload: bool) -> None:
    """Refuse what is new, end streams, end MCP streams. Requests that run are awaited by the runner's cleanup."""
    started = asyncio.get_running_loop().time()
    app[LIFECYCLE].draining = True
    app[HELD].release_all()
    drain_s = settings.drain_s if settings.production else min(settings.drain_s, DEVELOPMENT_DRAIN_S)
    if (broadcaster := app.get(BROADCASTER)) is not None:
        await broadcaster.drain(drain_s * STREAMS_SHARE, reload=reload)
    if (mcp := app.get(MCP)) is not None:
        await mcp.stop(drain_s * MCP_SHARE)
    if reload:
        await asyncio.sleep(RELOAD_LINGER_S)
    logger.info("drained", seconds=round(asyncio.get_running_loop().time() - started, 3), reload=reload)


@contextlib.contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """End the process when what is inside takes longer. A thread's timer, because what hangs may hang the loop."""

    def expired() -> None:
        logger.error("the drain took too long; exiting with work unfinished", seconds=seconds)
        os._exit(1)

    timer = threading.Timer(seconds, expired)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
