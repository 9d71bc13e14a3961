"""/.well-known/oauth-protected-resource: where clients learn who issues access tokens for this server (RFC 9728)."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from routes.api import Route
from routes.bodies import json_response
from routes.challenges import BASIC_SCOPES, MCP_METADATA, WELL_KNOWN
from routes.errors import Problem
from routes.keys import AUTH, SETTINGS
from taskhub.auth.principal import Scope


@dataclass(frozen=True, slots=True)
class ProtectedResource:
    """What a client must know to get a token. `scopes_supported`: what to ask for to begin with."""

    resource: str
    authorization_servers: list[str]
    scopes_supported: list[Scope]
    bearer_methods_supported: list[str]
    resource_name: str
    resource_documentation: str


async def protected_resource(request: web.Request) -> web.Response:
    """GET → ProtectedResource, the same at both addresses: tokens are for one resource, whatever they are sent to."""
    settings = request.app[SETTINGS]
    if request.app[AUTH].name != "oauth":
        raise Problem("no_such_resource", "this server takes no access tokens; TASKHUB_AUTH=oauth would make it")
    document = ProtectedResource(
        resource=str(settings.resource),
        authorization_servers=[str(settings.issuer)],
        scopes_supported=list(BASIC_SCOPES),
        bearer_methods_supported=["header"],
        resource_name="TaskHub",
        resource_documentation=f"{settings.public_url}/docs",
    )
    return json_response(document, headers={"Cache-Control": "max-age=300"})


_PROBLEMS: Final = ("no_such_resource",)
ROUTES: Final = (
    Route(
        "GET", MCP_METADATA, protected_resource, "get_protected_resource", "Tell who issues access tokens",
        answer=ProtectedResource, problems=_PROBLEMS,
    ),
    Route(
        "GET", WELL_KNOWN, protected_resource, "get_protected_resource_at_root",
        "Tell the same, to clients that look only there", answer=ProtectedResource, problems=_PROBLEMS,
    ),
)  # fmt: skip
