"""`/api/v1/tickets/bulk` and `/api/v1/batches`: changing many tickets together, and taking that back."""

from typing import Final

from aiohttp import web

from routes.api import Route
from routes.bodies import NoParameters, idempotency_key, json_response, read_model, read_model_if_any
from routes.keys import CALLER, TICKETS
from taskhub.headers import IDEMPOTENCY_HEADER, POSITION_HEADER
from taskhub.tickets.inputs import BulkUpdate, UndoBatch
from taskhub.tickets.model import Batch, BatchResult

MAX_BULK_BYTES: Final = 8 * 1024 * 1024


async def update_tickets(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/bulk → BatchResult; 409 when nothing was stored because an item failed."""
    key = idempotency_key(request)
    asked = await read_model(request, BulkUpdate, MAX_BULK_BYTES)
    return _answer(await request.app[TICKETS].update_tickets(request[CALLER], asked, idempotency_key=key))


async def undo(request: web.Request) -> web.Response:
    """POST /api/v1/batches/{id}/undo → BatchResult. The body may be left out."""
    key = idempotency_key(request)
    asked = await read_model_if_any(request, UndoBatch)
    return _answer(
        await request.app[TICKETS].undo_batch(request[CALLER], request.match_info["id"], asked, idempotency_key=key)
    )


async def get_batch(request: web.Request) -> web.Response:
    """GET /api/v1/batches/{id} → Batch."""
    return json_response(await request.app[TICKETS].batch(request[CALLER], request.match_info["id"]))


def _answer(result: BatchResult) -> web.Response:
    return json_response(result, headers={POSITION_HEADER: result.position})


ROUTES: Final = (
    Route(
        "POST", "/api/v1/tickets/bulk", update_tickets, "update_tickets", "Change up to 50 tickets together",
        scope="tickets:write", query=NoParameters, body=BulkUpdate,
        example={"items": [{"ticket_id": "TH-1", "status": "in_progress"}, {"ticket_id": "TH-2", "priority": "high"}]},
        answer=BatchResult, takes=(IDEMPOTENCY_HEADER,), sends=(POSITION_HEADER,), problems=("batch_failed",),
    ),
    Route(
        "GET", "/api/v1/batches/{id}", get_batch, "get_batch", "Read what was changed together",
        scope="tickets:read", query=NoParameters, answer=Batch, problems=("no_such_batch",),
    ),
    Route(
        "POST", "/api/v1/batches/{id}/undo", undo, "undo_batch", "Take a batch back",
        scope="tickets:write", query=NoParameters, body=UndoBatch, body_optional=True,
        example={"atomic": False, "lease_tokens": {"TH-1": 3}},
        answer=BatchResult, takes=(IDEMPOTENCY_HEADER,), sends=(POSITION_HEADER,),
        problems=("no_such_batch", "already_undone", "undo_conflict", "batch_failed"),
    ),
)  # fmt: skip
