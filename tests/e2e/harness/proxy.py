"""A TCP proxy between a server under test and a service it needs: the network between them, made to fail on purpose."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Proxy:
    """Passes bytes between whoever connects to `port` and a port of this machine. You must `close` it.

    It runs on a thread of its own, so it goes on while a test blocks its event loop. Every method returns when it has
    had its effect. What is blackholed or delayed is not lost: like TCP over a network that comes back, it arrives then.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._delay_s = 0.0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._wait(self._listen())

    def through(self, url: str) -> str:
        """The address of a service at the target port, by way of this proxy."""
        return url.replace(f":{self._target_port}", f":{self.port}")

    def lead_to(self, port: int) -> None:
        """Pass connections on to another port from now on; those there are stay where they are."""
        self._target_port = port

    def cut(self) -> None:
        """Reset every connection there is. New ones are passed on."""
        self._wait(self._cut())

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, until `heal`."""
        self._wait(self._refuse())

    def blackhole(self) -> None:
        """Accept connections and pass nothing on in either direction, until `heal`."""
        self._wait(self._block())

    def delay(self, seconds: float) -> None:
        """Hold everything back for so long, in each direction, until `heal`."""
        self._delay_s = seconds

    def heal(self) -> None:
        """Pass everything on again, at once."""
        self._delay_s = 0.0
        self._wait(self._heal())

    def close(self) -> None:
        if self._loop.is_closed():
            return
        self._wait(self._refuse())
        self._wait(self._ended())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._cut()

    async def _block(self) -> None:
        self._flowing.clear()

    async def _heal(self) -> None:
        self._flowing.set()
        await self._listen()

    async def _ended(self) -> None:
        self._flowing.set()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        task = self._loop.create_task(self._connect(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward: asyncio.StreamWriter | None = None
        try:
            await self._flowing.wait()
            back, onward = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(onward)
            # A connection that ends on one side ends on the other.
            pumps = [asyncio.ensure_future(self._pump(reader, onward)), asyncio.ensure_future(self._pump(back, writer))]
            try:
                await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        except OSError:
            pass  # the service refuses: so does the proxy
        finally:
            for one in (writer, onward):
                if one is not None:
                    self._writers.discard(one)
                    one.transport.abort()
                    with contextlib.suppress(OSError):
                        await one.wait_closed()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            if self._delay_s:
                await asyncio.sleep(self._delay_s)
            await self._flowing.wait()
            writer.write(data)
            await writer.drain()
        # What was written last must leave before the connection is ended.
        await self._flowing.wait()
        writer.close()
        await writer.wait_closed()
