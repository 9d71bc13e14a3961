"""Commands that share a commit: each has its own outcome, as if it had come alone."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
from pydantic import TypeAdapter
from sqlalchemy import insert

from broadcaster.event import Event, EventDraft
from taskhub.storage import group as group_module
from taskhub.storage import writer as writer_module
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.group import Once
from taskhub.storage.idempotency import IdempotentRequest
from taskhub.storage.schema import workspaces
from taskhub.storage.transaction import Transaction
from taskhub.storage.writer import Writer
from taskhub.tickets.errors import IdempotencyMismatch, InvalidInput, StorageBusy, VersionConflict
from taskhub.tickets.inputs import NewTicket, TicketChange
from taskhub.tickets.service import TicketService
from tests.taskhub.world import ALICE, DEADLINE_S, Gate, caller, execute, rows, until


class Groups:
    """A writer whose commits are heard one by one."""

    def __init__(self, database: Database) -> None:
        self.heard: list[list[Event]] = []
        self.writer = Writer(database, lambda workspace, events: self.heard.append(list(events)))
        self.tickets = TicketService(database, self.writer)
        self.log = SqlEventLog(database)

    async def together(
        self, *calls: Coroutine[Any, Any, Any], meanwhile: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """What became of calls that had all come when the writer was ready for the next group."""
        gate = Gate()
        first = asyncio.create_task(self.writer.run("default", gate.pass_through))
        await gate.reached()
        tasks = [asyncio.create_task(call) for call in calls]
        await until(lambda: self.writer.pending == 1 + len(calls))
        meanwhile()
        gate.open()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)

    async def seqs(self) -> list[int]:
        return await seqs_of(self.log)


async def seqs_of(log: SqlEventLog) -> list[int]:
    return [event.seq for event in await log.read("default", 0, 1000)]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow this machine is, what came together fits into one group."""
    monkeypatch.setattr(group_module, "MAX_S", DEADLINE_S)


@pytest.fixture
async def groups(database: Database) -> AsyncIterator[Groups]:
    database.busy_timeout_s = DEADLINE_S  # and waits as long as it must
    groups = Groups(database)
    yield groups
    await groups.writer.close()


def draft(n: int = 0) -> EventDraft:
    return EventDraft("build.finished", "user:alice", "rest_api", b'{"n":%d}' % n)


def emit(n: int = 0) -> Callable[[Transaction], int]:
    return lambda transaction: transaction.emit(draft(n)).seq


def once(body: str = "body") -> Once[int]:
    return Once(IdempotentRequest("user:alice", "test", "k", body), TypeAdapter(int))


def add_workspace_row(transaction: Transaction, prefix: str) -> None:
    """Any change of the database that can be seen afterwards."""
    transaction.execute(
        insert(workspaces),
        {
            "id": prefix, "key_prefix": prefix, "name": prefix, "next_no": 1, "epoch": "e", "head_seq": 0,
            "head_time": "", "oldest_seq": 1, "references_version": 1, "created_at": "",
        },
    )  # fmt: skip


async def test_commands_that_came_together_are_one_commit_heard_once_in_their_order(groups: Groups) -> None:
    answers = await groups.together(*(groups.writer.run("default", emit(n)) for n in range(20)))

    assert [answer.value for answer in answers] == list(range(1, 21))
    assert [[event.seq for event in heard] for heard in groups.heard] == [list(range(1, 21))]


async def test_a_command_that_comes_alone_is_committed_alone(groups: Groups) -> None:
    for n in range(3):
        await groups.writer.run("default", emit(n))

    assert [len(heard) for heard in groups.heard] == [1, 1, 1]


async def test_what_fails_in_a_group_fails_alone_and_leaves_no_trace_and_no_hole(groups: Groups) -> None:
    dice = random.Random(7)
    plan = [(n, dice.random() < 0.4, dice.random() < 0.5) for n in range(60)]

    def command(n: int, fails: bool, writes: bool) -> Callable[[Transaction], int]:
        def work(transaction: Transaction) -> int:
            if writes:
                add_workspace_row(transaction, f"W{n}")
            transaction.take_number()
            transaction.emit(draft(n))
            if fails:
                raise KeyError(n)
            return n

        return work

    outcomes = await groups.together(*(groups.writer.run("default", command(*planned)) for planned in plan))

    for (n, fails, _), outcome in zip(plan, outcomes, strict=True):
        assert (outcome.args == (n,) and isinstance(outcome, KeyError)) if fails else outcome.value == n
    kept = [n for n, fails, _ in plan if not fails]
    log = await groups.log.read("default", 0, 1000)
    assert [event.data for event in log] == [draft(n).data for n in kept]
    assert await groups.seqs() == list(range(1, len(kept) + 1))
    assert len(groups.heard) == 1
    stored = {row.id: row for row in await rows(groups.writer.database, workspaces.select())}
    assert set(stored) - {"default"} == {f"W{n}" for n, fails, writes in plan if writes and not fails}
    assert stored["default"].next_no == len(kept) + 1


async def test_a_key_used_twice_in_a_group_has_one_effect_and_two_answers(groups: Groups) -> None:
    run = groups.writer.run
    first, again, other = await groups.together(
        run("default", emit(), once=once()), run("default", emit(), once=once()), run("default", emit(), once=once("x"))
    )

    assert (first.replayed, again.replayed) == (False, True)
    assert first.value == again.value == 1
    assert isinstance(other, IdempotencyMismatch)
    assert await groups.seqs() == [1]


async def test_the_key_of_a_command_that_failed_is_free_for_the_next_in_the_group(groups: Groups) -> None:
    def fail(transaction: Transaction) -> int:
        add_workspace_row(transaction, "W")
        raise KeyError

    run = groups.writer.run
    failed, done = await groups.together(run("default", fail, once=once()), run("default", emit(), once=once()))

    assert isinstance(failed, KeyError)
    assert (done.value, done.replayed) == (1, False)


async def test_changes_of_one_ticket_in_a_group_see_each_other(groups: Groups) -> None:
    await groups.tickets.create_ticket(ALICE, NewTicket(summary="one"))

    def change(text: str, expected: int | None) -> Coroutine[Any, Any, Any]:
        return groups.tickets.update_ticket(ALICE, "TH-1", TicketChange(remarks=text), expected_version=expected)

    first, second, third, created, parented = await groups.together(
        change("a", 1),
        change("b", 1),
        change("c", 2),
        groups.tickets.create_ticket(ALICE, NewTicket(summary="two")),
        groups.tickets.create_ticket(ALICE, NewTicket(summary="three", parent="TH-2")),
    )

    assert (first.version, third.version, created.key, parented.key) == (2, 3, "TH-2", "TH-3")
    assert isinstance(second, VersionConflict)
    assert second.current == 2
    assert await groups.seqs() == [1, 2, 3, 4, 5]
    assert len(groups.heard) == 2


async def test_a_caller_cancelled_in_a_group_cancels_nothing(groups: Groups) -> None:
    gate = Gate()

    def held_up(transaction: Transaction) -> None:
        gate.pass_through()
        emit()(transaction)

    first = asyncio.create_task(groups.writer.run("default", held_up))
    await gate.reached()
    others = [asyncio.create_task(groups.writer.run("default", emit(n))) for n in range(6)]
    await until(lambda: groups.writer.pending == 7)
    gone = [first, *others[::2]]
    for task in gone:
        task.cancel()
    await asyncio.gather(*gone, return_exceptions=True)
    gate.open()

    assert [(await task).value for task in others[1::2]] == [3, 5, 7]
    assert all(task.cancelled() for task in gone)
    assert await groups.seqs() == list(range(1, 8))


async def test_a_command_that_the_database_refuses_fails_alone(groups: Groups) -> None:
    """What the database refuses may end the transaction that all share."""

    def refused(transaction: Transaction) -> None:
        emit()(transaction)
        add_workspace_row(transaction, "TH")

    run = groups.writer.run
    before, poisoned, after = await groups.together(
        run("default", emit(1), once=once()), run("default", refused), run("default", emit(2))
    )

    assert (before.value, before.replayed, after.value) == (1, False, 2)
    assert "key_prefix" in str(poisoned)
    assert await groups.seqs() == [1, 2]


async def test_an_event_that_the_database_refuses_fails_alone(groups: Groups) -> None:
    """Events are stored at the end of the group, when all commands have done their part."""
    nameless = EventDraft(None, "user:alice", "rest_api", b"{}")  # type: ignore[arg-type]  # what only a mistake can do
    run = groups.writer.run
    before, poisoned, after = await groups.together(
        run("default", emit(1)), run("default", lambda transaction: transaction.emit(nameless)), run("default", emit(2))
    )

    assert (before.value, after.value) == (1, 2)
    assert isinstance(poisoned, Exception)
    assert await groups.seqs() == [1, 2]


async def test_a_user_added_in_a_group_is_known_to_the_commands_after_it(groups: Groups) -> None:
    newcomer = caller("agent:newcomer")

    def take(**fields: Any) -> Coroutine[Any, Any, Any]:
        return groups.tickets.create_ticket(newcomer, NewTicket(summary="mine", person_in_charge="me", **fields))

    wrong, first, second, given = await groups.together(
        take(status="no such"),
        take(),
        take(),
        groups.tickets.create_ticket(ALICE, NewTicket(summary="theirs", person_in_charge="newcomer")),
    )

    assert isinstance(wrong, InvalidInput)
    assert [first.key, second.key, given.key] == ["TH-1", "TH-2", "TH-3"]
    assert [user.id for user in await groups.tickets.users(ALICE)].count("newcomer") == 1
    log = await groups.log.read("default", 0, 10)
    assert [event.type for event in log] == ["reference.changed"] + ["ticket.created"] * 3


async def test_a_user_whose_group_was_not_committed_is_not_remembered(
    groups: Groups, monkeypatch: pytest.MonkeyPatch
) -> None:
    await groups.tickets.users(ALICE)
    write = groups.writer.database.write

    async def lose_the_commit(unit: Callable[[Any], Any]) -> None:
        def fail(connection: Any) -> None:
            unit(connection)
            raise StorageBusy("gone", uncertain=True)

        await write(fail)

    monkeypatch.setattr(groups.writer.database, "write", lose_the_commit)
    take = NewTicket(summary="mine", person_in_charge="me")
    lost = await asyncio.gather(
        *(groups.tickets.create_ticket(caller("agent:newcomer"), take) for _ in range(3)), return_exceptions=True
    )
    monkeypatch.undo()

    # In the meantime somebody else changes reference data, which gives it the version that was lost.
    raised = workspaces.c.references_version + 1
    await execute(groups.writer.database, workspaces.update().values(references_version=raised))
    assert [error.uncertain for error in lost if isinstance(error, StorageBusy)] == [True] * 3
    with pytest.raises(InvalidInput):
        await groups.tickets.create_ticket(ALICE, NewTicket(summary="theirs", person_in_charge="newcomer"))


@pytest.mark.parametrize("limit", ["MAX_BYTES", "MAX_S"])
async def test_a_group_that_is_long_enough_leaves_the_rest_to_the_next(
    groups: Groups, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(group_module, limit, -1)

    answers = await groups.together(*(groups.writer.run("default", emit(n)) for n in range(4)))

    assert [answer.value for answer in answers] == [1, 2, 3, 4]
    assert [[event.seq for event in heard] for heard in groups.heard] == [[1], [2], [3], [4]]


async def test_a_group_has_no_more_commands_than_it_may(groups: Groups, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MAX_COMMANDS", 3)

    await groups.together(*(groups.writer.run("default", emit(n)) for n in range(7)))

    assert [[event.seq for event in heard] for heard in groups.heard] == [[1, 2, 3], [4, 5, 6], [7]]


async def test_what_has_waited_too_long_is_refused_without_being_tried(groups: Groups) -> None:
    def lose_patience() -> None:
        groups.writer.database.busy_timeout_s = 0.0

    calls = (groups.writer.run("default", emit(n)) for n in range(3))
    outcomes = await groups.together(*calls, meanwhile=lose_patience)

    assert [type(outcome) for outcome in outcomes] == [StorageBusy] * 3
    assert await groups.seqs() == []


async def test_all_are_told_at_once_when_the_database_is_locked(url: str, database: Database) -> None:
    hasty = Database(url, busy_timeout_s=1.5)
    await hasty.open()
    groups, gate = Groups(hasty), Gate()

    def lock(connection: Any) -> None:
        connection.execute(workspaces.update().values(name="Renamed"))
        gate.pass_through()

    locked = asyncio.create_task(database.write(lock))
    await gate.reached()
    outcomes = await asyncio.gather(*(groups.writer.run("default", emit(n)) for n in range(5)), return_exceptions=True)
    gate.open()
    await locked

    assert [outcome.uncertain for outcome in outcomes if isinstance(outcome, StorageBusy)] == [False] * 5
    assert await seqs_of(SqlEventLog(database)) == []
    await groups.writer.close()
    await hasty.close()


async def test_callers_are_answered_although_telling_of_the_commit_failed(database: Database) -> None:
    def fail(workspace: str, events: object) -> None:
        raise KeyError("nobody listens")

    writer = Writer(database, fail)

    assert [(await writer.run("default", emit(n))).value for n in range(2)] == [1, 2]
    await writer.close()
