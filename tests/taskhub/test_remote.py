"""Tickets of a TaskHub elsewhere: the whole application on a real socket, and the same service asked directly."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr
from sqlalchemy import insert, update

from routes.keys import DATABASE, TICKETS
from taskhub.app import create_app
from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.remote import RemoteTickets
from taskhub.remote_errors import RemoteRefused, RemoteUnavailable
from taskhub.settings.model import Settings
from taskhub.storage.database import Database
from taskhub.storage.names import slug
from taskhub.storage.schema import accounts, workspaces
from taskhub.tickets.errors import (
    AlreadyUndone,
    BatchFailed,
    BatchNotFound,
    Blocked,
    IdempotencyMismatch,
    InvalidInput,
    LeaseHeld,
    LeaseLost,
    NotClaimable,
    NothingReady,
    PositionGone,
    TakeOverRefused,
    TicketCycle,
    TicketError,
    TicketGone,
    TicketNotFound,
    UndoConflict,
    VersionConflict,
)
from taskhub.tickets.inputs import (
    BoardQuery,
    BulkUpdate,
    ClaimNext,
    EventQuery,
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
from taskhub.tickets.model import Include
from taskhub.tickets.service import TicketService
from tests.servers import free_port
from tests.taskhub.world import execute

ALICE = Caller(Principal("user:alice", "default", ALL_SCOPES, authenticated=False), "mcp_tool", "request-9")
BOB = replace(ALICE, principal=replace(ALICE.principal, actor="user:bob"))
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Elsewhere:
    """A running application. Each entry of `faults` meets one request to the API; then all is well."""

    def __init__(self, url: str, local: TicketService | None) -> None:
        self.url = url
        self._local = local
        self._database: Database | None = None
        self.faults: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.delays: list[float] = []

    @property
    def local(self) -> TicketService:
        assert self._local is not None
        return self._local

    @property
    def database(self) -> Database:
        assert self._database is not None
        return self._database

    def remote(self, api_key: str | None = None) -> RemoteTickets:
        async def sleep(seconds: float) -> None:
            self.delays.append(seconds)
            await asyncio.sleep(0)

        return RemoteTickets(self.url, api_key, sleep=sleep)


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def elsewhere_at(data_dir: Path, **settings: Any) -> AsyncIterator[Elsewhere]:
    found = Elsewhere("", None)

    @web.middleware
    async def faulty(request: web.Request, handler: Handler) -> web.StreamResponse:
        found.requests.append((request.method, request.path))
        fault = found.faults.pop(0) if found.faults else ""
        if fault == "busy":
            return web.json_response(
                {"code": "storage_busy", "detail": "busy"}, status=503, headers={"Retry-After": "2"}
            )
        if fault == "no json":
            return web.Response(text="<html>", status=200)
        if fault == "moved":
            return web.Response(status=307, headers={"Location": "https://elsewhere.example/"})
        response = await handler(request)
        if fault == "answer lost" and request.transport is not None:
            request.transport.abort()
        return response

    app = create_app(Settings(data_dir=data_dir, **settings))
    app.middlewares.insert(0, faulty)
    async with serving(app) as url:
        found.url = url
        found._local = app[TICKETS]
        found._database = app[DATABASE]
        yield found


@pytest.fixture
async def elsewhere(tmp_path: Path) -> AsyncIterator[Elsewhere]:
    async with elsewhere_at(tmp_path) as found:
        yield found


@pytest.fixture
async def remote(elsewhere: Elsewhere) -> AsyncIterator[RemoteTickets]:
    async with elsewhere.remote() as tickets:
        yield tickets


FULL = NewTicket(
    summary="ログイン, fails",
    description="long\nstory",
    reception_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    category="incident",
    category_detail="outage",
    request_channel="Email",
    status="waiting",
    waiting_reason="the customer",
    priority="urgent",
    scheduled_completion_date=date(2026, 3, 4),
    actual_effort_hours=1.5,
    has_defect=False,
    labels=["b", "a"],
    attachments=[NewAttachment(file_name="log", url="https://example.org/log")],
)


async def test_every_read_answers_what_the_service_there_answers(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    local = elsewhere.local
    await remote.create_ticket(ALICE, FULL)
    await remote.create_ticket(ALICE, NewTicket(summary="second", blocked_by=["TH-1"]))
    await remote.add_comment(ALICE, "TH-1", NewComment(comment="why?", kind="question"))

    query = TicketQuery(status=["waiting", "received"], ready=False, updated_since=datetime(2026, 1, 1, tzinfo=UTC))
    assert await remote.list_tickets(ALICE, query) == await local.list_tickets(ALICE, query)
    assert len((await remote.list_tickets(ALICE, query)).tickets) == 2
    parts: tuple[Include, ...] = ("history", "comments", "relations", "attachments")
    for key in ("TH-1", "th-2"):
        assert await remote.get_ticket(ALICE, key, include=parts) == await local.get_ticket(ALICE, key, include=parts)
    assert len((await remote.get_ticket(ALICE, "TH-1", include=["history"], history_limit=1)).history or []) == 1
    board = BoardQuery(priority=["urgent"], category=["incident"])
    assert await remote.get_board(ALICE, board) == await local.get_board(ALICE, board)
    then = (await local.get_board(ALICE, board)).position
    await remote.update_ticket(ALICE, "TH-1", TicketChange(priority="low"))
    past = board.model_copy(update={"as_of": then})
    assert await remote.get_board(ALICE, past) == await local.get_board(ALICE, past)
    assert (await remote.get_ticket(ALICE, "TH-1", as_of=then)).ticket.priority == "urgent"
    assert await remote.users(ALICE, role="agent") == await local.users(ALICE, role="agent")
    assert await remote.accounts(ALICE) == await local.accounts(ALICE)
    assert await remote.categories(ALICE) == await local.categories(ALICE) != []
    details = await local.category_details(ALICE, category="UX Improvement")
    assert await remote.category_details(ALICE, category="UX Improvement") == details != []
    assert await remote.statuses(ALICE) == await local.statuses(ALICE) != []
    assert await remote.request_channels(ALICE) == await local.request_channels(ALICE) != []
    assert await remote.response_categories(ALICE) == await local.response_categories(ALICE)


async def test_pages_follow_each_other(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    for number in range(3):
        await remote.create_ticket(ALICE, NewTicket(summary=f"number {number}"))

    first = await remote.list_tickets(ALICE, TicketQuery(limit=2, sort_by="key"))
    second = await remote.list_tickets(ALICE, TicketQuery(limit=2, sort_by="key", cursor=first.next_cursor))

    assert [ticket.key for ticket in (*first.tickets, *second.tickets)] == ["TH-3", "TH-2", "TH-1"]


async def test_a_change_keeps_what_is_absent_and_clears_what_is_null(
    elsewhere: Elsewhere, remote: RemoteTickets
) -> None:
    await remote.create_ticket(ALICE, FULL)

    written = await remote.update_ticket(
        ALICE, "TH-1", TicketChange(description=None, comment="cleared"), expected_version=1
    )

    ticket = (await elsewhere.local.get_ticket(ALICE, "TH-1")).ticket
    assert (ticket.description, ticket.labels, ticket.version) == (None, ("a", "b"), 2)
    assert (written.key, written.version, written.noop) == ("TH-1", 2, False)


@pytest.mark.parametrize("actor", ["user:alice", "agent:夜勤"])
async def test_the_caller_is_named_there_by_its_actor(elsewhere: Elsewhere, remote: RemoteTickets, actor: str) -> None:
    caller = replace(ALICE, principal=replace(ALICE.principal, actor=actor))

    await remote.create_ticket(caller, NewTicket(summary="x"))

    history = (await elsewhere.local.get_ticket(ALICE, "TH-1", include=["history"])).history or []
    assert history[0].actor == actor


async def add_account(elsewhere: Elsewhere, name: str) -> None:
    row = {"workspace_id": "default", "id": slug(name), "name": name, "order_no": 1, "active": True}
    added = insert(accounts).values({**row, "created_at": "", "updated_at": ""})
    await execute(elsewhere.database, update(workspaces).values(references_version=2), added)


async def test_a_filter_may_name_what_has_a_comma_in_its_name(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    await add_account(elsewhere, "Smith, Jones & Co.")
    await remote.create_ticket(ALICE, NewTicket(summary="theirs", account="Smith, Jones & Co."))
    await remote.create_ticket(ALICE, NewTicket(summary="nobody's"))
    query = TicketQuery(account=["smith, jones & co."])

    found = await remote.list_tickets(ALICE, query)

    assert [ticket.key for ticket in found.tickets] == ["TH-1"]
    assert found == await elsewhere.local.list_tickets(ALICE, query)


@pytest.mark.parametrize("name", ["person_in_charge", "account", "status", "category"])
async def test_an_unknown_name_with_a_comma_is_one_problem(remote: RemoteTickets, name: str) -> None:
    with pytest.raises(InvalidInput, match=r"there is no 'Nobody, Inc\.'") as refused:
        await remote.list_tickets(ALICE, TicketQuery.model_validate({name: ["Nobody, Inc."]}))

    assert [problem.pointer for problem in refused.value.problems] == [f"/{name}"]


async def test_a_write_whose_answer_was_lost_takes_effect_once(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    elsewhere.faults = ["answer lost"]

    written = await remote.create_ticket(ALICE, NewTicket(summary="once"))

    assert (written.key, written.replayed) == ("TH-1", False)
    assert elsewhere.requests == [("POST", "/api/v1/tickets")] * 2
    assert len((await elsewhere.local.list_tickets(ALICE, TicketQuery())).tickets) == 1


async def test_a_repeat_by_the_callers_own_key_says_so(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    first = await remote.create_ticket(ALICE, NewTicket(summary="once"), idempotency_key="mine")

    second = await remote.create_ticket(ALICE, NewTicket(summary="once"), idempotency_key="mine")

    assert second == replace(first, replayed=True)


async def test_a_busy_server_is_asked_again_when_it_says(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    elsewhere.faults = ["busy", "busy"]

    assert (await remote.list_tickets(ALICE, TicketQuery())).tickets == []
    assert elsewhere.delays == [2.0, 2.0]


async def test_a_server_that_stays_busy_is_given_up_with_its_address_in_the_error(
    elsewhere: Elsewhere, remote: RemoteTickets
) -> None:
    elsewhere.faults = ["busy"] * 3

    with pytest.raises(RemoteUnavailable) as given_up:
        await remote.list_tickets(ALICE, TicketQuery())

    assert elsewhere.url in str(given_up.value)
    assert given_up.value.retryable
    assert len(elsewhere.requests) == 3


async def test_a_server_that_is_away_is_an_error_that_names_it() -> None:
    address = f"http://user:secret@127.0.0.1:{free_port()}/"
    async with RemoteTickets(address, None, sleep=lambda seconds: asyncio.sleep(0)) as remote:
        with pytest.raises(
            RemoteUnavailable, match=r"the TaskHub at http://127\.0\.0\.1:\d+/? does not answer"
        ) as away:
            await remote.statuses(ALICE)

    assert "secret" not in str(away.value)
    assert away.value.hint


async def test_something_else_at_the_address_is_no_taskhub(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    elsewhere.faults = ["no json"]
    with pytest.raises(RemoteRefused, match="what answers there is no TaskHub API \\(HTTP status 200\\)"):
        await remote.statuses(ALICE)
    elsewhere.faults = ["moved"]
    with pytest.raises(RemoteRefused, match="HTTP status 307"):
        await remote.statuses(ALICE)


async def both(elsewhere: Elsewhere, remote: RemoteTickets, call: Callable[[Any], Awaitable[Any]]) -> TicketError:
    """The error of a call there, the same as that of the service asked directly."""
    errors = []
    for tickets in (elsewhere.local, remote):
        with pytest.raises(TicketError) as raised:
            await call(tickets)
        errors.append(raised.value)
    direct, over_http = errors
    assert type(over_http) is type(direct)
    assert over_http.code == direct.code
    return over_http


async def test_errors_come_back_as_what_they_were(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    await remote.create_ticket(ALICE, NewTicket(summary="x"), idempotency_key="k")
    await remote.update_ticket(ALICE, "TH-1", TicketChange(priority="high"))

    missing = await both(elsewhere, remote, lambda tickets: tickets.get_ticket(ALICE, "TH-77"))
    stale = await both(
        elsewhere,
        remote,
        lambda tickets: tickets.update_ticket(ALICE, "TH-1", TicketChange(remarks="x"), expected_version=1),
    )
    unknown = await both(
        elsewhere, remote, lambda tickets: tickets.update_ticket(ALICE, "TH-1", TicketChange(status="complete"))
    )
    listing = await both(
        elsewhere, remote, lambda tickets: tickets.list_tickets(ALICE, TicketQuery(status=["nowhere"]))
    )
    cursor = await both(elsewhere, remote, lambda tickets: tickets.list_tickets(ALICE, TicketQuery(cursor="foreign")))
    reused = await both(
        elsewhere, remote, lambda tickets: tickets.create_ticket(ALICE, NewTicket(summary="y"), idempotency_key="k")
    )

    assert isinstance(missing, TicketNotFound)
    assert missing.key == "TH-77"
    assert isinstance(stale, VersionConflict)
    assert (stale.expected, stale.current, stale.changed) == (1, 2, {"priority": ["none", "high"]})
    assert stale.actors == ["user:alice"]
    assert isinstance(unknown, InvalidInput)
    assert (unknown.problems[0].pointer, unknown.problems[0].did_you_mean) == ("/status", "Completed")
    assert "Completed" in unknown.problems[0].allowed
    assert isinstance(listing, InvalidInput)
    assert listing.problems[0].pointer == "/status"
    assert isinstance(cursor, InvalidInput)
    assert isinstance(reused, IdempotencyMismatch)


async def test_a_ticket_is_claimed_there_reported_on_and_given_back(
    elsewhere: Elsewhere, remote: RemoteTickets
) -> None:
    await remote.create_ticket(ALICE, NewTicket(summary="one"))
    await remote.create_ticket(ALICE, NewTicket(summary="two, later", labels=["a"]))

    claimed = await remote.claim_ticket(ALICE, "TH-1", NewClaim(lease_seconds=60))
    following = await remote.claim_next(ALICE, ClaimNext(label=["a"]), idempotency_key="k")
    token = claimed.lease_token
    await elsewhere.local.add_comment(BOB, "TH-1", NewComment(comment="mind the toner"))
    reported = await remote.report_progress(ALICE, "TH-1", ProgressReport(percent=40), lease_token=token)
    shown = await remote.get_ticket(ALICE, "TH-1", include=["lease"])
    changed = await remote.update_ticket(ALICE, "TH-1", TicketChange(has_defect=True), lease_token=token)
    released = await remote.release_ticket(ALICE, "TH-1", Release(status="verifying", note="look"), lease_token=token)

    assert (claimed.key, claimed.version, claimed.lease_token) == ("TH-1", 2, 1)
    assert (following.key, following.lease_token, following.replayed) == ("TH-2", 1, False)
    assert [comment.body for comment in reported.comments] == ["mind the toner"]
    assert shown.lease is not None
    assert (shown.lease.holder, shown.lease.expires_at) == ("user:alice", reported.lease_expires_at)
    assert (changed.version, released.version) == (4, 5)
    ticket = (await elsewhere.local.get_ticket(ALICE, "TH-1")).ticket
    assert (ticket.status.id, ticket.lease) == ("verifying", None)


async def test_errors_of_leases_come_back_as_what_they_were(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    agent = replace(ALICE, principal=replace(ALICE.principal, actor="agent:bot"))
    await remote.create_ticket(ALICE, NewTicket(summary="held"))
    await remote.create_ticket(ALICE, NewTicket(summary="done", status="completed"))
    await remote.create_ticket(ALICE, NewTicket(summary="blocked", blocked_by=["TH-1"]))
    claimed = await remote.claim_ticket(agent, "TH-1", NewClaim())

    held = await both(
        elsewhere, remote, lambda tickets: tickets.update_ticket(ALICE, "TH-1", TicketChange(status="completed"))
    )
    lost = await both(
        elsewhere, remote, lambda tickets: tickets.add_comment(ALICE, "TH-1", NewComment(comment="x"), lease_token=9)
    )
    done = await both(elsewhere, remote, lambda tickets: tickets.claim_ticket(ALICE, "TH-2", NewClaim()))
    blocked = await both(elsewhere, remote, lambda tickets: tickets.claim_ticket(ALICE, "TH-3", NewClaim()))
    nothing = await both(elsewhere, remote, lambda tickets: tickets.claim_next(ALICE, ClaimNext()))
    refused = await both(
        elsewhere, remote, lambda tickets: tickets.claim_ticket(agent, "TH-1", NewClaim(take_over=True))
    )
    status = await both(
        elsewhere,
        remote,
        lambda tickets: tickets.release_ticket(
            agent, "TH-1", Release(status="nowhere"), lease_token=claimed.lease_token
        ),
    )

    assert isinstance(held, LeaseHeld)
    assert (held.key, held.holder, held.expires_at) == ("TH-1", "agent:bot", claimed.lease_expires_at)
    assert held.changing == ["status", "completion_date"]
    assert isinstance(lost, LeaseLost)
    assert lost.holder == "agent:bot"
    assert isinstance(done, NotClaimable)
    assert str(done) == "TH-2 is Completed: there is nothing left to claim"
    assert isinstance(blocked, Blocked)
    assert blocked.blockers == ["TH-1"]
    assert isinstance(nothing, NothingReady)
    assert isinstance(refused, TakeOverRefused)
    assert refused.actor == "agent:bot"
    assert isinstance(status, InvalidInput)
    assert status.problems[0].pointer == "/status"


async def test_tickets_are_linked_and_removed_there(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    local = elsewhere.local
    await remote.create_ticket(ALICE, NewTicket(summary="one"))
    await remote.create_ticket(ALICE, NewTicket(summary="two"))

    linked = await remote.link_tickets(ALICE, "TH-1", "blocks", "TH-2")
    again = await remote.link_tickets(ALICE, "TH-1", "blocks", "TH-2")
    await local.add_attachment(ALICE, "TH-1", NewAttachment(file_name="log, old", url="https://example.org/log"))
    found = await remote.get_ticket(ALICE, "TH-1", include=["relations", "attachments"])
    assert found == await local.get_ticket(ALICE, "TH-1", include=["relations", "attachments"])
    assert (len(found.relations or []), len(found.attachments or [])) == (1, 1)
    unlinked = await remote.unlink_tickets(ALICE, "TH-1", "blocks", "TH-2", idempotency_key="k")
    repeated = await remote.unlink_tickets(ALICE, "TH-1", "blocks", "TH-2", idempotency_key="k")
    deleted = await remote.delete_ticket(ALICE, "TH-1", expected_version=4)
    stale = await both(elsewhere, remote, lambda it: it.restore_ticket(ALICE, "TH-1", expected_version=4))
    assert isinstance(stale, VersionConflict)
    restored = await remote.restore_ticket(ALICE, "TH-1", expected_version=5)

    written = (linked, again, unlinked, deleted, restored)
    assert [answer.version for answer in written] == [2, 2, 4, 5, 6]
    assert [answer.noop for answer in written] == [False, True, False, False, False]
    assert repeated == replace(unlinked, replayed=True)
    assert (await local.get_ticket(ALICE, "TH-1")).ticket.version == 6


async def test_tickets_are_changed_together_there_and_changed_back(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    await remote.create_ticket(ALICE, NewTicket(summary="one", remarks="x"))
    asked = BulkUpdate.model_validate({"items": [{"ticket_id": "TH-1", "remarks": None}, {"ticket_id": "TH-9"}]})
    partly = asked.model_copy(update={"atomic": False})

    tried = await remote.update_tickets(ALICE, partly.model_copy(update={"dry_run": True}))
    made = await remote.update_tickets(ALICE, partly)
    batch_id = made.batch_id or ""
    token = (await remote.claim_ticket(ALICE, "TH-1", NewClaim())).lease_token
    undone = await remote.undo_batch(ALICE, batch_id, UndoBatch(lease_tokens={"TH-1": token}))

    assert (tried.applied, tried.results[0].changes) == (False, {"remarks": ["x", None]})
    assert (made.applied, made.replayed, [item.ok for item in made.results]) == (True, False, [True, False])
    assert undone.undoes == batch_id
    assert (await elsewhere.local.get_ticket(ALICE, "TH-1")).ticket.remarks == "x"


async def test_errors_of_batches_come_back_as_what_they_were(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    for summary in ("one", "two", "gone"):
        await remote.create_ticket(ALICE, NewTicket(summary=summary))
    await remote.link_tickets(ALICE, "TH-1", "blocks", "TH-2")
    await remote.delete_ticket(ALICE, "TH-3")
    asked = BulkUpdate.model_validate({"items": [{"ticket_id": "TH-1", "priority": "high"}]})
    failing = BulkUpdate.model_validate({"items": [{"ticket_id": "TH-9"}]})
    made = (await remote.update_tickets(ALICE, asked)).batch_id or ""
    await remote.update_ticket(BOB, "TH-1", TicketChange(priority="low"))

    cycle = await both(elsewhere, remote, lambda tickets: tickets.link_tickets(ALICE, "TH-2", "blocks", "TH-1"))
    itself = await both(elsewhere, remote, lambda tickets: tickets.link_tickets(ALICE, "TH-2", "related", "TH-2"))
    gone = await both(elsewhere, remote, lambda tickets: tickets.get_ticket(ALICE, "TH-3"))
    failed = await both(elsewhere, remote, lambda tickets: tickets.update_tickets(ALICE, failing))
    changed = await both(elsewhere, remote, lambda tickets: tickets.undo_batch(ALICE, made, UndoBatch()))
    missing = await both(elsewhere, remote, lambda tickets: tickets.undo_batch(ALICE, "b-aaaaaaaaaaaa", UndoBatch()))
    nonsense = await both(elsewhere, remote, lambda tickets: tickets.undo_batch(ALICE, "../tickets", UndoBatch()))
    await remote.update_ticket(BOB, "TH-1", TicketChange(priority="none"))
    other = (await remote.update_tickets(ALICE, asked)).batch_id or ""
    undone = await remote.undo_batch(ALICE, other, UndoBatch())
    again = await both(elsewhere, remote, lambda tickets: tickets.undo_batch(ALICE, other, UndoBatch()))

    assert isinstance(cycle, TicketCycle)
    assert cycle.path == ["TH-2", "TH-1", "TH-2"]
    assert isinstance(itself, InvalidInput)
    assert isinstance(gone, TicketGone)
    assert gone.summary == "gone"
    assert isinstance(failed, BatchFailed)
    assert [item.error.code for item in failed.result.results if item.error] == ["not_found"]
    assert isinstance(changed, UndoConflict)
    assert [(each.ticket, each.field, each.actor) for each in changed.conflicts] == [("TH-1", "priority", "user:bob")]
    assert isinstance(missing, BatchNotFound)
    assert isinstance(nonsense, BatchNotFound)
    assert isinstance(again, AlreadyUndone)
    assert again.undone_by == undone.batch_id


@pytest.mark.parametrize("key", ["TH-1/comments", "../users", "TH-1?x=1", "", "TH 1", "%2e%2e"])
async def test_what_cannot_be_a_key_is_never_part_of_an_address(
    elsewhere: Elsewhere, remote: RemoteTickets, key: str
) -> None:
    with pytest.raises(TicketNotFound):
        await remote.get_ticket(ALICE, key)

    assert elsewhere.requests == []


async def test_an_api_key_opens_a_server_that_asks_for_one(tmp_path: Path) -> None:
    async with elsewhere_at(tmp_path, api_key=SecretStr("right-key")) as elsewhere:
        async with elsewhere.remote("right-key") as remote:
            assert await remote.statuses(ALICE)
        async with elsewhere.remote("wrong-key") as remote:
            with pytest.raises(Unauthenticated) as refused:
                await remote.statuses(ALICE)

    assert "wrong-key" not in str(refused.value)


async def test_events_come_from_elsewhere_and_are_waited_for(elsewhere: Elsewhere, remote: RemoteTickets) -> None:
    await remote.create_ticket(ALICE, NewTicket(summary="one"))
    query = EventQuery(after="earliest", filter={"type": "ticket.created", "status": "received"})

    page = await remote.get_events(ALICE, query)
    assert page == await elsewhere.local.get_events(ALICE, query)
    assert [event["subject"] for event in page.events] == ["TH-1"]
    waiting = asyncio.create_task(remote.get_events(ALICE, EventQuery(after=page.position, wait_seconds=50)))
    await remote.update_ticket(ALICE, "TH-1", TicketChange(priority="low"))
    assert [event["type"] for event in (await waiting).events] == ["ticket.updated"]
    for wrong in (EventQuery(filter={"wait": "3"}), EventQuery(filter={"status": "nothing"}), EventQuery(after="x")):
        with pytest.raises(InvalidInput):
            await remote.get_events(ALICE, wrong)
    with pytest.raises(PositionGone) as gone:
        await remote.get_events(ALICE, EventQuery(after="aaaaaaaa-1"))
    assert gone.value.position == (await elsewhere.local.get_board(ALICE, BoardQuery())).position
