"""When the hub may write again: at once while it is idle, and with a pause between two rounds while it is busy.

Writing to a socket costs the same for one event as for many, so under load it pays to let events gather. A round is
what goes out together. The pause after it is measured by what the round's writes took, so the hub finds the pace of
its load by itself: few subscribers or few events, no pause worth speaking of.
"""

from typing import Final

INTAKE_SHARE: Final = 0.15
"""The least pause, as a part of the round's writes: without one, writing would starve those who publish."""

PATIENCE: Final = 1.0
"""The longest pause while events keep coming, as a part of the round's writes …"""

MAX_PAUSE_S: Final = 0.05
"""… and in seconds."""

QUIET_TURNS: Final = 4
"""Events have paused when so many loop turns brought none. One publisher on a keep-alive connection brings an event
every few turns, so that a single quiet turn says nothing."""


class Pacing:
    """Decides when the next round begins. Times are seconds of one monotonic clock.

    Ask `begins` once in a loop turn while something waits for the next round; call `worked` for the writes of a round.
    """

    def __init__(self) -> None:
        self.earliest = float("-inf")
        """Asking `begins` before this time is of no use."""
        self._latest = float("-inf")
        self._spent = 0.0
        self._quiet = 0

    def arrived(self) -> None:
        """There are new events."""
        self._quiet = 0

    def begins(self, now: float) -> bool:
        """Whether the next round begins in this turn; it has, then."""
        if now < self.earliest:
            return False
        self._quiet += 1
        if self._quiet < QUIET_TURNS and now < self._latest:
            return False
        self._spent = 0.0
        return True

    def worked(self, seconds: float, now: float) -> None:
        """The round's writes took so long, up to `now`. Called for each slice of the round: what other requests did
        between two slices was time for them and asks for no pause."""
        self._spent += seconds
        self.earliest = now + min(INTAKE_SHARE * self._spent, MAX_PAUSE_S)
        self._latest = now + min(PATIENCE * self._spent, MAX_PAUSE_S)
