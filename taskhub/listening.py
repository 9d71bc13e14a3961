"""The listening socket: bound once, never probed first, so nobody can take the port in between."""

import contextlib
import errno
import os
import socket
import sys
from pathlib import Path
from typing import Final

BACKLOG: Final = 1024
PORTS_TO_TRY: Final = 100


class AddressUnavailable(Exception):
    """The address cannot be bound; the message says why, and who holds the port where that can be known."""


def listen(host: str, port: int, *, move_on: bool) -> socket.socket:
    """A listening socket on `host` and `port`; with `move_on`, on the next free port when that one is busy.

    Raises AddressUnavailable.
    """
    family, address = _resolve(host)
    last = min(port + PORTS_TO_TRY, 65535) if move_on and port else port
    for candidate in range(port, last + 1):
        try:
            return _bind(family, address, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise AddressUnavailable(f"cannot listen on {host} port {candidate}: {error.strerror}") from None
    tried = f"port {port} is" if last == port else f"ports {port} to {last} are"
    holder = holder_of(port)
    raise AddressUnavailable(f"cannot listen on {host}: {tried} in use{f' by {holder}' if holder else ''}")


def share(sock: socket.socket, count: int) -> list[socket.socket]:
    """`sock` and so many more on its address that they are `count`: the kernel spreads connections evenly over them.

    Raises AddressUnavailable. Where the system does not spread them (it is not Linux), all are the same socket.
    """
    if sys.platform != "linux":
        return [sock] * count
    # Only now: it was bound without this option, so it is the only one on its address but for those made here.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    host, port = sock.getsockname()[:2]
    more: list[socket.socket] = []
    try:
        more.extend(_bind(sock.family, host, port, reuse_port=True) for _ in range(count - 1))
    except OSError as error:
        for each in more:
            each.close()
        raise AddressUnavailable(f"cannot listen on {host} port {port}: {error.strerror}") from None
    return [sock, *more]


def url_of(sock: socket.socket) -> str:
    """The address to type into a client on this machine; a wildcard address is shown as loopback."""
    host, port = sock.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104  # compared with, not bound to
        host = "127.0.0.1" if host == "0.0.0.0" else "::1"  # noqa: S104  # as above
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def holder_of(port: int) -> str | None:
    """Who listens on a TCP port of this machine, such as `process 4711 (python -m http.server)`; None where the system
    does not say (no /proc, or another user's process)."""
    inodes = _listening_inodes(port)
    if not inodes:
        return None
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in inodes:
                        command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                        return f"process {process.name} ({command.strip()[:120]})"
    return None


def _resolve(host: str) -> tuple[socket.AddressFamily, str]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise AddressUnavailable(f"cannot listen on {host}: {error.strerror}") from None
    return found[0][0], str(found[0][4][0])


def _bind(family: int, address: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            # Without it, a restart has to wait for connections of the previous server in TIME_WAIT.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, port))
        # Two sockets may be bound with SO_REUSEADDR, but only one can listen: only now the port is ours.
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def _listening_inodes(port: int) -> set[str]:
    found: set[str] = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{columns[9]}]")
    return found
