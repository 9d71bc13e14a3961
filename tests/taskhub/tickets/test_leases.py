"""Claiming tickets, working on them under a lease, and what becomes of a ticket whose holder does not come back."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, get_args

import orjson
import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, text, update

from taskhub.storage.schema import tickets
from taskhub.tickets.errors import (
    Blocked,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    NotClaimable,
    NothingReady,
    TakeOverRefused,
    TicketGone,
    TicketNotFound,
)
from taskhub.tickets.inputs import (
    ClaimNext,
    NewAttachment,
    NewClaim,
    NewComment,
    ProgressReport,
    Release,
    Renewal,
    TicketChange,
    TicketQuery,
)
from taskhub.tickets.model import Claimed, Reported, Written
from taskhub.tickets.service import TicketService
from tests.taskhub.world import ALICE, World, caller, execute, rows

BOT, OTHER_BOT, BOB = caller("agent:bot"), caller("agent:other"), caller("user:bob")


@pytest.fixture
async def world(world: World) -> World:
    """With one ticket, TH-1."""
    await world.create("Printer")
    world.tick()
    world.heard.clear()
    return world


async def claim(world: World, key: str = "TH-1", by: Any = BOT, **options: Any) -> Claimed:
    return await world.tickets.claim_ticket(by, key, NewClaim(**options))


async def claim_next(world: World, by: Any = BOT, **options: Any) -> str:
    return (await world.tickets.claim_next(by, ClaimNext(**options))).key


async def release(world: World, token: int | None, by: Any = BOT, **options: Any) -> Written:
    return await world.tickets.release_ticket(by, "TH-1", Release(**options), lease_token=token)


async def report(world: World, token: int | None, percent: int = 50, **note: str | None) -> Reported:
    asked = ProgressReport(percent=percent, **note)
    return await world.tickets.report_progress(BOT, "TH-1", asked, lease_token=token)


async def change(world: World, token: int | None, by: Any = BOT, **fields: Any) -> Written:
    return await world.tickets.update_ticket(by, "TH-1", TicketChange(**fields), lease_token=token)


async def lease(world: World, key: str = "TH-1") -> tuple[str | None, str | None, int]:
    """Holder, end and expiries."""
    found = (await world.tickets.get_ticket(ALICE, key, include=["lease"])).lease
    assert found is not None
    return found.holder, found.expires_at, found.expiries


def after(world: World, seconds: float) -> str:
    return (world.now + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# Claiming


async def test_a_claim_starts_the_work_and_answers_the_token_that_proves_it(world: World) -> None:
    claimed = await claim(world, lease_seconds=600)
    ticket = await world.ticket("TH-1")

    assert (claimed.key, claimed.version, claimed.lease_token) == ("TH-1", 2, 1)
    assert claimed.lease_expires_at == after(world, 600)
    assert (ticket.status.id, ticket.phase, ticket.version) == ("in_progress", "active", 2)
    assert ticket.person_in_charge is not None
    assert ticket.person_in_charge.id == "bot"
    assert ticket.lease is not None
    assert (ticket.lease.holder, ticket.lease.expires_at) == ("agent:bot", claimed.lease_expires_at)


async def test_a_claim_is_an_event_that_names_the_holder_and_what_else_changed(world: World) -> None:
    claimed = await claim(world)
    event = world.heard[-1]

    assert (event.id, event.type, event.actor, event.ticket_version) == (
        claimed.event_id, "ticket.claimed", "agent:bot", 2,
    )  # fmt: skip
    assert event.changes == {
        "status": ["received", "in_progress"], "phase": ["todo", "active"], "assignee": [None, "bot"],
        "lease": [None, "agent:bot"],
    }  # fmt: skip
    assert event.parsed["ticket"]["lease"]["holder"] == "agent:bot"
    assert "token" not in event.data.decode()


async def test_a_lease_runs_for_half_an_hour_unless_something_else_is_asked(world: World) -> None:
    assert (await claim(world)).lease_expires_at == after(world, 1800)
    with pytest.raises(ValidationError, match="lease_seconds"):
        NewClaim(lease_seconds=59)
    with pytest.raises(ValidationError, match="lease_seconds"):
        NewClaim(lease_seconds=86_401)


async def test_a_claim_keeps_an_active_status_and_is_a_version_all_the_same(world: World) -> None:
    await world.update("TH-1", by=BOT, status="in_progress")
    await world.add("users", "Bot")
    await world.update("TH-1", person_in_charge="bot")
    claimed = await claim(world)

    assert claimed.version == 4
    assert world.heard[-1].changes == {"lease": [None, "agent:bot"]}


async def test_what_is_held_is_not_claimed_again_even_by_the_same_actor(world: World) -> None:
    claimed = await claim(world)
    for who in (BOT, OTHER_BOT, ALICE):
        with pytest.raises(LeaseHeld) as held:
            await claim(world, by=who)

    assert (held.value.holder, held.value.expires_at) == ("agent:bot", claimed.lease_expires_at)
    assert held.value.hint
    assert (await world.ticket("TH-1")).version == claimed.version


async def test_a_person_takes_a_ticket_over_and_an_agent_does_not(world: World) -> None:
    first = await claim(world)
    with pytest.raises(TakeOverRefused, match="agent:other"):
        await claim(world, by=OTHER_BOT, take_over=True)
    second = await claim(world, by=ALICE, take_over=True)

    assert second.lease_token == first.lease_token + 1
    assert world.heard[-1].changes == {"assignee": ["bot", "alice"], "lease": ["agent:bot", "user:alice"]}
    with pytest.raises(LeaseLost, match="user:alice"):
        await report(world, first.lease_token)


async def test_who_finds_their_own_lease_in_the_way_takes_that_over_too(world: World) -> None:
    await claim(world, by=ALICE)
    second = await claim(world, by=ALICE, take_over=True)

    assert second.lease_token == 2
    assert world.heard[-1].changes == {"lease": ["user:alice", "user:alice"]}


@pytest.mark.parametrize("status", ["waiting", "verifying"])
async def test_work_that_waits_or_is_in_review_can_be_claimed(world: World, status: str) -> None:
    await change(world, None, status=status, comment="ask the vendor")
    await claim(world)
    ticket = await world.ticket("TH-1")

    assert (ticket.phase, ticket.waiting_reason) == ("active", None)


@pytest.mark.parametrize("status", ["completed", "cancelled"])
async def test_what_is_closed_cannot_be_claimed(world: World, status: str) -> None:
    await change(world, None, status=status)
    with pytest.raises(NotClaimable, match=status.capitalize()):
        await claim(world)


async def test_what_is_missing_or_deleted_cannot_be_claimed(world: World) -> None:
    with pytest.raises(TicketNotFound):
        await claim(world, "TH-9")
    await execute(world.database, update(tickets).values(deleted_at="2026-11-20T00:00:00.000Z"))
    with pytest.raises(TicketGone):
        await claim(world)


async def test_what_is_blocked_names_what_must_be_done_first(world: World) -> None:
    await world.create("Before")
    await world.create("Done before", status="completed")
    await world.create("After", blocked_by=["TH-1", "TH-2", "TH-3"])
    with pytest.raises(Blocked) as blocked:
        await claim(world, "TH-4")
    assert blocked.value.blockers == ["TH-1", "TH-2"]

    await world.update("TH-1", status="completed")
    await world.update("TH-2", status="completed")
    assert (await claim(world, "TH-4")).lease_token == 1


# The next one


async def test_the_most_urgent_comes_first_then_what_is_due_first_then_the_oldest(world: World) -> None:
    await world.update("TH-1", priority="low")
    await world.create("no date", priority="high")  # TH-2
    await world.create("later", priority="high", scheduled_completion_date="2026-12-02")
    await world.create("sooner", priority="high", scheduled_completion_date="2026-12-01")
    await world.create("as soon", priority="high", scheduled_completion_date="2026-12-01")
    await world.create("urgent", priority="urgent")  # TH-6

    assert [await claim_next(world) for _ in range(6)] == ["TH-6", "TH-4", "TH-5", "TH-3", "TH-2", "TH-1"]
    with pytest.raises(NothingReady):
        await claim_next(world)


async def test_the_next_one_is_found_over_all_statuses_to_do_without_sorting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.add("statuses", "Reopened", phase="todo", is_default=False)
    await world.update("TH-1", priority="high", scheduled_completion_date="2026-12-03")
    for status in ("received", "reopened"):  # TH-2 to TH-4, TH-5 to TH-7
        await world.create(f"{status} low", status=status, priority="low", scheduled_completion_date="2026-11-01")
        await world.create(f"{status} dated", status=status, priority="high", scheduled_completion_date="2026-12-02")
        await world.create(f"{status} undated", status=status, priority="high")
    asked: list[tuple[Any, Any]] = []
    execute = Connection.execute

    def recorded(connection: Connection, statement: Any, *more: Any, **options: Any) -> Any:
        if "FROM tickets" in str(statement) and "LIMIT" in str(statement):
            asked.append((connection.dialect, statement))
        return execute(connection, statement, *more, **options)

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "execute", recorded)
        order = [await claim_next(world) for _ in range(5)]
        order += [await claim_next(world, status=["reopened"]), await claim_next(world)]
    plans: list[str] = []
    for dialect, statement in asked:
        sql = str(statement.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        if world.database.path is not None:
            plans += [row[-1] for row in await rows(world.database, text(f"EXPLAIN QUERY PLAN {sql}"))]

    assert order == ["TH-3", "TH-6", "TH-1", "TH-4", "TH-7", "TH-5", "TH-2"]
    assert (plans != []) is (world.database.path is not None)
    assert not [step for step in plans if "TEMP B-TREE" in step]


async def test_only_what_is_ready_is_next(world: World) -> None:
    await world.create("blocked", blocked_by=["TH-1"])
    await world.create("waiting", status="waiting", waiting_reason="parts")
    await world.create("under way", status="in_progress")
    await world.create("done", status="completed")

    assert await claim_next(world) == "TH-1"
    with pytest.raises(NothingReady):
        await claim_next(world)
    token = 1
    await change(world, token, status="completed")
    assert await claim_next(world) == "TH-2"


async def test_the_next_one_passes_the_filter(world: World) -> None:
    await world.add("users", "Bob")
    await world.create("with label", labels=["auth"], person_in_charge="bob")

    with pytest.raises(NothingReady):
        await claim_next(world, label=["billing"])
    with pytest.raises(InvalidInput, match="person_in_charge"):
        await claim_next(world, person_in_charge=["nobody at all"])
    assert await claim_next(world, label=["auth"], person_in_charge=["Bob"]) == "TH-2"
    assert await claim_next(world, unassigned=True, query="print") == "TH-1"


@pytest.mark.parametrize("status", [["waiting"], ["received", "verifying"], ["Completed"]])
async def test_a_status_in_which_nothing_is_ready_is_no_filter_for_the_next_one(
    world: World, status: list[str]
) -> None:
    await world.add("statuses", "Reopened", phase="todo", is_default=False)
    with pytest.raises(InvalidInput, match="status: a ticket that is") as refused:
        await claim_next(world, status=status)

    assert refused.value.problems[0].allowed == ("Received", "Reopened")
    assert await claim_next(world, status=["received", "reopened"]) == "TH-1"


async def test_the_next_one_is_not_what_somebody_else_was_given(world: World) -> None:
    await world.add("users", "Alice")
    await world.update("TH-1", person_in_charge="alice")

    with pytest.raises(NothingReady):
        await claim_next(world)
    assert await claim_next(world, person_in_charge=["alice"]) == "TH-1"


async def test_the_next_one_may_be_one_whose_holder_did_not_come_back(world: World) -> None:
    await claim(world, lease_seconds=60)
    world.tick(seconds=60)
    world.heard.clear()

    assert await claim_next(world, by=OTHER_BOT) == "TH-1"
    assert [event.type for event in world.heard if event.type.startswith("ticket")] == [
        "ticket.lease_expired", "ticket.claimed",
    ]  # fmt: skip


async def test_a_repeated_claim_with_the_same_key_answers_the_same_token_once(world: World) -> None:
    first = await world.tickets.claim_ticket(BOT, "TH-1", NewClaim(), idempotency_key="k")
    again = await world.tickets.claim_ticket(BOT, "th-1", NewClaim(), idempotency_key="k")
    await world.create("another")
    third = await world.tickets.claim_next(BOT, ClaimNext(), idempotency_key="k")
    fourth = await world.tickets.claim_next(BOT, ClaimNext(), idempotency_key="k")

    assert (first.lease_token, again.lease_token, again.version) == (1, 1, 2)
    assert (again.replayed, first.replayed) == (True, False)
    assert (third.key, fourth.key, fourth.replayed) == ("TH-2", "TH-2", True)
    assert [event.type for event in world.heard].count("ticket.claimed") == 2


# What the lease guards

GUARDED: list[dict[str, Any]] = [
    {"status": "completed"}, {"person_in_charge": "bob"}, {"completion_date": "2026-11-20"},
    {"actual_effort_hours": 1.5}, {"response_category": "answered"}, {"response_details": "told them"},
    {"has_defect": True},
]  # fmt: skip


@pytest.mark.parametrize("fields", GUARDED, ids=lambda fields: next(iter(fields)))
async def test_only_the_holder_changes_status_assignee_and_resolution(world: World, fields: dict[str, Any]) -> None:
    await world.add("users", "Bob")
    await world.add("response_categories", "Answered")
    claimed = await claim(world)
    for who in (BOT, ALICE):
        with pytest.raises(LeaseHeld) as held:
            await change(world, None, by=who, **fields)
    assert held.value.changing

    written = await change(world, claimed.lease_token, **fields)
    assert written.version == claimed.version + 1


async def test_anything_else_is_open_to_all(world: World) -> None:
    claimed = await claim(world)
    await change(world, None, by=ALICE, priority="urgent", summary="Printers", labels=["a"])
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="mind the toner"))
    # What is so already is no change.
    await change(world, None, by=ALICE, status="in_progress", remarks="x")

    assert (await lease(world))[0] == "agent:bot"
    assert (await report(world, claimed.lease_token)).version == 5


ATTACHMENT = NewAttachment(file_name="log", url="https://example.org/log")
Write = Callable[[World, int], Awaitable[Any]]
WRITES: dict[str, Write] = {
    "update": lambda w, t: change(w, t, remarks="x"),
    "update without a change": lambda w, t: change(w, t, summary="Printer"),
    "update with a comment alone": lambda w, t: change(w, t, comment="x"),
    "status": lambda w, t: change(w, t, status="completed"),
    "comment": lambda w, t: w.tickets.add_comment(BOT, "TH-1", NewComment(comment="x"), lease_token=t),
    "release": lambda w, t: release(w, t),
    "renew": lambda w, t: w.tickets.renew_lease(BOT, "TH-1", Renewal(), lease_token=t),
    "progress": lambda w, t: report(w, t),
    "link": lambda w, t: w.tickets.link_tickets(BOT, "TH-1", "related", "TH-2", lease_token=t),
    "unlink": lambda w, t: w.tickets.unlink_tickets(BOT, "TH-1", "duplicates", "TH-2", lease_token=t),
    "attach": lambda w, t: w.tickets.add_attachment(BOT, "TH-1", ATTACHMENT, lease_token=t),
    "remove an attachment": lambda w, t: w.tickets.remove_attachment(BOT, "TH-1", 1, lease_token=t),
    "delete": lambda w, t: w.tickets.delete_ticket(BOT, "TH-1", lease_token=t),
}
"""Every way in which a token may come in; in bulk updates it comes in with each ticket (see test_batches)."""
ENDING = ("status", "release", "delete")


def test_no_write_that_takes_a_token_is_left_out() -> None:
    heeded = {
        name: get_args(method.__annotations__["conditions"])[0].__annotations__
        for name, method in vars(TicketService).items()
        if not name.startswith("_") and "conditions" in getattr(method, "__annotations__", ())
    }

    takes = {name for name, conditions in heeded.items() if "lease_token" in conditions}

    assert takes == {
        "update_ticket", "add_comment", "release_ticket", "renew_lease", "report_progress", "link_tickets",
        "unlink_tickets", "add_attachment", "remove_attachment", "delete_ticket",
    }  # fmt: skip


async def furnish(world: World) -> None:
    """What there must be to be taken away."""
    await world.create("Copier", status="completed")
    await world.tickets.link_tickets(ALICE, "TH-1", "duplicates", "TH-2")
    await world.tickets.add_attachment(ALICE, "TH-1", ATTACHMENT)


async def expired(world: World, token: int) -> None:
    world.tick(seconds=60)


async def swept(world: World, token: int) -> None:
    world.tick(seconds=60)
    assert await world.tickets.expire_leases() == 1


async def claimed_again(world: World, token: int) -> None:
    world.tick(seconds=60)
    await claim(world)


async def taken_over(world: World, token: int) -> None:
    await claim(world, by=ALICE, take_over=True)


async def released(world: World, token: int) -> None:
    await release(world, token)


async def finished(world: World, token: int) -> None:
    await change(world, token, status="verifying")


@pytest.mark.parametrize("ends", [expired, swept, claimed_again, taken_over, released, finished])
async def test_a_token_whose_lease_is_over_is_refused_on_every_path(world: World, ends: Write) -> None:
    await furnish(world)
    token = (await claim(world, lease_seconds=60)).lease_token
    await ends(world, token)
    before = await world.tickets.get_ticket(ALICE, "TH-1", include=["history", "comments"])
    world.told.clear()
    for name, write in WRITES.items():
        with pytest.raises(LeaseLost):
            await write(world, token)

        assert await world.tickets.get_ticket(ALICE, "TH-1", include=["history", "comments"]) == before, name
        assert world.told == [], name


async def test_a_token_of_another_ticket_or_of_none_is_refused_on_every_path(world: World) -> None:
    await furnish(world)
    for write in WRITES.values():
        with pytest.raises(LeaseLost, match="nobody"):
            await write(world, 1)
    await claim(world)
    for write in WRITES.values():
        with pytest.raises(LeaseLost, match="agent:bot"):
            await write(world, 2)


async def test_every_write_with_the_token_renews_the_lease_and_tells_its_new_end(world: World) -> None:
    await furnish(world)
    token = (await claim(world, lease_seconds=60)).lease_token
    for name in [name for name in WRITES if name not in ENDING]:
        world.tick(seconds=59)
        world.heard.clear()
        world.told.clear()
        await WRITES[name](world, token)
        heard = [event.data for event in world.heard if event.subject == "TH-1"]
        told = [orjson.loads(data) for data in (*heard, *(draft.data for draft in world.told))]

        assert (await lease(world))[1] == after(world, 60), name
        assert [data["ticket"]["lease"]["expires_at"] for data in told] == [after(world, 60)], name


# Renewing


async def test_a_renewal_is_no_version_and_no_event_but_is_told_to_who_is_listening(world: World) -> None:
    claimed = await claim(world, lease_seconds=60)
    world.tick(seconds=30)
    world.heard.clear()
    renewed = await world.tickets.renew_lease(BOT, "TH-1", Renewal(), lease_token=claimed.lease_token)
    [told] = world.told

    assert renewed == Claimed(
        "TH-1", claimed.version, None, claimed.position, lease_token=1, lease_expires_at=after(world, 60)
    )
    assert world.heard == []
    assert (told.type, told.subject, told.actor) == ("ticket.lease_renewed", "TH-1", "agent:bot")
    assert orjson.loads(told.data)["ticket"]["lease"]["expires_at"] == after(world, 60)
    assert (await world.ticket("TH-1")).updated_at == (await world.ticket("TH-1")).lease.acquired_at  # type: ignore[union-attr]


async def test_a_renewal_may_change_how_long_the_lease_runs(world: World) -> None:
    token = (await claim(world, lease_seconds=60)).lease_token
    renewed = await world.tickets.renew_lease(BOT, "TH-1", Renewal(lease_seconds=600), lease_token=token)
    world.tick(seconds=599)
    await report(world, token)

    assert renewed.lease_expires_at == after(world, 1)
    assert (await lease(world))[1] == after(world, 600)


async def test_renewing_and_releasing_take_the_token(world: World) -> None:
    for attempt in (release(world, None), world.tickets.renew_lease(BOT, "TH-1", Renewal())):
        with pytest.raises(InvalidInput, match="lease_token: is required, and nobody holds TH-1") as missing:
            await attempt
        assert "TaskHub-Lease-Token" in str(missing.value)
    await claim(world)
    for attempt in (release(world, None), world.tickets.renew_lease(BOT, "TH-1", Renewal())):
        with pytest.raises(LeaseHeld):
            await attempt


# Giving back


async def test_a_released_ticket_is_to_do_again_and_nobodys(world: World) -> None:
    token = (await claim(world)).lease_token
    world.tick()
    written = await release(world, token, note="the driver is the problem")
    event = world.heard[-1]
    ticket = await world.ticket("TH-1")

    assert (ticket.status.id, ticket.person_in_charge, ticket.lease) == ("received", None, None)
    assert (event.type, event.parsed["comment"]) == ("ticket.released", "the driver is the problem")
    assert event.changes == {
        "status": ["in_progress", "received"], "phase": ["active", "todo"], "assignee": ["bot", None],
        "lease": ["agent:bot", None],
    }  # fmt: skip
    assert written.comment_id is not None
    assert await claim_next(world) == "TH-1"
    assert (await world.ticket("TH-1")).version == written.version + 1


async def test_a_release_may_say_what_comes_next_and_then_keeps_the_assignee(world: World) -> None:
    token = (await claim(world)).lease_token
    with pytest.raises(InvalidInput, match="note: the status Waiting needs a reason"):
        await release(world, token, status="waiting")
    with pytest.raises(InvalidInput, match="status: there is no 'nowhere'"):
        await release(world, token, status="nowhere")
    await release(world, token, status="waiting", note="for the customer")
    ticket = await world.ticket("TH-1")

    assert (ticket.status.id, ticket.waiting_reason) == ("waiting", "for the customer")
    assert ticket.person_in_charge is not None


async def test_a_release_to_an_active_status_ends_the_lease_all_the_same(world: World) -> None:
    token = (await claim(world)).lease_token
    written = await release(world, token, status="in_progress")

    assert written.version == 3
    assert world.heard[-1].changes == {"lease": ["agent:bot", None]}


@pytest.mark.parametrize("status", ["completed", "verifying", "waiting", "received", "cancelled"])
async def test_the_lease_ends_when_the_ticket_leaves_the_active_phase(world: World, status: str) -> None:
    token = (await claim(world)).lease_token
    await change(world, token, status=status, comment="why")

    assert world.heard[-1].type == "ticket.status_changed"
    assert world.heard[-1].changes["lease"] == ["agent:bot", None]
    assert world.heard[-1].parsed["ticket"]["lease"] is None
    assert (await lease(world))[0] is None


async def test_tokens_only_ever_rise(world: World) -> None:
    tokens = []
    for _ in range(3):
        tokens.append((await claim(world)).lease_token)
        await release(world, tokens[-1])

    assert tokens == [1, 2, 3]


# Expiry


async def test_a_lease_that_runs_out_gives_the_ticket_back(world: World) -> None:
    await claim(world, lease_seconds=60)
    world.tick(milliseconds=59_999)
    assert await world.tickets.expire_leases() == 0
    world.tick()
    assert await world.tickets.expire_leases() == 1
    assert await world.tickets.expire_leases() == 0
    event, ticket = world.heard[-1], await world.ticket("TH-1")

    assert (event.type, event.actor, event.origin) == ("ticket.lease_expired", "system:taskhub", "system")
    assert event.changes == {
        "status": ["in_progress", "received"], "phase": ["active", "todo"], "assignee": ["bot", None],
        "lease": ["agent:bot", None],
    }  # fmt: skip
    assert (ticket.status.id, ticket.person_in_charge, ticket.version) == ("received", None, 3)
    assert await lease(world) == (None, None, 1)


async def test_a_claim_that_meets_a_lease_that_has_run_out_ends_it_first(world: World) -> None:
    await claim(world, lease_seconds=60)
    world.tick(seconds=60)
    world.heard.clear()
    second = await claim(world, by=OTHER_BOT)

    assert (second.lease_token, second.version) == (2, 4)
    assert [(event.type, event.actor) for event in world.heard if event.ticket_version] == [
        ("ticket.lease_expired", "system:taskhub"), ("ticket.claimed", "agent:other"),
    ]  # fmt: skip
    assert (await lease(world))[2] == 1


async def test_the_third_expiry_in_a_row_parks_the_ticket_and_says_why(world: World) -> None:
    for _ in range(3):
        await claim(world, lease_seconds=60)
        world.tick(seconds=60)
        await world.tickets.expire_leases()
    ticket = await world.ticket("TH-1")

    assert (ticket.status.id, ticket.person_in_charge) == ("waiting", None)
    assert ticket.waiting_reason == "claimed 3 times and never given back in time, last by agent:bot"
    with pytest.raises(NothingReady):
        await claim_next(world)
    # Somebody has looked at it: it is as good as any other now.
    await change(world, None, by=ALICE, status="received")
    assert await claim_next(world, lease_seconds=60) == "TH-1"
    world.tick(seconds=60)
    await world.tickets.expire_leases()
    assert (await world.ticket("TH-1")).phase == "todo"


async def test_expiries_are_not_in_a_row_when_the_ticket_was_given_back_in_between(world: World) -> None:
    for _ in range(2):
        await claim(world, lease_seconds=60)
        world.tick(seconds=60)
        await world.tickets.expire_leases()
    await release(world, (await claim(world)).lease_token)

    assert await lease(world) == (None, None, 0)


async def test_very_many_leases_that_run_out_at_once_are_ended_in_several_units(world: World) -> None:
    for n in range(101):
        await world.create(f"{n}")
        await claim_next(world, lease_seconds=60)
    world.tick(seconds=60)
    world.heard.clear()
    await claim_next(world, by=OTHER_BOT)

    assert [event.type for event in world.heard].count("ticket.lease_expired") == 100
    assert await world.tickets.expire_leases() == 1


async def test_a_lease_that_has_run_out_guards_nothing_even_before_it_is_swept(world: World) -> None:
    await claim(world, lease_seconds=60)
    world.tick(seconds=60)
    await change(world, None, by=ALICE, status="completed")

    assert await world.tickets.expire_leases() == 0
    assert (await world.ticket("TH-1")).phase == "done"
    assert (await lease(world))[0] is None


# Progress


async def test_progress_is_an_event_with_what_was_before(world: World) -> None:
    token = (await claim(world)).lease_token
    await report(world, token, 40, note="driver found")
    await report(world, token, 60, note="driver mended")

    assert world.heard[-1].type == "ticket.progress"
    assert world.heard[-1].changes == {
        "progress": [{"percent": 40, "note": "driver found"}, {"percent": 60, "note": "driver mended"}]
    }
    progress = (await world.ticket("TH-1")).progress
    assert progress is not None
    assert (progress.percent, progress.note) == (60, "driver mended")


@pytest.mark.parametrize(("sent", "kept"), [({}, "driver found"), ({"note": None}, None), ({"note": " "}, None)])
async def test_a_note_that_is_left_out_is_kept_and_null_clears_it(
    world: World, sent: dict[str, str | None], kept: str | None
) -> None:
    token = (await claim(world)).lease_token
    await report(world, token, 40, note="driver found")
    await report(world, token, 60, **sent)

    progress = (await world.ticket("TH-1")).progress
    assert progress is not None
    assert (progress.percent, progress.note) == (60, kept)


async def test_a_report_that_says_the_same_changes_nothing(world: World) -> None:
    token = (await claim(world)).lease_token
    first = await report(world, token, 40, note="driver found")
    world.tick(seconds=5)
    again = await report(world, token, 40, note=" driver found ")

    assert (again.noop, again.version, again.event_id) == (True, first.version, None)
    assert again.lease_expires_at == after(world, 1800)


async def test_a_report_is_answered_with_what_others_have_said_since_the_last_one(world: World) -> None:
    async def say(who: Any, text: str, token: int | None = None) -> None:
        await world.tickets.add_comment(who, "TH-1", NewComment(comment=text), lease_token=token)

    await say(ALICE, "before the claim")
    token = (await claim(world)).lease_token
    await say(ALICE, "one")
    await say(BOT, "my own", token)
    await change(world, token, remarks="y", comment="my own too")
    await world.update("TH-1", by=BOB, remarks="x", comment="two")
    first = await report(world, token, 10)
    await say(BOB, "three")
    second = await report(world, token, 10)
    third = await report(world, token, 20)

    assert [(comment.author, comment.body) for comment in first.comments] == [
        ("user:alice", "one"),
        ("user:bob", "two"),
    ]
    assert [comment.body for comment in second.comments] == ["three"]
    assert third.comments == []


async def test_a_holder_is_told_what_another_says_in_the_same_name(world: World) -> None:
    """Agents that share an API key are one actor."""
    token = (await claim(world, by=ALICE)).lease_token
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="mine"), lease_token=token)
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="stop, it is the toner"))
    await world.update("TH-1", by=ALICE, remarks="x", comment="and the drum")
    asked = ProgressReport(percent=10)
    reported = await world.tickets.report_progress(ALICE, "TH-1", asked, lease_token=token)

    assert [comment.body for comment in reported.comments] == ["stop, it is the toner", "and the drum"]


async def test_a_holder_is_told_what_was_said_under_a_lease_before_its_own(world: World) -> None:
    first = (await claim(world)).lease_token
    second = (await claim(world, by=ALICE, take_over=True)).lease_token
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="mine"), lease_token=second)
    with pytest.raises(LeaseLost):
        await world.tickets.add_comment(BOT, "TH-1", NewComment(comment="not mine"), lease_token=first)
    await world.tickets.add_comment(BOT, "TH-1", NewComment(comment="I was not done"))
    reported = await world.tickets.report_progress(ALICE, "TH-1", ProgressReport(percent=1), lease_token=second)

    assert [comment.body for comment in reported.comments] == ["I was not done"]


async def test_no_comment_is_lost_when_there_are_too_many_for_one_answer(world: World) -> None:
    token = (await claim(world)).lease_token
    for n in range(60):
        await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment=f"{n}"))
    reports = [await report(world, token) for _ in range(4)]
    told = [[comment.body for comment in reported.comments] for reported in reports]

    assert [len(some) for some in told] == [20, 20, 20, 0]
    assert [reported.more for reported in reports] == [True, True, False, False]
    assert [body for some in told for body in some] == [f"{n}" for n in range(60)]


async def test_progress_of_a_ticket_that_nobody_holds_takes_no_token_but_of_another_does(world: World) -> None:
    reported = await report(world, None, 10)
    assert (reported.comments, reported.lease_expires_at, reported.version) == ([], None, 2)
    await claim(world)
    with pytest.raises(LeaseHeld, match="progress"):
        await report(world, None, 20)
    with pytest.raises(InvalidInput, match="note"):
        await report(world, 1, 20, note="a\x00b")


# What is shown


async def test_the_lease_of_a_ticket_is_shown_and_its_token_never(world: World) -> None:
    assert await lease(world) == (None, None, 0)
    await claim(world)
    detail = await world.tickets.get_ticket(BOT, "TH-1", include=["lease", "history"])

    assert await lease(world) == ("agent:bot", after(world, 1800), 0)
    assert (await world.tickets.get_ticket(BOT, "TH-1")).lease is None
    assert "token" not in orjson.dumps(detail).decode()


async def test_replaying_the_events_gives_the_ticket(world: World) -> None:
    token = (await claim(world)).lease_token
    await report(world, token, 10)
    await change(world, token, status="verifying")
    await claim(world, by=ALICE)
    world.tick(seconds=1800)
    await world.tickets.expire_leases()
    [state] = (await world.tickets.list_tickets(ALICE, TicketQuery())).tickets
    versions = [event.ticket_version for event in world.heard if event.ticket_version]

    assert versions == [2, 3, 4, 5, 6]
    assert world.heard[-1].parsed["ticket"] == orjson.loads(orjson.dumps(state))
