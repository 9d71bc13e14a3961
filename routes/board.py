"""`/api/v1/board`: the tickets by status, now or as they were."""

from typing import Final

from aiohttp import hdrs, web

from routes.api import Route
from routes.bodies import json_response, query_model
from routes.keys import CALLER, TICKETS
from taskhub.headers import POSITION_HEADER
from taskhub.tickets.inputs import BoardQuery
from taskhub.tickets.model import Board


async def get_board(request: web.Request) -> web.Response:
    """GET /api/v1/board → Board."""
    query = query_model(request, BoardQuery)
    board = await request.app[TICKETS].get_board(request[CALLER], query)
    response = json_response(board, headers={POSITION_HEADER: board.position, hdrs.VARY: hdrs.ACCEPT_ENCODING})
    # Rows that are alike: a tenth is left, and somebody waits for the first sight of them.
    response.enable_compression()
    return response


ROUTES: Final = (
    Route(
        "GET", "/api/v1/board", get_board, "get_board", "See the tickets by status, now or as they were",
        scope="tickets:read", query=BoardQuery, answer=Board, sends=(POSITION_HEADER,),
    ),
)  # fmt: skip
