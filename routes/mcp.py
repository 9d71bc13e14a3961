"""/mcp, /sse, /message: the Model Context Protocol."""

from aiohttp import hdrs, web

from routes.keys import CALLER, MCP
from routes.pages import mcp_page, wants_page


def add_routes(app: web.Application) -> None:
    # By method, not `add_get`: that would answer HEAD too, which opens nothing here.
    for method in ("GET", "POST", "DELETE"):
        app.router.add_route(method, "/mcp", mcp)
    app.router.add_route("GET", "/sse", sse)
    app.router.add_route("POST", "/message", message)


async def mcp(request: web.Request) -> web.StreamResponse:
    """Streamable HTTP; a GET that names neither session nor protocol version opens the older stream, or, for a
    browser, a page."""
    if request.method == "GET" and wants_page(request) and "text/event-stream" not in request.headers[hdrs.ACCEPT]:
        return mcp_page(request)
    return await request.app[MCP].handle_mcp(request, request[CALLER])


async def sse(request: web.Request) -> web.StreamResponse:
    """The older transport's stream."""
    return await request.app[MCP].handle_sse(request, request[CALLER])


async def message(request: web.Request) -> web.StreamResponse:
    """A message of the older transport."""
    return await request.app[MCP].handle_message(request, request[CALLER])
