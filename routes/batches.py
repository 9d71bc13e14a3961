"""`/api/v1/tickets/bulk` and `/api/v1/batches`: changing many tickets together, and taking that back."""

from typing import Final

from aiohttp import web

from routes.bodies import idempotency_key, json_response, no_parameters, read_model
from routes.keys import CALLER, TICKETS
from taskhub.tickets.inputs import BulkUpdate, UndoBatch
from taskhub.tickets.model import BatchResult

MAX_BULK_BYTES: Final = 8 * 1024 * 1024


async def update_tickets(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/bulk → BatchResult; 409 when nothing was stored because an item failed."""
    no_parameters(request)
    key = idempotency_key(request)
    asked = await read_model(request, BulkUpdate, MAX_BULK_BYTES)
    return _answer(await request.app[TICKETS].update_tickets(request[CALLER], asked, idempotency_key=key))


async def undo(request: web.Request) -> web.Response:
    """POST /api/v1/batches/{id}/undo → BatchResult. The body may be left out."""
    no_parameters(request)
    key = idempotency_key(request)
    asked = await read_model(request, UndoBatch) if request.can_read_body else UndoBatch()
    return _answer(
        await request.app[TICKETS].undo_batch(
            request[CALLER], request.match_info["id"], atomic=asked.atomic, idempotency_key=key
        )
    )


async def get_batch(request: web.Request) -> web.Response:
    """GET /api/v1/batches/{id} → Batch."""
    no_parameters(request)
    return json_response(await request.app[TICKETS].batch(request[CALLER], request.match_info["id"]))


def _answer(result: BatchResult) -> web.Response:
    return json_response(result, headers={"TaskHub-Position": result.position})
