"""`/api/v1/tickets/{key}/lease`: claiming tickets, giving them back, and saying how far the work is."""

from typing import Final

from aiohttp import web

from routes.api import Route
from routes.bodies import (
    NoParameters,
    idempotency_key,
    json_response,
    no_parameters,
    query_model,
    read_model,
    read_model_if_any,
)
from routes.keys import CALLER, TICKETS
from routes.tickets import HELD, STAMPS, held, stamps
from taskhub.headers import IDEMPOTENCY_HEADER, LEASE_HEADER
from taskhub.tickets.inputs import ClaimNext, NewClaim, ProgressReport, Release, Renewal
from taskhub.tickets.model import Claimed, Reported, Written


async def claim(request: web.Request) -> web.Response:
    """PUT /api/v1/tickets/{key}/lease → Claimed."""
    key = idempotency_key(request)
    new = await read_model_if_any(request, NewClaim)
    claimed = await request.app[TICKETS].claim_ticket(
        request[CALLER], request.match_info["key"], new, idempotency_key=key
    )
    return json_response(claimed, headers=stamps(claimed))


async def claim_next(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/claim-next → Claimed."""
    key = idempotency_key(request)
    asked = await read_model_if_any(request, ClaimNext)
    claimed = await request.app[TICKETS].claim_next(request[CALLER], asked, idempotency_key=key)
    return json_response(claimed, headers=stamps(claimed))


async def renew(request: web.Request) -> web.Response:
    """PATCH /api/v1/tickets/{key}/lease → Claimed."""
    given = held(request)
    asked = await read_model_if_any(request, Renewal)
    claimed = await request.app[TICKETS].renew_lease(request[CALLER], request.match_info["key"], asked, **given)
    return json_response(claimed, headers=stamps(claimed))


async def release(request: web.Request) -> web.Response:
    """DELETE /api/v1/tickets/{key}/lease → Written. What is asked for stands in the body, or in the query: there are
    clients that send no body with DELETE."""
    given = held(request)
    if request.can_read_body:
        no_parameters(request)
        asked = await read_model(request, Release)
    else:
        asked = query_model(request, Release)
    written = await request.app[TICKETS].release_ticket(request[CALLER], request.match_info["key"], asked, **given)
    return json_response(written, headers=stamps(written))


async def report_progress(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/{key}/progress → Reported."""
    given = held(request)
    asked = await read_model(request, ProgressReport)
    reported = await request.app[TICKETS].report_progress(request[CALLER], request.match_info["key"], asked, **given)
    return json_response(reported, headers=stamps(reported))


_WRITES: Final = (IDEMPOTENCY_HEADER,)

ROUTES: Final = (
    Route(
        "PUT", "/api/v1/tickets/{key}/lease", claim, "claim_ticket", "Claim a ticket, to work on it alone",
        scope="tickets:write", query=NoParameters, body=NewClaim, body_optional=True, example={"lease_seconds": 900},
        answer=Claimed, takes=_WRITES, sends=STAMPS,
        problems=("lease_held", "not_claimable", "blocked", "take_over_refused", "draining"),
    ),
    Route(
        "POST", "/api/v1/tickets/claim-next", claim_next, "claim_next", "Claim the next ticket that is ready",
        scope="tickets:write", query=NoParameters, body=ClaimNext, body_optional=True, example={"label": ["ux"]},
        answer=Claimed, takes=_WRITES, sends=STAMPS, problems=("nothing_ready", "draining"),
    ),
    Route(
        "PATCH", "/api/v1/tickets/{key}/lease", renew, "renew_lease", "Keep a ticket for longer",
        scope="tickets:write", query=NoParameters, body=Renewal, body_optional=True, example={"lease_seconds": 900},
        answer=Claimed, takes=HELD, needs=(LEASE_HEADER,), sends=STAMPS,
    ),
    Route(
        "DELETE", "/api/v1/tickets/{key}/lease", release, "release_ticket", "Give a ticket back",
        detail="What is asked for stands in the body or in the query, for clients that send no body with DELETE.",
        scope="tickets:write", query=Release, body=Release, body_optional=True, example={"status": "received"},
        answer=Written, takes=HELD, needs=(LEASE_HEADER,), sends=STAMPS,
    ),
    Route(
        "POST", "/api/v1/tickets/{key}/progress", report_progress, "report_progress",
        "Say how far the work is, and keep the ticket for longer",
        scope="tickets:write", query=NoParameters, body=ProgressReport, example={"percent": 50, "note": "Half of it"},
        answer=Reported, takes=HELD, sends=STAMPS,
    ),
)  # fmt: skip
