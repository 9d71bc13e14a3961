"""Progress of calls that take long, for clients that sent a progress token, in both eras of the protocol.

Beside being of interest to whoever waits, it keeps alive what lies between: clients start their timeouts anew with each
notification.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

from mcp.server.context import ServerRequestContext

INTERVAL_S: Final = 5.0
"""Between two reports of a call that waits."""

Report = Callable[[float, float | None, str | None], Awaitable[None]]
"""(progress, total, message); each progress is greater than the one before."""


@dataclass(frozen=True, slots=True)
class Extent:
    """How much a call has before it: so many tickets that are changed in one step, or so many seconds to wait."""

    total: float
    unit: Literal["tickets", "seconds"]


def report_of(context: ServerRequestContext[Any, Any]) -> Report | None:
    """How the request's progress is told; None where nobody wants to know."""
    if context.meta is None or context.meta.get("progress_token") is None:
        return None
    return context.session.report_progress


@asynccontextmanager
async def reported(report: Report, extent: Extent) -> AsyncIterator[None]:
    """Tell of the progress of what is done inside: that it began, how long it has waited, that all is done."""
    await report(0, extent.total, f"0 of {extent.total:g} {extent.unit}")
    if extent.unit == "tickets":
        yield
        await report(extent.total, extent.total, f"{extent.total:g} of {extent.total:g} {extent.unit}")
        return
    waiting = asyncio.create_task(_tell_time(report, extent), name="mcp progress")
    try:
        yield
    finally:
        waiting.cancel()
        # Whoever listens to reports no more has no less of a right to the call's own end, whatever that is.
        await asyncio.gather(waiting, return_exceptions=True)


async def _tell_time(report: Report, extent: Extent) -> None:
    loop = asyncio.get_running_loop()
    begin = loop.time()
    while True:
        await asyncio.sleep(INTERVAL_S)
        waited = min(loop.time() - begin, extent.total)
        await report(waited, extent.total, f"waited {waited:.0f} of {extent.total:g} seconds")
        if waited == extent.total:
            return
