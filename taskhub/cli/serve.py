"""`taskhub serve`: the server, in development under a supervisor that replaces it when the source changes, and with
several workers under one that keeps them running."""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import taskhub
from taskhub import server_file
from taskhub.cli.mcp_config import http_form
from taskhub.cli.parser import look_at_settings
from taskhub.control import Control
from taskhub.listening import AddressUnavailable, listen, share, url_of
from taskhub.processes import Place, Processes, server_command
from taskhub.settings.addresses import mask_url
from taskhub.settings.loading import Loaded, SettingsError
from taskhub.settings.model import Settings

MISTAKES: Final = (SyntaxError, ImportError, NameError, AttributeError, TypeError, LookupError)
"""What source that is being edited raises, and settings, ports and databases do not."""


def run(parsed: argparse.Namespace) -> int:
    """Serve until stopped. Raises SettingsError when the settings forbid it."""
    if parsed.supervised:
        return _supervised(parsed)
    loaded = _load(parsed)
    settings = loaded.settings
    for unknown in loaded.unknown:
        print(f"warning: {unknown}", file=sys.stderr)
    reload = not settings.production and settings.workers == 1 if parsed.reload is None else parsed.reload
    with contextlib.ExitStack() as stack:
        try:
            sock = stack.enter_context(listen(settings.host, settings.port, move_on=not settings.production))
            sockets = [sock, *map(stack.enter_context, share(sock, settings.workers)[1:])]
        except AddressUnavailable as error:
            print(f"taskhub: {error}", file=sys.stderr)
            return 1
        if settings.port not in (0, sock.getsockname()[1]):
            print(f"port {settings.port} is in use; moving on to {sock.getsockname()[1]}", file=sys.stderr)
        if settings.workers > 1:
            return _serve_from_workers(parsed, settings, sockets)
        return _supervise(parsed, loaded, sock) if reload else _serve(parsed, settings, sock, banner=True)


def _load(parsed: argparse.Namespace) -> Loaded:
    loaded = look_at_settings(parsed, "host", "port", "insecure", "api_base_url", "workers")
    problems = loaded.problems()
    if parsed.demo and loaded.settings.api_base_url:
        problems.append("--demo needs tickets of its own; with API_BASE_URL there are none")
    if parsed.reload and loaded.settings.production:
        problems.append("--reload is for development; ENV is production")
    if loaded.settings.workers > 1:
        if parsed.demo:
            problems.append("--demo is for one server process; leave it out, or WORKERS at 1")
        if parsed.reload:
            problems.append("--reload is for one server process; with WORKERS, SIGHUP replaces all in turn")
    if problems:
        raise SettingsError([*problems, *loaded.unknown])
    return loaded


def _supervise(parsed: argparse.Namespace, loaded: Loaded, sock: socket.socket) -> int:
    from taskhub.reload import Supervisor

    source = Path(taskhub.__file__).resolve().parents[1]
    watched = [source / name for name in ("taskhub", "broadcaster", "routes")]
    if loaded.config_file is not None:
        watched.append(loaded.config_file)
    supervisor = Supervisor(
        _processes(parsed, loaded.settings),
        sock,
        watched,
        say=lambda text: print(f"[reload] {text}", file=sys.stderr, flush=True),
    )
    return asyncio.run(supervisor.run())


def _serve_from_workers(parsed: argparse.Namespace, settings: Settings, sockets: Sequence[socket.socket]) -> int:
    from taskhub import logs
    from taskhub.workers import Workers

    logs.configure(level=settings.log_level, json=settings.json_logs)
    url, pid = url_of(sockets[0]), os.getpid()

    def on_ready() -> None:
        server_file.write(settings.data_dir, server_file.RunningServer(pid, url, settings.auth_mode))
        _announce(settings, url)

    try:
        return asyncio.run(Workers(_processes(parsed, settings), sockets, on_ready=on_ready).run())
    finally:
        server_file.remove(settings.data_dir, pid)


def _processes(parsed: argparse.Namespace, settings: Settings) -> Processes:
    return Processes(server_command(parsed.arguments), stop_timeout_s=settings.drain_s + 2)


def _supervised(parsed: argparse.Namespace) -> int:
    """One server process of a supervisor: the socket and the line to it are inherited."""
    listening, line, turn, *place = parsed.supervised.split(":")
    control = Control(socket.socket(fileno=int(line)))
    try:
        settings = _load(parsed).settings
        sock = socket.socket(fileno=int(listening))
        if worker := turn == "worker":
            signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a terminal sends it to all; the supervisor decides
        among = Place(int(place[0]), settings.workers, place[1]) if place else None
        first = turn == "first"
        return _serve(parsed, settings, sock, banner=first, control=control, listed=not worker, place=among)
    except SettingsError as error:
        control.failed(str(error))
        return 1
    except MISTAKES as error:
        control.broken(_reason(error))
        if not isinstance(error, SyntaxError):  # whose place the reason has
            traceback.print_exc()
        return 1
    except Exception as error:
        control.failed(_reason(error))
        traceback.print_exc()
        return 1


def _serve(
    parsed: argparse.Namespace,
    settings: Settings,
    sock: socket.socket,
    *,
    banner: bool,
    control: Control | None = None,
    listed: bool = True,
    place: Place | None = None,
) -> int:
    from taskhub.process_limits import pause_collector

    pause_collector()
    from taskhub import logs
    from taskhub.app import create_app
    from taskhub.serve import serve
    from taskhub.storage.migrate import NewerSchema
    from taskhub.tickets.errors import StorageBusy

    logs.configure(level=settings.log_level, json=settings.json_logs)

    def on_ready(url: str) -> None:
        if banner:
            _announce(settings, url)

    try:
        app = create_app(settings, demo=parsed.demo, place=place)
        _run(serve(app, settings, sock, on_ready=on_ready, control=control, listed=listed))
    except (NewerSchema, StorageBusy) as error:
        if control is not None:
            control.failed(str(error))
        print(f"taskhub: {mask_url(settings.database_address)}: {error}", file=sys.stderr)
        return 1
    return 0


def _run(work: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(work)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's where it exists."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _announce(settings: Settings, url: str) -> None:
    print(banner_text(settings, url), flush=True)
    for other in server_file.read_all(settings.data_dir):
        if other.pid != os.getpid():
            also = f"another TaskHub (pid {other.pid}, {other.url}) serves this data directory, too"
            print(also, file=sys.stderr, flush=True)


def banner_text(settings: Settings, url: str) -> str:
    """What a person who just started the server wants to paste somewhere."""
    key = ' -H "x-api-key: $TASKHUB_API_KEY"' if settings.auth_mode != "none" else ""
    lines = [f"TaskHub {taskhub.__version__} ({settings.env}) is ready", ""]
    addresses = {"open" if settings.api_base_url else "board": url, "MCP": f"{url}/mcp"}
    if settings.api_base_url:
        addresses["in front of"] = settings.api_base_url
    else:
        addresses = {
            **addresses,
            "tickets": f"{url}/api/v1/tickets",
            "stream": f"{url}/events/stream",
            "data": str(settings.data_dir) if settings.embedded else mask_url(settings.database_address),
        }
    if settings.workers > 1:
        addresses["workers"] = str(settings.workers)
    lines += [f"  {name:<12} {address}" for name, address in addresses.items()]
    if not settings.api_base_url:
        lines += ["", "Watch every change:", "", f'  curl -N{key} "{url}/events/stream"']
    snippet = json.dumps(http_form(url, keyed=settings.auth_mode == "api_key"), indent=2)
    lines += ["", f".mcp.json for an MCP client (other forms: {_program()} mcp-config):", "", *_indented(snippet), ""]
    return "\n".join(lines)


def _program() -> str:
    """What to type for `taskhub`: its path, such as `.venv/bin/taskhub`, where the shell does not find it by name."""
    script = Path(sys.executable).absolute().with_name("taskhub")
    found = shutil.which("taskhub")
    if found is not None and Path(found).absolute() == script:
        return "taskhub"
    if not script.is_file():
        return f"{sys.executable} -m taskhub"
    here = Path.cwd()
    return str(script.relative_to(here) if script.is_relative_to(here) and here.parent != here else script)


def _indented(text: str) -> list[str]:
    return [f"  {line}" for line in text.splitlines()]


def _reason(error: BaseException) -> str:
    """One line; for a syntax error its place, which need not be in the file that was saved last."""
    if isinstance(error, SyntaxError):
        return f"{error.filename} line {error.lineno}: {error.msg}"
    return f"{type(error).__name__}: {error}"
