"""Changing reference data: what may be changed and what is in use, and that everyone hears of it."""

from typing import Any

import orjson
import pytest

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import ALL_SCOPES
from taskhub.tickets.errors import IdempotencyMismatch, InUse, InvalidInput, ReferenceNotFound, StatusNeeded
from taskhub.tickets.model import ReferenceKind, ReferenceWritten
from taskhub.tickets.reference_inputs import CHANGE, NEW
from tests.taskhub.world import ALICE, World, caller


async def create(world: World, kind: ReferenceKind, **fields: Any) -> ReferenceWritten:
    return await world.tickets.create_reference(ALICE, kind, NEW[kind](**fields))


async def change(world: World, kind: ReferenceKind, id: str, **fields: Any) -> ReferenceWritten:
    return await world.tickets.change_reference(ALICE, kind, id, CHANGE[kind](**fields))


async def remove(world: World, kind: ReferenceKind, id: str) -> ReferenceWritten:
    return await world.tickets.remove_reference(ALICE, kind, id)


ROWS: dict[ReferenceKind, dict[str, Any]] = {
    "users": {"email": "zoe@example.org", "role": "manager"},
    "accounts": {},
    "categories": {},
    "category_details": {"category": "Incident"},
    "statuses": {"phase": "review"},
    "request_channels": {},
    "response_categories": {"order_no": 7},
}
FIELD = {
    "users": "person_in_charge", "accounts": "account", "categories": "category", "category_details": "category_detail",
    "statuses": "status", "request_channels": "request_channel", "response_categories": "response_category",
}  # fmt: skip


@pytest.mark.parametrize("kind", ROWS)
async def test_a_row_is_added_renamed_used_and_removed(world: World, kind: ReferenceKind) -> None:
    added = await create(world, kind, name="Zoe & Co", **ROWS[kind])
    renamed = await change(world, kind, "zoe_co", name="Zoë")
    same = await change(world, kind, "zoe_co", name="Zoë", active=True)
    mentioned: dict[str, Any] = {FIELD[kind]: "ZOË"}
    await world.create(**mentioned)

    assert (added.id, renamed.id, renamed.name) == ("zoe_co", "zoe_co", "Zoë")
    assert (same.noop, same.event_id) == (True, None)
    ref = getattr(await world.ticket("TH-1"), FIELD[kind])
    assert (ref.id, ref.name) == ("zoe_co", "Zoë")
    with pytest.raises(InUse, match="1 ticket,") as used:
        await remove(world, kind, "zoe_co")
    assert used.value.count == 1
    await change(world, kind, "zoe_co", active=False)
    with pytest.raises(InvalidInput, match=r"no longer in use|there is no"):
        await world.create(**mentioned)
    cleared: dict[str, Any] = {FIELD[kind]: "received" if kind == "statuses" else None}
    await world.update("TH-1", **cleared)
    await remove(world, kind, "zoe_co")
    with pytest.raises(ReferenceNotFound):
        await remove(world, kind, "zoe_co")

    told = [orjson.loads(e.data) for e in world.heard if e.type == "reference.changed"]
    assert [(t["kind"], t["action"], t["id"], t["name"]) for t in told] == [
        (kind, "created", "zoe_co", "Zoe & Co"), (kind, "updated", "zoe_co", "Zoë"),
        (kind, "updated", "zoe_co", "Zoë"), (kind, "deleted", "zoe_co", "Zoë"),
    ]  # fmt: skip


async def test_a_name_that_means_another_or_nothing_is_refused(world: World) -> None:
    for name in ["in-progress", "ＷＡＩＴＩＮＧ", "completed ", "me", "NONE", "!!!", "a\0b", "a\nb"]:
        with pytest.raises(InvalidInput) as refused:
            await create(world, "statuses", name=name, phase="todo")
        assert [problem.pointer for problem in refused.value.problems] == ["/name"]
        if name not in ("completed ",):
            with pytest.raises(InvalidInput):
                await change(world, "statuses", "completed", name=name)


async def test_details_of_two_categories_may_have_one_name(world: World) -> None:
    await create(world, "category_details", name="Outage", category="inquiry")
    with pytest.raises(InvalidInput, match="taken"):
        await create(world, "category_details", name="outage", category="incident")
    with pytest.raises(InvalidInput, match="category"):
        await create(world, "category_details", name="x", category="nowhere")


async def test_a_category_with_details_stays(world: World) -> None:
    with pytest.raises(InUse, match="4 category details"):
        await remove(world, "categories", "incident")


async def test_rows_come_in_their_order_and_a_new_one_last(world: World) -> None:
    await create(world, "request_channels", name="Fax")
    await change(world, "request_channels", "teams", order_no=0)

    channels = [channel.id for channel in await world.tickets.request_channels(ALICE)]
    assert (channels[0], channels[-1]) == ("teams", "fax")


async def test_null_clears_an_address_and_nothing_else(world: World) -> None:
    await create(world, "users", name="Zoe", email="zoe@example.org")
    await change(world, "users", "zoe", email=None)

    (zoe,) = await world.tickets.users(ALICE)
    assert zoe.email is None
    with pytest.raises(InvalidInput, match="cannot be cleared"):
        await change(world, "users", "zoe", name=None)


async def test_the_phase_of_a_status_changes_only_while_no_ticket_has_it(world: World) -> None:
    await create(world, "statuses", name="Parked", phase="waiting")
    await world.create(status="Parked", waiting_reason="x")
    with pytest.raises(InUse, match="its phase cannot change"):
        await change(world, "statuses", "parked", phase="todo")
    await world.update("TH-1", status="received")
    await change(world, "statuses", "parked", phase="todo")

    assert {s.id: s.phase for s in await world.tickets.statuses(ALICE)}["parked"] == "todo"


@pytest.mark.parametrize("id", ["received", "in_progress", "waiting", "completed"])
async def test_there_is_always_a_status_for_each_step_of_the_work(world: World, id: str) -> None:
    with pytest.raises(StatusNeeded):
        await remove(world, "statuses", id)
    with pytest.raises(StatusNeeded):
        await change(world, "statuses", id, active=False)
    with pytest.raises(StatusNeeded):
        await change(world, "statuses", id, phase="cancelled")
    await world.create()

    assert (await world.ticket("TH-1")).status.id == "received"
    assert {s.id for s in await world.tickets.statuses(ALICE)} >= {id}


async def test_the_default_status_moves_and_is_one_to_begin_with(world: World) -> None:
    with pytest.raises(StatusNeeded):
        await change(world, "statuses", "received", is_default=False)
    with pytest.raises(StatusNeeded):
        await change(world, "statuses", "completed", is_default=True)
    await create(world, "statuses", name="Inbox", phase="todo", is_default=True)
    await world.create()

    assert (await world.ticket("TH-1")).status.id == "inbox"
    assert [s.id for s in await world.tickets.statuses(ALICE) if s.is_default] == ["inbox"]
    await remove(world, "statuses", "received")


async def test_it_needs_its_scope_and_a_key_makes_it_happen_once(world: World) -> None:
    new = NEW["accounts"](name="Acme")
    with pytest.raises(Forbidden, match="reference:write"):
        await world.tickets.create_reference(caller(scopes=ALL_SCOPES - {"reference:write"}), "accounts", new)
    first = await world.tickets.create_reference(ALICE, "accounts", new, idempotency_key="k")
    again = await world.tickets.create_reference(ALICE, "accounts", new, idempotency_key="k")

    assert (again.id, again.event_id, again.replayed) == (first.id, first.event_id, True)
    with pytest.raises(IdempotencyMismatch):
        await world.tickets.create_reference(ALICE, "users", NEW["users"](name="Acme"), idempotency_key="k")
    assert [account.name for account in await world.tickets.accounts(ALICE)] == ["Acme"]
