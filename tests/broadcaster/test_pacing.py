"""When the hub may write again."""

import pytest

from broadcaster.pacing import INTAKE_SHARE, MAX_PAUSE_S, QUIET_TURNS, Pacing


@pytest.fixture
def after_a_round() -> Pacing:
    """The state at time 10.0, right after a round whose writes took 0.02 s, with events that came meanwhile."""
    pacing = Pacing()
    pacing.arrived()
    assert pacing.begins(9.0)
    pacing.worked(0.005, 9.5)
    pacing.arrived()
    pacing.worked(0.015, 10.0)
    return pacing


def test_an_idle_hub_begins_in_the_next_turn(after_a_round: Pacing) -> None:
    after_a_round.arrived()

    assert Pacing().begins(0.0)
    assert after_a_round.begins(11.0)


def test_a_round_is_followed_by_a_pause_for_intake(after_a_round: Pacing) -> None:
    turns = [after_a_round.begins(10.0 + 0.99 * INTAKE_SHARE * 0.02) for _ in range(100)]

    assert not any(turns)
    assert after_a_round.earliest == pytest.approx(10.0 + INTAKE_SHARE * 0.02)


def test_after_the_pause_it_begins_as_soon_as_events_stop_coming(after_a_round: Pacing) -> None:
    while_they_come = []
    for _ in range(20):
        after_a_round.arrived()
        while_they_come.append(after_a_round.begins(10.004))

    turns = [after_a_round.begins(10.005) for _ in range(QUIET_TURNS - 1)]

    assert not any(while_they_come)
    assert turns == [False] * (QUIET_TURNS - 2) + [True]


def test_while_events_keep_coming_it_waits_as_long_as_the_writes_took_and_not_longer(after_a_round: Pacing) -> None:
    def asked(now: float) -> bool:
        after_a_round.arrived()
        return after_a_round.begins(now)

    assert (asked(10.0199), asked(10.0201)) == (False, True)


def test_only_the_writes_of_the_last_round_count(after_a_round: Pacing) -> None:
    assert after_a_round.begins(11.0)
    after_a_round.worked(0.001, 11.0)

    assert after_a_round.earliest == pytest.approx(11.0 + INTAKE_SHARE * 0.001)


def test_no_pause_is_longer_than_the_longest() -> None:
    pacing = Pacing()
    pacing.begins(0.0)
    pacing.worked(10.0, 20.0)
    pacing.arrived()

    assert not pacing.begins(20.0)
    assert pacing.begins(20.0 + MAX_PAUSE_S)
