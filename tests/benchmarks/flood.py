"""One caller that asks far too much: streams beyond its share, and changes beyond its rate.

    python -m tests.benchmarks.flood PORT KEY ATTEMPTS ATTEMPTS_PER_S WRITES_PER_S

It opens streams until ATTEMPTS were made, keeps those that it gets, changes something all the while, and prints what
became of both as JSON. It heeds nothing that it is told, and nothing slows it down: what is due is sent when it is due,
whether what was sent before is answered or not (an open loop), on a connection that is idle or on a new one.
"""

import asyncio
import contextlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, Final

import uvloop

IN_FLIGHT: Final = 4000
"""Of either kind. Beyond that it is the server's fault that less is sent."""
ANSWER_S: Final = 30.0
BODY: Final = b'{"type": "flood.write", "data": {}}'

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Flood:
    """`streams` and `writes`: what became of each, by the first word of the answer or by its status."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        head = f"Host: 127.0.0.1\r\nX-API-Key: {key}\r\n"
        self._open = f"GET /events/stream HTTP/1.1\r\n{head}\r\n".encode()
        typed = f"{head}Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n"
        self._write = f"POST /events HTTP/1.1\r\n{typed}\r\n".encode() + BODY
        self._kept: list[asyncio.StreamWriter] = []
        self._idle: list[Connection] = []
        self.streams = Counter[str]()
        self.writes = Counter[str]()

    async def run(self, attempts: int, attempts_per_s: float, writes_per_s: float) -> dict[str, object]:
        began = time.monotonic()
        writing = asyncio.create_task(self._send(self.write, math.inf, writes_per_s, self.writes))
        await self._send(self.attempt, attempts, attempts_per_s, self.streams)
        seconds = time.monotonic() - began
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        for each in (*self._kept, *(writer for _, writer in self._idle)):
            each.close()
        return {"seconds": seconds, "streams": self.streams, "writes": self.writes}

    async def _send(self, one: Any, count: float, per_s: float, outcomes: Counter[str]) -> None:
        """So many at this rate, and wait for them."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            for due in pace(per_s, count):
                await asyncio.sleep(due - time.monotonic())
                if len(under_way) < IN_FLIGHT:
                    task = asyncio.create_task(self._sent(one(), outcomes))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                else:
                    outcomes["not sent"] += 1
        finally:
            await asyncio.gather(*under_way)

    async def _sent(self, one: Coroutine[Any, Any, str], outcomes: Counter[str]) -> None:
        outcome = "broken"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, TimeoutError):
            async with asyncio.timeout(ANSWER_S):
                outcome = await one
        outcomes[outcome] += 1

    async def attempt(self) -> str:
        """Ask for a stream."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        outcome = ""
        try:
            writer.write(self._open)
            await reader.readuntil(b"event: ")
            outcome = (await reader.readline()).decode().strip()
        finally:
            if outcome == "hello":
                self._kept.append(writer)
            else:
                writer.close()
        return outcome

    async def write(self) -> str:
        """Change something."""
        reader, writer = await self._connection()
        again = False
        try:
            writer.write(self._write)
            answer = await reader.readuntil(b"\r\n\r\n")
            lines = answer.lower().split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            await reader.readexactly(length)
            again = b"connection: close" not in lines
        finally:
            if again:
                self._idle.append((reader, writer))
            else:
                writer.close()
        return answer.split(b" ", 2)[1].decode()

    async def _connection(self) -> Connection:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)


def pace(per_s: float, count: float) -> Iterator[float]:
    """The moments at which something is due. Who is late catches up on a fiftieth of a second, and not on more: else a
    client that had to wait for its core would send what nobody asked it for."""
    due = time.monotonic()
    number = 0
    while number < count:
        due = max(due + 1 / per_s, time.monotonic() - 0.02)
        yield due
        number += 1


if __name__ == "__main__":
    port, key, attempts, *rates = sys.argv[1:]
    done = uvloop.run(Flood(int(port), key).run(int(attempts), *map(float, rates)))
    print(json.dumps(done))  # noqa: T201 - what it is for
