"""Rounds: which groups have something to send, and when each of them may.

Flushes go out in rounds, with a pause between two of them (pacing.py). In each round a group has at most one flush, so
that what comes for it while that one is under way goes out together in the next; a group that had none yet need not
wait for the round, or the pause after it, to end.
"""

import heapq
from collections import OrderedDict
from itertools import count
from math import inf

from broadcaster.group import Group
from broadcaster.pacing import Pacing


class Rounds:
    """The groups that wait, without I/O. Times are seconds of one monotonic clock.

    `put` a group when there is something for it. In a loop turn that comes at `due` or later, call `advance`, then
    `pop` groups and write to them, then `worked`.
    """

    def __init__(self) -> None:
        self._pacing = Pacing()
        self._round = 0
        self._under_way = False
        # A group waits in one of these: for the end of its batching window, for room in a turn, for the next round.
        self._windows: list[tuple[float, int, Group]] = []
        self._ready: OrderedDict[Group, None] = OrderedDict()
        self._again: dict[Group, None] = {}
        self._ties = count()

    @property
    def ready(self) -> bool:
        """Whether `pop` has a group to give."""
        return bool(self._ready)

    def arrived(self) -> None:
        """There are new events."""
        self._pacing.arrived()

    def put(self, group: Group, now: float) -> None:
        """There is something for this group."""
        due = group.key.batching.due(now, group.last_flush, len(group.pending))
        if due <= now:
            group.due = None
            if group.round == self._round:
                self._again[group] = None
            else:
                self._ready[group] = None
        elif group.due is None:
            group.due = due
            heapq.heappush(self._windows, (due, next(self._ties), group))

    def discard(self, group: Group) -> None:
        """Nobody is left in it."""
        group.due = None
        self._ready.pop(group, None)
        self._again.pop(group, None)

    def due(self) -> float:
        """When `advance` has something to do; in the past for at once, infinite for never."""
        if self._ready:
            return -inf
        next_round = self._pacing.earliest if self._again else inf
        return min(next_round, self._windows[0][0]) if self._windows else next_round

    def advance(self, now: float, *, writing: bool) -> None:
        """Begin the next round if it is time and no flush is under way (`writing`)."""
        while self._windows and self._windows[0][0] <= now:
            due, _, group = heapq.heappop(self._windows)
            if group.due == due:  # else it filled up before, or is gone
                self.put(group, now)
        if writing or self._under_way or not (self._ready or self._again):
            return
        if self._pacing.begins(now):
            self._under_way = True
            self._round += 1
            self._ready.update(self._again)
            self._again.clear()

    def pop(self) -> Group:
        """The next group to flush."""
        group, _ = self._ready.popitem(last=False)
        group.round = self._round
        return group

    def worked(self, seconds: float, now: float, *, writing: bool) -> None:
        """This turn's writes took so long, up to `now`; `writing` tells whether a flush is still under way."""
        # A group's first flush of the round may come in the pause after it, which it then does not prolong.
        if self._under_way:
            self._pacing.worked(seconds, now)
            self._under_way = writing or self.ready
