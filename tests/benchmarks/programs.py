"""The kit's C programs, compiled when their sources have changed."""

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
SOURCES: Final = {
    "loadclient": ("loadclient.c", "subscribers.c", "publishers.c", "loadclient.h", "histogram.h"),
    "limitserver": ("limitserver.c",),
}
FLAGS: Final = ("-O2", "-Wall", "-Wextra")


def built(name: str) -> Path:
    """The program `name`, compiled now unless the same sources were before. Raises CalledProcessError."""
    sources = [HERE / source for source in SOURCES[name]]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    directory = Path(tempfile.gettempdir()) / f"taskhub-benchmarks-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    program = directory / f"{name}-{digest}"
    if not program.exists():
        half_made = program.with_suffix(f".{os.getpid()}")
        code = [str(path) for path in sources if path.suffix == ".c"]
        subprocess.run(["gcc", *FLAGS, "-o", str(half_made), *code], check=True)
        half_made.rename(program)  # at once, for another run of the kit may want it too
    return program
