"""Recorders of a stream: one over a raw socket, one over curl. Both read with the strict parser."""

import asyncio
import contextlib
import json
import socket
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import urlencode, urlsplit

from tests.e2e.harness.frames import ChunkDecoder, Frame, FrameParser, WireViolation
from tests.e2e.harness.waiting import DEADLINE_S

T = TypeVar("T")

Query = Mapping[str, str | int] | Sequence[tuple[str, str | int]]


class StreamEnded(AssertionError):
    """The stream ended before what the test waited for arrived."""


class Recorder:
    """What a stream has sent so far, and waiting for more."""

    def __init__(self, label: str) -> None:
        self.label = label
        self.parser = FrameParser()
        self.ended = False
        self.violation: BaseException | None = None
        self._changed = asyncio.Condition()

    @property
    def frames(self) -> list[Frame]:
        return self.parser.frames

    @property
    def events(self) -> list[dict[str, Any]]:
        """Every CloudEvent received, in order."""
        return [event for frame in self.frames for event in frame.events]

    @property
    def ids(self) -> list[str]:
        return [event["id"] for event in self.events]

    @property
    def last_event_id(self) -> str | None:
        return self.parser.last_event_id

    def named(self, event: str) -> list[Frame]:
        """The frames of this name."""
        return [frame for frame in self.frames if frame.event == event]

    async def wait_for(self, found: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
        """Wait until `found()` is true and return it. Raises StreamEnded, WireViolation, or AssertionError in time."""
        try:
            async with asyncio.timeout(deadline_s), self._changed:
                while True:
                    if self.violation is not None:
                        raise self.violation
                    if result := found():
                        return result
                    if self.ended:
                        raise StreamEnded(f"{self.label} ended before {what}\n{self.transcript()}")
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{self.label}: no {what} within {deadline_s} s\n{self.transcript()}") from None

    async def wait_frame(self, event: str, deadline_s: float = DEADLINE_S) -> Frame:
        """The first frame of this name, once it is there."""
        frames = await self.wait_for(lambda: self.named(event), f"frame {event!r}", deadline_s)
        return frames[0]

    async def wait_ready(self, deadline_s: float = DEADLINE_S) -> Frame:
        """Wait for the border between replay and live."""
        return await self.wait_frame("ready", deadline_s)

    async def wait_events(self, count: int, deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
        """Wait until at least `count` events arrived; return all."""
        return await self.wait_for(lambda: self.events if len(self.ids) >= count else [], f"{count} events", deadline_s)

    async def wait_id(self, event_id: str, deadline_s: float = DEADLINE_S) -> list[dict[str, Any]]:
        """Wait until the event of this id arrived; return all events so far."""
        return await self.wait_for(
            lambda: self.events if event_id in self.ids else [],
            f"event {event_id}",
            deadline_s,
        )

    async def wait_end(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until the server has closed the stream."""
        await self.wait_for(lambda: self.ended, "end of the stream", deadline_s)

    def transcript(self, last: int = 12) -> str:
        """The newest frames, for the message of a failed assertion."""
        lines = [f"  … {len(self.frames)} frames, {self.parser.heartbeats} heartbeats, ended={self.ended}"]
        lines += [f"  {f.id} {f.event} {json.dumps(f.data, ensure_ascii=False)[:300]}" for f in self.frames[-last:]]
        return "\n".join(lines)

    async def _take(self, payload: bytes) -> None:
        async with self._changed:
            try:
                self.parser.feed(payload)
            except WireViolation as violation:
                self.violation = violation
                raise
            finally:
                self._changed.notify_all()

    async def _finish(self, violation: BaseException | None = None) -> None:
        async with self._changed:
            self.ended = True
            self.violation = self.violation or violation
            self._changed.notify_all()


class SocketRecorder(Recorder):
    """A stream read over a raw socket. Use `record`."""

    def __init__(self, label: str) -> None:
        super().__init__(label)
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        """The body of an answer that is not a stream."""
        self.clean_end = False
        """Whether the server ended the body properly before it closed."""
        self._reading = asyncio.Event()
        self._reading.set()
        self._chunks = ChunkDecoder()
        self._writer: asyncio.StreamWriter | None = None

    @property
    def local_port(self) -> int:
        assert self._writer is not None
        return int(self._writer.get_extra_info("sockname")[1])

    def pause(self) -> None:
        """Stop reading: the kernel's buffers fill up, then the server's."""
        self._reading.clear()

    def resume(self) -> None:
        self._reading.set()

    def cut(self) -> None:
        """Drop the connection without a word, as a lost network does."""
        assert self._writer is not None
        self._writer.transport.abort()

    async def _run(self, reader: asyncio.StreamReader) -> None:
        violation: BaseException | None = None
        try:
            streaming = self.status == 200 and self.headers.get("content-type", "").startswith("text/event-stream")
            while True:
                await self._reading.wait()
                data = await reader.read(65536)
                if not data:
                    break
                if "chunked" not in self.headers.get("transfer-encoding", ""):
                    payloads = [data]
                else:
                    payloads = self._chunks.feed(data)
                for payload in payloads:
                    if not streaming:
                        self.body += payload
                        continue
                    await self._take(payload)
                    if "chunked" in self.headers.get("transfer-encoding", "") and not self.parser.at_boundary:
                        raise WireViolation(f"a write that does not end with a whole frame: …{payload[-120:]!r}")
                if self._chunks.finished:
                    self.clean_end = True
                    break
                if (length := self.headers.get("content-length")) is not None and len(self.body) >= int(length):
                    break
        except ConnectionError:
            pass
        except WireViolation as error:
            violation = error
        finally:
            await self._finish(violation)


@contextlib.asynccontextmanager
async def record(
    base_url: str,
    query: Query = (),
    *,
    headers: Mapping[str, str] | None = None,
    path: str = "/events/stream",
    http: str = "1.1",
    receive_buffer: int | None = None,
    expect: int = 200,
) -> AsyncIterator[SocketRecorder]:
    """Open a stream over a raw socket and record it until the block is left.

    `receive_buffer` limits the client's kernel and program buffers to about so many bytes, for a client that stalls.
    Leaving the block fails when the stream broke the wire format at any time.
    """
    address = urlsplit(base_url)
    target = path + (f"?{urlencode(query)}" if query else "")
    recorder = SocketRecorder(f"GET {target}")
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receive_buffer or 2**20)
    recorder._writer = writer
    lines = [f"GET {target} HTTP/{http}", f"Host: {address.netloc}", "Accept: text/event-stream"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    task: asyncio.Task[None] | None = None
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        async with asyncio.timeout(DEADLINE_S):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *rest = head.rstrip("\r\n").split("\r\n")
        recorder.status = int(first.split(" ")[1])
        recorder.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in rest)}
        task = asyncio.create_task(recorder._run(reader))
        if recorder.status != expect:
            await recorder.wait_end()
            raise AssertionError(f"{recorder.label}: {recorder.status}, not {expect}: {recorder.body.decode()}")
        yield recorder
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    if recorder.violation is not None:
        raise recorder.violation


@contextlib.asynccontextmanager
async def record_with_curl(url: str, *arguments: str) -> AsyncIterator[Recorder]:
    """Record a stream as `curl -sN URL` prints it, until the block is left."""
    recorder = Recorder(f"curl {url}")
    process = await asyncio.create_subprocess_exec("curl", "-sSN", *arguments, url, stdout=PIPE)

    async def read() -> None:
        violation: BaseException | None = None
        try:
            assert process.stdout is not None
            while data := await process.stdout.read(65536):
                await recorder._take(data)
        except WireViolation as error:
            violation = error
        finally:
            await recorder._finish(violation)

    task = asyncio.create_task(read())
    try:
        yield recorder
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        await asyncio.gather(task, return_exceptions=True)
        await process.wait()
    if recorder.violation is not None:
        raise recorder.violation
