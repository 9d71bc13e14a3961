"""Changing tickets and commenting on them."""

import asyncio
from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError
from sqlalchemy import update

from taskhub.auth.errors import Forbidden
from taskhub.storage.schema import tickets
from taskhub.tickets.errors import InvalidInput, TicketGone, TicketNotFound, VersionConflict
from taskhub.tickets.inputs import NewComment, TicketChange
from taskhub.tickets.model import Comment, Ref
from tests.taskhub.world import ALICE, World, caller, execute

BOB = caller("user:bob")


@pytest.fixture
async def world(world: World) -> World:
    """With users and one ticket, TH-1."""
    await world.add("users", "Alice")
    await world.add("users", "Bob")
    await world.create("Printer", person_in_charge="alice", labels=["a"])
    world.heard.clear()
    world.tick()
    return world


def heard(world: World) -> tuple[str, dict[str, Any], str | None]:
    """The one event: type, changes, comment."""
    [event] = world.heard
    return event.type, dict(event.changes), event.parsed["comment"]


SPELLINGS = ["in_progress", "In Progress", "IN-PROGRESS", "inprogress", " in  progress ", "ｉｎ＿ｐｒｏｇｒｅｓｓ"]


async def test_a_status_is_known_in_every_spelling(world: World) -> None:
    for spelling in SPELLINGS:
        world.heard.clear()
        await world.update("th-1", status=spelling)

        assert heard(world) == (
            "ticket.status_changed", {"status": ["received", "in_progress"], "phase": ["todo", "active"]}, None,
        )  # fmt: skip
        await world.update("TH-1", status="received")


async def test_a_change_of_several_fields_is_one_event_that_names_them_all(world: World) -> None:
    await world.update("TH-1", status="verifying", person_in_charge="bob", summary="Printers", labels=["b", "a"])

    assert heard(world) == (
        "ticket.status_changed",
        {
            "summary": ["Printer", "Printers"], "status": ["received", "verifying"], "phase": ["todo", "review"],
            "assignee": ["alice", "bob"], "labels": [["a"], ["a", "b"]],
        },
        None,
    )  # fmt: skip


async def test_an_assignment_is_an_event_of_its_own_type(world: World) -> None:
    await world.update("TH-1", person_in_charge="bob", priority="high")

    assert heard(world) == (
        "ticket.assigned", {"priority": ["none", "high"], "assignee": ["alice", "bob"]}, None,
    )  # fmt: skip
    assert world.heard[0].before is not None
    assert world.heard[0].before["assignee"] == "alice"
    assert world.heard[0].after is not None
    assert world.heard[0].after["assignee"] == "bob"


async def test_any_other_change_is_an_update(world: World) -> None:
    await world.update("TH-1", remarks="long " * 1000, scheduled_completion_date=date(2026, 12, 1))

    assert heard(world) == (
        "ticket.updated", {"due": [None, "2026-12-01"], "remarks": [None, "long " * 1000]}, None,
    )  # fmt: skip


async def test_absent_is_kept_and_null_is_cleared(world: World) -> None:
    await world.update("TH-1", description="text", priority="high", has_defect=False)
    await world.update("TH-1", description=None, priority=None, person_in_charge=None, labels=None)

    ticket = await world.ticket("TH-1")
    assert (ticket.description, ticket.priority, ticket.person_in_charge, ticket.labels) == (None, "none", None, ())
    assert (ticket.has_defect, ticket.summary) == (False, "Printer")


async def test_what_a_ticket_cannot_be_without_cannot_be_cleared(world: World) -> None:
    for field in ["summary", "status", "reception_at"]:
        with pytest.raises(InvalidInput, match="cannot be cleared") as refused:
            await world.tickets.update_ticket(ALICE, "TH-1", TicketChange.model_validate({field: None}))

        assert refused.value.problems[0].pointer == f"/{field}"


async def test_what_is_so_already_is_a_noop(world: World) -> None:
    before = await world.log.bounds("default")
    written = await world.update("TH-1", status="received", person_in_charge="ALICE", labels=["a", "a"])

    assert (written.noop, written.version, written.event_id) == (True, 1, None)
    assert written.position == f"{before.epoch}-{before.head}"
    assert world.heard == []
    assert (await world.ticket("TH-1")).updated_at == "2026-11-20T12:00:00.000Z"


async def test_a_comment_goes_with_its_change_in_one_event(world: World) -> None:
    written = await world.update("TH-1", status="in_progress", comment=" on it ")

    assert heard(world)[2] == "on it"
    assert world.heard[0].parsed["comment_id"] == written.comment_id
    detail = await world.tickets.get_ticket(ALICE, "TH-1", include=["comments", "history"])
    assert detail.comments == [
        Comment(str(written.comment_id), "user:alice", "note", "on it", "2026-11-20T12:00:00.001Z")
    ]
    assert detail.history is not None
    assert [(entry.type, entry.version, entry.comment) for entry in detail.history] == [
        ("ticket.status_changed", 2, "on it"), ("ticket.created", 1, None),
    ]  # fmt: skip


async def test_a_comment_alone_raises_no_version(world: World) -> None:
    first = await world.update("TH-1", comment="just saying")
    second = await world.tickets.add_comment(BOB, "TH-1", NewComment(comment="why?", kind="question"))

    assert (first.version, second.version, first.noop, second.noop) == (1, 1, False, False)
    assert [event.type for event in world.heard] == ["ticket.commented"] * 2
    assert [event.ticket_version for event in world.heard] == [1, 1]
    assert world.heard[1].parsed["comment"] == "why?"
    assert world.heard[1].parsed["comment_id"] == second.comment_id
    assert world.heard[1].parsed["kind"] == "question"
    comments = (await world.tickets.get_ticket(ALICE, "TH-1", include=["comments"])).comments
    assert comments is not None
    assert [(c.author, c.kind, c.body) for c in comments] == [
        ("user:alice", "note", "just saying"), ("user:bob", "question", "why?"),
    ]  # fmt: skip


async def test_a_blank_comment_is_none(world: World) -> None:
    assert (await world.update("TH-1", comment="  ")).noop


async def test_done_sets_the_completion_date_and_leaving_clears_it(world: World) -> None:
    await world.update("TH-1", status="completed")
    done = await world.ticket("TH-1")
    await world.update("TH-1", status="verifying")
    reopened = await world.ticket("TH-1")

    assert done.completion_date == "2026-11-20"
    assert reopened.completion_date is None
    assert world.heard[0].changes["completion_date"] == [None, "2026-11-20"]
    assert world.heard[1].changes["completion_date"] == ["2026-11-20", None]


async def test_a_completion_date_that_is_given_stays(world: World) -> None:
    await world.update("TH-1", status="completed", completion_date=date(2026, 11, 3))

    assert (await world.ticket("TH-1")).completion_date == "2026-11-03"


async def test_waiting_needs_a_reason_and_leaving_clears_it(world: World) -> None:
    with pytest.raises(InvalidInput, match="reason"):
        await world.update("TH-1", status="waiting")
    await world.update("TH-1", status="waiting", waiting_reason="spare parts")
    with pytest.raises(InvalidInput, match="reason"):
        await world.update("TH-1", waiting_reason=None)
    waiting = await world.ticket("TH-1")
    await world.update("TH-1", status="in_progress")

    assert waiting.waiting_reason == "spare parts"
    assert (await world.ticket("TH-1")).waiting_reason is None


async def test_a_comment_is_reason_enough_to_wait(world: World) -> None:
    await world.update("TH-1", status="waiting", comment="the customer is on holiday")

    assert (await world.ticket("TH-1")).waiting_reason == "the customer is on holiday"


async def test_another_category_drops_the_detail_of_the_old_one(world: World) -> None:
    await world.update("TH-1", category_detail="Outage")
    await world.update("TH-1", category="inquiry")
    other = await world.ticket("TH-1")
    with pytest.raises(InvalidInput, match="not a detail"):
        await world.update("TH-1", category_detail="Outage")
    await world.update("TH-1", category="incident", category_detail="Outage")
    await world.update("TH-1", category=None)

    assert (other.category, other.category_detail) == (Ref("inquiry", "Inquiry"), None)
    cleared = await world.ticket("TH-1")
    assert (cleared.category, cleared.category_detail) == (None, None)


async def test_an_inactive_reference_may_stay_but_not_be_set(world: World) -> None:
    await world.change_reference("users", "alice", active=False)

    assert (await world.update("TH-1", person_in_charge="alice", summary="Still hers")).version == 2
    await world.update("TH-1", person_in_charge="bob")
    with pytest.raises(InvalidInput, match="no longer in use"):
        await world.update("TH-1", person_in_charge="alice")


async def test_a_renamed_reference_keeps_its_id(world: World) -> None:
    await world.change_reference("users", "alice", name="Alice Tanaka")

    assert (await world.ticket("TH-1")).person_in_charge == Ref("alice", "Alice Tanaka")
    assert (await world.update("TH-1", person_in_charge="alice tanaka")).noop


async def test_a_ticket_is_not_among_its_own_ancestors(world: World) -> None:
    await world.create("child", parent="TH-1")
    await world.create("grandchild", parent="TH-2")

    for parent in ("TH-1", "TH-2", "TH-3"):
        with pytest.raises(InvalidInput) as refused:
            await world.update("TH-1", parent=parent)
        assert refused.value.problems[0].pointer == "/parent"
    with pytest.raises(InvalidInput, match="no ticket TH-99"):
        await world.update("TH-1", parent="TH-99")
    await world.update("TH-3", parent="TH-1")
    assert world.heard[-1].changes == {"parent": ["TH-2", "TH-1"]}


async def test_a_conflict_says_what_changed_and_who_changed_it(world: World) -> None:
    await world.update("TH-1", summary="one", priority="high")
    await world.update("TH-1", by=BOB, summary="two", priority=None)
    await world.tickets.add_comment(caller("user:carol"), "TH-1", NewComment(comment="hm"))

    with pytest.raises(VersionConflict) as conflict:
        await world.tickets.update_ticket(ALICE, "TH-1", TicketChange(summary="mine"), expected_version=1)
    assert (conflict.value.expected, conflict.value.current) == (1, 3)
    assert conflict.value.changed == {"summary": ["Printer", "two"]}
    assert conflict.value.actors == ["user:alice", "user:bob"]
    written = await world.tickets.update_ticket(ALICE, "TH-1", TicketChange(summary="mine"), expected_version=3)
    assert written.version == 4


async def test_a_conflict_about_what_is_as_it_was_says_who_was_there(world: World) -> None:
    await world.update("TH-1", by=BOB, priority="high", labels=["b"])
    await world.update("TH-1", by=BOB, priority=None, labels=["a"])

    with pytest.raises(VersionConflict, match=r"since you read it \(there and back by user:bob\)") as conflict:
        await world.tickets.update_ticket(ALICE, "TH-1", TicketChange(summary="mine"), expected_version=1)
    assert (conflict.value.changed, conflict.value.actors) == ({}, ["user:bob"])


async def test_a_conflict_after_many_changes_reads_the_first_and_tells_the_value_of_now(world: World) -> None:
    await world.update("TH-1", by=BOB, remarks="0", status="in_progress")
    for number in range(1, 25):
        await world.update("TH-1", remarks=str(number), status="verifying" if number == 24 else "in_progress")

    with pytest.raises(
        VersionConflict, match=r"\(status, phase, remarks by user:bob, user:alice, and more\)"
    ) as conflict:
        await world.tickets.update_ticket(ALICE, "TH-1", TicketChange(summary="mine"), expected_version=1)
    assert conflict.value.changed == {
        "remarks": [None, "24"],
        "status": ["received", "verifying"],
        "phase": ["todo", "review"],
    }


async def test_of_many_writers_that_expect_the_same_version_one_wins(world: World) -> None:
    outcomes = await asyncio.gather(
        *(
            world.tickets.update_ticket(ALICE, "TH-1", TicketChange(remarks=str(n)), expected_version=1)
            for n in range(8)
        ),
        return_exceptions=True,
    )

    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["VersionConflict"] * 7 + ["Written"]


async def test_labels_changed_by_many_at_once_are_never_stale_in_an_event(world: World) -> None:
    await asyncio.gather(*(world.update("TH-1", labels=[f"l{n}"]) for n in range(8)))

    changes = [event.changes["labels"] for event in await world.log.read("default", 1, 10)]
    assert [before for before, _ in changes] == [["a"], *(after for _, after in changes[:-1])]


async def test_a_key_that_is_no_ticket_is_not_found(world: World) -> None:
    for key in ["TH-2", "XX-1", "nonsense", "TH-", "TH-0", "TH-99999999999999999999", "1", "TH-1\0"]:
        with pytest.raises(TicketNotFound):
            await world.update(key, summary="x")
        with pytest.raises(TicketNotFound):
            await world.tickets.add_comment(ALICE, key, NewComment(comment="x"))
        with pytest.raises(TicketNotFound):
            await world.tickets.get_ticket(ALICE, key)


async def test_a_key_is_known_as_people_write_it(world: World) -> None:
    for key in ["th-1", " TH-1 ", "TH-0001", "ＴＨ－１"]:
        assert (await world.update(key, summary=f"by {key}")).key == "TH-1"


async def test_a_deleted_ticket_is_gone(world: World) -> None:
    await execute(world.database, update(tickets).values(deleted_at="2026-11-20T12:00:00.000Z"))

    with pytest.raises(TicketGone):
        await world.update("TH-1", summary="x")
    with pytest.raises(TicketGone):
        await world.tickets.get_ticket(ALICE, "TH-1")
    with pytest.raises(InvalidInput):
        await world.create(parent="TH-1")
    assert await world.keys(show_completed=True) == []


async def test_a_repeated_update_is_one_change(world: World) -> None:
    change = TicketChange(summary="again")
    first = await world.tickets.update_ticket(ALICE, "TH-1", change, idempotency_key="k", expected_version=1)
    # By somebody who has read it since: which version a change expects is no part of what it is.
    again = await world.tickets.update_ticket(ALICE, "th-1", change, idempotency_key="k", expected_version=2)
    comment = NewComment(comment="hello")
    said = await world.tickets.add_comment(ALICE, "TH-1", comment, idempotency_key="k")
    said_again = await world.tickets.add_comment(ALICE, "TH-1", comment, idempotency_key="k")

    assert (again.replayed, again.event_id) == (True, first.event_id)
    assert (said_again.replayed, said_again.comment_id) == (True, said.comment_id)
    assert len(world.heard) == 2


async def test_a_comment_that_no_database_holds_is_refused(world: World) -> None:
    with pytest.raises(InvalidInput):
        await world.update("TH-1", comment="\0")
    with pytest.raises(ValidationError):
        await world.update("TH-1", comment="\ud800")
    assert world.heard == []


async def test_changing_needs_its_scope(world: World) -> None:
    reader = caller(scopes=["tickets:read"])
    with pytest.raises(Forbidden):
        await world.update("TH-1", by=reader, summary="x")
    with pytest.raises(Forbidden):
        await world.tickets.add_comment(reader, "TH-1", NewComment(comment="x"))


async def test_an_id_of_a_category_detail_means_its_row_alone(world: World) -> None:
    await world.add("category_details", "Other", id="other", category_id="incident")
    await world.add("category_details", "Other", id="other_2", category_id="inquiry")

    with pytest.raises(InvalidInput, match="'other' is not a detail of the category Inquiry"):
        await world.update("TH-1", category="inquiry", category_detail="other")
    await world.update("TH-1", category="inquiry", category_detail="Other")
    by_name = (await world.ticket("TH-1")).category_detail
    await world.update("TH-1", category=None)
    await world.update("TH-1", category_detail="other")
    by_id = await world.ticket("TH-1")

    assert by_name == Ref("other_2", "Other")
    assert (by_id.category, by_id.category_detail) == (Ref("incident", "Incident"), Ref("other", "Other"))


CONTRADICTIONS: list[tuple[dict[str, Any], str]] = [
    (
        {"category": None, "category_detail": "Billing"},
        "category_detail: cannot be set while the category is cleared",
    ),
    (
        {"status": "completed", "completion_date": None},
        "completion_date: cannot be cleared while the ticket becomes",
    ),
]


async def test_a_change_that_contradicts_itself_is_refused(world: World) -> None:
    for fields, reason in CONTRADICTIONS:
        with pytest.raises(InvalidInput, match=reason):
            await world.update("TH-1", **fields)

        assert (await world.ticket("TH-1")).version == 1
