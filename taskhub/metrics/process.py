"""What the system knows of this process, under the names that every Prometheus client uses."""

import os
import sys
import time
from pathlib import Path
from typing import Final

from taskhub.metrics.families import Family

_PROC: Final = Path("/proc/self")
_AGE_FIELD: Final = 19
"""Of `stat`, counted after the name: when the process started, in clock ticks after the system did (proc(5))."""


def process_families() -> list[Family]:
    """Memory, processor time, descriptors and the start. Those that this system does not tell are left out."""
    cpu = Family("process_cpu_seconds_total", "counter", "Processor time that the process has used.")
    cpu.add(time.process_time())
    families = [cpu]
    if sys.platform == "win32" or not _PROC.exists():
        return families
    import resource  # not on Windows

    statm = (_PROC / "statm").read_text().split()
    stat = (_PROC / "stat").read_text().rpartition(") ")[2].split()
    for name, help_text, value in (
        ("process_resident_memory_bytes", "Memory that is the process's now.", int(statm[1]) * resource.getpagesize()),
        ("process_start_time_seconds", "When the process started, since 1970.", _booted() + _seconds(stat[_AGE_FIELD])),
        ("process_open_fds", "Open file descriptors.", len(os.listdir(_PROC / "fd"))),
        ("process_max_fds", "Most file descriptors that may be open.", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ):
        family = Family(name, "gauge", help_text)
        family.add(value)
        families.append(family)
    return families


def _seconds(ticks: str) -> float:
    return int(ticks) / os.sysconf("SC_CLK_TCK")


def _booted() -> float:
    """When the system started, since 1970."""
    lines = Path("/proc/stat").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("btime ")))
