"""Who is measured: TaskHub, and what it is compared with."""

import contextlib
import getpass
import http.client
import os
import shutil
import socket
import string
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.benchmarks.processes import SERVER_CORE, WANTED_FILES, NotHere, Server, unused_port
from tests.benchmarks.programs import HERE, built

ROOT: Final = HERE.parents[1]
API_KEY: Final = "benchmark"
UNLIMITED: Final = (
    "TASKHUB_SSE_MAX_STREAMS_PER_PRINCIPAL", "TASKHUB_SSE_NEW_STREAMS_PER_S", "TASKHUB_WRITES_PER_S",
)  # fmt: skip
"""TaskHub is measured as it is used: with authorisation."""
READY_DEADLINE_S: Final = 2.0
NCHAN_MODULES: Final = ("/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules")


class Peer(ABC):
    """A kind of server: how to start one, and how to speak to it."""

    name: str
    headers = ""
    """Lines for every request, each ended by CR LF."""
    ready: str | None = None
    """What a stream says when it is live; None: nothing, so the response head has to do."""
    hub = False
    """It takes events as TaskHub does, not bare JSON objects."""
    stored = False
    """Its events are stored before they are sent."""

    def check(self) -> None:
        """Raises NotHere when it cannot be started here."""
        return

    @abstractmethod
    def serve(self) -> contextlib.AbstractContextManager[Server]:
        """A running server of this kind."""


class Limit(Peer):
    """What the kernel allows: the least that a server can do, in C. `mode` as limitserver.c says."""

    def __init__(self, name: str, mode: str) -> None:
        self.name = name
        self._mode = mode

    @contextlib.contextmanager
    def serve(self) -> Iterator[Server]:
        port = unused_port()
        command = [str(built("limitserver")), str(port), self._mode]
        with Server(command, port, environment=os.environ, ready=accepts) as server:
            yield server


class Nchan(Peer):
    """nginx with the pub/sub module nchan, the usual answer in C."""

    name = "nchan"

    def check(self) -> None:
        self._module()

    @contextlib.contextmanager
    def serve(self) -> Iterator[Server]:
        port = unused_port()
        with tempfile.TemporaryDirectory(prefix="taskhub-nchan-") as directory:
            template = string.Template((HERE / "nchan.conf").read_text())
            filled = template.substitute(
                module=self._module(), user=getpass.getuser(), port=port, files=WANTED_FILES
            )  # fmt: skip
            configuration = Path(directory) / "nginx.conf"
            configuration.write_text(filled)
            command = ["nginx", "-p", directory, "-c", str(configuration)]
            with Server(command, port, environment=os.environ, ready=accepts) as server:
                yield server

    def _module(self) -> Path:
        if shutil.which("nginx") is not None:
            for directory in NCHAN_MODULES:
                if (module := Path(directory) / "ngx_nchan_module.so").exists():
                    return module
        raise NotHere("nchan (on Debian and Ubuntu: apt-get install nginx libnginx-mod-nchan)")


class Naive(Peer):
    """What a tutorial builds with the libraries that TaskHub uses."""

    name = "naive"

    @contextlib.contextmanager
    def serve(self) -> Iterator[Server]:
        port = unused_port()
        command = [sys.executable, str(HERE / "naive_server.py"), str(port)]
        with Server(command, port, environment=os.environ, ready=accepts) as server:
            yield server


class TaskHub(Peer):
    """This checkout's TaskHub, publishing transient or stored events.

    Each server has a new data directory, unless `data_dir` names one. `settings` are added to its environment.
    """

    headers = f"X-API-Key: {API_KEY}\r\n"
    ready = "event: ready"
    hub = True

    def __init__(
        self,
        *,
        stored: bool = False,
        settings: dict[str, str] | None = None,
        data_dir: Path | None = None,
        core: int = SERVER_CORE,
    ) -> None:
        self.name = "taskhub stored" if stored else "taskhub"
        self.stored = stored
        self._settings = settings or {}
        self._data_dir = data_dir
        self._core = core

    @contextlib.contextmanager
    def serve(self) -> Iterator[Server]:
        port = unused_port()
        with contextlib.ExitStack() as stack:
            directory = self._data_dir or stack.enter_context(tempfile.TemporaryDirectory(prefix="taskhub-bench-"))
            command = [sys.executable, "-m", "taskhub", "serve", "--no-reload", "--port", str(port)]
            environment = self.environment(Path(directory))
            server = Server(command, port, environment=environment, cwd=ROOT, core=self._core, ready=says_ready)
            yield stack.enter_context(server)

    def environment(self, directory: Path) -> dict[str, str]:
        """What the server, and every other command on its data, is started with."""
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith(("TASKHUB_", "MCP_"))},
            "TASKHUB_DATA_DIR": str(directory),
            "TASKHUB_API_KEY": API_KEY,
            "TASKHUB_LOG_LEVEL": "warning",
            "TASKHUB_SSE_MAX_STREAMS": "0",  # the default would refuse what comes beyond 10 000
            # Nor are the limits of one caller what is measured: all come with one key.
            **dict.fromkeys(UNLIMITED, "0"),
            **self._settings,
        }


def accepts(port: int) -> bool:
    """Somebody listens."""
    with socket.socket() as probe:
        probe.settimeout(READY_DEADLINE_S)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def says_ready(port: int) -> bool:
    """TaskHub's own word for it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=READY_DEADLINE_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


EVERYBODY: Final = (
    Limit("c-one", "each"),
    Limit("c-coalesced", "coalesced"),
    Nchan(),
    Naive(),
    TaskHub(),
    TaskHub(stored=True),
)


def present(peers: tuple[Peer, ...]) -> tuple[list[Peer], list[str]]:
    """Those of the peers that are installed here, and what would have to be installed for the others."""
    found: list[Peer] = []
    missing: list[str] = []
    for peer in peers:
        try:
            peer.check()
        except NotHere as reason:
            missing.append(str(reason))
        else:
            found.append(peer)
    return found, missing
