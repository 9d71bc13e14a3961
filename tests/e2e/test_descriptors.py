"""A process that may open few files takes no more streams than it can serve, says so, and serves those it has."""

import sys
from contextlib import AsyncExitStack
from typing import Final

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api
from tests.e2e.harness.streams import record

FILES: Final = 160
STREAMS: Final = FILES * 7 // 10 - 64
"""What the server admits (taskhub/process_limits.py)."""


async def test_streams_beyond_the_descriptors_are_refused_in_words_and_the_others_served(make_hub: MakeHub) -> None:
    serve = f"ulimit -n {FILES}; exec {sys.executable} -m taskhub serve --port 0 --no-reload"
    hub = await make_hub(command=["sh", "-c", serve]).start()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(api(hub.url))
        streams = [await stack.enter_async_context(record(hub.url)) for _ in range(STREAMS)]
        for stream in streams:
            await stream.wait_ready()
        refused = await stack.enter_async_context(record(hub.url))
        goodbye = await refused.wait_frame("goodbye")
        wanted = await client.publish({"type": "build.finished", "data": {}})
        for stream in streams:
            await stream.wait_events(1)

    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("limit", True)
    assert all([event["id"] for event in stream.events] == wanted for stream in streams)
    assert "allows fewer streams" in hub.log
    assert "Traceback" not in hub.log
