"""`/api/v1/me`: who the caller is, as TaskHub sees it."""

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from routes.api import Route
from routes.bodies import NoParameters, json_response
from routes.keys import CALLER, TICKETS
from taskhub.auth.principal import Scope
from taskhub.tickets.model import User


@dataclass(frozen=True, slots=True)
class Me:
    """A caller. `actor`, what events carry, is its kind (user, agent or service) and its name; `authenticated`: a
    credential vouches for that. `user`: the row among the users that `assignee=me` stands for, if there is one."""

    actor: str
    kind: str
    workspace: str
    scopes: list[Scope]
    authenticated: bool
    user: User | None


async def me(request: web.Request) -> web.Response:
    """GET /api/v1/me → Me."""
    principal = request[CALLER].principal
    return json_response(
        Me(
            actor=principal.actor,
            kind=principal.actor.partition(":")[0],
            workspace=principal.workspace,
            scopes=sorted(principal.scopes),
            authenticated=principal.authenticated,
            user=await request.app[TICKETS].user_of(request[CALLER]),
        )
    )


ROUTES: Final = (
    Route(
        "GET", "/api/v1/me", me, "get_me", "Tell who you are, and what you may do",
        query=NoParameters, answer=Me, problems=("storage_busy",),
    ),
)  # fmt: skip
