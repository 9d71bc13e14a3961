"""The board, now and as it was."""

import asyncio
from contextlib import suppress
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, update

from taskhub.auth.errors import Forbidden
from taskhub.doctor.examination import examine
from taskhub.storage.names import slug
from taskhub.storage.schema import events, users, workspaces
from taskhub.storage.times import utc_now
from taskhub.tickets.errors import BatchFailed, InvalidInput, LeaseHeld, TicketError, TicketNotFound
from taskhub.tickets.inputs import BoardQuery, BulkUpdate, NewClaim, NewComment, ProgressReport, Release, TicketQuery
from taskhub.tickets.model import Board, TicketDetail
from tests.examples import EXAMPLES
from tests.taskhub.world import ALICE, World, caller, execute


async def board(world: World, **query: Any) -> Board:
    return await world.tickets.get_board(ALICE, BoardQuery(**query))


def keys(board: Board) -> dict[str, list[str]]:
    return {column.status.id: [ticket.key for ticket in column.tickets] for column in board.columns if column.count}


async def test_every_status_has_a_column_in_its_order(world: World) -> None:
    found = await board(world)

    assert [(column.status.name, column.phase, column.count) for column in found.columns] == [
        ("Received", "todo", 0), ("In Progress", "active", 0), ("Verifying", "review", 0), ("Completed", "done", 0),
        ("Waiting", "waiting", 0), ("Cancelled", "cancelled", 0),
    ]  # fmt: skip


async def test_a_column_counts_all_its_tickets_and_shows_those_changed_last(world: World) -> None:
    for n in range(1, 6):
        await world.create(f"ticket {n}", status="completed" if n == 3 else None)
        world.tick()
    await world.update("TH-1", remarks="touched")

    found = await board(world, limit=2)
    assert keys(found) == {"received": ["TH-1", "TH-5"], "completed": ["TH-3"]}
    assert [column.count for column in found.columns] == [4, 0, 0, 1, 0, 0]
    assert found.position.endswith("-6")


async def test_what_fails_beside_others_is_not_counted(world: World) -> None:
    for n in range(3):
        await world.create(f"ticket {n}")

    async def refused() -> None:
        with pytest.raises(InvalidInput):
            await world.create("ghost", parent="TH-99", status="completed")

    done, unknown = {"ticket_id": "TH-1", "status": "completed"}, {"ticket_id": "TH-2", "status": "no such status"}
    bulk = BulkUpdate.model_validate({"items": [done, unknown], "atomic": False})
    await asyncio.gather(refused(), world.create("real"), refused(), world.tickets.update_tickets(ALICE, bulk))
    await world.tickets.delete_ticket(ALICE, "TH-2")
    with pytest.raises(BatchFailed):
        await world.tickets.update_tickets(ALICE, bulk.model_copy(update={"atomic": True}))

    by_status = {column.status.id: column.count for column in (await board(world)).columns if column.count}
    assert by_status == {"received": 2, "completed": 1}
    assert (await world.database.read(examine)).problems == []
    await world.tickets.restore_ticket(ALICE, "TH-2")
    assert [column.count for column in (await board(world)).columns] == [3, 0, 0, 1, 0, 0]


async def test_the_filters_are_those_of_the_list(world: World) -> None:
    await world.add("users", "Bob")
    await world.add("accounts", "Aozora")
    await world.create("1", person_in_charge="bob", labels=["ux"], priority="high")
    await world.create("2", account="aozora", category="incident", scheduled_completion_date=date(2026, 12, 1))
    await world.create("3", status="in_progress", labels=["ux", "vip"], priority="low")

    cases: list[tuple[dict[str, Any], set[str]]] = [
        ({"person_in_charge": ["bob"]}, {"TH-1"}),
        ({"person_in_charge": ["none"]}, {"TH-2", "TH-3"}),
        ({"account": ["Aozora"]}, {"TH-2"}),
        ({"category": ["incident"]}, {"TH-2"}),
        ({"label": ["vip", "ux"]}, {"TH-1", "TH-3"}),
        ({"priority": ["high", "none"]}, {"TH-1", "TH-2"}),
        ({"scheduled_completion_date_from": date(2026, 12, 1)}, {"TH-2"}),
        ({"scheduled_completion_date_to": date(2026, 11, 30)}, set()),
    ]
    for query, expected in cases:
        now = await board(world, **query)
        assert {key for column in keys(now).values() for key in column} == expected, query
        await world.update("TH-1", remarks=str(query))
        assert keys(await board(world, as_of=now.position, **query)) == keys(now), query


async def test_an_unknown_name_and_a_missing_scope_are_refused(world: World) -> None:
    with pytest.raises(InvalidInput, match="person_in_charge"):
        await board(world, person_in_charge=["zoe"])
    with pytest.raises(Forbidden):
        await world.tickets.get_board(caller(scopes=["tickets:write"]), BoardQuery())


async def test_a_time_is_the_last_event_at_or_before_it(world: World) -> None:
    start = world.now
    for n in range(4):
        world.now = start + timedelta(minutes=n)
        await world.create(f"ticket {n}")
        await world.update(f"TH-{n + 1}", remarks="x")
    world.tick(hours=1)

    async def at(seconds: float) -> str:
        return (await board(world, as_of=(start + timedelta(seconds=seconds)).isoformat())).position.rpartition("-")[2]

    assert [await at(s) for s in (-1, 0, 59.999, 60, 61, 180, 3600)] == ["0", "2", "2", "4", "4", "8", "8"]
    await execute(world.database, delete(events).where(events.c.seq == 4))
    assert [await at(s) for s in (0, 61, 121, 3600)] == ["2", "3", "6", "8"]


async def test_a_time_before_the_oldest_event_that_streams_can_replay_is_answered_too(world: World) -> None:
    created = await world.create("one")
    world.tick()
    await world.update("TH-1", status="in_progress")
    await execute(world.database, update(workspaces).values(oldest_seq=3))

    assert keys(await board(world, as_of=created.event_id)) == {"received": ["TH-1"]}


NO_POINTS = [
    ("yesterday", "RFC 3339"), ("2026-11-20", "RFC 3339"), ("2026-11-20T12:00:00", "RFC 3339"),
    ("2026-13-20T12:00:00Z", "no time"), ("0001-01-01T00:00:00+09:00", "no time"), ("aaaaaaaa-1", "no event"),
    ("{epoch}-99", "no event"),
]  # fmt: skip


async def test_what_is_no_point_of_the_log_is_refused(world: World) -> None:
    created = await world.create()
    for as_of, reason in NO_POINTS:
        with pytest.raises(InvalidInput, match=reason) as refused:
            await board(world, as_of=as_of.replace("{epoch}", created.position.partition("-")[0]))
        assert [problem.pointer for problem in refused.value.problems] == ["/as_of"]


async def test_the_future_is_not_known(world: World) -> None:
    with pytest.raises(InvalidInput, match="future"):
        await board(world, as_of=(utc_now() + timedelta(days=1)).isoformat())


async def test_an_event_of_before_a_restore_is_known_by_its_id(world: World) -> None:
    created = await world.create()
    await world.update("TH-1", status="in_progress")
    await execute(world.database, update(workspaces).values(epoch="neweepoc"))

    found = await board(world, as_of=created.event_id)
    assert (keys(found), found.position) == ({"received": ["TH-1"]}, "neweepoc-1")


async def test_names_are_those_of_today_and_a_row_that_is_gone_keeps_its_own(world: World) -> None:
    await world.add("users", "Bob")
    await world.add("users", "Zoe")
    await world.create("1", person_in_charge="bob")
    then = (await world.create("2", person_in_charge="zoe")).event_id
    await world.update("TH-1", person_in_charge=None)
    await world.update("TH-2", person_in_charge=None)
    await world.change_reference("users", "bob", name="Robert")
    await execute(
        world.database, delete(users).where(users.c.id == "zoe"), update(workspaces).values(references_version=99)
    )

    found = await board(world, as_of=then)
    assert {t.key: t.assignee.name for c in found.columns for t in c.tickets if t.assignee} == {
        "TH-1": "Robert", "TH-2": "Zoe",
    }  # fmt: skip
    detail = await world.tickets.get_ticket(ALICE, "TH-2", as_of=then)
    assert detail.ticket.person_in_charge is not None
    assert detail.ticket.person_in_charge.name == "Zoe"


async def test_a_ticket_as_it_was_has_the_history_and_comments_of_then(world: World) -> None:
    before = await world.create("zero")
    await world.create("one", description="first", labels=["b", "a"], actual_effort_hours=1.5)
    await world.tickets.add_comment(ALICE, "TH-2", NewComment(comment="early"))
    await world.update("TH-2", parent="TH-1", remarks="r")
    then = await world.tickets.get_ticket(ALICE, "TH-2", include=["history", "comments"])
    position = (await board(world)).position
    await world.update("TH-2", description=None, labels=["c"], parent=None, actual_effort_hours=None, comment="late")

    assert await world.tickets.get_ticket(ALICE, "TH-2", include=["history", "comments"], as_of=position) == then
    with pytest.raises(TicketNotFound):
        await world.tickets.get_ticket(ALICE, "TH-2", as_of=before.event_id)
    with pytest.raises(InvalidInput, match="relations"):
        await world.tickets.get_ticket(ALICE, "TH-2", include=["relations"], as_of=position)


STATUSES = ["received", "in_progress", "verifying", "completed", "cancelled"]
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("create"),
            st.fixed_dictionaries({"status": st.sampled_from(STATUSES), "blocks": st.booleans()}),
        ),
        st.tuples(
            st.just("update"),
            st.fixed_dictionaries(
                {},
                optional={
                    "summary": st.sampled_from(["s", "t"]), "description": st.sampled_from([None, "d", "e"]),
                    "status": st.sampled_from(STATUSES), "person_in_charge": st.sampled_from([None, "bob", "me"]),
                    "labels": st.sampled_from([[], ["a"], ["a", "b"]]), "priority": st.sampled_from(["low", "high"]),
                    "has_defect": st.sampled_from([None, True, False]), "parent": st.sampled_from([None, "TH-1"]),
                    "category_detail": st.sampled_from([None, "outage", "wording"]),
                    "scheduled_completion_date": st.sampled_from([None, date(2026, 12, 1)]),
                    "comment": st.just("c"),
                },
            ),
        ),
        st.tuples(st.sampled_from(["comment", "claim", "report", "release"]), st.just({})),
    ),
    max_size=14,
)  # fmt: skip


@settings(max_examples=EXAMPLES // 12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, dice=st.randoms(use_true_random=False))
async def test_as_of_shows_what_was_seen_then(world: World, steps: list[tuple[str, dict[str, Any]]], dice: Any) -> None:
    if slug("Bob") not in {user.id for user in await world.tickets.users(ALICE)}:
        await world.add("users", "Bob")
    seen: list[tuple[str, Board, list[TicketDetail]]] = []
    made: list[str] = [(await world.create("first")).key]
    looking = set(dice.sample(range(len(steps)), min(len(steps), 5)))
    for number, (step, given_fields) in enumerate(steps):
        world.tick()
        fields = dict(given_fields)
        key = dice.choice(made)
        if step == "create":
            blocks = [key] if fields.pop("blocks") else None
            made.append((await world.create("s", blocked_by=blocks, **fields)).key)
        elif step == "comment":
            await world.tickets.add_comment(ALICE, key, NewComment(comment="c"))
        elif step in ("claim", "report", "release"):
            with suppress(TicketError):  # what cannot be claimed now stays as it is
                if step == "claim":
                    await world.tickets.claim_ticket(ALICE, key, NewClaim())
                elif step == "report":
                    await world.tickets.report_progress(ALICE, key, ProgressReport(percent=dice.randint(0, 100)))
                else:
                    await world.tickets.release_ticket(ALICE, key, Release())
        else:
            if "category_detail" in fields:
                fields["category"] = {"outage": "incident", "wording": "ux_improvement", None: None}[
                    fields["category_detail"]
                ]
            if fields.get("parent") is not None and key != "TH-1":
                fields["parent"] = None
            elif "parent" in fields:
                del fields["parent"]
            with suppress(LeaseHeld):
                await world.update(key, **fields)
        if number in looking:
            details = [await world.tickets.get_ticket(ALICE, key, include=["history", "comments"]) for key in made]
            seen.append((world.now.isoformat(), await board(world, limit=100), details))

    for time, then, details in seen:
        assert await board(world, limit=100, as_of=then.position) == then
        assert await board(world, limit=100, as_of=time) == then
        for detail in details:
            past = await world.tickets.get_ticket(
                ALICE, detail.ticket.key, include=["history", "comments"], as_of=then.position
            )
            assert past == detail
        shown = await board(world, limit=1, as_of=then.position, label=["a"])
        listed = [[t for t in c.tickets if "a" in t.labels] for c in then.columns]
        assert [(c.count, c.tickets) for c in shown.columns] == [(len(found), found[:1]) for found in listed]


async def test_the_board_agrees_with_the_list(world: World) -> None:
    for n in range(30):
        await world.create(f"ticket {n}", status=STATUSES[n % 5], priority="high" if n % 3 else "low")
        if n % 4:
            world.tick()

    for column in (await board(world, priority=["high"], limit=100)).columns:
        query = TicketQuery(status=[column.status.id], priority=["high"], limit=100)
        assert column.tickets == (await world.tickets.list_tickets(ALICE, query)).tickets
        assert column.count == len(column.tickets)


async def test_a_ticket_that_was_deleted_is_there_before_and_after_but_not_between(world: World) -> None:
    created = await world.create("one")
    deleted = await world.tickets.delete_ticket(ALICE, "TH-1")
    restored = await world.tickets.restore_ticket(ALICE, "TH-1")
    await world.tickets.delete_ticket(ALICE, "TH-1")

    shown = [keys(await board(world, as_of=point.event_id)) for point in (created, deleted, restored)]
    assert shown == [{"received": ["TH-1"]}, {}, {"received": ["TH-1"]}]
    assert keys(await board(world)) == {}
    assert (await world.tickets.get_ticket(ALICE, "TH-1", as_of=created.event_id)).ticket.summary == "one"
    with pytest.raises(TicketNotFound):
        await world.tickets.get_ticket(ALICE, "TH-1", as_of=deleted.event_id)
