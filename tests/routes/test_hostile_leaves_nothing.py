"""What attacks leave behind in a server: no task, no descriptor and no object that was not there before."""

import asyncio
import gc
from collections import Counter
from typing import Final

import psutil
import pytest

from tests.routes.conftest import DEADLINE_S, Hub, Start
from tests.taskhub.world import until

ROOT: Final = "root-of-what-is-left"
OURS: Final = {"aiohttp", "aiohttp_sse", "anyio", "asyncio", "broadcaster", "mcp", "routes", "sse_starlette", "taskhub"}
TIMES: Final = 10
"""Each attack is made so often at once, so that one thing left behind by each is told from caches that fill."""
ROUNDS: Final = 3


def request(line: str, *headers: str, body: str = "", length: int | None = None) -> bytes:
    head = [line, "Host: localhost", f"x-api-key: {ROOT}", *headers]
    head.append(f"Content-Length: {len(body) if length is None else length}")
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode()


JSON: Final = "Content-Type: application/json"
RPC: Final = (JSON, "Accept: application/json, text/event-stream")
WAIT: Final = (
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_events","arguments":{"wait_seconds":50},"_meta":'
    '{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}'
)
MODERN: Final = ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: get_events")
ATTACKS: Final[dict[str, bytes]] = {
    "nothing is said": b"",
    "half a head": b"GET /api/v1/tick",
    "half a body": request("POST /events HTTP/1.1", JSON, body='{"type":', length=500),
    "half a file": request(
        "POST /api/v1/import HTTP/1.1", "Content-Type: text/csv", body="key,summary\n", length=500_000
    ),
    "half a message": request("POST /mcp HTTP/1.1", *RPC, body='{"jsonrpc":', length=500),
    "a stream": request("GET /events/stream HTTP/1.1"),
    "a stream from the beginning": request("GET /events/stream?since=earliest&snapshot=0 HTTP/1.1"),
    "a stream that is refused": request("GET /events/stream?type=%00 HTTP/1.1"),
    "a long poll": request("GET /api/v1/events?wait=50 HTTP/1.1"),
    "a call that waits": request("POST /mcp HTTP/1.1", *RPC, *MODERN, body=WAIT),
    "a stream of MCP": request("GET /sse HTTP/1.1", "Accept: text/event-stream"),
    "a session of nobody": request("GET /mcp HTTP/1.1", "Accept: text/event-stream", "Mcp-Session-Id: a.b.c"),
    "a wrong key": request("GET /api/v1/me HTTP/1.1", "Authorization: Bearer x").replace(ROOT.encode(), b"y"),
    "what is no HTTP": b"\x16\x03\x01" + b"\0" * 500,
    "an export that is left": request("GET /api/v1/export HTTP/1.1"),
    "a token that never was": request("GET /events/stream?token=tht_aaaaaaaaaaaaaaaaaaaaaaaa HTTP/1.1"),
}


async def attack(port: int, sent: bytes) -> None:
    """Send it, wait for as much as comes at once, and be gone without a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    if b"HTTP/1.1" in sent and b"Content-Length: 500" not in sent and b"wait" not in sent:
        async with asyncio.timeout(DEADLINE_S):
            await reader.read(100)
    writer.transport.abort()


def census() -> Counter[str]:
    gc.collect()
    kinds = Counter(map(type, gc.get_objects()))
    # Of some types of C, __module__ is no text.
    named = {kind: f"{kind.__module__!s}.{kind.__qualname__}" for kind in kinds}
    return Counter({name: kinds[kind] for kind, name in named.items() if name.partition(".")[0] in OURS})


@pytest.fixture
async def locked(start: Start) -> Hub:
    return await start(api_key=ROOT, auth_failures_per_min=0, body_read_s=60, keep_alive_s=60)


async def test_attacks_leave_nothing_behind(locked: Hub) -> None:
    server = locked.runner.server
    assert server is not None
    await locked.request("POST", "/api/v1/tickets", json={"summary": "One"}, headers={"x-api-key": ROOT})

    async def settled() -> bool:
        debug = await locked.get("/events/debug", headers={"x-api-key": ROOT})
        return bool(debug.json["connected_clients"] == 0 and len(server.connections) <= 1)

    async def one_round() -> None:
        for sent in ATTACKS.values():
            await asyncio.gather(*(attack(locked.port, sent) for _ in range(TIMES)))
        await until(settled)

    await one_round()
    tasks, descriptors, before = len(asyncio.all_tasks()), psutil.Process().num_fds(), census()
    for _ in range(ROUNDS):
        await one_round()

    grown = {name: count - before[name] for name, count in census().items() if count - before[name] >= TIMES}
    assert not grown
    assert len(asyncio.all_tasks()) <= tasks + 2
    assert psutil.Process().num_fds() <= descriptors + TIMES
