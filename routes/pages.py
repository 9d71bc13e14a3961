"""What people see who open TaskHub in a browser."""

from html import escape
from typing import Final

import orjson
from aiohttp import hdrs, web

from routes.access import wants_page
from routes.api import PAGE, Route
from routes.keys import AUTH, MCP
from taskhub import __version__

_ENDPOINTS: Final = (
    ("/events/stream", "the live stream (Server-Sent Events, or NDJSON)"),
    ("/api/v1/tickets", "tickets"),
    ("/api/v1/events", "the event log, by polling"),
    ("/mcp", "the Model Context Protocol (Streamable HTTP)"),
    ("/sse", "its older transport"),
    ("/events/debug", "what the event engine does"),
    ("/docs", "the HTTP API, described (as a document: /openapi.json)"),
    ("/capabilities", "what this server offers"),
    ("/health", "how it is"),
)
_FOR_PROGRAMS: Final = ("/mcp", "/sse")


async def landing(request: web.Request) -> web.Response:
    """The endpoints by name, as a page or as text."""
    if wants_page(request):
        rows = "".join(f"<dt>{_linked(path)}</dt><dd>{escape(what)}</dd>" for path, what in _served(request))
        about = "<p>The Model Context Protocol, in front of another TaskHub.</p>"
        response = _page(f"<h1>TaskHub {__version__}</h1>{about}<dl>{rows}</dl>")
    else:
        response = overview(request)
    response.headers[hdrs.VARY] = hdrs.ACCEPT
    return response


def overview(request: web.Request) -> web.Response:
    """The endpoints by name, as text."""
    lines = [f"TaskHub {__version__}", "", *(f"{path:<18} {what}" for path, what in _served(request)), ""]
    return web.Response(text="\n".join(lines))


def mcp_page(request: web.Request) -> web.Response:
    """What to do with the address of the Model Context Protocol: it is no page, but for a client's configuration."""
    kind = "http" if "http" in request.app[MCP].transports else "sse"
    server: dict[str, object] = {"type": kind, "url": f"{request.url.origin()}/mcp"}
    if request.app[AUTH].name == "api_key":  # with OAuth, a client that is told nothing asks the server
        server["headers"] = {"x-api-key": "${TASKHUB_API_KEY}"}
    snippet = orjson.dumps({"mcpServers": {"taskhub": server}}, option=orjson.OPT_INDENT_2).decode()
    response = _page(
        "<h1>TaskHub for MCP clients</h1><p>This address is for programs that speak the Model Context Protocol. "
        f"Put this into the client's configuration, such as <code>.mcp.json</code>:</p><pre>{escape(snippet)}</pre>"
        '<p>What else this server has: <a href="/">the overview</a>.</p>'
    )
    response.headers[hdrs.VARY] = hdrs.ACCEPT
    return response


def _served(request: web.Request) -> list[tuple[str, str]]:
    served = {resource.canonical for resource in request.app.router.resources()}
    return [(path, what) for path, what in _ENDPOINTS if path in served]


def _linked(path: str) -> str:
    return escape(path) if path in _FOR_PROGRAMS else f'<a href="{escape(path)}">{escape(path)}</a>'


ROUTES: Final = (Route("GET", "/", landing, "get_overview", "Show the endpoints", media=(*PAGE, "text/plain")),)


def _page(body: str) -> web.Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>TaskHub</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>'
        f"<body>{body}</body></html>"
    )
    return web.Response(text=text, content_type="text/html")
