"""`/api/v1/audit`: who did what that counts for security, for those who operate the workspace."""

from typing import Final

from aiohttp import web

from routes.api import Route
from routes.bodies import json_response, query_model
from routes.keys import AUDIT, CALLER
from taskhub.audit.log import AuditPage, AuditQuery


async def audit(request: web.Request) -> web.Response:
    """GET /api/v1/audit → AuditPage, the newest first."""
    return json_response(await request.app[AUDIT].page(request[CALLER], query_model(request, AuditQuery)))


ROUTES: Final = (
    Route(
        "GET", "/api/v1/audit", audit, "list_audit", "Tell what was done that counts for security",
        detail="The newest first. What belongs to no workspace, such as failed authentication, is told in the default "
        "one. Refusals are counted: the first is told within a second, the others of its minute at the end of it.",
        scope="admin", query=AuditQuery, answer=AuditPage,
    ),
)  # fmt: skip
