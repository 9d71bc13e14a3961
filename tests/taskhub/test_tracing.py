"""Trace context: what counts as one (W3C Trace Context), and what goes on."""

import pytest

from taskhub.tracing import Trace

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_place_is_read_and_written_alike() -> None:
    found = Trace.parse([GOOD], ["vendor=a1,rojo=00f0"])

    assert found == Trace(TRACE, SPAN, 1, "vendor=a1,rojo=00f0")
    assert found.traceparent == GOOD


@pytest.mark.parametrize(
    "header",
    [
        "",
        GOOD.upper(),
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01\nX: y",
        "x" * 10_000,
    ],
)
def test_what_is_no_place_counts_as_none(header: str) -> None:
    assert Trace.parse([header]) is None


def test_two_places_are_none() -> None:
    assert Trace.parse([GOOD, GOOD]) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    found = Trace.parse([f"01-{TRACE}-{SPAN}-ff-more"])

    assert found == Trace(TRACE, SPAN, 3)
    assert found.traceparent == f"00-{TRACE}-{SPAN}-03"


@pytest.mark.parametrize("state", ["no equals sign", "A=upper", "a=1," * 40, "a=" + "x" * 600, "a=\x7f"])
def test_a_state_that_is_none_is_left_out_alone(state: str) -> None:
    assert Trace.parse([GOOD], [state]) == Trace(TRACE, SPAN, 1)


def test_states_of_several_headers_are_one_list() -> None:
    assert Trace.parse([GOOD], ["a=1", "b@v=2, ,c=3"]) == Trace(TRACE, SPAN, 1, "a=1,b@v=2,c=3")


def test_a_place_below_is_another_in_the_same_trace() -> None:
    above = Trace(TRACE, SPAN, 1, "a=1")
    below = above.child()

    assert (below.trace_id, below.flags, below.state) == (TRACE, 1, "a=1")
    assert below.span_id != SPAN
    assert Trace.parse([below.headers["traceparent"]], [below.headers["tracestate"]]) == below
    assert Trace(TRACE, SPAN).headers == {"traceparent": f"00-{TRACE}-{SPAN}-00"}
