"""Creating tickets."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from broadcaster.event import Event
from taskhub.auth.errors import Forbidden
from taskhub.tickets.errors import IdempotencyMismatch, InvalidInput
from taskhub.tickets.fields import FIELDS
from taskhub.tickets.inputs import NewTicket, TicketFields
from taskhub.tickets.model import Attachment, Ref, Relation
from tests.taskhub.world import ALICE, World, caller

TOKYO = timezone(timedelta(hours=9))


def pointers(error: InvalidInput) -> list[str]:
    return [problem.pointer for problem in error.problems]


async def test_a_summary_is_all_it_takes(world: World) -> None:
    written = await world.create("  Printer is on fire ")

    ticket = await world.ticket("TH-1")
    [event] = world.heard
    assert (written.key, written.version, written.event_id) == ("TH-1", 1, event.id)
    assert written.position == event.position
    assert (ticket.summary, ticket.version, ticket.priority) == ("Printer is on fire", 1, "none")
    assert (ticket.status, ticket.phase) == (Ref("received", "Received"), "todo")
    assert ticket.reception_at == ticket.created_at == ticket.updated_at == "2026-11-20T12:00:00.000Z"
    assert ticket.labels == ()
    assert (ticket.person_in_charge, ticket.category, ticket.scheduled_completion_date) == (None, None, None)


async def test_numbers_follow_each_other_without_gaps(world: World) -> None:
    await world.create()
    with pytest.raises(InvalidInput):
        await world.create(status="nonsense")
    await world.create()

    assert sorted(await world.keys()) == ["TH-1", "TH-2"]


async def test_every_field_is_kept(world: World) -> None:
    await world.add("users", "Bob Suzuki")
    await world.add("accounts", "Aozora Trading")
    await world.add("response_categories", "Answered")
    await world.create("parent")
    fields: dict[str, Any] = {
        "description": "全文\nsecond line", "reception_at": datetime(2026, 11, 1, 9, tzinfo=TOKYO),
        "requestor": "bob-suzuki", "account": "AOZORA_TRADING",
        "category": "incident", "category_detail": "slow response",
        "request_channel": "chat/llm", "person_in_charge": "Bob Suzuki", "status": "in-progress", "priority": "urgent",
        "scheduled_completion_date": date(2026, 12, 24), "completion_date": date(2026, 12, 23),
        "actual_effort_hours": 1.5, "response_category": "answered", "response_details": "done so", "has_defect": True,
        "external_ticket_id": "EXT-9", "remarks": "none", "parent": "th-1", "waiting_reason": "none yet",
        "labels": ["b", "a", "b"],
    }  # fmt: skip
    assert set(fields) == set(TicketFields.model_fields)
    await world.create("everything", **fields)

    ticket = await world.ticket("TH-2")
    bob = Ref("bob_suzuki", "Bob Suzuki")
    assert (ticket.description, ticket.reception_at) == ("全文\nsecond line", "2026-11-01T00:00:00.000Z")
    assert (ticket.requestor, ticket.person_in_charge) == (bob, bob)
    assert ticket.account == Ref("aozora_trading", "Aozora Trading")
    assert (ticket.category, ticket.category_detail) == (
        Ref("incident", "Incident"),
        Ref("slow_response", "Slow Response"),
    )
    assert ticket.request_channel == Ref("chat_llm", "Chat/LLM")
    assert (ticket.status.id, ticket.phase, ticket.priority) == ("in_progress", "active", "urgent")
    assert (ticket.scheduled_completion_date, ticket.completion_date) == ("2026-12-24", "2026-12-23")
    assert (ticket.actual_effort_hours, ticket.has_defect) == (1.5, True)
    assert ticket.response_category == Ref("answered", "Answered")
    assert (ticket.response_details, ticket.external_ticket_id, ticket.remarks) == ("done so", "EXT-9", "none")
    assert (ticket.parent, ticket.waiting_reason, ticket.labels) == ("TH-1", "none yet", ("a", "b"))


def test_every_input_field_is_in_the_table_of_names() -> None:
    assert {field.name for field in FIELDS} == {"summary", *TicketFields.model_fields}


async def test_the_event_carries_the_state_after(world: World) -> None:
    await world.add("users", "Bob")
    await world.create("hello", person_in_charge="bob", labels=["vip"], priority="high", request_channel="email")

    event = world.heard[-1]
    state = orjson.loads(event.data)["ticket"]
    assert (event.type, event.subject, event.ticket_version) == ("ticket.created", "TH-1", 1)
    assert (event.actor, event.origin) == ("user:alice", "rest_api")
    assert event.parsed["changes"] == {}
    assert event.parsed["comment"] is None
    assert state == {
        "key": "TH-1", "version": 1, "summary": "hello", "status": {"id": "received", "name": "Received"},
        "phase": "todo", "assignee": {"id": "bob", "name": "Bob"}, "requestor": None, "account": None,
        "category": None, "channel": {"id": "email", "name": "Email"}, "priority": "high", "due": None,
        "labels": ["vip"], "progress": None, "blocked": False, "lease": None, "updated_at": "2026-11-20T12:00:00.000Z",
    }  # fmt: skip
    assert event.before is None
    assert event.after is not None
    assert event.after["label"] == ["vip"]


async def test_what_is_heard_is_what_the_log_holds(world: World) -> None:
    await world.create(description='日本語と "quotes" \u2028 and 🎉')
    await world.update("TH-1", status="in progress")

    def all_of(event: Event) -> tuple[Any, ...]:
        return event.encoded, event.position

    assert [all_of(e) for e in await world.log.read("default", 0, 10)] == [all_of(e) for e in world.heard]


async def test_created_as_done_it_is_completed_today(world: World) -> None:
    await world.create(status="completed")

    assert (await world.ticket("TH-1")).completion_date == "2026-11-20"


async def test_created_as_waiting_it_needs_a_reason(world: World) -> None:
    with pytest.raises(InvalidInput, match="reason") as refused:
        await world.create(status="waiting")
    await world.create(status="waiting", waiting_reason="parts")

    assert pointers(refused.value) == ["/waiting_reason"]
    assert (await world.ticket("TH-1")).waiting_reason == "parts"


async def test_an_unknown_reference_lists_what_is_allowed_and_guesses_what_was_meant(world: World) -> None:
    with pytest.raises(InvalidInput) as refused:
        await world.create(status="In Progres", category="incidents", request_channel="fax", person_in_charge="zoe")

    problems = {problem.pointer: problem for problem in refused.value.problems}
    assert set(problems) == {"/status", "/category", "/request_channel", "/person_in_charge"}
    assert problems["/status"].did_you_mean == "In Progress"
    assert problems["/status"].allowed == ("Received", "In Progress", "Verifying", "Completed", "Waiting", "Cancelled")
    assert problems["/category"].did_you_mean == "Incident"
    assert problems["/request_channel"].allowed == ("Email", "Phone", "Teams", "Chat/LLM", "Web Form")
    assert "none is defined yet" in problems["/person_in_charge"].reason


async def test_a_name_that_means_several_asks_for_an_id(world: World) -> None:
    await world.add("users", "Alex", id="alex_1")
    await world.add("users", "ALEX", id="alex_2")

    with pytest.raises(InvalidInput, match="several") as refused:
        await world.create(person_in_charge="alex")
    await world.create(person_in_charge="alex_2")

    assert refused.value.problems[0].allowed == ("alex_1", "alex_2")


async def test_an_inactive_reference_cannot_be_set(world: World) -> None:
    await world.add("accounts", "Old Customer", active=False)
    await world.add("accounts", "New Customer")

    with pytest.raises(InvalidInput, match="no longer in use") as refused:
        await world.create(account="old customer")

    assert refused.value.problems[0].allowed == ("New Customer",)


async def test_a_detail_belongs_to_its_category(world: World) -> None:
    with pytest.raises(InvalidInput) as refused:
        await world.create(category="inquiry", category_detail="outage")
    await world.create(category_detail="Outage")

    assert pointers(refused.value) == ["/category_detail"]
    assert refused.value.problems[0].allowed == ("How to Use", "Account and Access", "Billing", "Other Inquiry")
    assert (await world.ticket("TH-1")).category == Ref("incident", "Incident")


async def test_a_detail_of_several_categories_needs_the_category(world: World) -> None:
    await world.add("category_details", "Wording", id="wording_2", category_id="incident")

    with pytest.raises(InvalidInput, match="several"):
        await world.create(category_detail="WORDING")
    await world.create(category="incident", category_detail="WORDING")

    assert (await world.ticket("TH-1")).category_detail == Ref("wording_2", "Wording")


async def test_me_is_the_caller_who_becomes_a_user_by_it(world: World) -> None:
    bot = caller("agent:triage-bot")
    await world.create(by=bot, person_in_charge="me")
    await world.create(by=bot, person_in_charge="me", requestor="me")

    [user] = await world.tickets.users(ALICE)
    assert (user.id, user.name, user.kind, user.role, user.active) == (
        "triage_bot", "triage-bot", "agent", "agent", True,
    )  # fmt: skip
    assert [event.type for event in world.heard] == ["reference.changed", "ticket.created", "ticket.created"]
    assert world.heard[0].parsed == {"kind": "users", "action": "created", "id": "triage_bot", "name": "triage-bot"}
    assert (await world.ticket("TH-2")).requestor == Ref("triage_bot", "triage-bot")
    assert await world.keys(by=bot, person_in_charge=["me"]) == ["TH-2", "TH-1"]


async def test_blockers_and_parent_must_exist(world: World) -> None:
    await world.create()
    with pytest.raises(InvalidInput) as refused:
        await world.create(parent="TH-9", blocked_by=["TH-1", "TH-77", "OTHER-1", "nonsense"])

    assert pointers(refused.value) == ["/parent", "/blocked_by/1", "/blocked_by/2", "/blocked_by/3"]


async def test_blockers_are_relations_seen_from_both_sides(world: World) -> None:
    await world.create("first")
    await world.create("second", blocked_by=["TH-1", "th-1"])

    first = await world.tickets.get_ticket(ALICE, "TH-1", include=["relations"])
    second = await world.tickets.get_ticket(ALICE, "TH-2", include=["relations"])
    assert first.relations == [Relation("blocks", "TH-2", "second", "todo")]
    assert second.relations == [Relation("blocked_by", "TH-1", "first", "todo")]


async def test_attachments_are_links_to_the_web(world: World) -> None:
    attachments = [{"file_name": "a.log", "url": "https://files.example/a.log"}, {"file_name": "b", "url": "http://b/"}]
    await world.create(attachments=attachments)
    with pytest.raises(ValueError, match="url"):
        await world.create(attachments=[{"file_name": "x", "url": "javascript:alert(1)"}])

    detail = await world.tickets.get_ticket(ALICE, "TH-1", include=["attachments"])
    now = "2026-11-20T12:00:00.000Z"
    assert detail.attachments == [
        Attachment("1", "a.log", "https://files.example/a.log", now), Attachment("2", "b", "http://b/", now),
    ]  # fmt: skip


UNSTORABLE: list[tuple[dict[str, Any], str]] = [
    ({"summary": "nul \0"}, "/summary"),
    ({"description": "\0"}, "/description"),
    ({"remarks": "x\0"}, "/remarks"),
    ({"labels": ["fine", "two\nlines"]}, "/labels"),
    ({"attachments": [{"file_name": "a\0b", "url": "https://x/"}]}, "/attachments/0/file_name"),
    ({"reception_at": datetime(1, 1, 1, tzinfo=TOKYO)}, "/reception_at"),
    ({"requestor": "\0"}, "/requestor"),
    ({"category_detail": "\0"}, "/category_detail"),
]


async def test_text_that_no_database_holds_is_refused(world: World) -> None:
    for fields, pointer in UNSTORABLE:
        with pytest.raises(InvalidInput) as refused:
            await world.create(**{"summary": "x", **fields})

        assert pointers(refused.value) == [pointer]


async def test_a_time_without_a_zone_is_utc(world: World) -> None:
    await world.create(reception_at=datetime(2026, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC).replace(tzinfo=None))

    assert (await world.ticket("TH-1")).reception_at == "2026-01-02T03:04:05.678Z"


async def test_writing_needs_its_scope_on_replays_too(world: World) -> None:
    reader = caller(scopes=["tickets:read"])
    new = NewTicket(summary="x")
    await world.tickets.create_ticket(ALICE, new, idempotency_key="k")
    with pytest.raises(Forbidden, match="tickets:write"):
        await world.tickets.create_ticket(reader, new, idempotency_key="k")


async def test_the_same_key_with_the_same_body_is_one_ticket(world: World) -> None:
    new = NewTicket(summary="x", labels=["a"])
    first = await world.tickets.create_ticket(ALICE, new, idempotency_key="k")
    again = await world.tickets.create_ticket(ALICE, new, idempotency_key="k")
    with pytest.raises(IdempotencyMismatch):
        await world.tickets.create_ticket(ALICE, NewTicket(summary="y", labels=["a"]), idempotency_key="k")

    assert not first.replayed
    assert again.replayed
    assert (again.key, again.event_id, again.position) == (first.key, first.event_id, first.position)
    assert await world.keys() == ["TH-1"]


async def test_a_key_that_cannot_be_one_is_refused(world: World) -> None:
    for key in ["", "two words", "é", "x" * 201, "a\nb"]:
        with pytest.raises(InvalidInput) as refused:
            await world.tickets.create_ticket(ALICE, NewTicket(summary="x"), idempotency_key=key)

        assert pointers(refused.value) == ["/idempotency_key"]
