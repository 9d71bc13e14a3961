"""Waiting for a condition with a deadline, where there is nothing to be woken by."""

import asyncio
from collections.abc import Callable
from inspect import isawaitable
from typing import Any, Final

INTERVAL_S: Final = 0.02
DEADLINE_S: Final = 60.0
"""How long a test waits for something that takes milliseconds on an idle machine, before it fails."""


async def until(
    found: Callable[[], Any],
    what: str,
    deadline_s: float = DEADLINE_S,
    *,
    explain: Callable[[], str] | None = None,
) -> Any:
    """Ask `found` (a function, or a coroutine function) until it answers something true, and return that.

    Raises AssertionError after the deadline.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + deadline_s
    while True:
        answer = found()
        result = await answer if isawaitable(answer) else answer
        if result:
            return result
        if clock() > end:
            raise AssertionError(f"no {what} within {deadline_s} s" + (f"\n{explain()}" if explain else ""))
        await asyncio.sleep(INTERVAL_S)
