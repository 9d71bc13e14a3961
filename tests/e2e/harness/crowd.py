"""Thousands of streams of one server, held by this process for little: their bytes are kept, and read afterwards."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Mapping
from typing import Final
from urllib.parse import urlsplit

from tests.e2e.harness.frames import ChunkDecoder, Frame, FrameParser
from tests.e2e.harness.waiting import until

AT_ONCE: Final = 100
"""Connections that are being opened: no backlog must overflow."""
SPARE_FILES: Final = 500


class Member(asyncio.Protocol):
    """One stream: its bytes."""

    def __init__(self, crowd: "Crowd", request: bytes) -> None:
        self._crowd = crowd
        self._request = request
        self._received = bytearray()
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"event: ready" in data:
            self._crowd.ready += 1
        if b"event: goodbye" in data:
            self._crowd.left.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.open -= 1

    def read(self) -> tuple[list[Frame], bool]:
        """The frames of the stream, and whether its end was proper. Raises WireViolation."""
        head, _, body = bytes(self._received).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        chunks, parser = ChunkDecoder(), FrameParser()
        for payload in chunks.feed(body):
            parser.feed(payload)
        return parser.frames, chunks.finished


class Crowd:
    """Streams in the order in which they were opened. `left`: those that were said goodbye to, in that order."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self.left: list[Member] = []
        self.open = 0
        self.ready = 0

    async def wait_end(self) -> None:
        """Wait until the server has closed every connection."""
        await until(lambda: not self.open, "end of every stream", explain=lambda: f"{self.open} are open")


@contextlib.asynccontextmanager
async def crowd(base_url: str, count: int, headers: Mapping[str, str]) -> AsyncIterator[Crowd]:
    """Open so many streams and wait until all are live."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, max(count + SPARE_FILES, 1024)), most))
    address = urlsplit(base_url)
    host, port = address.hostname or "", address.port or 80
    lines = ["GET /events/stream HTTP/1.1", f"Host: {address.netloc}", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    people = Crowd()
    places = asyncio.Semaphore(AT_ONCE)
    loop = asyncio.get_running_loop()

    async def open_one() -> None:
        async with places:
            member = Member(people, request)
            await loop.create_connection(lambda: member, host, port)
            people.open += 1
            people.members.append(member)

    try:
        await asyncio.gather(*(open_one() for _ in range(count)))
        await until(lambda: people.ready == count, "live streams", explain=lambda: f"{people.ready} are live")
        yield people
    finally:
        for member in people.members:
            if isinstance(member.transport, asyncio.WriteTransport):
                member.transport.abort()
        await people.wait_end()
