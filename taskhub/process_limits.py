"""What a server process sets for itself before it serves: descriptors for its streams, and a quick collector."""

import gc
import sys
from typing import Final

YOUNG_OBJECTS: Final = 10_000
"""After so many new containers the collector looks at them; by default after 700, which is every few requests."""


RESERVED_DESCRIPTORS: Final = 64
"""For the database, the relay, and requests that are no streams."""

MOST_HELD: Final = 1000
"""Connections with a refusal that comes later, of two to ten kilobytes each."""


def raise_descriptor_limit() -> None:
    """Allow as many open descriptors as this process may have: each stream is one or two, and shells allow 1024."""
    if sys.platform == "win32":
        return
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard or hard == resource.RLIM_INFINITY:
        wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            return  # as a sandbox may: it serves with what it has


def room_for_streams() -> int | None:
    """How many streams the descriptors of this process suffice for, with some left for all else; None without a limit.

    Half of the descriptors may serve two to a stream (broadcaster/connection.py), so three in four become a stream.
    """
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else max(1, int(limit * 0.7) - RESERVED_DESCRIPTORS)


def pause_collector() -> None:
    """Keep the collector from walking what a start imports and builds: it stays, and an eighth of the time is saved.

    You must `settle_collector` when it is built.
    """
    gc.disable()


def room_for_held() -> int:
    """How many connections may wait for a refusal: one in eight descriptors, and no more than MOST_HELD."""
    room = room_for_streams()
    return MOST_HELD if room is None else min(MOST_HELD, room // 8)


def settle_collector() -> None:
    """Take what has been imported and built out of the collector's sight, for it stays until the end.

    Else each full collection walks a quarter of a million objects, which stops every stream for a tenth of a second.
    """
    gc.collect()
    gc.freeze()
    gc.enable()
    gc.set_threshold(YOUNG_OBJECTS, 10, 10)
