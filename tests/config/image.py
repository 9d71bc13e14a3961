"""Make the image without a container engine: every step of the Dockerfile, in order, in root directories.

    .venv/bin/python -m tests.config.image BASE DIRECTORY

BASE is a Debian root with the Python of the image, made by

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie BASE

and is left as it is; the stages come to be in DIRECTORY. Then what the image starts is started as its user, and
watched: it must become healthy, write to /data alone, and drain on SIGTERM. Needs root (chroot) and the package index.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from tests.config.dockerfile import ROOT, Stage, in_context, read
from tests.servers import free_port

HEALTHY_WITHIN_S: Final = 120
PASSED_ON: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "PIP_CERT", "PIP_INDEX_URL")
"""Of this machine, as a builder passes on what its network needs."""


def build(stage: Stage, root: Path, others: dict[str, Path]) -> tuple[dict[str, str], str]:
    """Run a stage's steps in `root`. Answers its environment and its user."""
    environment = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
    directory, user = "/", "0:0"
    for step in stage.instructions:
        print(f"{stage.name or 'image'}: {step.name} {step.text[:100]}", flush=True)  # noqa: T201  # a command line prints
        if step.name == "ENV":
            told = dict(pair.split("=", 1) for pair in step.words)
            environment |= {name: value.replace("$PATH", environment["PATH"]) for name, value in told.items()}
        elif step.name == "WORKDIR":
            directory = step.text
            (root / directory.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif step.name == "USER":
            user = step.text
        elif step.name == "COPY":
            copy(step.words, others.get(step.options.get("from", "")), root, directory)
        elif step.name == "RUN":
            command = ("chroot", str(root), "/bin/sh", "-c", f"cd {directory} && {step.text}")
            subprocess.run(command, env=environment | passed_on(), check=True)
    return environment, user


def passed_on() -> dict[str, str]:
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ}


def copy(words: list[str], source: Path | None, root: Path, directory: str) -> None:
    """COPY, from another stage or from what `.dockerignore` lets through."""
    *places, target = words
    inside = Path(directory) / target
    for place in places:
        if source is None and not in_context(place):
            raise SystemExit(f"COPY {place}: .dockerignore keeps it out")
        found = (source or ROOT) / place.lstrip("/")
        to = root / str(inside).lstrip("/")
        if found.is_dir():
            shutil.copytree(found, to, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            to = to / found.name if target.endswith("/") else to
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(found, to)


def watch(image: Stage, root: Path, environment: dict[str, str], user: str) -> None:
    """Start the image's command; fail unless it becomes healthy, writes only to its volume, and drains."""
    port = str(free_port())
    inside = environment | {"TASKHUB_API_KEY": "k" * 32, "TASKHUB_ALLOWED_HOSTS": "localhost", "TASKHUB_PORT": port}
    entered = ("chroot", f"--userspec={user}", str(root))
    # What is made from now on is found by its time, so the clock must have gone on since the last step.
    stamp = root.parent / "started"
    stamp.touch()
    time.sleep(1.1)
    server = subprocess.Popen([*entered, *image.last("ENTRYPOINT").words, *image.last("CMD").words], env=inside)
    try:
        until = time.monotonic() + HEALTHY_WITHIN_S
        while subprocess.run([*entered, *image.last("HEALTHCHECK").words], env=inside, capture_output=True).returncode:
            if server.poll() is not None or time.monotonic() > until:
                raise SystemExit("it does not become healthy")
            time.sleep(0.2)
    finally:
        server.send_signal(getattr(signal, image.last("STOPSIGNAL").text))
        status = server.wait()
    elsewhere = ("-not", "-path", f"{root}/data*", "-not", "-path", f"{root}/dev/*")
    find = ("find", str(root), "-xdev", "-newer", str(stamp), *elsewhere)
    written = subprocess.run(find, capture_output=True, text=True, check=True).stdout.split()
    if status or written:
        raise SystemExit(f"it exited with {status} and wrote {written}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.config.image")
    parser.add_argument("base", type=Path)
    parser.add_argument("directory", type=Path)
    parsed = parser.parse_args()
    roots: dict[str, Path] = {}
    environment: dict[str, str] = {}
    user = "0:0"
    stages = read()
    for number, stage in enumerate(stages):
        root = parsed.directory / (stage.name or str(number))
        parsed.directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "--archive", str(parsed.base), str(root)], check=True)
        # The official image has Python under this name, too.
        python = root / "usr/local/bin/python"
        if not python.exists():
            python.symlink_to("/usr/bin/python3")
        environment, user = build(stage, root, roots)
        roots[stage.name] = root
    watch(stages[-1], roots[stages[-1].name], environment, user)
    print("healthy, writes to /data alone, drained", file=sys.stderr)  # noqa: T201  # a command line prints


if __name__ == "__main__":
    main()
