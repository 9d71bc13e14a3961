"""The filter grammar, and that a compiled filter matches what its words say."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broadcaster.errors import FieldProblem, InvalidFilter
from broadcaster.event import STATE_FIELDS, Event, state_of
from broadcaster.filters import (
    CHANGE_FIELDS,
    EVERYTHING,
    FILTER_NAMES,
    MAX_VALUES,
    NO_VALUE,
    ORIGINS,
    TYPE_ALIASES,
    Filter,
    UnknownValue,
    index_values,
    parse_filter,
)
from taskhub.tickets.fields import FIELDS

KNOWN: Mapping[str, Sequence[str]] = {
    "status": ("received", "in_progress", "completed"),
    "phase": ("todo", "active", "done"),
    "assignee": ("alice", "alan", "bob"),
    "requestor": ("alice", "carol"),
    "account": ("acme", "apex"),
    "category": ("incident", "inquiry"),
    "channel": ("email", "phone"),
    "priority": ("none", "low", "high"),
    "label": ("Red", "Rust", "blue", "受付"),
}
NULLABLE = ("assignee", "requestor", "account", "category", "channel")


class KnownValues:
    """A resolver that knows a few ids and names; the caller is alice."""

    def resolve(self, field: str, value: str) -> str:
        if value == "me":
            return "user:alice" if field == "actor" else "alice"
        folded = value.casefold().replace(" ", "_")
        for known in KNOWN[field]:
            if known.casefold() == folded:
                return known
        raise UnknownValue(KNOWN[field])


def parse(query: str) -> Filter:
    return parse_filter(parse_qsl(query, keep_blank_values=True), KnownValues())


def problems(query: str) -> list[FieldProblem]:
    with pytest.raises(InvalidFilter) as refused:
        parse(query)
    return refused.value.problems


START: dict[str, Any] = {
    "status": "received", "phase": "todo", "assignee": None, "requestor": "carol", "account": None, "category": None,
    "channel": "email", "priority": "none", "label": [],
}  # fmt: skip


def ticket_event(
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    *,
    type: str = "ticket.updated",
    subject: str = "TH-1",
    actor: str = "user:alice",
    origin: str = "rest_api",
    changed: Sequence[str] = (),
) -> Event:
    """An event that takes a ticket from START with `before` to START with `after`; `changed` names further fields."""
    old, new = {**START, **(before or {})}, {**START, **(after or {})}
    wire = {"label": "labels"}
    changes = {wire.get(name, name): [old[name], new[name]] for name in STATE_FIELDS if old[name] != new[name]}
    changes.update({name: [None, "x"] for name in changed})
    ticket = {
        wire.get(name, name): {"id": value, "name": str(value).title()} if name in NULLABLE and value else value
        for name, value in (old if type == "ticket.deleted" else new).items()
    }
    data = {"ticket": ticket, "changes": {} if type == "ticket.deleted" else changes, "comment": None}
    return event(type, subject, actor, origin, data)


def event(
    type: str = "build.finished",
    subject: str | None = "repo/main",
    actor: str = "user:alice",
    origin: str = "rest_api",
    data: object = None,
) -> Event:
    return Event(
        workspace="default", epoch="k7q2m4xa", seq=1, id="k7q2m4xa-1", time="2026-11-20T09:12:03.123Z", type=type,
        subject=subject, actor=actor, origin=origin, ticket_version=None, data=json.dumps(data or {}).encode(),
    )  # fmt: skip


# What passes


def test_no_filter_passes_everything() -> None:
    assert parse("") == EVERYTHING
    assert EVERYTHING.match(event()) == ""
    assert EVERYTHING.describe() == {}
    assert EVERYTHING.index is None


def test_values_or_names_and() -> None:
    wanted = parse("type=ticket.created,ticket.updated&actor=user:alice")

    assert wanted.match(ticket_event(type="ticket.updated")) == ""
    assert wanted.match(ticket_event(type="ticket.created")) == ""
    assert wanted.match(ticket_event(type="ticket.commented")) is None
    assert wanted.match(ticket_event(type="ticket.updated", actor="user:bob")) is None


def test_repeated_names_append() -> None:
    assert parse("type=ticket.created&type=ticket.updated") == parse("type=ticket.updated,ticket.created")


def test_a_star_at_the_end_is_a_prefix() -> None:
    assert parse("subject=repo/*").match(event()) == ""
    assert parse("subject=repo/*").match(event(subject="report")) is None
    assert parse("subject=*").match(event(subject=None)) is None
    assert parse("ticket=TH-1*").match(ticket_event(subject="TH-19")) == ""
    assert parse("type=*").match(event()) == ""


def test_one_positive_and_no_negated_value_must_match() -> None:
    wanted = parse("type=ticket.*,!ticket.progress")

    assert wanted.match(ticket_event(type="ticket.created")) == ""
    assert wanted.match(ticket_event(type="ticket.progress")) is None
    assert wanted.match(event()) is None


def test_only_negated_values_pass_everything_else() -> None:
    assert parse("type=!ticket.*").match(event()) == ""
    assert parse("type=!ticket.*").match(ticket_event()) is None
    assert parse("subject=!repo/main").match(event(subject=None)) == ""
    assert parse("ticket=!TH-1").match(event()) == ""
    assert parse("ticket=!TH-1").match(ticket_event()) is None


def test_the_alias_stands_for_its_types() -> None:
    assert parse("type=task_updated") == parse("type=" + ",".join(TYPE_ALIASES["task_updated"]))
    assert parse("type=!task_updated").match(ticket_event(type="ticket.assigned")) is None


def test_a_ticket_key_is_the_subject_of_ticket_events_only() -> None:
    assert parse("ticket=th-1").match(ticket_event(subject="TH-1")) == ""
    assert parse("ticket=TH-1").match(event(subject="TH-1")) is None
    assert parse("subject=TH-1").match(event(subject="TH-1")) == ""
    assert parse("subject=TH-1").match(ticket_event(subject="TH-1")) == ""


def test_not_me_hides_ones_own_changes() -> None:
    assert parse("actor=!me").match(event(actor="user:alice")) is None
    assert parse("actor=!me").match(event(actor="user:bob")) == ""
    assert parse("actor=me").match(event(actor="user:alice")) == ""
    assert parse("actor=agent:*").match(event(actor="agent:triage")) == ""


def test_changed_names_a_field_of_the_changes() -> None:
    assert parse("changed=due,summary").match(ticket_event(changed=["due"])) == ""
    assert parse("changed=due").match(ticket_event(changed=["summary"])) is None
    assert parse("changed=!progress").match(ticket_event(changed=["progress", "due"])) is None
    assert parse("changed=!progress").match(event()) == ""
    assert parse("changed=labels").match(ticket_event(after={"label": ["Red"]})) == ""


def test_own_events_with_changes_in_their_data_name_no_field() -> None:
    assert parse("changed=due").match(event(data={"changes": {"due": [1, 2]}})) is None
    assert parse("status=received").match(event(data={"ticket": {"status": "received"}})) is None
    assert parse("assignee=none").match(event(data={"ticket": {}})) is None


# State


def test_a_ticket_enters_stays_in_and_leaves_a_state_filter() -> None:
    wanted = parse("status=in_progress")
    received, active = {"status": "received"}, {"status": "in_progress"}

    assert wanted.match(ticket_event(received, active)) == "enter"
    assert wanted.match(ticket_event(active, active, changed=["due"])) == "update"
    assert wanted.match(ticket_event(active, received)) == "leave"
    assert wanted.match(ticket_event(received, received)) is None


@pytest.mark.parametrize("type", ["ticket.created", "ticket.restored"])
def test_created_and_restored_tickets_enter(type: str) -> None:
    assert parse("status=received").match(ticket_event(type=type)) == "enter"
    assert parse("status=completed").match(ticket_event(type=type)) is None


def test_a_deleted_ticket_leaves() -> None:
    assert parse("status=received").match(ticket_event(type="ticket.deleted")) == "leave"
    assert parse("status=completed").match(ticket_event(type="ticket.deleted")) is None


def test_all_state_filters_are_one_predicate() -> None:
    wanted = parse("status=in_progress&assignee=me&label=!Red")
    mine = {"status": "in_progress", "assignee": "alice"}

    # Each single one holds before or after, all of them together at no time.
    assert wanted.match(ticket_event({"status": "in_progress"}, {"assignee": "alice"})) is None
    assert wanted.match(ticket_event({"status": "in_progress"}, mine)) == "enter"
    assert wanted.match(ticket_event(mine, {**mine, "label": ["Red"]})) == "leave"


def test_negated_state_values_are_part_of_the_predicate() -> None:
    wanted = parse("status=!completed")

    assert wanted.match(ticket_event({}, {"status": "completed"})) == "leave"
    assert wanted.match(ticket_event({"status": "completed"}, {})) == "enter"


@pytest.mark.parametrize("hiding", ["type=ticket.commented", "actor=!me", "origin=import", "changed=due"])
def test_a_flip_is_delivered_even_if_another_name_hides_it(hiding: str) -> None:
    wanted = parse(f"status=in_progress&{hiding}")
    active = {"status": "in_progress"}

    assert wanted.match(ticket_event({}, active)) == "enter"
    assert wanted.match(ticket_event(active, {})) == "leave"
    assert wanted.match(ticket_event(active, active, changed=["summary"])) is None


@pytest.mark.parametrize("narrowing", ["ticket=TH-2", "subject=TH-2", "ticket=!TH-1", "subject=!TH-*"])
def test_a_flip_of_another_ticket_is_not_delivered(narrowing: str) -> None:
    assert parse(f"status=in_progress&{narrowing}").match(ticket_event({}, {"status": "in_progress"})) is None


@pytest.mark.parametrize("query", ["status=received", "assignee=none", "label=none", "status=!completed", "label=!Red"])
def test_an_event_without_a_ticket_never_matches_a_state_filter(query: str) -> None:
    assert parse(query).match(event()) is None
    assert parse(query).match(event("batch.finished", None)) is None


def test_none_is_null_and_no_labels() -> None:
    assert parse("assignee=none").match(ticket_event({"assignee": "bob"}, {})) == "enter"
    assert parse("assignee=!none").match(ticket_event({"assignee": "bob"}, {})) == "leave"
    assert parse("assignee=none,bob").match(ticket_event({"assignee": "bob"}, {})) == "update"
    assert parse("assignee=*").match(ticket_event({"assignee": "bob"}, {})) == "leave"
    assert parse("label=none").match(ticket_event({"label": ["Red"]}, {})) == "enter"
    assert parse("label=!none").match(ticket_event({"label": ["Red"]}, {})) == "leave"


def test_none_is_a_priority_of_its_own() -> None:
    assert parse("priority=none").match(ticket_event({"priority": "low"}, {})) == "enter"
    assert parse("priority=none").index == ("priority", ("none",))


def test_one_of_the_labels_is_enough_and_one_unwanted_is_too_many() -> None:
    both = ticket_event({"label": ["Red", "blue"]}, {"label": ["Red", "blue"]}, changed=["due"])

    assert parse("label=Red").match(both) == "update"
    assert parse("label=re*").match(both) is None
    assert parse("label=Re*").match(both) == "update"
    assert parse("label=Red,!blue").match(both) is None


def test_state_values_resolve_by_name() -> None:
    assert parse("status=In Progress") == parse("status=in_progress")
    assert parse("assignee=me") == parse("assignee=Alice") == parse("assignee=ME")
    assert parse("status=IN*") == parse("status=in*")


def test_transition_tells_how_a_span_of_events_moves_a_ticket() -> None:
    wanted = parse("status=in_progress&type=ticket.commented")
    inside, outside = {**START, "status": "in_progress"}, START

    assert wanted.has_state
    assert wanted.transition(outside, inside) == "enter"
    assert wanted.transition(inside, None) == "leave"
    assert wanted.transition(inside, inside) == "update"
    assert wanted.transition(outside, outside) is None
    assert wanted.transition(None, None) is None
    assert not parse("type=ticket.commented").has_state
    assert parse("type=ticket.commented").transition(outside, inside) == ""


def test_a_snapshot_asks_only_for_key_and_state() -> None:
    wanted = parse("ticket=TH-1*&subject=!TH-12&status=received&type=ticket.commented&actor=!me&changed=due")

    assert wanted.matches_ticket("TH-1", START)
    assert not wanted.matches_ticket("TH-2", START)
    assert not wanted.matches_ticket("TH-12", START)
    assert not wanted.matches_ticket("TH-1", {**START, "status": "completed"})
    assert EVERYTHING.matches_ticket("TH-1", START)


# Normal form, description, index


def test_filters_are_equal_when_they_mean_the_same() -> None:
    one = parse("type=ticket.updated,ticket.created&assignee=bob,alice&label=!blue,Red")
    other = parse("label=Red,Red,!blue,!blue&assignee=alice&assignee=bob&type=ticket.created,ticket.updated")

    assert one == other
    assert hash(one) == hash(other)
    assert parse("type=ticket.*,ticket.created,ticket.cre*") == parse("type=ticket.*")
    assert parse("type=ticket.created") != parse("type=!ticket.created")
    assert parse("type=ticket.created") != parse("type=ticket.created*")
    assert parse("ticket=TH-1") != parse("subject=TH-1")


def test_a_description_shows_what_was_understood() -> None:
    described = parse("type=!ticket.progress,ticket.*&assignee=me,none&ticket=th-1&label=!Red").describe()

    assert described == {
        "type": ["ticket.*", "!ticket.progress"],
        "ticket": ["TH-1"],
        "assignee": ["alice", "none"],
        "label": ["!Red"],
    }
    assert parse("&".join(f"{name}={','.join(values)}" for name, values in described.items())).describe() == described


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("ticket=TH-2,TH-1&assignee=bob&type=ticket.created", ("subject", ("TH-1", "TH-2"))),
        ("subject=repo/main&status=received", ("subject", ("repo/main",))),
        ("assignee=bob,none&label=Red", ("assignee", (NO_VALUE, "bob"))),
        ("label=Red&requestor=carol", ("label", ("Red",))),
        ("requestor=carol&account=acme", ("requestor", ("carol",))),
        ("account=acme&category=incident", ("account", ("acme",))),
        ("category=incident&status=received", ("category", ("incident",))),
        ("status=received&channel=email", ("status", ("received",))),
        ("channel=email&priority=low", ("channel", ("email",))),
        ("priority=low&phase=todo", ("priority", ("low",))),
        ("phase=todo&type=ticket.created", ("phase", ("todo",))),
        ("type=ticket.created&actor=me", ("type", ("ticket.created",))),
        ("actor=me&origin=import", ("actor", ("user:alice",))),
        ("origin=import", ("origin", ("import",))),
        ("ticket=TH-1,!TH-2", ("subject", ("TH-1",))),
        ("ticket=TH-1,XY*&assignee=bob", ("assignee", ("bob",))),
        ("type=ticket.created&assignee=!bob", None),
        ("assignee=!bob", None),
        ("assignee=*", None),
        ("changed=due", None),
    ],
)
def test_the_index_is_the_most_selective_exact_value(query: str, index: tuple[str, tuple[str, ...]] | None) -> None:
    assert parse(query).index == index


def test_an_event_is_looked_up_under_the_state_before_and_after() -> None:
    moved = ticket_event({"assignee": "bob", "label": ["Red", "blue"]}, {"label": []})

    assert set(index_values(moved, "assignee")) == {"bob", NO_VALUE}
    assert set(index_values(moved, "label")) == {"Red", "blue", NO_VALUE}
    assert index_values(moved, "status") == ("received",)
    assert index_values(moved, "subject") == ("TH-1",)
    assert index_values(moved, "type") == ("ticket.updated",)
    assert index_values(moved, "actor") == ("user:alice",)
    assert index_values(moved, "origin") == ("rest_api",)
    assert index_values(event(subject=None), "subject") == ()
    assert index_values(event(), "assignee") == ()


# What is refused


@pytest.mark.parametrize(
    ("query", "parameter", "suggestion"),
    [
        ("type=ticket.creatd", "type", "ticket.created"),
        ("type=!ticket.creatd", "type", "!ticket.created"),
        ("type=ticket", "type", "ticket.*"),
        ("type=commented", "type", "ticket.commented"),
        ("type=task_update", "type", "task_updated"),
        ("type=Ticket.Created", "type", "ticket.created"),
        ("type=ticket.craeted*", "type", "ticket.created"),
        ("type=batch.finish", "type", "batch.finished"),
        ("type=a.*.b", "type", "a.*"),
        ("ticket=481", "ticket", None),
        ("ticket=th481", "ticket", "TH-481"),
        ("ticket=*1", "ticket", "*"),
        ("ticket=TH-1x*", "ticket", None),
        ("actor=alice", "actor", "user:alice"),
        ("origin=mcp", "origin", "mcp_tool"),
        ("origin=web*", "origin", None),
        ("changed=label", "changed", "labels"),
        ("changed=person_in_charge", "changed", "assignee"),
        ("changed=xyz*", "changed", None),
        ("status=in_progres", "status", "in_progress"),
        ("status=!complete", "status", "!completed"),
        ("status=none", "status", None),
        ("assignee=alicia", "assignee", "alice"),
        ("phase=", "phase", None),
        ("phase=todo,,done", "phase", None),
        ("label=!", "label", None),
        ("subject=" + "x" * 257, "subject", None),
        ("statuss=received", "statuss", "status"),
        ("person_in_charge=me", "person_in_charge", "assignee"),
        ("request_channel=email", "request_channel", "channel"),
        ("xyzzy=1", "xyzzy", None),
    ],
)
def test_a_mistake_is_named_with_the_nearest_valid_value(query: str, parameter: str, suggestion: str | None) -> None:
    [problem] = problems(query)

    assert problem.parameter == parameter
    assert problem.did_you_mean == suggestion
    assert problem.reason


@pytest.mark.parametrize("character", ["%0D", "%0A", "%00"])
@pytest.mark.parametrize("name", FILTER_NAMES)
def test_line_breaks_and_nul_are_refused_everywhere(name: str, character: str) -> None:
    for query in (f"{name}=a{character}", f"{name}={character}", f"{name}=!a{character}*"):
        [problem] = problems(query)
        assert problem.reason == "must not contain line breaks or NUL"


def test_all_mistakes_are_named_at_once() -> None:
    found = problems("type=ticket.creatd,ticket.updatd&status=nowhere&colour=red")

    assert [problem.parameter for problem in found] == ["type", "type", "status", "colour"]


def test_at_most_32_values_are_accepted() -> None:
    values = [f"TH-{n}" for n in range(MAX_VALUES)]
    parse(f"ticket={','.join(values)}")

    [problem] = problems(f"ticket={','.join(values)}&type=ticket.created,ticket.updated")
    assert problem == FieldProblem("type", "a filter has at most 32 values in all")


def test_types_yet_unknown_may_be_asked_for_where_the_set_is_open() -> None:
    for word in ("build.finished", "taskhub.test", "registry.added", "connection.lost", "build.*"):
        parse(f"type={word}")


def test_every_field_of_a_ticket_can_be_asked_for_by_its_name_in_changes() -> None:
    assert {field.event for field in FIELDS} | {
        "phase", "progress", "lease", "blocked", "relations", "attachments", "deleted",
    } == set(CHANGE_FIELDS)  # fmt: skip


def test_every_origin_and_field_can_be_asked_for() -> None:
    for name, values in (("origin", ORIGINS), ("changed", CHANGE_FIELDS)):
        for value in values:
            assert parse(f"{name}={value}").describe() == {name: [value]}


# A second opinion


@dataclass(frozen=True)
class Fact:
    """An event as the generator knows it: states before and after, not derived from changes."""

    type: str
    subject: str | None
    actor: str
    origin: str
    changed: frozenset[str]
    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None
    event: Event


TYPES = ("ticket.created", "ticket.updated", "ticket.progress", "ticket.deleted", "ticket.restored", "build.finished")
SUBJECTS = ("TH-1", "TH-2", "TH-10")
ACTORS = ("user:alice", "user:bob", "agent:triage")


@st.composite
def states(draw: st.DrawFn) -> dict[str, Any]:
    state: dict[str, Any] = {
        name: draw(st.sampled_from([*KNOWN[name], *([None] if name in NULLABLE else [])]))
        for name in STATE_FIELDS
        if name != "label"
    }
    state["label"] = draw(st.lists(st.sampled_from(KNOWN["label"]), unique=True, max_size=3))
    return state


@st.composite
def facts(draw: st.DrawFn) -> Fact:
    kind = draw(st.sampled_from(TYPES))
    actor, origin = draw(st.sampled_from(ACTORS)), draw(st.sampled_from(ORIGINS))
    subject = draw(st.sampled_from(SUBJECTS))
    if not kind.startswith("ticket."):
        no_ticket = draw(st.sampled_from([None, subject]))
        return Fact(kind, no_ticket, actor, origin, frozenset(), None, None, event(kind, no_ticket, actor, origin))
    before = draw(states())
    after = draw(st.one_of(st.just(before), states()))
    further = draw(st.sets(st.sampled_from(["due", "progress"])))
    if kind == "ticket.deleted":
        made = ticket_event(before, before, type=kind, subject=subject, actor=actor, origin=origin)
        return Fact(kind, subject, actor, origin, frozenset(), before, None, made)
    made = ticket_event(before, after, type=kind, subject=subject, actor=actor, origin=origin, changed=sorted(further))
    changed = {"labels" if name == "label" else name for name in STATE_FIELDS if before[name] != after[name]} | further
    old = None if kind in ("ticket.created", "ticket.restored") else before
    return Fact(kind, subject, actor, origin, frozenset(changed), old, after, made)


WORDS: Mapping[str, Sequence[str]] = {
    "type": (*TYPES, "task_updated", "ticket.*", "ticket.re*", "build.*", "*"),
    "ticket": (*SUBJECTS, "TH-1*", "TH*", "*"),
    "subject": (*SUBJECTS, "TH-1*", "*"),
    "actor": (*ACTORS, "me", "user:*", "user:a*"),
    "origin": (*ORIGINS, "mcp*", "*"),
    "changed": ("status", "due", "progress", "labels", "p*", "*"),
    **{
        name: (*values, "a*", "r*", "R*", "*", *(["none"] if name in NULLABLE or name == "label" else []))
        for name, values in KNOWN.items()
    },
}


@st.composite
def queries(draw: st.DrawFn) -> list[tuple[str, str]]:
    params = []
    for name in draw(st.lists(st.sampled_from(FILTER_NAMES), max_size=5)):
        words = draw(st.lists(st.sampled_from(WORDS[name]), min_size=1, max_size=3))
        params.append((name, ",".join(draw(st.sampled_from(["", "", "!"])) + word for word in words)))
    return params


def reference_match(params: Sequence[tuple[str, str]], fact: Fact) -> str | None:
    """The contract's sentences, one by one, on plain values."""

    def word_fits(name: str, word: str, value: str | None) -> bool:
        if word == "none" and name != "priority":
            return value is None
        if value is None:
            return False
        if word == "me":
            return value in ("alice", "user:alice")
        if word == "task_updated":
            return value in ("ticket.updated", "ticket.status_changed", "ticket.assigned")
        if word.endswith("*"):
            wanted = word[:-1].lower() if name in KNOWN and name != "label" else word[:-1]
            return value[: len(wanted)] == wanted
        return value == word

    def passes(name: str, values: Sequence[str | None]) -> bool:
        words = [word for given, text in params if given == name for word in text.split(",")]
        wanted = [w for w in words if w[0] != "!"]
        unwanted = [w[1:] for w in words if w[0] == "!"]
        found = [w for w in wanted if any(word_fits(name, w, v) for v in values)]
        refused = [w for w in unwanted if any(word_fits(name, w, v) for v in values)]
        return (bool(found) or not wanted) and not refused

    def predicate(state: Mapping[str, Any] | None) -> bool:
        return state is not None and all(
            passes(name, (state["label"] or [None]) if name == "label" else [state[name]]) for name in STATE_FIELDS
        )

    about_ticket = fact.type.startswith("ticket.")
    if not passes("ticket", [fact.subject if about_ticket else None]) or not passes("subject", [fact.subject]):
        return None
    hidden = not (
        passes("type", [fact.type])
        and passes("actor", [fact.actor])
        and passes("origin", [fact.origin])
        and passes("changed", sorted(fact.changed))
    )
    if not any(name in STATE_FIELDS for name, _ in params):
        return None if hidden else ""
    match (predicate(fact.before), predicate(fact.after)):
        case (False, True):
            return "enter"
        case (True, False):
            return "leave"
        case (True, True):
            return None if hidden else "update"
    return None


@given(queries(), facts())
def test_a_compiled_filter_matches_what_its_words_say(params: list[tuple[str, str]], fact: Fact) -> None:
    compiled = parse_filter(params, KnownValues())

    assert compiled.match(fact.event) == reference_match(params, fact)


@given(queries(), facts())
def test_the_index_never_hides_an_event_that_matches(params: list[tuple[str, str]], fact: Fact) -> None:
    compiled = parse_filter(params, KnownValues())

    if compiled.index is not None and compiled.match(fact.event) is not None:
        field, values = compiled.index
        assert set(index_values(fact.event, field)) & set(values)


@given(queries(), st.randoms(use_true_random=False))
def test_order_and_repetition_make_no_difference(params: list[tuple[str, str]], random: Any) -> None:
    single = [(name, word) for name, text in params for word in text.split(",")]
    shuffled = single * 2
    random.shuffle(shuffled)
    one, other = parse_filter(params, KnownValues()), parse_filter(shuffled, KnownValues())

    assert one == other
    assert hash(one) == hash(other)
    assert one.index == other.index
    assert one.describe() == other.describe()


@given(queries(), states(), st.sampled_from(SUBJECTS))
def test_a_snapshot_holds_the_tickets_that_a_change_would_show(
    params: list[tuple[str, str]], state: dict[str, Any], key: str
) -> None:
    compiled = parse_filter([p for p in params if p[0] in ("ticket", "subject", *STATE_FIELDS)], KnownValues())
    touched = ticket_event(state, state, subject=key, changed=["due"])

    assert compiled.matches_ticket(key, state) is (compiled.match(touched) is not None)
    assert state_of(touched.parsed["ticket"]) == state
