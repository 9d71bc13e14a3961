"""One caller that asks far too much: streams beyond its share, and changes beyond its rate.

    python -m tests.benchmarks.flood PORT KEY ATTEMPTS ATTEMPTS_PER_S WRITES_PER_S MOST_S

It opens streams until ATTEMPTS were made or MOST_S seconds have passed, keeps those that it gets, changes something all
the while, and prints what became of both as JSON. It does not wait as long as it is told to.
"""

import asyncio
import contextlib
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

WORKERS: Final = 32
WRITERS: Final = 8
BODY: Final = b'{"type": "flood.write", "data": {}}'


async def main(
    port: int, key: str, attempts: int, attempts_per_s: float, writes_per_s: float, most_s: float
) -> dict[str, object]:
    """What became of each attempt and of each change, by the first word of the answer or by its status."""
    streams, writes = Counter[str](), Counter[str]()
    kept: list[asyncio.StreamWriter] = []
    began = time.monotonic()
    paced = pace(attempts_per_s, attempts, most_s)
    writing = [asyncio.create_task(write(port, key, pace(writes_per_s / WRITERS), writes)) for _ in range(WRITERS)]
    await asyncio.gather(*(attempt(port, key, paced, streams, kept) for _ in range(WORKERS)))
    for task in writing:
        task.cancel()
    await asyncio.gather(*writing, return_exceptions=True)
    for each in kept:
        each.close()
    return {"seconds": time.monotonic() - began, "streams": streams, "writes": writes}


def pace(per_s: float, count: int = sys.maxsize, most_s: float = math.inf) -> Iterator[float]:
    """The moments at which something is due. Who is late does not catch up."""
    due = time.monotonic()
    end = due + most_s
    for _ in range(count):
        if due > end:
            return
        due = max(due + 1 / per_s, time.monotonic() - 0.1)
        yield due


async def attempt(
    port: int, key: str, paced: Iterator[float], outcomes: Counter[str], kept: list[asyncio.StreamWriter]
) -> None:
    request = f"GET /events/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\n\r\n".encode()
    for due in paced:
        await asyncio.sleep(due - time.monotonic())
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            outcomes["no connection"] += 1
            continue
        outcome = "broken"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            writer.write(request)
            await reader.readuntil(b"event: ")
            outcome = (await reader.readline()).decode().strip()
        outcomes[outcome] += 1
        if outcome == "hello":
            kept.append(writer)
        else:
            writer.close()


async def write(port: int, key: str, paced: Iterator[float], outcomes: Counter[str]) -> None:
    head = f"POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for due in paced:
            await asyncio.sleep(due - time.monotonic())
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            outcomes[answer.split(b" ", 2)[1].decode()] += 1
            lines = answer.lower().split(b"\r\n")
            length = next(int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length"))
            await reader.readexactly(length)
    finally:
        writer.close()


if __name__ == "__main__":
    given = sys.argv[1:]
    done = asyncio.run(main(int(given[0]), given[1], int(given[2]), *map(float, given[3:])))
    print(json.dumps(done))  # noqa: T201 - what it is for
