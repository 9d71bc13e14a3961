"""`/api/v1/grants`: the applications that users have connected."""

from typing import Annotated, Final

from aiohttp import web
from pydantic import BaseModel, Field, StringConstraints

from routes.api import Route
from routes.bodies import Items, NoParameters, json_response, query_model
from routes.keys import CALLER, INSTANCES
from routes.oauth import server_of
from taskhub.oauth.model import Grant


class GrantParameters(BaseModel):
    user: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="whose, by id (for operators); when absent, the caller's"
    )
    everybody: bool = Field(False, description="those of all users (for operators)")


async def grants(request: web.Request) -> web.Response:
    """GET /api/v1/grants → the connected applications, those used last first."""
    asked = query_model(request, GrantParameters)
    found = await server_of(request).grants.list(request[CALLER], user=asked.user, everybody=asked.everybody)
    return json_response(Items(found))


async def end(request: web.Request) -> web.Response:
    """DELETE /api/v1/grants/{id} → 204; what the application has open ends on every instance."""
    await server_of(request).grants.revoke(request[CALLER], request.match_info["id"])
    await request.app[INSTANCES].credentials_changed()
    return web.Response(status=204)


ROUTES: Final = (
    Route(
        "GET", "/api/v1/grants", grants, "list_grants", "List the applications that one has connected",
        detail="Where TaskHub issues access tokens itself. Those of others take the scope `admin`.",
        query=GrantParameters, answer=Items[Grant], problems=("no_such_resource", "forbidden", "storage_busy"),
    ),
    Route(
        "DELETE", "/api/v1/grants/{id}", end, "end_grant", "Disconnect an application, and end what it has open",
        query=NoParameters, media=(), status=204,
        problems=("no_such_resource", "not_found", "forbidden", "storage_busy"),
    ),
)  # fmt: skip
