"""The audit log, on SQLite and on PostgreSQL."""

import io
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from taskhub.audit.log import AuditEntry, AuditLog, AuditQuery
from taskhub.audit.record import Entry, record
from taskhub.audit.refusals import MAX_KINDS, Refusal, Refusals
from taskhub.audit.retention import AuditKeeper
from taskhub.auth.errors import Forbidden
from taskhub.keys.model import KeyChange, KeyLimits, NewKey, Rotation
from taskhub.keys.store import KeyStore
from taskhub.storage.schema import audit, users
from taskhub.tickets.errors import InUse, InvalidInput
from taskhub.tickets.inputs import ExportQuery
from taskhub.tickets.reference_inputs import NewUser, UserChange
from taskhub.workspaces import WorkspaceStore
from tests.taskhub.world import ALICE, World, caller, rows


@pytest.fixture
def log(world: World) -> AuditLog:
    return AuditLog(world.database, clock=lambda: world.now)


async def recorded(world: World, workspace: str = "default") -> list[AuditEntry]:
    """All entries, the oldest first."""
    by = caller(workspace=workspace)
    return [e async for page in AuditLog(world.database).walk(by, AuditQuery()) for e in page]


async def test_what_becomes_of_keys_is_recorded_without_them(world: World) -> None:
    await world.add("users", "Carol", role="agent")
    keys = KeyStore(world.database, clock=lambda: world.now)
    first = await keys.create(ALICE, NewKey(user="carol", name="laptop"))
    world.tick()
    for _ in range(2):  # of which the second changes nothing
        await keys.change(ALICE, first.key.id, KeyChange(limits=KeyLimits(streams=7)))
    world.tick()
    second = await keys.rotate(ALICE, first.key.id, Rotation(overlap_s=0))
    world.tick()
    await keys.revoke(ALICE, second.key.id)
    await keys.revoke(ALICE, second.key.id)

    entries = await recorded(world)
    assert [(e.action, e.target, e.actor) for e in entries] == [
        ("key.created", first.key.id, "user:alice"),
        ("key.changed", first.key.id, "user:alice"),
        ("key.rotated", second.key.id, "user:alice"),
        ("key.revoked", second.key.id, "user:alice"),
    ]
    told = {"user": "carol", "name": "laptop", "scopes": None, "expires_at": None}
    own = {"streams": 7, "writes_per_s": None, "write_burst": None}
    assert entries[0].details == {**told, "limits": None}
    assert entries[1].details == {**told, "limits": own}
    assert entries[2].details["replaces"] == first.key.id
    assert first.secret not in repr(entries)
    assert second.secret not in repr(entries)


async def test_users_and_their_roles_are_recorded_and_other_reference_data_is_not(world: World) -> None:
    await world.tickets.create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    await world.tickets.change_reference(ALICE, "users", "carol", UserChange(role="operator"))
    await world.tickets.change_reference(ALICE, "users", "carol", UserChange(role="operator"))
    await world.tickets.remove_reference(ALICE, "users", "carol")
    await world.add("accounts", "Acme")

    entries = await recorded(world)
    assert [(e.action, e.target) for e in entries] == [
        ("user.added", "carol"),
        ("user.changed", "carol"),
        ("user.removed", "carol"),
    ]
    assert entries[1].details == {"role": ["agent", "operator"]}


async def test_who_becomes_a_user_by_taking_a_ticket_is_recorded(world: World) -> None:
    await world.create(person_in_charge="me", by=caller("agent:triage"))

    (entry,) = await recorded(world)
    assert (entry.action, entry.target, entry.actor) == ("user.added", "triage", "agent:triage")


async def test_what_is_undone_is_not_recorded(world: World) -> None:
    await world.tickets.create_reference(ALICE, "users", NewUser(name="Carol"))
    await world.create(person_in_charge="carol")
    with pytest.raises(InUse):
        await world.tickets.remove_reference(ALICE, "users", "carol")
    with pytest.raises(InvalidInput):
        await world.create(person_in_charge="me", account="nowhere", by=caller("agent:triage"))

    assert [e.action for e in await recorded(world)] == ["user.added"]
    assert await rows(world.database, select(users.c.id).where(users.c.id == "triage")) == []


async def test_exports_and_imports_are_recorded(world: World) -> None:
    await world.create()
    async for _ in world.tickets.export(ALICE, ExportQuery(label=["red"])):
        pass
    file = io.BytesIO(b'{"external_ticket_id": "X-1", "summary": "one"}\n{"external_ticket_id": "X-2"}\n')
    await world.tickets.import_file(ALICE, file, "jsonl")
    with pytest.raises(Forbidden):
        await anext(world.tickets.export(caller(scopes=[]), ExportQuery()))

    exported, imported = await recorded(world)
    assert (exported.action, exported.details) == ("tickets.exported", {"query": {"label": ["red"]}})
    assert imported.action == "tickets.imported"
    counts = {name: imported.details[name] for name in ("created", "updated", "unchanged", "failed")}
    assert counts == {"created": 1, "updated": 0, "unchanged": 0, "failed": 1}


async def test_secrets_are_taken_out_wherever_they_stand(world: World) -> None:
    key = "thk_" + "a" * 48
    entry = Entry(
        "key.created",
        target=f"x {key}",
        details={"name": f"copy of {key}", "password": "hunter2", key: 1, "url": "postgresql://me:hunter2@db/x"},
    )
    await world.database.write(lambda connection: record(connection, entry))

    (stored,) = await rows(world.database, select(audit))
    assert key not in repr(stored)
    assert "hunter2" not in repr(stored)


async def test_pages_go_back_in_time_and_miss_nothing(world: World, log: AuditLog) -> None:
    await fill(world, 5)
    first = await log.page(ALICE, AuditQuery(limit=2))
    await fill(world, 1)  # it comes before them
    second = await log.page(ALICE, AuditQuery(limit=2, cursor=first.next_cursor))
    third = await log.page(ALICE, AuditQuery(limit=2, cursor=second.next_cursor))

    found = [e.target for page in (first, second, third) for e in page.entries]
    assert found == ["4", "3", "2", "1", "0"]
    assert third.next_cursor is None


async def test_what_is_asked_for_is_what_comes(world: World, log: AuditLog) -> None:
    await fill(world, 3)
    world.tick(hours=1)
    await fill(world, 1, action="user.removed", actor="user:bob")

    async def targets(**query: Any) -> list[tuple[str, str | None]]:
        return [(e.action, e.target) for e in (await log.page(ALICE, AuditQuery(**query))).entries]

    assert await targets(action=["user.removed"]) == [("user.removed", "0")]
    assert await targets(actor="user:bob") == [("user.removed", "0")]
    assert await targets(since="30m") == [("user.removed", "0")]
    assert await targets(since=(world.now - timedelta(minutes=30)).isoformat()) == [("user.removed", "0")]
    assert len(await targets(since="2h")) == 4
    for wrong in ("yesterday", "15", "2026-13-01", "99999-01-01T00:00:00Z"):
        with pytest.raises(InvalidInput, match="since"):
            await targets(since=wrong)
    with pytest.raises(InvalidInput, match="cursor"):
        await targets(cursor="AAAA")


async def test_only_who_operates_a_workspace_reads_its_log(world: World, log: AuditLog) -> None:
    await WorkspaceStore(world.database).create(ALICE, "acme", "AC", "Acme")
    await fill(world, 2)
    page = await log.page(ALICE, AuditQuery(limit=1))

    (made,) = await recorded(world, "acme")
    assert (made.action, made.target) == ("workspace.created", "acme")
    with pytest.raises(Forbidden):
        await log.page(caller(scopes=["tickets:read", "tickets:write"]), AuditQuery())
    with pytest.raises(InvalidInput):
        await log.page(caller(workspace="acme"), AuditQuery(limit=1, cursor=page.next_cursor))


async def test_equal_refusals_are_counted_and_the_first_is_recorded_at_once(world: World) -> None:
    refusals = Refusals(world.database, clock=lambda: world.now)
    refusal = Refusal("authentication.failed", "no credential", address="192.0.2.1")
    refusals.note(refusal)
    await refusals.write()
    for _ in range(1000):
        refusals.note(refusal)
    world.tick(seconds=30)
    await refusals.write()
    first = await recorded(world)
    world.tick(seconds=31)
    await refusals.write()
    await refusals.write()

    assert [(e.address, e.outcome, e.details["count"]) for e in first] == [("192.0.2.1", "denied", 1)]
    assert [e.details["count"] for e in await recorded(world)] == [1, 1000]


async def test_a_flood_from_everywhere_is_so_many_entries_and_none_is_uncounted(world: World) -> None:
    refusals = Refusals(world.database, clock=lambda: world.now)
    for number in range(10 * MAX_KINDS):
        refusals.note(Refusal("authentication.failed", "no credential", address=f"10.0.{number // 256}.{number % 256}"))
        if number % 100 == 0:
            await refusals.write()
    await refusals.write(all=True)

    entries = await recorded(world)
    assert len({e.address for e in entries}) == MAX_KINDS + 1
    assert sum(e.details["count"] for e in entries) == 10 * MAX_KINDS
    assert len(entries) <= MAX_KINDS + 11


async def test_refusals_that_are_left_at_the_end_are_recorded(world: World) -> None:
    async with Refusals(world.database, every_s=3600) as refusals:
        refusals.note(Refusal("access.denied", "needs admin", actor="user:bob"))

    assert [(e.action, e.actor) for e in await recorded(world)] == [("access.denied", "user:bob")]


async def test_old_entries_are_deleted_in_chunks_and_others_stay(world: World) -> None:
    await fill(world, 7)
    world.tick(days=10)
    await fill(world, 2)
    keeper = AuditKeeper(world.database, 5, clock=lambda: world.now, chunk=3, pause_s=0)

    assert await keeper.keep() == 7
    assert await keeper.keep() == 0
    assert (await rows(world.database, select(func.count()).select_from(audit)))[0][0] == 2


async def fill(world: World, count: int, **fields: Any) -> None:
    """Entries with the targets 0, 1, 2, each a millisecond after the one before."""

    def work(connection: Connection) -> None:
        for number in range(count):
            entry = Entry(**{"action": "key.created", "actor": "user:alice", "target": str(number), **fields})
            record(connection, entry, world.now)
            world.tick()

    await world.database.write(work)
