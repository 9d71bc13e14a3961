"""The doctor: it finds nothing in what the product has made, and every damage that is done behind its back."""

import asyncio
import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, Executable, delete, insert, text, update

from taskhub.cli.parser import run
from taskhub.doctor.examination import OtherSchema, examine
from taskhub.doctor.findings import MOST, Findings
from taskhub.storage.database import Database
from taskhub.storage.schema import (
    attachments,
    batches,
    comments,
    deployment,
    events,
    idempotency_keys,
    leases,
    search_documents,
    ticket_labels,
    ticket_relations,
    tickets,
    workspaces,
)
from taskhub.tickets.inputs import NewAttachment, NewClaim, Release
from tests.taskhub.storage.history import BOB, live
from tests.taskhub.storage.test_migrate import to_revision
from tests.taskhub.world import ALICE, World, execute


async def find(world: World) -> Findings:
    return await world.database.read(examine)


async def test_nothing_is_found_in_what_the_product_has_made(world: World) -> None:
    await live(world)
    findings = await find(world)

    bounds = await world.log.bounds("default")
    assert [str(problem) for problem in findings.problems] == []
    (examined,) = findings.examined
    assert (examined.workspace, examined.tickets, examined.events) == ("default", 4, bounds.head)


async def test_a_new_database_is_sound(world: World) -> None:
    assert (await find(world)).sound


async def test_renamed_reference_data_expired_leases_and_restored_tickets_are_sound(world: World) -> None:
    await live(world)
    await world.change_reference("statuses", "received", name="Angekommen")
    await world.change_reference("users", "carol", name="Caroline")
    claimed = await world.tickets.claim_ticket(BOB, "TH-3", NewClaim(lease_seconds=60))
    await world.tickets.release_ticket(BOB, "TH-3", Release(), lease_token=claimed.lease_token)
    world.tick(hours=3)
    await world.tickets.expire_leases()
    await world.tickets.restore_ticket(ALICE, "TH-4")
    await world.tickets.unlink_tickets(ALICE, "TH-2", "blocked_by", "TH-1")
    await world.tickets.remove_attachment(ALICE, "TH-1", 1)
    await world.create("with", attachments=[NewAttachment(file_name="b", url="https://example.org/b")])
    await world.tickets.add_attachment(ALICE, "TH-5", NewAttachment(file_name="c", url="https://example.org/c"))
    await world.create("blocked from the beginning", blocked_by=["TH-2", "TH-5"])
    await world.update("TH-2", description="another text", labels=["new"], status="completed")

    assert [str(problem) for problem in (await find(world)).problems] == []


async def test_what_retention_has_deleted_is_not_missed(world: World) -> None:
    await live(world)
    head = (await world.log.bounds("default")).head
    cut = [
        update(workspaces).values(oldest_seq=head),
        delete(events).where(events.c.seq < head, ~events.c.type.startswith("ticket.")),
    ]
    await execute(world.database, *cut)

    assert [str(problem) for problem in (await find(world)).problems] == []


def of_ticket(no: int) -> Any:
    return (tickets.c.workspace_id == "default") & (tickets.c.no == no)


def ticket(no: int, **values: Any) -> list[Executable]:
    return [update(tickets).where(of_ticket(no)).values(**values)]


def event(seq: int, **values: Any) -> list[Executable]:
    return [update(events).where(events.c.seq == seq).values(**values)]


def answer(value: Any, key: str = "k-1") -> list[Executable]:
    stored = orjson.dumps(value).decode()
    return [update(idempotency_keys).where(idempotency_keys.c.key == key).values(answer=stored)]


def workspace(**values: Any) -> list[Executable]:
    return [update(workspaces).values(**values)]


def lease(**values: Any) -> list[Executable]:
    return [update(leases).where(leases.c.ticket_no == 1).values(**values)]


RELATION = {"workspace_id": "default", "kind": "related", "created_at": "2026-11-20T13:00:00.000Z"}
COMMENT = {"workspace_id": "default", "ticket_no": 1, "author": "user:x", "kind": "note", "body": "?", "created_at": ""}
STRANGER = {
    "workspace_id": "gone", "seq": 1, "id": "x-1", "time": "", "type": "a.b", "actor": "user:x", "origin": "rest_api",
    "nonce": 1, "data": "{}",
}  # fmt: skip

# `live` emits: 1 reference.changed (carol), 2 TH-1 created, 3 TH-2 created, 4 TH-1 linked to it, 5 TH-3 created, 6 TH-1
# updated with a comment, 7 and 8 linked, 9 attached, 10 reference.changed (bot), 11 claimed, 12 commented, …
DAMAGES: dict[str, tuple[list[Executable], str, str]] = {
    "an event in the middle is gone": ([delete(events).where(events.c.seq == 10)], "log", "event 10 is missing"),
    "several events are gone": (
        [delete(events).where(events.c.seq.in_([8, 9, 10]))], "log", "events 8 to 10 are missing",
    ),
    "the first event is gone": ([delete(events).where(events.c.seq == 1)], "log", "event 1 is missing"),
    "the head is beyond the last event": (workspace(head_seq=99), "log", "to 99 are missing"),
    "the head is before the last event": (workspace(head_seq=10), "log", "event 11 is beyond the end"),
    "the log begins after its end": (workspace(oldest_seq=99), "log", "begins at 99"),
    "an old event about no ticket was not deleted": (workspace(oldest_seq=3), "log", r"event 1 \(reference.changed\)"),
    "a time goes back": (event(3, time="2020-01-01T00:00:00.000Z"), "log", "event 3 is of an earlier time"),
    "the time of the head is wrong": (workspace(head_time="2020-01-01T00:00:00.000Z"), "log", "workspace says 2020"),
    "an event has the id of another": (event(3, id="x-4"), "log", "event 3 has the id x-4"),
    "an event lacks its ticket": (event(12, subject=None), "log", "event 12 .* does not say"),
    "a ticket has another version": (ticket(3, version=9), "tickets", "TH-3: its row has version 9"),
    "an event of a ticket has another version": (event(6, ticket_version=7), "tickets", "event 6 .* should have 3"),
    "an event of a ticket is gone": ([delete(events).where(events.c.seq == 9)], "tickets", "TH-1: event .* version"),
    "the event of its creation is gone": (
        [delete(events).where(events.c.seq == 5)], "tickets", "TH-3: its first event, .* and not ticket.created",
    ),
    "all events of a ticket are gone": (
        [delete(events).where(events.c.subject == "TH-3")], "tickets", "TH-3: no event says that it was created",
    ),
    "events tell of a ticket that is not there": (event(12, subject="TH-77"), "tickets", "TH-77: there are events"),
    "a ticket has another summary": (ticket(3, summary="third!"), "tickets", "TH-3: its row has another summary"),
    "a ticket has another status": (ticket(3, status_id="completed"), "tickets", "TH-3: its row has another status"),
    "a label is gone": ([delete(ticket_labels)], "tickets", "TH-1: its row has another labels"),
    "a ticket has another parent": (ticket(1, parent_no=2), "tickets", "TH-1: its row has another parent"),
    "a field that no list shows was changed": (ticket(3, remarks="?"), "tickets", "TH-3: its row has another remarks"),
    "a deleted ticket is there again": (ticket(4, deleted_at=None), "tickets", "TH-4: its events say"),
    "a ticket is deleted without a word": (ticket(3, deleted_at="x"), "tickets", "TH-3: its row says that it is del"),
    "an attachment is gone": ([delete(attachments)], "tickets", "TH-1: its attachments"),
    "the next number was given out": (workspace(next_no=3), "tickets", "the next number is 3, and should be 5"),
    "a number is left out": (workspace(next_no=9), "tickets", "the next number is 9"),
    "a comment is gone": (
        [delete(search_documents), delete(comments).where(comments.c.seq == 12)], "comments", "TH-1: comment 12: it is",
    ),
    "a comment came from nowhere": ([insert(comments).values(**COMMENT, seq=3)], "comments", "comment 3: no event"),
    "a comment says something else": (
        [update(comments).where(comments.c.seq == 6).values(body="!")], "comments", "comment 6 does not say",
    ),
    "a relation is gone": (
        [delete(ticket_relations).where(ticket_relations.c.kind == "related")], "relations", "say `related TH-3`",
    ),
    "a relation came from nowhere": (
        [insert(ticket_relations).values(**RELATION, from_no=1, to_no=3)], "relations", "TH-1: no event .* `related TH",
    ),
    "a ticket is blocked by nothing": (ticket(3, blocked=True), "blocked", "TH-3 is marked as blocked"),
    "a ticket is not blocked": (ticket(2, blocked=False), "blocked", "TH-2 is not marked"),
    "a blocker is done": (ticket(1, status_id="completed"), "blocked", "TH-2 is marked"),
    "a lease was taken by nobody": (lease(token=2), "leases", "has the lease token 2, and was claimed 1 times"),
    "a lease is gone": ([delete(leases)], "leases", "has no lease, and was claimed 1 times"),
    "a lease has another holder": (lease(holder="agent:eve"), "tickets", "TH-1: its row has another lease"),
    "a lease on a ticket that nobody works on": (ticket(1, status_id="received"), "leases", "no work under way"),
    "a lease ends before it begins": (lease(expires_at="2020"), "leases", "ended before it began"),
    "a holder was told of what is to come": (lease(told_seq=999), "leases", "beyond the end"),
    "an answer is no JSON": (
        [update(idempotency_keys).where(idempotency_keys.c.key == "k-1").values(answer="{")], "idempotency", "k-1: it",
    ),
    "an effect on a ticket is missing": (answer({"key": "TH-9", "version": 1}), "idempotency", "no such ticket"),
    "a version is missing": (answer({"key": "TH-3", "version": 30}), "idempotency", "made version 30 of TH-3"),
    "an event is another one": (answer({"key": "TH-3", "event_id": "other-4"}), "idempotency", "the event other-4"),
    "an event's id is none": (answer({"key": "TH-3", "event_id": "?"}), "idempotency", "no event's id"),
    "a batch that was answered is missing": (answer({"batch_id": "b-x"}, "bulk"), "idempotency", "the batch b-x"),
    "an item of a batch has no effect": (
        answer({"results": [{"key": "TH-3", "version": 30}]}, "bulk"), "idempotency", "made version 30",
    ),
    "a published event is missing": (
        answer({"epoch": "x", "first": 900, "last": 901}, "p-1"), "idempotency", "the event x-90",
    ),
    "a batch was never finished": (
        [update(batches).where(batches.c.undoes.is_(None)).values(last_seq=3)], "batches", "event 3 does not say",
    ),
    "a batch was undone by nothing": ([update(batches).values(undone_by="b-x")], "batches", "undone by b-x"),
    "the board counts wrongly": (
        [update(workspaces).values(ticket_counts='{"received": 99}')], "counts", "of the status received .* 99",
    ),
    "the index lacks a ticket": (
        [delete(search_documents).where(search_documents.c.ticket_no == 3)], "search", "ticket 3 cannot be found",
    ),
    "the index lacks a comment": (
        [delete(search_documents).where(search_documents.c.comment_seq == 12)], "search", "comment 12 of ticket 1",
    ),
    "the index has other words": (ticket(3, summary="changed"), "search", "ticket 3 cannot be found"),
    "the index has a comment that is gone": (
        [delete(comments).where(comments.c.seq == 12)], "search", "comment 12 is found, and is not there",
    ),
    "there is no deployment": ([delete(deployment)], "deployment", "there are 0 deployments"),
    "events of a workspace that is gone": ([insert(events).values(**STRANGER)], "deployment", "the workspace gone"),
}  # fmt: skip


class TakenBack(Exception):
    """Rolls back a unit that has found out what it wanted."""

    def __init__(self, findings: Findings) -> None:
        super().__init__()
        self.findings = findings


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_damage_is_found(lived_url: str, damage: str) -> None:
    database = Database(lived_url)
    await database.open()
    statements, check, what = DAMAGES[damage]

    def look_at_damage(connection: Connection) -> None:
        for statement in statements:
            assert connection.execute(statement).rowcount
        raise TakenBack(examine(connection))

    with pytest.raises(TakenBack) as taken_back:
        await database.write(look_at_damage)
    await database.close()

    found = [(problem.check, problem.what) for problem in taken_back.value.findings.problems]
    assert [told for told in found if told[0] == check and re.search(what, told[1])], found


async def test_a_word_that_only_one_part_of_the_index_has_is_found(world: World) -> None:
    if world.database.path is None:
        pytest.skip("PostgreSQL keeps its index by itself")
    await world.create("Printer is on fire")
    await execute(world.database, text("DELETE FROM search_words_docsize"))

    assert [problem.what for problem in (await find(world)).problems] == [
        "1 documents are in only one of the two parts of the index"
    ]


def test_damage_of_the_file_is_found(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    connection.execute("INSERT INTO ticket_labels VALUES ('default', 99, 'of no ticket')")
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'email TEXT', 'email TEXT NOT NULL') WHERE name = 'users'"
    )
    connection.execute(
        "INSERT INTO users (workspace_id, id, name, kind, role, active, created_at, updated_at)"
        " VALUES ('default', 'x', 'x', 'human', 'agent', 1, '', '')"
    )
    connection.close()
    monkeypatch.setenv("TASKHUB_DATABASE_URL", sqlite_url)

    assert run(["doctor"]) == 1

    said = capsys.readouterr().out.splitlines()
    assert "file: NULL value in users.email" in said
    assert "file: row 1 of ticket_labels refers to a row of tickets that is not there" in said
    assert said[-1] == "2 problems"


async def test_one_cause_that_shows_everywhere_does_not_fill_the_screen(world: World) -> None:
    for n in range(MOST + 3):
        await world.create(f"ticket {n}")
    await execute(world.database, update(tickets).values(remarks="x", summary="?"), delete(search_documents))

    findings = await find(world)

    assert len([problem for problem in findings.problems if problem.check == "tickets"]) == MOST
    assert findings.unnamed == {"tickets": 3, "search": 3}


async def test_a_database_of_another_schema_is_not_judged(world: World) -> None:
    await world.database.write(lambda connection: to_revision("0002", connection))

    with pytest.raises(OtherSchema, match="0002"):
        await find(world)


async def test_the_report_for_programs_says_the_same(
    world: World, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", url)
    await world.create("Printer is on fire")
    whole = {"workspace": "default", "tickets": 1, "events": 1, "oldest_seq": 1, "head_seq": 1}

    assert await asyncio.to_thread(run, ["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == {"sound": True, "workspaces": [whole], "problems": [], "unnamed_problems": {}}
    assert await asyncio.to_thread(run, ["doctor"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "default: 1 tickets, 1 events, streams go back from 1 to 1", "no problems",
    ]  # fmt: skip
    await execute(world.database, *workspace(next_no=7))
    assert await asyncio.to_thread(run, ["doctor", "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert problem == {
        "check": "tickets", "workspace": "default", "what": "the next number is 7, and should be 2",
    }  # fmt: skip


def test_settings_that_are_wrong_are_another_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "mysql://nowhere")
    assert run(["doctor"]) == 2
    monkeypatch.setenv("TASKHUB_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")
    assert run(["doctor"]) == 1
    assert list(tmp_path.iterdir()) == []
