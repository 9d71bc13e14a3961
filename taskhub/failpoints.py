"""Failpoints: named places in the code where a test has this process die, stop, fail or dawdle.

Nobody sets them but tests, and whoever wants to see for himself what a crash may do:
`TASKHUB_FAILPOINTS="write.after_commit=kill@3"` kills the process when it has committed its third group of writes,
before anybody is told of it.
"""

import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import Lock
from typing import Final, Literal, get_args

Point = Literal[
    "write.after_ticket",
    "write.after_insert",
    "write.after_counter",
    "write.after_commit",
    "write.after_publish",
    "retention.chunk",
    "migration.step",
]
"""In the order in which a write passes them: one command has changed its tickets; the events of its group are stored;
the workspace's counters are; all is committed, and nobody told; everybody was told, and the caller not yet answered.

`retention.chunk`: the log's beginning was moved, and nothing deleted yet. `migration.step`: one migration was applied.
"""
POINTS: Final[tuple[Point, ...]] = get_args(Point)

_ACTIONS: Final = "kill, pause, raise or delay:SECONDS"
_PLAN: Final = re.compile(
    r"(?P<point>[^=]*)=(?P<action>kill|pause|raise|delay:(?P<seconds>\d+(\.\d+)?))(@(?P<nth>[1-9]\d*))?"
)


class FailpointReached(Exception):
    """What `raise` raises: an error that nobody expects."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What happens at a point: on its `nth` passing, or on every one."""

    point: Point
    action: Callable[[], None]
    nth: int | None = None

    @staticmethod
    def parse(text: str) -> "Plan":
        """`POINT=ACTION` or `POINT=ACTION@N`. Raises ValueError, which says what would be right."""
        found = _PLAN.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"{text!r} is no failpoint: say POINT=ACTION or POINT=ACTION@N, ACTION being {_ACTIONS}")
        point = next((point for point in POINTS if point == found["point"]), None)
        if point is None:
            raise ValueError(f"there is no failpoint {found['point']!r}; there are {', '.join(POINTS)}")
        nth = None if found["nth"] is None else int(found["nth"])
        if found["seconds"] is not None:
            return Plan(point, _delay(float(found["seconds"])), nth)
        return Plan(point, {"kill": _kill, "pause": _pause, "raise": _raise}[found["action"]], nth)


class Failpoints:
    """What was planned, and how often each point was passed. Points may be passed on any thread."""

    def __init__(self, plans: Iterable[Plan] = ()) -> None:
        self._plans: dict[Point, list[Plan]] = {}
        for plan in plans:
            self._plans.setdefault(plan.point, []).append(plan)
        self._passed: dict[Point, int] = dict.fromkeys(self._plans, 0)
        self._lock = Lock()

    @staticmethod
    def parse(texts: Iterable[str]) -> "Failpoints":
        """Those of the setting. Raises ValueError."""
        return Failpoints(map(Plan.parse, texts))

    def reach(self, point: Point) -> None:
        """Pass a point: nothing happens, unless it was planned. Raises FailpointReached where `raise` was."""
        plans = self._plans.get(point)
        if plans is None:
            return
        with self._lock:
            self._passed[point] += 1
            passed = self._passed[point]
        for plan in plans:
            if plan.nth is None or plan.nth == passed:
                plan.action()


OFF: Final = Failpoints()
"""Nothing planned."""


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _pause() -> None:
    """Until somebody sends SIGCONT."""
    os.kill(os.getpid(), signal.SIGSTOP)


def _raise() -> None:
    raise FailpointReached


def _delay(seconds: float) -> Callable[[], None]:
    """Holds up the thread, which on PostgreSQL is the whole process: a unit of work is not asynchronous."""
    return lambda: time.sleep(seconds)
