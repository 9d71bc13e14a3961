"""A process whose event loop stands still: whoever asks whether it lives gets no answer, and it knows afterwards."""

import os
import signal

import aiohttp
import pytest

from tests.e2e.harness.clients import api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import until
from tests.routes.collector import Scraped

PATIENCE_S = 2.0
"""A probe's own; what it waits for does not come."""


async def test_liveness_does_not_answer_while_the_loop_stands_still(hub: TaskHubProcess) -> None:
    probe = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(timeout=probe) as session:
        os.kill(hub.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TimeoutError):
                await session.get(f"{hub.url}/healthz")
        finally:
            os.kill(hub.pid, signal.SIGCONT)

    await until(lambda: hub.status("/healthz") == 200, "a process that lives again")

    async def late() -> bool:
        async with api(hub.url) as client:
            scraped = Scraped.parse((await client.request("GET", "/metrics")).body.decode())
        return scraped("taskhub_loop_lag_seconds_sum") > PATIENCE_S / 2

    await until(late, "a lag of the loop")
