"""Which URLs are served. The file of a handler is named after its family of URLs, and declares its routes."""

from typing import Final

from aiohttp import web

from routes import (
    api_keys,
    assets,
    audit,
    batches,
    board,
    dashboard,
    debug,
    docs,
    events,
    export,
    grants,
    health,
    leases,
    links,
    mcp,
    me,
    metrics,
    oauth,
    openid,
    pages,
    protected_resource,
    publish,
    reference,
    session,
    stream,
    stream_tokens,
    tickets,
)
from routes.api import register
from routes.keys import SETTINGS
from routes.middlewares import GATE, Gate, add_headers, receive

MIDDLEWARES: Final = (receive,)


def add_routes(app: web.Application) -> None:
    """All of TaskHub. The application must have its settings."""
    tables = (tickets, links, leases, batches, board, export, reference, api_keys, audit, me, session, openid)
    for module in (*tables, stream, stream_tokens, events, publish, debug, oauth, grants, dashboard):
        register(app, module.ROUTES)
    _add_common_routes(app)


def add_mcp_routes(app: web.Application) -> None:
    """MCP alone: for a server that stands in front of another TaskHub."""
    register(app, pages.ROUTES)
    _add_common_routes(app)


def _add_common_routes(app: web.Application) -> None:
    """What every server has."""
    app[GATE] = Gate.of(app[SETTINGS])
    app[docs.DESCRIPTION] = docs.Description(app)
    app[assets.ASSETS] = assets.Assets()
    app.on_response_prepare.append(add_headers)
    modules = [mcp, protected_resource, health, docs, assets]
    if app[SETTINGS].metrics != ("off",):
        modules.append(metrics)
    for module in modules:
        register(app, module.ROUTES)
