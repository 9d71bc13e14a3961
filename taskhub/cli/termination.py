"""Commands that clean up after themselves when they are told to end."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Coroutine, Iterator
from typing import Any, Final

EXIT_TERMINATED: Final = 128 + signal.SIGTERM
"""What a shell says of a program that SIGTERM has ended."""


def run_to_the_end(command: Coroutine[Any, Any, int]) -> int:
    """Run a command and answer its exit status. SIGTERM cancels it; a second one has its usual effect."""
    return asyncio.run(_run(command))


@contextlib.contextmanager
def exiting_when_terminated() -> Iterator[None]:
    """As `run_to_the_end`, for what runs on no event loop."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


async def _run(command: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    running = asyncio.ensure_future(command)
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        loop.remove_signal_handler(signal.SIGTERM)
        running.cancel()

    with contextlib.suppress(NotImplementedError, RuntimeError):  # Windows; not the main thread, which alone hears it
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await running
    except asyncio.CancelledError:
        if terminated:
            return EXIT_TERMINATED
        raise
