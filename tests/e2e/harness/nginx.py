"""nginx in front of instances, with the configuration that operators copy."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tests.e2e.harness.process import ROOT
from tests.e2e.harness.tools import nginx
from tests.e2e.harness.waiting import DEADLINE_S, until
from tests.servers import free_port

SHIPPED: Final = ROOT / "config/nginx/taskhub.conf"
LISTEN: Final = "    listen 80;\n"
ACCESS_LOG: Final = "/var/log/nginx/taskhub.log"
SERVERS: Final = (
    "    server 127.0.0.1:8000 max_fails=1 fail_timeout=2s;\n    server 127.0.0.1:8001 max_fails=1 fail_timeout=2s;\n"
)

# What nginx.conf says on every machine; a conf.d of it is what is tested.
MAIN: Final = """
{user}
daemon off;
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/taskhub.conf;
}}
"""


class Nginx:
    """nginx on a free loopback port, before instances on these ports. You must `stop` it."""

    def __init__(self, directory: Path, ports: Sequence[int]) -> None:
        directory.mkdir()
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        # Nothing but the places that are marked as the operator's.
        shipped = SHIPPED.read_text()
        (before, after), (head, tail) = shipped.split(SERVERS), shipped.split(LISTEN)
        assert before in head
        assert tail in after
        servers = "".join(f"    server 127.0.0.1:{port} max_fails=1 fail_timeout=2s;\n" for port in ports)
        rendered = shipped.replace(SERVERS, servers).replace(LISTEN, f"    listen 127.0.0.1:{self.port};\n")
        assert ACCESS_LOG in rendered
        rendered = rendered.replace(ACCESS_LOG, f"{directory}/access.log")
        (directory / "taskhub.conf").write_text(rendered)
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(MAIN.format(user=user, directory=directory))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self._directory / "error.log").read_text()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """What it has logged of each request that is over."""
        return [json.loads(line) for line in (self._directory / "access.log").read_text().splitlines()]

    async def start(self) -> "Nginx":
        """Return when it accepts connections."""
        self._launch()
        await until(self._accepts, "an nginx that accepts connections", explain=lambda: self.log)
        return self

    def _launch(self) -> None:
        command = [str(nginx()), "-p", str(self._directory), "-c", str(self._directory / "nginx.conf")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    async def reload(self) -> None:
        """Have it read its configuration again; return when new processes serve."""
        assert self._process is not None
        reconfigured = self.log.count("start worker process ")
        self._process.send_signal(signal.SIGHUP)
        await until(lambda: self.log.count("start worker process ") > reconfigured, "reload", explain=lambda: self.log)

    def stop(self) -> None:
        """End it, and the streams through it."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(DEADLINE_S)

    def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log
        with socket.socket() as connection:
            return connection.connect_ex(("127.0.0.1", self.port)) == 0
