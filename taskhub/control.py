"""The line between a server process and its supervisor. Kept free of other imports: it reports what those break."""

import asyncio
import contextlib
import socket
from typing import Literal

StopReason = Literal["signal", "reload"]


class Control:
    """The server's end: it says `ready URL`, `failed REASON` or `broken REASON` once, then hears `reload` or `stop`.

    When the supervisor dies, its end closes, which counts as `stop`: no server outlives the terminal it was started in.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        sock.setblocking(False)

    def ready(self, url: str) -> None:
        """The server accepts connections."""
        self._say(f"ready {url}")

    def failed(self, reason: str) -> None:
        """The server could not start, and no change of the source would help: the settings, the port, the database."""
        self._say(f"failed {' '.join(reason.split())}")

    def broken(self, reason: str) -> None:
        """The server could not start because of a mistake in the source."""
        self._say(f"broken {' '.join(reason.split())}")

    async def wait(self) -> StopReason:
        """What the supervisor wants: `reload` (a successor already accepts connections) or an end."""
        try:
            said = await asyncio.get_running_loop().sock_recv(self._sock, 100)
        except OSError:
            said = b""
        return "reload" if said.startswith(b"reload") else "signal"

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError):  # a supervisor that died is noticed by wait()
            self._sock.send(line.encode()[:4000] + b"\n")  # the first and only line: the buffer has room
