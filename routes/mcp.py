"""/mcp, /sse, /message: the Model Context Protocol."""

from typing import Final

from aiohttp import hdrs, web
from pydantic import BaseModel

from routes.access import wants_page
from routes.api import JSON, PAGE, Route
from routes.bodies import NoParameters, no_parameters, query_model
from routes.keys import CALLER, MCP
from routes.pages import mcp_page


class MessageParameters(BaseModel):
    """The query of the address to which a stream has messages posted."""

    session_id: str | None = None


async def mcp(request: web.Request) -> web.StreamResponse:
    """Streamable HTTP; a GET that names neither session nor protocol version opens the older stream, or, for a
    browser, a page."""
    no_parameters(request)
    if request.method == "GET" and wants_page(request) and "text/event-stream" not in request.headers[hdrs.ACCEPT]:
        return mcp_page(request)
    return await request.app[MCP].handle_mcp(request, request[CALLER])


async def sse(request: web.Request) -> web.StreamResponse:
    """The older transport's stream."""
    no_parameters(request)
    return await request.app[MCP].handle_sse(request, request[CALLER])


async def message(request: web.Request) -> web.StreamResponse:
    """A message of the older transport."""
    query_model(request, MessageParameters)  # what is missing, or is no session's, the SDK says
    return await request.app[MCP].handle_message(request, request[CALLER])


_PROTOCOL: Final = "Requests, answers and most errors are those of modelcontextprotocol.io."
_SSE: Final = ("text/event-stream",)

ROUTES: Final = (
    Route(
        "GET", "/mcp", mcp, "open_mcp_stream", "Open a session's stream", detail=_PROTOCOL,
        query=NoParameters, media=(*_SSE, *PAGE), head=False,
    ),
    Route(
        "POST", "/mcp", mcp, "send_mcp_message", "Send a message of the protocol", detail=_PROTOCOL,
        query=NoParameters, media=(*JSON, *_SSE), also=(202,),
    ),
    Route("DELETE", "/mcp", mcp, "end_mcp_session", "End a session", detail=_PROTOCOL, query=NoParameters),
    Route(
        "GET", "/sse", sse, "open_mcp_sse", "Open a stream of the older transport", detail=_PROTOCOL,
        query=NoParameters, media=_SSE, head=False,
    ),
    Route(
        "POST", "/message", message, "send_mcp_sse_message", "Send a message of the older transport", detail=_PROTOCOL,
        query=MessageParameters, media=(), status=202,
    ),
)  # fmt: skip
