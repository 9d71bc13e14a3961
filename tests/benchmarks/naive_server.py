"""What tutorials do: aiohttp and aiohttp-sse, an unbounded queue for each client. A peer to compare with, no model.

python naive_server.py PORT
"""

import asyncio
import json
import sys
from typing import Any

from aiohttp import web
from aiohttp_sse import sse_response

clients: set[asyncio.Queue[Any]] = set()


async def stream(request: web.Request) -> web.StreamResponse:
    queue: asyncio.Queue[Any] = asyncio.Queue()
    async with sse_response(request) as response:
        clients.add(queue)
        try:
            while response.is_connected():
                await response.send(json.dumps(await queue.get()))
        finally:
            clients.discard(queue)
    return response


async def publish(request: web.Request) -> web.Response:
    event = await request.json()
    for queue in clients:
        queue.put_nowait(event)
    return web.Response(status=202)


def main() -> None:
    app = web.Application()
    app.router.add_get("/events/stream", stream)
    app.router.add_post("/events", publish)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None, backlog=4096)


if __name__ == "__main__":
    main()
