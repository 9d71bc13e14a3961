"""The event: its place, its one encoding, and the ticket states that filters ask for."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.errors import InvalidEvent, InvalidPosition
from broadcaster.event import (
    CONTROL_NAMES,
    MAX_DATA_BYTES,
    MAX_SUBJECT_LENGTH,
    MAX_TYPE_LENGTH,
    RESERVED_PREFIXES,
    STATE_FIELDS,
    SYSTEM_TYPES,
    TICKET_TYPES,
    TYPE_PATTERN,
    Event,
    EventDraft,
    Position,
    state_of,
)

TICKET: dict[str, Any] = {
    "key": "TH-481", "version": 17, "summary": "受付", "status": {"id": "in_progress", "name": "In Progress"},
    "phase": "active", "assignee": None, "requestor": {"id": "carol", "name": "Carol"}, "account": None,
    "category": None, "channel": {"id": "email", "name": "Email"}, "priority": "high", "due": None,
    "labels": ["Red"], "progress": None, "lease": None, "updated_at": "2026-11-20T09:12:03.123Z",
}  # fmt: skip


def event(data: dict[str, Any] | bytes, **fields: Any) -> Event:
    return Event(
        **{
            "workspace": "default", "epoch": "k7q2m4xa", "seq": 1042, "id": "k7q2m4xa-1042",
            "time": "2026-11-20T09:12:03.123Z", "type": "ticket.updated", "subject": "TH-481",
            "actor": "user:alice", "origin": "mcp_tool", "ticket_version": 17,
            "data": data if isinstance(data, bytes) else json.dumps(data).encode(), **fields,
        }
    )  # fmt: skip


def ticket_event(changes: dict[str, list[Any]], **fields: Any) -> Event:
    return event({"ticket": TICKET, "changes": changes, "comment": None}, **fields)


# Positions


@pytest.mark.parametrize(("text", "epoch", "seq"), [("k7q2m4xa-1042", "k7q2m4xa", 1042), ("a-0", "a", 0)])
def test_a_position_reads_back_as_it_was_written(text: str, epoch: str, seq: int) -> None:
    position = Position.parse(text)

    assert (position.epoch, position.seq, str(position)) == (epoch, seq, text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "k7q2m4xa",
        "k7q2m4xa-",
        "-1",
        "k7q2m4xa-01",
        "k7q2m4xa--1",
        "K7-1",
        "a-1\n",
        "a-1 ",
        "a-１",
        "a-" + "9" * 19,
    ],
)
def test_what_is_no_position_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(InvalidPosition) as refused:
        Position.parse(text)

    assert refused.value.text == text


# The encoding


def test_an_event_is_a_cloudevents_object() -> None:
    assert json.loads(ticket_event({"due": [None, "2026-12-01"]}).encoded) == {
        "specversion": "1.0",
        "id": "k7q2m4xa-1042",
        "source": "/taskhub/default",
        "type": "ticket.updated",
        "subject": "TH-481",
        "time": "2026-11-20T09:12:03.123Z",
        "workspace": "default",
        "actor": "user:alice",
        "origin": "mcp_tool",
        "ticketversion": 17,
        "data": {"ticket": TICKET, "changes": {"due": [None, "2026-12-01"]}, "comment": None},
    }


def test_what_an_event_does_not_have_is_absent() -> None:
    document = json.loads(event(b"{}", type="build.finished", subject=None, ticket_version=None).encoded)

    assert "subject" not in document
    assert "ticketversion" not in document


def test_an_event_is_encoded_once() -> None:
    one = ticket_event({})

    assert one.encoded is one.encoded
    assert one.before is one.before
    assert one.parsed is one.parsed


@given(
    st.text(max_size=30),
    st.none() | st.text(min_size=1, max_size=30),
    st.none() | st.integers(1, 1000),
    st.dictionaries(st.text(max_size=10), st.none() | st.text(max_size=20) | st.integers(-(2**53), 2**53), max_size=4),
)
def test_a_decoded_event_is_the_event(
    actor: str, subject: str | None, version: int | None, data: dict[str, Any]
) -> None:
    original = event(data, actor=actor, subject=subject, ticket_version=version)

    decoded = Event.decode(original.encoded, epoch="k7q2m4xa", seq=1042)

    assert b"\n" not in original.encoded
    assert decoded.encoded == original.encoded
    for name in ("workspace", "epoch", "seq", "id", "time", "type", "subject", "actor", "origin", "ticket_version"):
        assert getattr(decoded, name) == getattr(original, name)
    assert decoded.parsed == original.parsed


def test_a_position_follows_the_epoch_and_an_id_does_not() -> None:
    restored = Event.decode(ticket_event({}).encoded, epoch="bbbbbbbb", seq=1042)

    assert (restored.id, restored.position) == ("k7q2m4xa-1042", "bbbbbbbb-1042")


def test_only_an_event_without_a_place_is_transient() -> None:
    assert event(b"{}", seq=0, id="5a1e").transient
    assert not event(b"{}").transient


# States


def test_the_state_after_is_the_tickets_and_the_one_before_has_the_changes_taken_back() -> None:
    moved = ticket_event(
        {
            "status": ["received", "in_progress"],
            "phase": ["todo", "active"],
            "assignee": ["bob", None],
            "labels": [["Red", "blue"], ["Red"]],
            "due": [None, "2026-12-01"],
        }
    )

    assert moved.after == {
        "status": "in_progress", "phase": "active", "assignee": None, "requestor": "carol", "account": None,
        "category": None, "channel": "email", "priority": "high", "label": ["Red"],
    }  # fmt: skip
    assert moved.before == {
        **moved.after, "status": "received", "phase": "todo", "assignee": "bob", "label": ["Red", "blue"],
    }  # fmt: skip


@pytest.mark.parametrize("type", ["ticket.created", "ticket.restored"])
def test_a_created_or_restored_ticket_has_no_state_before(type: str) -> None:
    found = ticket_event({}, type=type)

    assert found.before is None
    assert found.after == state_of(TICKET)


def test_a_deleted_ticket_has_no_state_after() -> None:
    found = ticket_event({}, type="ticket.deleted")

    assert found.before == state_of(TICKET)
    assert found.after is None


def test_an_event_that_is_not_about_a_ticket_has_no_states_whatever_its_data_says() -> None:
    found = event({"ticket": TICKET, "changes": {"due": [1, 2]}}, type="build.finished")

    assert (found.before, found.after, found.changes) == (None, None, {})


def test_a_state_holds_every_field_a_filter_can_ask_for() -> None:
    assert tuple(state_of(TICKET)) == STATE_FIELDS
    assert set(state_of({})) == set(STATE_FIELDS)


# What may be published


@pytest.mark.parametrize("type", ["build.finished", "a.b", "a1_b.c_2.d", "ticketing.sold", "a." + "b" * 62])
def test_a_type_of_ones_own_may_be_published(type: str) -> None:
    EventDraft(type, "user:alice", "rest_api", b"{}", subject="repo/main").check_publishable()


@pytest.mark.parametrize(
    "type",
    [
        "", "build", "Build.finished", "build.", ".build", "build..finished", "1.b", "build.fin\r\nished",
        "build.finished\n", "build.\0", "a." + "b" * MAX_TYPE_LENGTH, "b\N{LATIN SMALL LETTER U WITH DIAERESIS}ild.x",
        *(f"{prefix}anything" for prefix in RESERVED_PREFIXES), *TICKET_TYPES, *SYSTEM_TYPES, *sorted(CONTROL_NAMES),
    ],
)  # fmt: skip
def test_a_type_that_is_reserved_or_malformed_may_not_be_published(type: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        EventDraft(type, "user:alice", "rest_api", b"{}").check_publishable()

    assert [problem.parameter for problem in refused.value.problems] == ["type"]


@pytest.mark.parametrize("subject", ["", "a\rb", "a\nb", "a\0b", "\x7f", "x" * (MAX_SUBJECT_LENGTH + 1)])
def test_a_subject_has_no_control_characters_and_a_bounded_length(subject: str) -> None:
    with pytest.raises(InvalidEvent) as refused:
        EventDraft("build.finished", "user:alice", "rest_api", b"{}", subject=subject).check_publishable()

    assert [problem.parameter for problem in refused.value.problems] == ["subject"]


def test_data_has_a_bounded_size_and_every_problem_is_named() -> None:
    EventDraft("build.finished", "user:alice", "rest_api", b" " * MAX_DATA_BYTES).check_publishable()
    with pytest.raises(InvalidEvent) as refused:
        EventDraft("x", "user:alice", "rest_api", b" " * (MAX_DATA_BYTES + 1), subject="").check_publishable()

    assert [problem.parameter for problem in refused.value.problems] == ["type", "subject", "data"]


def test_the_types_of_the_product_are_types() -> None:
    assert all(TYPE_PATTERN.fullmatch(name) and len(name) <= MAX_TYPE_LENGTH for name in (*TICKET_TYPES, *SYSTEM_TYPES))
    assert all(name.startswith(RESERVED_PREFIXES) for name in (*TICKET_TYPES, *SYSTEM_TYPES))
