"""Which URL is served by which handler. The file of a handler is named after its family of URLs."""

from typing import Final

from aiohttp import web

from routes import (
    batches,
    board,
    debug,
    events,
    export,
    health,
    leases,
    links,
    mcp,
    pages,
    publish,
    reference,
    stream,
    tickets,
)
from routes.keys import SETTINGS
from routes.middlewares import GATE, Gate, add_headers, receive
from taskhub.tickets.reference_inputs import NEW

MIDDLEWARES: Final = (receive,)


def add_routes(app: web.Application) -> None:
    """All of TaskHub. The application must have its settings."""
    add_mcp_routes(app)
    router = app.router
    router.add_route("GET", "/events/stream", stream.stream)
    router.add_route("HEAD", "/events/stream", stream.stream)
    router.add_post("/events", publish.publish)
    router.add_post("/events/batch", publish.publish_batch)
    router.add_get("/events/debug", debug.statistics)
    router.add_get("/events/debug/explain", debug.explain)
    router.add_post("/events/debug/test", debug.test)
    router.add_delete("/events/debug/streams/{id}", debug.end_stream)
    router.add_get("/api/v1/events", events.poll, allow_head=False)  # a HEAD would wait for events it cannot show
    router.add_get("/api/v1/tickets", tickets.list_tickets)
    router.add_post("/api/v1/tickets", tickets.create_ticket)
    router.add_get("/api/v1/tickets/{key}", tickets.get_ticket)
    router.add_post("/api/v1/tickets/bulk", batches.update_tickets)
    router.add_patch("/api/v1/tickets/{key}", tickets.update_ticket)
    router.add_delete("/api/v1/tickets/{key}", links.delete)
    router.add_post("/api/v1/tickets/{key}/restore", links.restore)
    router.add_get("/api/v1/tickets/{key}/relations", links.list_relations)
    router.add_post("/api/v1/tickets/{key}/relations", links.link)
    router.add_delete("/api/v1/tickets/{key}/relations/{relation}/{other}", links.unlink)
    router.add_get("/api/v1/tickets/{key}/attachments", links.list_attachments)
    router.add_post("/api/v1/tickets/{key}/attachments", links.attach)
    router.add_delete("/api/v1/tickets/{key}/attachments/{no}", links.detach)
    router.add_get("/api/v1/batches/{id}", batches.get_batch)
    router.add_post("/api/v1/batches/{id}/undo", batches.undo)
    router.add_get("/api/v1/tickets/{key}/comments", tickets.list_comments)
    router.add_post("/api/v1/tickets/{key}/comments", tickets.add_comment)
    router.add_get("/api/v1/tickets/{key}/history", tickets.list_history)
    router.add_post("/api/v1/tickets/claim-next", leases.claim_next)
    router.add_put("/api/v1/tickets/{key}/lease", leases.claim)
    router.add_patch("/api/v1/tickets/{key}/lease", leases.renew)
    router.add_delete("/api/v1/tickets/{key}/lease", leases.release)
    router.add_post("/api/v1/tickets/{key}/progress", leases.report_progress)
    router.add_get("/api/v1/board", board.get_board)
    router.add_get("/api/v1/export", export.export, allow_head=False)
    router.add_post("/api/v1/import", export.import_)
    for kind in NEW:
        address = f"/api/v1/{kind.replace('_', '-')}"
        router.add_post(address, reference.create(kind))
        router.add_patch(address + "/{id}", reference.change(kind))
        router.add_delete(address + "/{id}", reference.remove(kind))
    router.add_get("/api/v1/users", reference.users)
    router.add_get("/api/v1/accounts", reference.accounts)
    router.add_get("/api/v1/categories", reference.categories)
    router.add_get("/api/v1/category-details", reference.category_details)
    router.add_get("/api/v1/statuses", reference.statuses)
    router.add_get("/api/v1/request-channels", reference.request_channels)
    router.add_get("/api/v1/response-categories", reference.response_categories)


def add_mcp_routes(app: web.Application) -> None:
    """MCP alone, with what every server has: for one that stands in front of another TaskHub."""
    app[GATE] = Gate.of(app[SETTINGS])
    app.on_response_prepare.append(add_headers)
    app.router.add_get("/", pages.landing)
    app.router.add_get("/favicon.ico", pages.icon)
    app.router.add_get("/healthz", health.healthz)
    app.router.add_get("/readyz", health.readyz)
    app.router.add_get("/health", health.health)
    app.router.add_get("/version", health.version)
    app.router.add_get("/capabilities", health.capabilities)
    mcp.add_routes(app)
