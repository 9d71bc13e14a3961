"""The arguments of every command, and from there to the module that runs it."""

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from taskhub import __version__
from taskhub.auth.roles import SCOPES_OF_ROLE
from taskhub.cli.services import CannotRun
from taskhub.settings.loading import Loaded, SettingsError, load, look

EXIT_BAD_SETTINGS: Final = 2
TOOLSETS: Final = ("tickets", "reference", "events")
ROLES: Final = tuple(SCOPES_OF_ROLE)
LIMITS: Final = ("streams", "writes_per_s", "write_burst")
_LIMITS_HELP: Final = "such as streams=200,writes_per_s=100,write_burst=500; 0 for no limit"


def build_parser() -> argparse.ArgumentParser:
    """The whole command line, without running anything."""
    parser = argparse.ArgumentParser(
        prog="taskhub", description="Tickets that AI agents change through MCP tools, broadcast live over SSE."
    )
    parser.add_argument("--version", action="version", version=f"taskhub {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    serve = _add(commands, "serve", "run the server")
    serve.add_argument("--host", help="address to listen on")
    serve.add_argument("--port", type=int, help="port to listen on; 0 takes a free one")
    serve.add_argument(
        "--reload",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="restart on source changes without losing streams (default in development, with one process)",
    )
    serve.add_argument(
        "--workers", type=int, metavar="N", help="serve from N processes; more than 1 need PostgreSQL and Redis"
    )
    serve.add_argument(
        "--demo", action="store_true", help="example tickets that change by themselves, in an empty database"
    )
    serve.add_argument(
        "--insecure", action="store_true", default=None, help="allow AUTH=none on an address that is not loopback"
    )
    serve.add_argument("--api-base-url", metavar="URL", help="serve only MCP, in front of the TaskHub API at URL")
    serve.add_argument("--supervised", help=argparse.SUPPRESS)

    stdio = _add(commands, "stdio", "serve the MCP tools over standard input and output")
    stdio.add_argument("--api-base-url", metavar="URL", help="use the TaskHub API at URL, not the local database")
    stdio.add_argument("--actor", metavar="NAME", help="who makes the changes (default: the MCP client's name)")
    stdio.add_argument("--read-only", action="store_true", help="offer the tools that only read")
    stdio.add_argument(
        "--toolsets", type=toolsets, metavar="NAMES", help=f"offer the tools of these sets: {', '.join(TOOLSETS)}"
    )

    _add(commands, "migrate", "bring the database to the newest schema")
    _add(commands, "check", "print every setting with its source; fail on those that are wrong or unknown")

    export = _add(commands, "export", "write all tickets of the database to standard output")
    export.add_argument("--format", choices=("csv", "jsonl"), default="csv", help="csv opens in spreadsheets")
    _add_workspace(export)

    import_ = _add(commands, "import", "take the tickets of a file into the database; a second time changes nothing")
    import_.add_argument("file", type=Path, metavar="FILE", help="CSV when its name ends with .csv, else JSON lines")
    import_.add_argument("--strict", action="store_true", help="take nothing unless every line can be taken")
    _add_workspace(import_)

    backup = _add(commands, "backup", "write the whole database to a file, while servers run on it")
    backup.add_argument(
        "file", type=Path, metavar="FILE", help="a new file, such as taskhub.backup; - is standard output"
    )
    backup.add_argument("--force", action="store_true", help="replace the file when it exists")

    restore = _add(commands, "restore", "make the database what a backup says, while nothing else uses it")
    restore.add_argument(
        "file", type=Path, metavar="FILE", help="what `taskhub backup` wrote, from either database; - is standard input"
    )
    restore.add_argument("--replace", action="store_true", help="delete the tickets and events that are there now")

    doctor = _add(commands, "doctor", "check that tickets, log, leases and search agree; changes nothing")
    doctor.add_argument("--json", action="store_true", help="print the report as one JSON object")

    _add_keys(commands)
    _add_users(commands)
    _add_oauth(commands)
    _add_workspaces(commands)

    audit = _add(commands, "audit", "print what was done that counts for security, such as keys that were made")
    audit.add_argument("--since", metavar="WHEN", help="15m, 12h, 7d, or an RFC 3339 time (default: the last 50)")
    audit.add_argument("--action", type=_words, metavar="A,B", help="what was done, such as key.created,key.revoked")
    audit.add_argument("--actor", metavar="NAME", help="who did it, such as user:alice")
    audit.add_argument("--follow", action="store_true", help="go on with what is done from now on, until Ctrl-C")
    audit.add_argument("--json", action="store_true", help="print one JSON object a line")
    _add_workspace(audit)

    watch = _add(commands, "watch", "follow the event stream of a running server")
    watch.add_argument("filters", nargs="*", metavar="NAME=VALUE", help="such as status=in_progress or 'actor=!me'")
    watch.add_argument(
        "--url", type=server_address, help="the server's address (default: the one that runs on the data directory)"
    )
    watch.add_argument("--since", metavar="WHEN", help="earliest, now, an event id, 15m, or an RFC 3339 time")
    watch.add_argument("--json", action="store_true", help="print one JSON object a line")

    mcp_config = _add(commands, "mcp-config", "print what to put into an MCP client's configuration")
    mcp_config.add_argument(
        "--url", type=server_address, help="the server's address (default: the one that runs on the data directory)"
    )
    mcp_config.add_argument(
        "--form", choices=("http", "sse", "stdio"), help="print this form alone: `--form http > .mcp.json`"
    )
    return parser


def _add_keys(commands: Any) -> None:
    keys = commands.add_parser("keys", help="make, list, change, rotate and revoke API keys", description="API keys.")
    actions = keys.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = _add(actions, "create", "make a key, and print it: it is shown this once")
    create.add_argument("--user", required=True, metavar="NAME", help="whose key it is, by id or name")
    create.add_argument("--role", choices=ROLES, help="add the user with this role, if there is none of that name")
    create.add_argument(
        "--kind", choices=("human", "agent", "service"), help="what a user that is added is (default: human)"
    )
    create.add_argument("--name", default="command line", help="what the key is for")
    create.add_argument("--scopes", type=_words, metavar="A,B", help="less than all that the role may do")
    create.add_argument("--expires", type=_duration, metavar="TIME", help="after such as 12h or 90d; never without it")

    create.add_argument("--limits", type=_limits, metavar="A=N,B=N", help=f"limits of its own, {_LIMITS_HELP}")

    change = _add(actions, "change", "give a key limits of its own, within a second on every instance")
    change.add_argument("id", metavar="ID", help="such as key_5f0c2d9a8e7b6a51")
    change.add_argument(
        "--limits", type=_limits, required=True, metavar="A=N,B=N", help=f"{_LIMITS_HELP}, - for the settings'"
    )

    list_ = _add(actions, "list", "list the keys")
    list_.add_argument("--user", metavar="ID", help="those of one user")
    list_.add_argument("--json", action="store_true", help="print one JSON object a line")

    rotate = _add(actions, "rotate", "make a key that replaces another, and print it")
    rotate.add_argument("id", metavar="ID", help="the key to replace, such as key_5f0c2d9a8e7b6a51")
    rotate.add_argument(
        "--overlap", type=_duration, metavar="TIME", help="for how long the old one stays good (default: 1d)"
    )

    revoke = _add(actions, "revoke", "end a key, and within a second what it has open")
    revoke.add_argument("id", metavar="ID", help="such as key_5f0c2d9a8e7b6a51")
    for action in (create, change, list_, rotate, revoke):
        _add_workspace(action)


def _add_workspaces(commands: Any) -> None:
    workspaces = commands.add_parser(
        "workspaces",
        help="make, list and rename workspaces: none sees another",
        description="Workspaces.",
    )
    actions = workspaces.add_subparsers(dest="action", metavar="ACTION", required=True)

    create = _add(actions, "create", "make a workspace, with reference data to work with at once")
    create.add_argument("id", metavar="ID", help="such as acme; it never changes")
    create.add_argument(
        "--key-prefix", required=True, metavar="PREFIX", help="what the keys of its tickets begin with, such as AC"
    )
    create.add_argument("--name", metavar="TEXT", help="what people call it (default: its id)")

    list_ = _add(actions, "list", "list the workspaces")
    list_.add_argument("--json", action="store_true", help="print one JSON object a line")

    rename = _add(actions, "rename", "give a workspace another name; its id stays")
    rename.add_argument("id", metavar="ID")
    rename.add_argument("name", metavar="TEXT")


def _add_workspace(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workspace", default="default", metavar="ID", help="which workspace (default: default)")


def _add_users(commands: Any) -> None:
    users = commands.add_parser("users", help="add people, and let them sign in", description="Who can sign in.")
    actions = users.add_subparsers(dest="action", metavar="ACTION", required=True)

    list_ = _add(actions, "list", "list the users, and who of them has a password")
    list_.add_argument("--json", action="store_true", help="print one JSON object a line")

    add = _add(actions, "add", "add a user")
    add.add_argument("user", metavar="NAME", help="what people call it")
    add.add_argument("--role", choices=ROLES, default="agent", help="what it may do (default: agent)")
    add.add_argument("--kind", choices=("human", "agent", "service"), default="human", help="what it is")

    change = _add(actions, "change", "change what a user may do, or take it out of use")
    change.add_argument("user", metavar="NAME", help="whom, by id or name")
    change.add_argument("--role", choices=ROLES, help="what it may do from now on")
    change.add_argument(
        "--out-of-use", dest="active", action="store_false", default=None, help="nobody gets in as this user any more"
    )
    change.add_argument("--in-use", dest="active", action="store_true", default=None, help="again")

    password = _add(actions, "set-password", "set a password, read from a prompt or standard input")
    password.add_argument("user", metavar="NAME", help="whose, by id or name; who is signed in as that is signed out")

    link = _add(actions, "sign-in-link", "print a link that signs somebody in, once, within 15 minutes")
    link.add_argument("user", metavar="NAME", help="whom, by id or name")
    link.add_argument("--role", choices=ROLES, help="add the user with this role, if there is none of that name")
    link.add_argument(
        "--url", type=server_address, help="the server's address (default: the one that runs on the data directory)"
    )

    out = _add(actions, "sign-out", "end all sessions of a user")
    out.add_argument("user", metavar="NAME", help="whose, by id or name")
    unlink = _add(actions, "unlink", "forget which account at the OpenID provider a user is, and sign them out")
    unlink.add_argument("user", metavar="NAME", help="whose, by id or name")
    for action in (add, change):
        action.add_argument("--email", metavar="ADDRESS", help="by which an OpenID provider knows them")
    for action in (list_, add, change, password, link, out, unlink):
        _add_workspace(action)


def _add_oauth(commands: Any) -> None:
    oauth = commands.add_parser(
        "oauth", help="list and end what applications were let in for", description="Applications that users let in."
    )
    actions = oauth.add_subparsers(dest="action", metavar="ACTION", required=True)

    grants = _add(actions, "grants", "list the applications that users have connected")
    grants.add_argument("--user", metavar="ID", help="those of one user")
    end = _add(actions, "end", "disconnect an application, and end what it has open")
    end.add_argument("id", metavar="ID", help="such as grt_5f0c2d9a8e7b6a51")
    clients = _add(actions, "clients", "list the clients that were given an id here")
    for action in (grants, clients):
        action.add_argument("--json", action="store_true", help="print one JSON object a line")
    add = _add(actions, "add-client", "make a client known that cannot register itself, and print its id")
    add.add_argument("name", metavar="NAME", help="what people are told that it is called")
    add.add_argument(
        "--redirect-uri", action="append", required=True, metavar="URI", help="where people go back to; may be repeated"
    )
    remove = _add(actions, "remove-client", "forget a client")
    remove.add_argument("id", metavar="ID", help="such as cli_5f0c2d9a8e7b6a515f0c2d9a")
    rotate = _add(actions, "rotate-keys", "make a new key to sign access tokens with")
    rotate.add_argument(
        "--now", action="store_true", help="use it at once, and forget those that may be known to others"
    )
    for action in (grants, end, clients, add, remove):
        _add_workspace(action)


def run(arguments: Sequence[str]) -> int:
    """Parse and run. Answers the exit status: 0 done, 1 failed, 2 wrong arguments or settings."""
    parser = build_parser()
    if not arguments and os.environ.get("MCP_TRANSPORT_TYPE", "").strip().lower() == "stdio":
        arguments = ["stdio"]  # how earlier tool servers were told so
    parsed = parser.parse_args(arguments)
    parsed.arguments = list(arguments)
    if parsed.command is None:
        parser.print_help()
        return EXIT_BAD_SETTINGS
    # No module is called `import`: it could not be imported by that name.
    module = "import_file" if parsed.command == "import" else parsed.command.replace("-", "_")
    command: Callable[[argparse.Namespace], int] = import_module(f"taskhub.cli.{module}").run
    try:
        return command(parsed)
    except SettingsError as error:
        for problem in error.problems:
            print(f"taskhub: {problem}", file=sys.stderr)
        return EXIT_BAD_SETTINGS
    except CannotRun as error:
        print(f"taskhub: {error}", file=sys.stderr)
        return 1


def toolsets(text: str) -> frozenset[str]:
    """Names of toolsets, with commas between them. For argparse."""
    names = frozenset(name.strip().lower() for name in text.split(","))
    if unknown := names - set(TOOLSETS):
        raise argparse.ArgumentTypeError(f"there is no toolset {min(unknown)!r}; there are {', '.join(TOOLSETS)}")
    return names


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _limits(text: str) -> dict[str, float | None]:
    """`streams=200,writes_per_s=-`: a limit → a number, or None for `-`. For argparse."""
    limits: dict[str, float | None] = {}
    for word in _words(text):
        name, _, number = (part.strip() for part in word.partition("="))
        if name not in LIMITS or not re.fullmatch(r"-|\d{1,9}(\.\d{1,6})?", number):
            raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(f'{each}=N' for each in LIMITS)}")
        limits[name] = None if number == "-" else float(number)
    return limits


def _duration(text: str) -> int:
    """`90d`, `12h`, `15m` or `30s` in seconds. For argparse."""
    found = re.fullmatch(r"(\d{1,6})([smhd])", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 90d, 12h, 15m or 30s")
    return int(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]]


def server_address(text: str) -> str:
    """A server's base URL; one that was copied from an MCP configuration loses its `/mcp`. For argparse."""
    address = text.rstrip("/").removesuffix("/mcp").rstrip("/")
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query + parts.fragment
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as http://127.0.0.1:8000")
    return address


def load_settings(parsed: argparse.Namespace, *names: str) -> Loaded:
    """The settings, with the named arguments over them where they were given. Raises SettingsError."""
    return load(_overrides(parsed, names), config=parsed.config)


def look_at_settings(parsed: argparse.Namespace, *names: str) -> Loaded:
    """As `load_settings`, also when values cannot be used. Raises SettingsError when the file cannot be read."""
    return look(_overrides(parsed, names), config=parsed.config)


def _overrides(parsed: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(parsed, name, None)) is not None}


def _add(commands: Any, name: str, summary: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=summary)
    command.add_argument("--config", type=Path, metavar="FILE", help="the settings file (TOML)")
    return command
