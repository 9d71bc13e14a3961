"""The newest events in memory: contiguous, and bounded whatever comes."""

from broadcaster.event import Event
from broadcaster.ring import Ring, weight


def event(seq: int, size: int = 10) -> Event:
    return Event(
        workspace="default", epoch="aaaaaaaa", seq=seq, id=f"aaaaaaaa-{seq}", time="2026-11-20T09:12:03.123Z",
        type="build.finished", subject=None, actor="user:test", origin="rest_api", ticket_version=None,
        data=b'"' + b"x" * size + b'"',
    )  # fmt: skip


def test_what_is_asked_for_is_found_from_anywhere_in_the_ring() -> None:
    ring = Ring(1000, 100_000_000)
    for seq in range(5, 905):
        ring.extend([event(seq)])

    for after in (4, 5, 500, 903):
        found = ring.after(after, 10)
        assert found is not None
        assert [e.seq for e in found] == list(range(after + 1, min(after + 11, 905)))
    assert ring.after(904, 10) == []


def test_what_left_the_ring_is_said_to_be_elsewhere() -> None:
    ring = Ring(100, 100_000_000)
    ring.extend([event(seq) for seq in range(1, 501)])

    assert ring.after(399, 10) is None
    assert ring.after(400, 1)
    assert Ring(100, 1000).after(0, 10) is None


def test_a_flood_keeps_both_bounds_and_holds_on_to_nothing_else() -> None:
    ring = Ring(1000, 50 * weight(event(1, 60_000)))
    for seq in range(1, 5001):
        ring.extend([event(seq, 60_000)])

    assert len(ring) == 50
    assert len(ring._events) <= 50 + 65


def test_the_newest_event_stays_however_large_it_is() -> None:
    ring = Ring(10, 1)
    ring.extend([event(1), event(2, 1_000_000)])

    found = ring.after(1, 10)
    assert found is not None
    assert [e.seq for e in found] == [2]
