"""Units of work: all or nothing, in a task of their own, and once per idempotency key."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import select

from broadcaster.event import EventDraft
from taskhub.storage import idempotency
from taskhub.storage import writer as writer_module
from taskhub.storage.group import Once
from taskhub.storage.idempotency import IdempotentRequest, fingerprint
from taskhub.storage.schema import idempotency_keys
from taskhub.storage.transaction import Transaction, UnknownWorkspace
from taskhub.tickets.errors import IdempotencyMismatch, StorageBusy
from tests.taskhub.world import NOON, Gate, World, rows, until


def draft(n: int = 1) -> EventDraft:
    return EventDraft("build.finished", "user:alice", "rest_api", b'{"n":%d}' % n)


def emit_one(transaction: Transaction) -> str:
    return transaction.emit(draft()).id


def once(key: str = "k", body: bytes = b"body", principal: str = "user:alice") -> Once[str]:
    return Once(IdempotentRequest(principal, "test", key, fingerprint(body)), TypeAdapter(str))


async def head(world: World) -> int:
    return (await world.log.bounds("default")).head


async def test_what_is_committed_is_heard_before_the_caller_is_answered(world: World) -> None:
    answer = await world.writer.run("default", emit_one)

    assert [event.id for event in world.heard] == [answer.value]
    assert [event.id for event in await world.log.read("default", 0, 10)] == [answer.value]


async def test_a_unit_that_fails_leaves_no_trace_and_no_hole(world: World) -> None:
    def fail(transaction: Transaction) -> None:
        emit_one(transaction)
        raise KeyError("changed my mind")

    await world.writer.run("default", emit_one)
    with pytest.raises(KeyError):
        await world.writer.run("default", fail)
    await world.writer.run("default", emit_one)

    assert [event.seq for event in await world.log.read("default", 0, 10)] == [1, 2]
    assert [event.seq for event in world.heard] == [1, 2]


async def test_a_workspace_that_does_not_exist_is_named(world: World) -> None:
    with pytest.raises(UnknownWorkspace, match="nowhere"):
        await world.writer.run("nowhere", emit_one)


async def test_times_in_a_log_never_go_back(world: World) -> None:
    await world.writer.run("default", emit_one)
    world.tick(hours=-1)
    await world.writer.run("default", emit_one)

    times = [event.time for event in await world.log.read("default", 0, 10)]
    assert times == ["2026-11-20T12:00:00.000Z"] * 2


async def test_a_caller_that_is_cancelled_does_not_cancel_its_commit(world: World) -> None:
    gate = Gate()

    def slow(transaction: Transaction) -> None:
        gate.pass_through()
        emit_one(transaction)

    caller = asyncio.create_task(world.writer.run("default", slow))
    await gate.reached()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert world.writer.pending == 1
    gate.open()
    await until(lambda: len(world.heard) == 1)

    assert await head(world) == 1


async def test_closing_waits_for_units_under_way_and_refuses_new_ones(world: World) -> None:
    gate = Gate()

    def slow(transaction: Transaction) -> None:
        gate.pass_through()
        emit_one(transaction)

    caller = asyncio.create_task(world.writer.run("default", slow))
    await gate.reached()
    closing = asyncio.create_task(world.writer.close())
    await asyncio.sleep(0)
    with pytest.raises(StorageBusy, match="shutting down"):
        await world.writer.run("default", emit_one)
    assert not closing.done()
    gate.open()
    await closing

    assert await head(world) == 1
    await caller


async def test_more_units_than_can_wait_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_PENDING", 3)

    outcomes = await asyncio.gather(*(world.writer.run("default", emit_one) for _ in range(5)), return_exceptions=True)

    assert [isinstance(outcome, StorageBusy) for outcome in outcomes] == [False] * 3 + [True] * 2
    assert await head(world) == 3


async def test_a_repeated_request_gets_the_first_answer_and_has_no_further_effect(world: World) -> None:
    first = await world.writer.run("default", emit_one, once=once())
    second = await world.writer.run("default", emit_one, once=once())

    assert (first.replayed, second.replayed) == (False, True)
    assert second.value == first.value
    assert await head(world) == 1


async def test_another_request_under_the_same_key_is_refused(world: World) -> None:
    await world.writer.run("default", emit_one, once=once())

    with pytest.raises(IdempotencyMismatch):
        await world.writer.run("default", emit_one, once=once(body=b"other"))
    assert await head(world) == 1


async def test_a_key_belongs_to_its_principal(world: World) -> None:
    await world.writer.run("default", emit_one, once=once())
    other = await world.writer.run("default", emit_one, once=once(principal="user:bob"))

    assert not other.replayed
    assert await head(world) == 2


async def test_a_failure_is_not_stored(world: World) -> None:
    def fail(transaction: Transaction) -> str:
        raise KeyError("not today")

    with pytest.raises(KeyError):
        await world.writer.run("default", fail, once=once())
    answer = await world.writer.run("default", emit_one, once=once())

    assert not answer.replayed
    assert await head(world) == 1


@pytest.mark.parametrize(("hours", "replayed"), [(23.9, True), (24.1, False)])
async def test_a_key_is_kept_for_24_hours(world: World, hours: float, replayed: bool) -> None:
    await world.writer.run("default", emit_one, once=once())
    world.tick(hours=hours)

    again = await world.writer.run("default", emit_one, once=once())
    assert again.replayed is replayed
    if not replayed:
        once_more = await world.writer.run("default", emit_one, once=once())
        assert once_more.replayed
        assert once_more.value == again.value


async def test_expired_records_are_deleted_on_the_way_however_many(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idempotency, "SWEEP_AT_MOST", 2)
    for n in range(5):
        await world.writer.run("default", emit_one, once=once(f"k{n}"))
    world.now = NOON + timedelta(hours=25)
    await world.writer.run("default", emit_one, once=once("new"))

    async def only_the_new_one_is_left() -> bool:
        left = await rows(world.database, select(idempotency_keys.c.key))
        return [row.key for row in left] == ["new"]

    await until(only_the_new_one_is_left)


async def test_twenty_callers_with_one_key_have_one_effect(world: World) -> None:
    answers = await asyncio.gather(*(world.writer.run("default", emit_one, once=once()) for _ in range(20)))

    assert len({answer.value for answer in answers}) == 1
    assert [answer.replayed for answer in answers].count(False) == 1
    assert await head(world) == 1
    assert len(world.heard) == 1


async def test_when_the_first_with_a_key_fails_the_next_has_the_effect(world: World) -> None:
    attempts: list[int] = []

    def fail_once(transaction: Transaction) -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise KeyError("the first fails")
        return emit_one(transaction)

    outcomes: list[Any] = await asyncio.gather(
        *(world.writer.run("default", fail_once, once=once()) for _ in range(6)),
        return_exceptions=True,
    )

    assert [isinstance(outcome, KeyError) for outcome in outcomes].count(True) == 1
    assert len(attempts) == 2
    assert await head(world) == 1
