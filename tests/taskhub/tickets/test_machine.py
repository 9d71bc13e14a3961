"""Whatever three people and agents do to tickets, in any order: the log tells all of it, and the rows agree with it."""

import asyncio
import secrets
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import orjson
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import Connection, select

from broadcaster.event import Event
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.doctor.findings import Problem
from taskhub.doctor.replay import TicketReplay
from taskhub.storage.database import Database
from taskhub.storage.schema import leases, ticket_relations, tickets
from taskhub.storage.seeds import add_workspace
from taskhub.tickets.errors import TicketError
from taskhub.tickets.inputs import (
    BulkItem,
    BulkUpdate,
    ClaimNext,
    NewAttachment,
    NewClaim,
    NewComment,
    NewTicket,
    ProgressReport,
    Release,
    TicketChange,
    TicketQuery,
    UndoBatch,
)
from tests.taskhub.world import World, ills

T = TypeVar("T")
Row = dict[str, Any]

ACTORS = ("user:alice", "agent:bot", "agent:other")
STATUSES = ("received", "in_progress", "verifying", "completed", "waiting", "cancelled")
CLOSED = ("done", "cancelled")

actors = st.sampled_from(ACTORS)
numbers = st.integers(0, 3)
statuses = st.sampled_from(STATUSES)
changes = st.fixed_dictionaries(
    {},
    optional={
        "summary": st.sampled_from(["one", "two"]),
        "status": statuses,
        "person_in_charge": st.sampled_from(["me", None]),
        "priority": st.sampled_from(["none", "urgent"]),
        "remarks": st.sampled_from(["a remark", None]),
        "labels": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        "comment": st.just("and why"),
    },
)
tokens = st.sampled_from(["none", "right", "old"])


class Work(RuleBasedStateMachine):
    """Commands at random, most of them refused for a good reason."""

    url: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.count = 0
        self.replays: dict[str, TicketReplay] = {}
        """By key."""
        self.tokens: dict[str, list[int]] = {}
        """Key → the lease tokens that were given out for it."""
        self.batches: list[str] = []
        self.read = 0

    def wait(self, work: Awaitable[T]) -> T:
        async def run() -> T:
            return await work

        return self.runner.run(run())

    def attempt(self, work: Awaitable[T]) -> T | None:
        """What the service answers; None when it refuses."""
        try:
            return self.wait(work)
        except TicketError:
            return None

    @initialize()
    def begin(self) -> None:
        self.workspace = f"w{secrets.token_hex(4)}"

        async def open_world() -> World:
            database = Database(self.url, pool_size=2)
            await database.open()
            await database.write(
                lambda connection: add_workspace(connection, self.workspace, self.workspace.upper(), "A workspace")
            )
            return World(database)

        self.world = self.wait(open_world())
        self.service = self.world.tickets
        statuses = self.wait(self.service.statuses(self.by(ACTORS[0])))
        self.phases = {status.id: status.phase for status in statuses}
        self.create(ACTORS[0], "received", None)
        self.create(ACTORS[0], "received", 0)

    def teardown(self) -> None:
        async def close() -> None:
            await self.world.writer.close()
            await self.world.database.close()

        if hasattr(self, "world"):
            self.wait(close())
        self.runner.close()

    def by(self, actor: str) -> Caller:
        return Caller(Principal(actor, self.workspace, ALL_SCOPES, authenticated=True), "rest_api")

    def key(self, number: int) -> str:
        return f"{self.workspace.upper()}-{number % max(1, self.count) + 1}"

    def token(self, number: int, which: str) -> int | None:
        given = self.tokens.get(self.key(number), [])
        if which == "none" or not given:
            return None
        return given[-1] if which == "right" else given[0] - 1

    # What people and agents do

    @rule(actor=actors, status=statuses, blocker=st.one_of(st.none(), numbers))
    def create(self, actor: str, status: str, blocker: int | None) -> None:
        if self.count == 4:
            return
        blocked_by = [self.key(blocker)] if blocker is not None and self.count else None
        new = NewTicket(summary="new", status=status, waiting_reason="so", blocked_by=blocked_by)
        if self.attempt(self.service.create_ticket(self.by(actor), new)) is not None:
            self.count += 1

    @rule(actor=actors, number=numbers, change=changes, which=tokens)
    def update(self, actor: str, number: int, change: Row, which: str) -> None:
        given = TicketChange(**change)
        token = self.token(number, which)
        self.attempt(self.service.update_ticket(self.by(actor), self.key(number), given, lease_token=token))

    @rule(actor=actors, number=numbers, kind=st.sampled_from(["note", "question", "answer"]))
    def comment(self, actor: str, number: int, kind: Any) -> None:
        self.attempt(self.service.add_comment(self.by(actor), self.key(number), NewComment(comment="so", kind=kind)))

    @rule(actor=actors, number=numbers, take_over=st.booleans())
    def claim(self, actor: str, number: int, take_over: bool) -> None:
        claimed = self.attempt(
            self.service.claim_ticket(self.by(actor), self.key(number), NewClaim(lease_seconds=60, take_over=take_over))
        )
        if claimed is not None:
            self.remember(claimed.key, claimed.lease_token)

    @rule(actor=actors)
    def claim_next(self, actor: str) -> None:
        claimed = self.attempt(self.service.claim_next(self.by(actor), ClaimNext(lease_seconds=60)))
        if claimed is not None:
            self.remember(claimed.key, claimed.lease_token)

    def remember(self, key: str, token: int) -> None:
        given = self.tokens.setdefault(key, [])
        assert not given or token > given[-1]
        given.append(token)

    @rule(actor=actors, number=numbers, which=tokens, status=st.one_of(st.none(), statuses))
    def release(self, actor: str, number: int, which: str, status: str | None) -> None:
        asked = Release(status=status, note="over to you")
        token = self.token(number, which)
        self.attempt(self.service.release_ticket(self.by(actor), self.key(number), asked, lease_token=token))

    @rule(actor=actors, number=numbers, which=tokens, percent=st.sampled_from([10, 90]))
    def progress(self, actor: str, number: int, which: str, percent: int) -> None:
        asked = ProgressReport(percent=percent)
        token = self.token(number, which)
        self.attempt(self.service.report_progress(self.by(actor), self.key(number), asked, lease_token=token))

    @rule(actor=actors, number=numbers, other=numbers, relation=st.sampled_from(["blocks", "blocked_by", "related"]))
    def link(self, actor: str, number: int, other: int, relation: Any) -> None:
        self.attempt(self.service.link_tickets(self.by(actor), self.key(number), relation, self.key(other)))

    @rule(actor=actors, number=numbers, other=numbers)
    def unlink(self, actor: str, number: int, other: int) -> None:
        self.attempt(self.service.unlink_tickets(self.by(actor), self.key(number), "blocks", self.key(other)))

    @rule(actor=actors, number=numbers)
    def attach(self, actor: str, number: int) -> None:
        new = NewAttachment(file_name="a.txt", url="https://example.org/a.txt")
        self.attempt(self.service.add_attachment(self.by(actor), self.key(number), new))

    @rule(actor=actors, number=numbers, which=tokens)
    def delete(self, actor: str, number: int, which: str) -> None:
        token = self.token(number, which)
        self.attempt(self.service.delete_ticket(self.by(actor), self.key(number), lease_token=token))

    @rule(actor=actors, number=numbers)
    def restore(self, actor: str, number: int) -> None:
        self.attempt(self.service.restore_ticket(self.by(actor), self.key(number)))

    @precondition(lambda self: self.count)
    @rule(actor=actors, items=st.dictionaries(numbers, changes, min_size=1, max_size=3), atomic=st.booleans(),
          dry_run=st.booleans())  # fmt: skip
    def bulk(self, actor: str, items: dict[int, Row], atomic: bool, dry_run: bool) -> None:
        head = self.wait(self.world.log.bounds(self.workspace)).head
        by_key = {self.key(number): change for number, change in items.items()}
        asked = BulkUpdate(
            items=[BulkItem(ticket_id=key, **change) for key, change in by_key.items()], atomic=atomic, dry_run=dry_run
        )
        result = self.attempt(self.service.update_tickets(self.by(actor), asked))
        if dry_run or result is None:
            assert self.wait(self.world.log.bounds(self.workspace)).head == head
        elif result.batch_id is not None:
            self.batches.append(result.batch_id)

    @precondition(lambda self: self.batches)
    @rule(actor=actors, which=st.integers(0, 9), atomic=st.booleans())
    def undo(self, actor: str, which: int, atomic: bool) -> None:
        batch = self.batches[which % len(self.batches)]
        result = self.attempt(self.service.undo_batch(self.by(actor), batch, UndoBatch(atomic=atomic)))
        if result is not None and result.batch_id is not None:
            self.batches.append(result.batch_id)

    @precondition(lambda self: self.count)
    @rule(actor=actors, items=st.dictionaries(numbers, changes, min_size=1, max_size=3))
    def bulk_and_undo(self, actor: str, items: dict[int, Row]) -> None:
        """At once, so nothing stands in the way: every ticket is as it was."""
        before = self.rows()
        by_key = {self.key(number): change for number, change in items.items()}
        asked = BulkUpdate(items=[BulkItem(ticket_id=key, **change) for key, change in by_key.items()])
        done = self.attempt(self.service.update_tickets(self.by(actor), asked))
        if done is None or done.batch_id is None:
            return
        if any(row["lease_holder"] for row in before.values()):
            return  # a lease that ended is not taken up again
        self.wait(self.service.undo_batch(self.by(actor), done.batch_id, UndoBatch()))
        after = self.rows()
        for row in (*before.values(), *after.values()):
            del row["version"], row["updated_at"]
        assert after == before

    @rule(seconds=st.sampled_from([1, 30, 61]))
    def time_passes(self, seconds: int) -> None:
        self.world.now += timedelta(seconds=seconds)

    @rule()
    def sweep(self) -> None:
        self.wait(self.service.expire_leases())

    # What stays true

    @invariant()
    def the_tables_agree(self) -> None:
        if not hasattr(self, "world"):
            return
        rows, edges = self.wait(
            self.world.database.read(lambda connection: (self._rows(connection), self._blocks(connection)))
        )
        self.the_log_tells_everything(rows)
        self.what_is_blocked_is_marked_and_nothing_blocks_itself(rows, edges)

    def the_log_tells_everything(self, rows: dict[str, Row]) -> None:
        self.world.now += timedelta(milliseconds=1)
        log = self.wait(self.world.log.read(self.workspace, self.read, 1000))
        self.read += len(log)
        for event in log:
            self.follow(event)
        assert {key: row["version"] for key, row in rows.items()} == {
            key: replay.version for key, replay in self.replays.items()
        }
        page = self.wait(
            self.service.list_tickets(self.by(ACTORS[0]), TicketQuery(show_completed=True, limit=100))
        ).tickets
        listed = {ticket.key: without_expiry(orjson.loads(orjson.dumps(ticket))) for ticket in page}
        told = {
            key: without_expiry(replay.state or {})
            for key, replay in self.replays.items()
            if rows[key]["deleted_at"] is None
        }
        assert listed == told
        todo = {key: state for key, state in told.items() if state["phase"] == "todo"}
        ready = {key for key, state in todo.items() if not state["blocked"] and not state["lease"]}
        query = TicketQuery(ready=True, limit=100)
        page = self.wait(self.service.list_tickets(self.by(ACTORS[0]), query)).tickets
        assert {ticket.key for ticket in page} == ready

    def follow(self, event: Event) -> None:
        """Take over what an event says, after holding it against what was known before."""
        if not event.type.startswith("ticket."):
            return
        replay = self.replays.setdefault(str(event.subject), TicketReplay())
        assert list(replay.follow(event.seq, event.type, event.ticket_version, event.data)) == []

    def what_is_blocked_is_marked_and_nothing_blocks_itself(
        self, rows: dict[str, Row], edges: list[tuple[int, int]]
    ) -> None:
        open_numbers = {row["no"] for row in rows.values() if row["deleted_at"] is None and row["phase"] not in CLOSED}
        # A deleted ticket is looked at when it is restored.
        for row in (row for row in rows.values() if row["deleted_at"] is None):
            assert row["blocked"] == any(to == row["no"] and blocker in open_numbers for blocker, to in edges)
        left = set(edges)
        while free := {edge for edge in left if edge[0] not in {to for _, to in left}}:
            left -= free
        assert not left, f"a circle: {left}"

    def _blocks(self, connection: Connection) -> list[tuple[int, int]]:
        relation = ticket_relations.c
        statement = select(relation.from_no, relation.to_no).where(
            relation.workspace_id == self.workspace, relation.kind == "blocks"
        )
        return [(row.from_no, row.to_no) for row in connection.execute(statement)]

    def rows(self) -> dict[str, Row]:
        """Every ticket as the tables have it."""
        return self.wait(self.world.database.read(self._rows))

    def _rows(self, connection: Connection) -> dict[str, Row]:
        held = select(leases.c.ticket_no, leases.c.holder).where(leases.c.workspace_id == self.workspace)
        holders = {row.ticket_no: row.holder for row in connection.execute(held)}
        found = connection.execute(select(tickets).where(tickets.c.workspace_id == self.workspace))
        return {
            f"{self.workspace.upper()}-{row.no}": {
                **row._mapping,
                "phase": self.phases[row.status_id],
                "lease_holder": holders.get(row.no),
            }
            for row in found
        }


def without_expiry(state: Row) -> Row:
    """Renewing a lease is no event."""
    lease = state["lease"] and {name: value for name, value in state["lease"].items() if name != "expires_at"}
    return {**state, "lease": lease}


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_rows_log_leases_and_relations_agree_after_any_commands(kind: str, request: pytest.FixtureRequest) -> None:
    Work.url = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "postgres_url")
    thorough = settings(
        # PostgreSQL takes four times as long, and what is different there are the statements, which each example uses.
        max_examples=10 if kind == "sqlite" else 4,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.reuse, Phase.generate],  # to shrink an example takes minutes
    )
    run_state_machine_as_test(Work, settings=thorough)

    # Of all examples at once: each has a workspace of its own.
    assert asyncio.run(diagnosis(Work.url)) == []


async def diagnosis(url: str) -> list[Problem]:
    database = Database(url)
    await database.open()
    try:
        return await ills(database)
    finally:
        await database.close()
