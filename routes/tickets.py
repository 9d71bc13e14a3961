"""`/api/v1/tickets`: tickets, their comments and their history."""

import re
from typing import Annotated, Final

from aiohttp import hdrs, web
from multidict import istr
from pydantic import BaseModel, Field

from routes.api import Route
from routes.bodies import Items, NoParameters, idempotency_key, json_response, query_model, read_model
from routes.errors import Fault, Problem
from routes.keys import CALLER, TICKETS
from taskhub.headers import IDEMPOTENCY_HEADER, LEASE_HEADER, POSITION_HEADER
from taskhub.numbers import WHOLE
from taskhub.tickets.api import Conditions, Held
from taskhub.tickets.inputs import MAX_COMMENTS, MAX_HISTORY, AsOf, NewComment, NewTicket, TicketChange, TicketQuery
from taskhub.tickets.model import Comment, HistoryEntry, Include, TicketDetail, TicketPage, Written

_HISTORY: Final[tuple[Include, ...]] = ("history",)
_ETAG: Final = re.compile(r'"([0-9]{1,9})"')
_BARE_VERSION: Final = re.compile(r"[0-9]{1,9}")
_TOKEN: Final = re.compile(r"[1-9][0-9]{0,17}")
_LEASE_HEADER: Final = istr(LEASE_HEADER)


class DetailParameters(BaseModel):
    """What to send along with a ticket."""

    include: list[Include] = Field(default_factory=list)
    history_limit: Annotated[int, Field(ge=1, le=MAX_HISTORY), WHOLE] = 20
    as_of: AsOf | None = None


class HistoryParameters(BaseModel):
    limit: Annotated[int, Field(ge=1, le=MAX_HISTORY), WHOLE] = 100


class CommentParameters(BaseModel):
    limit: Annotated[int, Field(ge=1, le=MAX_COMMENTS, description="the newest"), WHOLE] = MAX_COMMENTS
    before: Annotated[int, Field(ge=1, le=2**63 - 1, description="a comment's id: only older ones"), WHOLE] | None = (
        None
    )


async def list_tickets(request: web.Request) -> web.Response:
    """GET /api/v1/tickets → TicketPage."""
    query = query_model(request, TicketQuery)
    page = await request.app[TICKETS].list_tickets(request[CALLER], query)
    return json_response(page, headers={POSITION_HEADER: page.position})


async def create_ticket(request: web.Request) -> web.Response:
    """POST /api/v1/tickets → 201 Written, with Location."""
    key = idempotency_key(request)
    new = await read_model(request, NewTicket)
    written = await request.app[TICKETS].create_ticket(request[CALLER], new, idempotency_key=key)
    location = f"/api/v1/tickets/{written.key}"
    return json_response(written, status=201, headers={hdrs.LOCATION: location, **stamps(written)})


async def get_ticket(request: web.Request) -> web.Response:
    """GET /api/v1/tickets/{key} → TicketDetail, with its version as ETag."""
    asked = query_model(request, DetailParameters)
    detail = await request.app[TICKETS].get_ticket(
        request[CALLER],
        request.match_info["key"],
        include=asked.include,
        history_limit=asked.history_limit,
        as_of=asked.as_of,
    )
    return json_response(detail, headers={hdrs.ETAG: f'"{detail.ticket.version}"'})


async def update_ticket(request: web.Request) -> web.Response:
    """PATCH /api/v1/tickets/{key} → Written. With If-Match only that version is changed, else 412."""
    given = conditions(request)
    change = await read_model(request, TicketChange)
    written = await request.app[TICKETS].update_ticket(request[CALLER], request.match_info["key"], change, **given)
    return json_response(written, headers=stamps(written))


async def list_comments(request: web.Request) -> web.Response:
    """GET /api/v1/tickets/{key}/comments → items, oldest first."""
    asked = query_model(request, CommentParameters)
    found = await request.app[TICKETS].comments(
        request[CALLER], request.match_info["key"], limit=asked.limit, before=asked.before
    )
    return json_response(Items(found))


async def add_comment(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/{key}/comments → 201 Written."""
    given = held(request)
    new = await read_model(request, NewComment)
    written = await request.app[TICKETS].add_comment(request[CALLER], request.match_info["key"], new, **given)
    return json_response(written, status=201, headers=stamps(written))


async def list_history(request: web.Request) -> web.Response:
    """GET /api/v1/tickets/{key}/history → items, newest first."""
    asked = query_model(request, HistoryParameters)
    detail = await request.app[TICKETS].get_ticket(
        request[CALLER], request.match_info["key"], include=_HISTORY, history_limit=asked.limit
    )
    return json_response(Items(detail.history or []))


def conditions(request: web.Request) -> Conditions:
    """What the headers say of when to write. Raises Problem: bad_header."""
    return {"expected_version": expected_version(request), **held(request)}


def held(request: web.Request) -> Held:
    """The same where no version can be expected."""
    return {"lease_token": _lease_token(request), "idempotency_key": idempotency_key(request)}


def expected_version(request: web.Request) -> int | None:
    """The version that If-Match asks for; None for any (absent, or `*`). Raises Problem: bad_header."""
    given = request.headers.getall(hdrs.IF_MATCH, [])
    if not given or given == ["*"]:
        return None
    text = given[0].strip()
    if len(given) == 1 and (found := _ETAG.fullmatch(text)):
        return int(found[1])
    instead = None
    if text.startswith("W/"):
        # RFC 9110, section 13.1.1: If-Match compares strongly, so a weak tag would never match.
        reason, instead = "a weak tag never matches", text[2:] if _ETAG.fullmatch(text[2:]) else None
    elif _BARE_VERSION.fullmatch(text):
        reason, instead = "a version is written in quotes", f'"{text}"'
    elif len(given) > 1 or "," in text:
        reason = "one version is expected, not several"
    else:
        reason = 'must be the version of the ticket in quotes, such as "3", or *'
    raise Problem.of("bad_header", [Fault(reason, header="If-Match", did_you_mean=instead)])


def _lease_token(request: web.Request) -> int | None:
    """The token of the lease that the caller holds; None where the header is absent. Raises Problem: bad_header."""
    given = request.headers.getall(_LEASE_HEADER, [])
    if not given:
        return None
    if len(given) == 1 and _TOKEN.fullmatch(given[0].strip()):
        return int(given[0])
    reason = (
        "is there more than once" if len(given) > 1 else "must be the lease_token that the claim answered, such as 3"
    )
    raise Problem.of("bad_header", [Fault(reason, header=LEASE_HEADER)])


def stamps(written: Written) -> dict[str, str]:
    """The version as ETag, and the position from which to listen on."""
    return {hdrs.ETAG: f'"{written.version}"', POSITION_HEADER: written.position}


_WRITES: Final = (IDEMPOTENCY_HEADER,)
HELD: Final = (IDEMPOTENCY_HEADER, LEASE_HEADER)
STAMPS: Final = ("ETag", POSITION_HEADER)

ROUTES: Final = (
    Route(
        "GET", "/api/v1/tickets", list_tickets, "list_tickets", "List tickets, a page at a time",
        scope="tickets:read", query=TicketQuery, answer=TicketPage, sends=(POSITION_HEADER,),
    ),
    Route(
        "POST", "/api/v1/tickets", create_ticket, "create_ticket", "Create a ticket",
        scope="tickets:write", query=NoParameters, body=NewTicket, example={"summary": "Printer is on fire"},
        answer=Written, status=201, takes=_WRITES, sends=("Location", *STAMPS),
    ),
    Route(
        "GET", "/api/v1/tickets/{key}", get_ticket, "get_ticket", "Read a ticket, its version as ETag",
        scope="tickets:read", query=DetailParameters, answer=TicketDetail, sends=("ETag",),
    ),
    Route(
        "PATCH", "/api/v1/tickets/{key}", update_ticket, "update_ticket",
        "Change a ticket: absent fields are kept, null ones cleared",
        scope="tickets:write", query=NoParameters, body=TicketChange,
        example={"status": "in_progress", "comment": "On it"},
        answer=Written, takes=(*HELD, "If-Match"), sends=STAMPS,
    ),
    Route(
        "GET", "/api/v1/tickets/{key}/comments", list_comments, "list_comments",
        "List the newest comments, oldest first",
        detail="Those before them: `before` with the id of the first one.",
        scope="tickets:read", query=CommentParameters, answer=Items[Comment],
    ),
    Route(
        "POST", "/api/v1/tickets/{key}/comments", add_comment, "add_comment", "Add a comment",
        scope="tickets:write", query=NoParameters, body=NewComment, example={"comment": "On it"},
        answer=Written, status=201, takes=HELD, sends=STAMPS,
    ),
    Route(
        "GET", "/api/v1/tickets/{key}/history", list_history, "list_history",
        "List what happened to a ticket, newest first",
        scope="tickets:read", query=HistoryParameters, answer=Items[HistoryEntry],
    ),
)  # fmt: skip
