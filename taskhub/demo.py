"""Example tickets for somebody who looks at TaskHub for the first time, and a hand that changes them meanwhile."""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import select

from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.storage.database import Database
from taskhub.storage.schema import tickets
from taskhub.storage.seeds import DEFAULT_WORKSPACE
from taskhub.storage.times import utc_now
from taskhub.tickets.errors import InvalidInput, LeaseHeld, LeaseLost, NothingReady, TicketError
from taskhub.tickets.inputs import (
    ClaimNext,
    NewComment,
    NewTicket,
    ProgressReport,
    Release,
    TicketChange,
    TicketQuery,
)
from taskhub.tickets.model import ReferenceKind, TicketState
from taskhub.tickets.reference_inputs import NEW
from taskhub.tickets.service import TicketService

DEMO_ACTOR: Final = "agent:demo"
WORKER: Final = "agent:triage_bot"
"""Who claims a ticket, tells how far it is, and hands it over."""
DEMO_LABEL: Final = "demo"
"""Only tickets with this label change by themselves: what people add beside the examples is theirs."""

_REFERENCES: Final[tuple[tuple[ReferenceKind, dict[str, str]], ...]] = (
    ("users", {"name": "Alice", "role": "manager", "email": "alice@example.com"}),
    ("users", {"name": "Bob", "role": "agent", "email": "bob@example.com"}),
    ("users", {"name": "triage-bot", "kind": "agent", "role": "agent"}),
    *(("accounts", {"name": name}) for name in ("Aozora Trading", "Northwind Clinics")),
    *(
        ("response_categories", {"name": name})
        for name in ("Answered", "Corrected", "Passed to Development", "Not Reproducible")
    ),
)
_LEASE_S: Final = 300

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Example:
    """A ticket and, where there is something to tell, a comment. `due` is in days from today."""

    fields: dict[str, Any]
    due: int | None = None
    comment: str | None = None


@dataclass(slots=True, eq=False)
class _Held:
    """What the agent has claimed, and how far it is."""

    key: str
    token: int
    percent: int = 0


_EXAMPLES: Final = (
    _Example(
        {
            "summary": "Login fails with an expired password", "priority": "high", "status": "in_progress",
            "description": "After the forced change the new password is refused until the browser is restarted.",
            "requestor": "alice", "account": "Northwind Clinics", "category_detail": "Account and Access",
            "request_channel": "Phone", "person_in_charge": "bob", "labels": ["auth"],
        },
        due=1,
        comment="Reproduced with a session that was open during the change.",
    ),
    _Example(
        {
            "summary": "請求書の金額が税込になっていない", "priority": "urgent",
            "description": "11月分の請求書で、合計が税抜のまま表示されています。PDF と画面の両方で確認しました。",
            "requestor": "alice", "account": "Aozora Trading", "category_detail": "wrong_result",
            "request_channel": "Email", "labels": ["billing", "至急"],
        },
        due=0,
    ),
    _Example(
        {
            "summary": "Export of the customer list takes 40 seconds", "priority": "medium", "status": "verifying",
            "account": "Aozora Trading", "category_detail": "Slow Response", "request_channel": "Web Form",
            "person_in_charge": "triage-bot", "labels": ["performance"],
        },
        due=4,
        comment="An index on the order date brings it to 2 seconds; please check with the November data.",
    ),
    _Example(
        {
            "summary": "取引先マスタの住所を一括で修正したい", "status": "waiting",
            "waiting_reason": "お客様からの修正リスト待ち", "requestor": "bob", "account": "Aozora Trading",
            "category_detail": "Bulk Update", "request_channel": "Teams", "person_in_charge": "alice",
        },
        due=9,
    ),
    _Example(
        {
            "summary": "How do I share a saved search with my team?", "priority": "low", "status": "completed",
            "account": "Northwind Clinics", "category_detail": "How to Use", "request_channel": "Chat/LLM",
            "person_in_charge": "triage-bot", "response_category": "Answered", "actual_effort_hours": 0.25,
            "response_details": "Open the search, then Share, then choose the team. Viewers cannot change it.",
        },
    ),
    _Example(
        {
            "summary": "Wording of the delete dialog is unclear", "priority": "low",
            "description": "\"Discard?\" could mean the draft or the whole record.",
            "category_detail": "Wording", "request_channel": "Web Form", "labels": ["ux"],
        },
    ),
    _Example(
        {
            "summary": "Appointment reminders were sent twice", "priority": "high", "status": "in_progress",
            "account": "Northwind Clinics", "category_detail": "Wrong Result", "request_channel": "Email",
            "person_in_charge": "alice", "has_defect": True, "labels": ["notifications"],
        },
        due=2,
        comment="Both came from the retry after a timeout: the first had gone out already.",
    ),
    _Example(
        {
            "summary": "在庫画面でダークモードを使いたい", "category_detail": "Screen Layout",
            "account": "Aozora Trading", "request_channel": "Chat/LLM", "labels": ["ux"],
        },
    ),
    _Example(
        {
            "summary": "Connect the calendar of the clinic's scheduling system", "priority": "medium",
            "account": "Northwind Clinics", "category_detail": "Integration", "request_channel": "Teams",
            "person_in_charge": "bob",
        },
        due=21,
    ),
    _Example(
        {
            "summary": "Postal code 980-0011 is rejected", "status": "completed", "category_detail": "Master Data",
            "account": "Aozora Trading", "request_channel": "Phone", "person_in_charge": "bob",
            "response_category": "Corrected", "actual_effort_hours": 1.5, "priority": "medium",
        },
    ),
    _Example(
        {
            "summary": "Screen reader skips the status column", "priority": "medium",
            "description": "The column header has no accessible name.", "category_detail": "Accessibility",
            "request_channel": "Email", "labels": ["accessibility", "ux"],
        },
        due=14,
    ),
    _Example(
        {
            "summary": "Certificate of the staging server expires soon", "priority": "high",
            "category_detail": "Security", "request_channel": "Chat/LLM", "person_in_charge": "triage-bot",
            "labels": ["operations"],
        },
        due=6,
    ),
)  # fmt: skip

_REMARKS: Final = (
    "Looking into it.",
    "Asked the customer for a screenshot.",
    "確認しました。対応します。",
    "The fix is on the test system.",
    "再現手順を追記しました。",
)


def demo_caller(actor: str = DEMO_ACTOR) -> Caller:
    """The caller that the example data comes from."""
    return Caller(Principal(actor, DEFAULT_WORKSPACE, ALL_SCOPES, authenticated=False), "system")


async def fill(database: Database, service: TicketService) -> bool:
    """Add the examples, with the people and accounts they name, unless there ever was a ticket; whether it did."""
    statement = select(tickets.c.no).where(tickets.c.workspace_id == DEFAULT_WORKSPACE).limit(1)
    if await database.read(lambda connection: connection.execute(statement).first()) is not None:
        return False
    for kind, row in _REFERENCES:
        with suppress(InvalidInput):  # it is there already
            await service.create_reference(demo_caller(), kind, NEW[kind].model_validate(row))
    caller = demo_caller("user:alice")
    today = utc_now().date()
    for example in _EXAMPLES:
        due = None if example.due is None else today + timedelta(days=example.due)
        labels = [*example.fields.get("labels", ()), DEMO_LABEL]
        new = NewTicket.model_validate({**example.fields, "labels": labels, "scheduled_completion_date": due})
        written = await service.create_ticket(caller, new)
        if example.comment is not None:
            await service.add_comment(demo_caller("user:bob"), written.key, NewComment(comment=example.comment))
    return True


class Demo:
    """Fills an empty database, then changes a ticket every few seconds while somebody watches, as `agent:demo`.

    After `start` you must `stop`.
    """

    def __init__(
        self,
        database: Database,
        service: TicketService,
        watched: Callable[[], bool],
        *,
        every_s: float = 4.0,
        seed: int | None = None,
    ) -> None:
        self._database = database
        self._tickets = service
        self._watched = watched
        self._every_s = every_s
        self._random = random.Random(seed)  # noqa: S311  # which example moves next is no secret
        self._held: _Held | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fill the database if it is empty, and begin. Raises StorageBusy."""
        await fill(self._database, self._tickets)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End. A change under way is the writer's, and completes there."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def change_one(self) -> None:
        """Change one example: a status, an assignment, a comment, or what an agent does with it. Raises what the ticket
        service raises."""
        caller = demo_caller()
        query = TicketQuery(label=[DEMO_LABEL], show_completed=True, limit=100)
        page = await self._tickets.list_tickets(caller, query)
        free = [ticket for ticket in page.tickets if ticket.lease is None]
        if not free:
            return
        ticket = self._random.choice(free)
        what = self._random.choice(("status", "comment", "assignment", "work", "work"))
        if what == "work":
            await self._work()
        elif what == "comment":
            await self._tickets.add_comment(caller, ticket.key, NewComment(comment=self._random.choice(_REMARKS)))
        elif what == "assignment":
            users = [user.id for user in await self._tickets.users(caller) if user.active]
            others = [user for user in users if ticket.assignee is None or user != ticket.assignee.id]
            if others:
                change = TicketChange(person_in_charge=self._random.choice(others))
                await self._tickets.update_ticket(caller, ticket.key, change)
        else:
            await self._move(caller, ticket)

    async def _work(self) -> None:
        """The next step of an agent: claim what is ready, say how far it is, hand it over to be looked at."""
        caller = demo_caller(WORKER)
        try:
            if self._held is None:
                asked = ClaimNext(label=[DEMO_LABEL], lease_seconds=_LEASE_S)
                claimed = await self._tickets.claim_next(caller, asked)
                self._held = _Held(claimed.key, claimed.lease_token)
            elif self._held.percent < 100:
                self._held.percent = min(100, self._held.percent + self._random.randint(20, 45))
                report = ProgressReport(percent=self._held.percent)
                await self._tickets.report_progress(caller, self._held.key, report, lease_token=self._held.token)
            else:
                held, self._held = self._held, None
                handed = Release(status="verifying", note="Ready to be looked at.")
                await self._tickets.release_ticket(caller, held.key, handed, lease_token=held.token)
        except NothingReady:
            return
        except (LeaseLost, LeaseHeld):  # a person took it over
            self._held = None

    async def _move(self, caller: Caller, ticket: TicketState) -> None:
        """To the next status; a finished ticket begins again, so that the board never comes to rest."""
        statuses = [s for s in await self._tickets.statuses(caller) if s.active and s.phase != "cancelled"]
        ids = [status.id for status in statuses]
        following = statuses[(ids.index(ticket.status.id) + 1) % len(ids)] if ticket.status.id in ids else statuses[0]
        reason = "Waiting for the customer's answer" if following.phase == "waiting" else None
        fields: dict[str, Any] = {"status": following.id}
        if reason is not None:
            fields["waiting_reason"] = reason
        await self._tickets.update_ticket(caller, ticket.key, TicketChange(**fields))

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s * self._random.uniform(0.5, 1.5))
            if not self._watched():
                continue
            try:
                await self.change_one()
            except TicketError as error:
                _log.debug("the demo could not change a ticket: %s", error)
            except Exception:
                _log.exception("the demo ended")
                raise
