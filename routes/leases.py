"""`/api/v1/tickets/{key}/lease`: claiming tickets, giving them back, and saying how far the work is."""

from aiohttp import web

from routes.bodies import idempotency_key, json_response, no_parameters, query_model, read_model
from routes.keys import CALLER, TICKETS
from routes.tickets import lease_token, stamps
from taskhub.tickets.inputs import ClaimNext, NewClaim, ProgressReport, Release, Renewal


async def claim(request: web.Request) -> web.Response:
    """PUT /api/v1/tickets/{key}/lease → Claimed."""
    no_parameters(request)
    key = idempotency_key(request)
    new = await read_model(request, NewClaim) if request.can_read_body else NewClaim()
    claimed = await request.app[TICKETS].claim_ticket(
        request[CALLER], request.match_info["key"], new, idempotency_key=key
    )
    return json_response(claimed, headers=stamps(claimed))


async def claim_next(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/claim-next → Claimed."""
    no_parameters(request)
    key = idempotency_key(request)
    asked = await read_model(request, ClaimNext) if request.can_read_body else ClaimNext()
    claimed = await request.app[TICKETS].claim_next(request[CALLER], asked, idempotency_key=key)
    return json_response(claimed, headers=stamps(claimed))


async def renew(request: web.Request) -> web.Response:
    """PATCH /api/v1/tickets/{key}/lease → Claimed."""
    no_parameters(request)
    token, key = lease_token(request), idempotency_key(request)
    asked = await read_model(request, Renewal) if request.can_read_body else Renewal()
    claimed = await request.app[TICKETS].renew_lease(
        request[CALLER], request.match_info["key"], asked, lease_token=token, idempotency_key=key
    )
    return json_response(claimed, headers=stamps(claimed))


async def release(request: web.Request) -> web.Response:
    """DELETE /api/v1/tickets/{key}/lease → Written. What is asked for stands in the body, or in the query: there are
    clients that send no body with DELETE."""
    token, key = lease_token(request), idempotency_key(request)
    if request.can_read_body:
        no_parameters(request)
        asked = await read_model(request, Release)
    else:
        asked = query_model(request, Release)
    written = await request.app[TICKETS].release_ticket(
        request[CALLER], request.match_info["key"], asked, lease_token=token, idempotency_key=key
    )
    return json_response(written, headers=stamps(written))


async def report_progress(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/{key}/progress → Reported."""
    no_parameters(request)
    token, key = lease_token(request), idempotency_key(request)
    asked = await read_model(request, ProgressReport)
    reported = await request.app[TICKETS].report_progress(
        request[CALLER], request.match_info["key"], asked, lease_token=token, idempotency_key=key
    )
    return json_response(reported, headers=stamps(reported))
