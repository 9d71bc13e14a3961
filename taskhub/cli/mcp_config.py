"""`taskhub mcp-config`: what an MCP client needs to know, ready to paste."""

import argparse
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import taskhub
from taskhub import server_file
from taskhub.cli.parser import load_settings
from taskhub.settings.loading import Loaded
from taskhub.settings.model import Settings

KEY_PLACEHOLDER = "${TASKHUB_API_KEY}"


def run(parsed: argparse.Namespace) -> int:
    """Print the three forms, or the one asked for. They work from any directory, against the data of the server."""
    loaded = load_settings(parsed)
    settings = loaded.settings
    servers = server_file.read_all(settings.data_dir)
    if parsed.url:
        server = next((found for found in servers if found.url == parsed.url), None)
    else:
        server = next(iter(servers), None)
    url = parsed.url or (server.url if server else default_url(settings))
    # The server may have been started with a key that this shell does not have.
    auth = server.auth if server else settings.auth_mode
    keyed = auth == "api_key"  # with OAuth, a client that is told nothing asks the server
    forms = {
        "http": ("Streamable HTTP (most clients):", http_form(url, keyed=keyed)),
        "sse": ('The same address in the older form ("type": "sse"):', older_form(url, keyed=keyed)),
        "stdio": (
            "stdio (the client starts the process):",
            stdio_form(loaded, url if server or parsed.url else None, keyed=auth != "none"),
        ),
    }
    if parsed.form:
        print(_pretty(forms[parsed.form][1]))
    else:
        for title, document in forms.values():
            print(f"{title}\n\n{_pretty(document)}\n")
    if server is None and not parsed.url:
        print(f"no server runs on {settings.data_dir} now; `taskhub serve` starts one", file=sys.stderr)
    return 0


def http_form(url: str, *, keyed: bool) -> dict[str, Any]:
    """An `.mcp.json` for the Streamable HTTP transport; `keyed`: the server asks for an API key."""
    return _servers({"type": "http", "url": f"{url}/mcp", **_headers(keyed)})


def older_form(url: str, *, keyed: bool) -> dict[str, Any]:
    """An `.mcp.json` for clients that only know HTTP+SSE, at the same address."""
    return _servers({"type": "sse", "url": f"{url}/mcp", **_headers(keyed)})


def stdio_form(loaded: Loaded, url: str | None, *, keyed: bool) -> dict[str, Any]:
    """An `.mcp.json` for stdio: on the same embedded database, else through the server at `url`, else on the database.

    Absolute paths and explicit settings: the client's own directory and environment do not matter. Secrets are named,
    never printed: a client puts the variable in their place.
    """
    settings = loaded.settings
    # Not resolved: the link in the virtual environment finds the installed packages. -P: nothing of the client's
    # directory is imported, whatever it is called.
    command = {"type": "stdio", "command": str(Path(sys.executable).absolute())}
    arguments = ["-P", "-m", "taskhub", "stdio"]
    env = {} if _installed() else {"PYTHONPATH": str(Path(taskhub.__file__).resolve().parents[1])}
    if not settings.api_base_url and (settings.embedded or url is None):
        env["TASKHUB_DATA_DIR"] = str(settings.data_dir)
        if settings.embedded:
            env["TASKHUB_DATABASE_URL"] = settings.database_address
        elif loaded.sources["database_url"].startswith("environment "):
            env["TASKHUB_DATABASE_URL"] = "${TASKHUB_DATABASE_URL}"  # it holds a password
        if loaded.config_file is not None:
            env["TASKHUB_CONFIG"] = str(loaded.config_file)
        return _servers({**command, "args": arguments, "env": env})
    if settings.api_base_url:
        url = settings.api_base_url
        if settings.outgoing_key:
            env["TASKHUB_REMOTE_API_KEY"] = "${TASKHUB_REMOTE_API_KEY}" if settings.remote_api_key else KEY_PLACEHOLDER
    elif keyed:
        env["TASKHUB_API_KEY"] = KEY_PLACEHOLDER
    return _servers({**command, "args": [*arguments, "--api-base-url", str(url)], "env": env})


def default_url(settings: Settings) -> str:
    """Where a server with these settings would be."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104  # compared with only
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


def _installed() -> bool:
    try:
        importlib.metadata.distribution("taskhub-server")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _servers(server: Mapping[str, Any]) -> dict[str, Any]:
    return {"mcpServers": {"taskhub": dict(server)}}


def _headers(keyed: bool) -> dict[str, Any]:
    return {"headers": {"x-api-key": KEY_PLACEHOLDER}} if keyed else {}


def _pretty(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False)
