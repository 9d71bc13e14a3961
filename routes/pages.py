"""What people see who open TaskHub in a browser."""

from html import escape
from typing import Final

import orjson
from aiohttp import hdrs, web

from routes.api import PAGE, Route
from routes.keys import AUTH, MCP
from taskhub import __version__

ICON_MAX_AGE_S: Final = 86_400

_STREAM: Final = "/events/stream"
_ENDPOINTS: Final = (
    (_STREAM, "the live stream (Server-Sent Events, or NDJSON)"),
    ("/api/v1/tickets", "tickets"),
    ("/api/v1/events", "the event log, by polling"),
    ("/mcp", "the Model Context Protocol (Streamable HTTP)"),
    ("/sse", "its older transport"),
    ("/events/debug", "what the event engine does"),
    ("/docs", "the HTTP API, described (as a document: /openapi.json)"),
    ("/capabilities", "what this server offers"),
    ("/health", "how it is"),
)
# Where a link leads, if not to the path itself; None for what only programs can use.
_LINKS: Final[dict[str, str | None]] = {
    "/api/v1/events": "/api/v1/events?after=earliest&limit=50",
    "/mcp": None,
    "/sse": None,
}


async def landing(request: web.Request) -> web.Response:
    """The endpoints by name, as a page or as text."""
    served = {resource.canonical for resource in request.app.router.resources()}
    endpoints = [(path, what) for path, what in _ENDPOINTS if path in served]
    if wants_page(request):
        rows = "".join(f"<dt>{_linked(path)}</dt><dd>{escape(what)}</dd>" for path, what in endpoints)
        response = _page(f"<h1>TaskHub {__version__}</h1>{_introduction(request, served)}<dl>{rows}</dl>")
    else:
        lines = [f"TaskHub {__version__}", "", *(f"{path:<18} {what}" for path, what in endpoints), ""]
        response = web.Response(text="\n".join(lines))
    response.headers[hdrs.VARY] = hdrs.ACCEPT
    return response


def mcp_page(request: web.Request) -> web.Response:
    """What to do with the address of the Model Context Protocol: it is no page, but for a client's configuration."""
    kind = "http" if "http" in request.app[MCP].transports else "sse"
    server: dict[str, object] = {"type": kind, "url": f"{request.url.origin()}/mcp"}
    if request.app[AUTH].name != "none":
        server["headers"] = {"x-api-key": "${TASKHUB_API_KEY}"}
    snippet = orjson.dumps({"mcpServers": {"taskhub": server}}, option=orjson.OPT_INDENT_2).decode()
    response = _page(
        "<h1>TaskHub for MCP clients</h1><p>This address is for programs that speak the Model Context Protocol. "
        f"Put this into the client's configuration, such as <code>.mcp.json</code>:</p><pre>{escape(snippet)}</pre>"
        '<p>What else this server has: <a href="/">the overview</a>.</p>'
    )
    response.headers[hdrs.VARY] = hdrs.ACCEPT
    return response


async def icon(request: web.Request) -> web.Response:
    """GET /favicon.ico: there is none, which is no error; browsers ask whatever the page says."""
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: f"public, max-age={ICON_MAX_AGE_S}"})


def wants_page(request: web.Request) -> bool:
    """The request comes from a browser's address line."""
    return "text/html" in request.headers.get(hdrs.ACCEPT, "").lower()


def _introduction(request: web.Request, served: set[str]) -> str:
    if _STREAM not in served:
        return "<p>The Model Context Protocol, in front of another TaskHub.</p>"
    address = escape(f"{request.url.origin()}{_STREAM}")
    return f'<p>Every change of a ticket, live. Watch with:</p><pre>curl -N "{address}"</pre>'


def _linked(path: str) -> str:
    target = _LINKS.get(path, path)
    return escape(path) if target is None else f'<a href="{escape(target)}">{escape(path)}</a>'


ROUTES: Final = (
    Route("GET", "/", landing, "get_overview", "Show the endpoints", media=(*PAGE, "text/plain")),
    Route("GET", "/favicon.ico", icon, "get_icon", "Answer browsers, which ask for an icon", media=(), status=204),
)


def _page(body: str) -> web.Response:
    text = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>TaskHub</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark"></head>'
        f"<body>{body}</body></html>"
    )
    return web.Response(text=text, content_type="text/html")
