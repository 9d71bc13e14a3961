"""How the process is, and what it offers: for probes, load balancers, scripts and people."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

from aiohttp import web
from pydantic import BaseModel

from broadcaster.event import SYSTEM_TYPES, TICKET_TYPES
from broadcaster.filters import FILTER_NAMES
from routes.api import Route
from routes.bodies import json_response
from routes.challenges import MCP_METADATA
from routes.keys import AUTH, BROADCASTER, DATABASE, LIFECYCLE, MCP, SETTINGS
from taskhub import __version__
from taskhub.auth.principal import ALL_SCOPES
from taskhub.tickets.errors import StorageBusy

if TYPE_CHECKING:
    from taskhub.remote import RemoteTickets


@dataclass(frozen=True, slots=True)
class Alive:
    status: Literal["ok"] = "ok"


@dataclass(frozen=True, slots=True)
class Readiness:
    """`checks`: `ok`, `degraded`, or what is wrong, of each thing that readiness depends on."""

    status: Literal["ready", "degraded", "unavailable"]
    checks: dict[str, str]


@dataclass(frozen=True, slots=True)
class Health:
    """The same for people. `transport`: those of the Model Context Protocol."""

    status: Literal["ok", "degraded", "unavailable"]
    version: str
    instance: str
    transport: list[str]
    auth_enabled: bool
    checks: dict[str, str]


@dataclass(frozen=True, slots=True)
class Version:
    name: str
    version: str


class AuthCapabilities(BaseModel):
    """`resource_metadata`: where to learn who issues access tokens, where they are taken."""

    mode: str
    headers: list[str]
    scopes: list[str]
    resource_metadata: str | None = None


class McpCapabilities(BaseModel):
    """`transports`: name → paths. `eras`: how a session begins → protocol versions. `subscriptions`: whether a client
    can be told that a resource changed."""

    transports: dict[str, list[str]]
    eras: dict[str, list[str]]
    tools: list[str]
    resources: list[str]
    prompts: list[str]
    subscriptions: bool


class EventCapabilities(BaseModel):
    stream: str
    poll: str
    publish: list[str]
    formats: list[str]
    types: list[str]
    filters: list[str]


class Capabilities(BaseModel):
    """What a server offers. One that stands in front of another has no `events`."""

    name: str
    version: str
    auth: AuthCapabilities
    mcp: McpCapabilities
    events: EventCapabilities | None = None


async def healthz(request: web.Request) -> web.Response:
    """The process answers. Nothing else is asked: a database that is away is no reason to kill it."""
    return json_response(Alive())


async def readyz(request: web.Request) -> web.Response:
    """Whether to send requests here: the database can be written and is migrated (or the TaskHub that this one stands
    in front of answers), and nobody has said stop.

    Without Redis everything still works, later by at most a poll, so that is `degraded` and no failure.
    """
    found = await checks(request.app)
    if not is_ready(found):
        return json_response(Readiness("unavailable", found), status=503)
    return json_response(Readiness("degraded" if "degraded" in found.values() else "ready", found))


async def health(request: web.Request) -> web.Response:
    """The same for people, always 200 while the process can answer."""
    app = request.app
    found = await checks(app)
    states = set(found.values())
    answer = Health(
        status="ok" if states <= {"ok"} else "degraded" if states <= {"ok", "degraded"} else "unavailable",
        version=__version__,
        instance=app[LIFECYCLE].instance,
        transport=list(app[SETTINGS].mcp_transports),
        auth_enabled=app[AUTH].name != "none",
        checks=found,
    )
    return json_response(answer)


async def version(request: web.Request) -> web.Response:
    return json_response(Version("TaskHub", __version__))


async def capabilities(request: web.Request) -> web.Response:
    """What this server offers, and how to authenticate."""
    app = request.app
    auth = app[AUTH].name
    transports = app[SETTINGS].mcp_transports
    offer = (await app[MCP].host()).offer
    answer = Capabilities(
        name="TaskHub",
        version=__version__,
        auth=AuthCapabilities(
            mode=auth,
            headers=[] if auth == "none" else ["x-api-key", "Authorization: Bearer"],
            scopes=sorted(ALL_SCOPES if BROADCASTER in app else offer.scopes),
        ),
        mcp=McpCapabilities(
            transports={
                **({"http": ["/mcp"]} if "http" in transports else {}),
                **({"sse": ["/sse", "/message"]} if "sse" in transports else {}),
            },
            eras=offer.eras,
            tools=offer.tools,
            resources=offer.resources,
            prompts=offer.prompts,
            subscriptions=offer.subscriptions,
        ),
    )
    if auth == "oauth":
        answer.auth.resource_metadata = MCP_METADATA
    if BROADCASTER in app:
        answer.events = EventCapabilities(
            stream="/events/stream",
            poll="/api/v1/events",
            publish=["/events", "/events/batch"],
            formats=["text/event-stream", "application/x-ndjson"],
            types=[*TICKET_TYPES, *SYSTEM_TYPES],
            filters=list(FILTER_NAMES),
        )
    return json_response(answer.model_dump_json(exclude_unset=True).encode())


async def checks(app: web.Application) -> dict[str, str]:
    """What readiness depends on: `ok`, `degraded`, or what is wrong."""
    found = {"process": "draining" if app[LIFECYCLE].draining else "ok"}
    if DATABASE in app:
        try:
            await app[DATABASE].ping()
            found["database"] = await app[DATABASE].schema_trouble() or "ok"
        except StorageBusy as busy:
            found["database"] = str(busy).partition(";")[0]
    if app[SETTINGS].api_base_url:
        found["upstream"] = await cast("RemoteTickets", app[MCP].tickets).state()
    if BROADCASTER in app:
        found["relay"] = "ok" if app[BROADCASTER].relay_state in ("local", "up") else "degraded"
    return found


def is_ready(found: dict[str, str]) -> bool:
    """Whether nothing of what was found forbids to send requests here."""
    return all(state in ("ok", "degraded") for state in found.values())


ROUTES: Final = (
    Route("GET", "/healthz", healthz, "get_liveness", "Answer while the process lives", answer=Alive),
    Route(
        "GET", "/readyz", readyz, "get_readiness", "Tell whether to send requests here", answer=Readiness, also=(503,)
    ),
    Route("GET", "/health", health, "get_health", "Tell how the process is", answer=Health),
    Route("GET", "/version", version, "get_version", "Tell the version", answer=Version),
    Route(
        "GET", "/capabilities", capabilities, "get_capabilities", "Tell what this server offers", answer=Capabilities
    ),
)
