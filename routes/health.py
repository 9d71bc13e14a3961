"""How the process is, and what it offers: for probes, load balancers, scripts and people."""

from aiohttp import web
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS

from broadcaster.event import SYSTEM_TYPES, TICKET_TYPES
from broadcaster.filters import FILTER_NAMES
from routes.bodies import json_response
from routes.keys import AUTH, BROADCASTER, DATABASE, LIFECYCLE, MCP, SETTINGS
from taskhub import __version__
from taskhub.auth.principal import ALL_SCOPES
from taskhub.remote import RemoteTickets
from taskhub.tickets.errors import StorageBusy


async def healthz(request: web.Request) -> web.Response:
    """The process answers. Nothing else is asked: a database that is away is no reason to kill it."""
    return json_response({"status": "ok"})


async def readyz(request: web.Request) -> web.Response:
    """Whether to send requests here: the database can be written and is migrated (or the TaskHub that this one stands
    in front of answers), and nobody has said stop.

    Without Redis everything still works, later by at most a poll, so that is `degraded` and no failure.
    """
    checks = await _checks(request)
    failed = [name for name, state in checks.items() if state not in ("ok", "degraded")]
    status = "unavailable" if failed else "degraded" if "degraded" in checks.values() else "ready"
    return json_response({"status": status, "checks": checks}, status=503 if failed else 200)


async def health(request: web.Request) -> web.Response:
    """The same for people, always 200 while the process can answer."""
    app = request.app
    checks = await _checks(request)
    states = set(checks.values())
    status = "ok" if states <= {"ok"} else "degraded" if states <= {"ok", "degraded"} else "unavailable"
    answer = {
        "status": status,
        "version": __version__,
        "instance": app[LIFECYCLE].instance,
        "transport": list(app[SETTINGS].mcp_transports),
        "auth_enabled": app[AUTH].name != "none",
        "checks": checks,
    }
    return json_response(answer)


async def version(request: web.Request) -> web.Response:
    return json_response({"name": "TaskHub", "version": __version__})


async def capabilities(request: web.Request) -> web.Response:
    """What this server offers, and how to authenticate."""
    app = request.app
    auth = app[AUTH].name
    transports = app[SETTINGS].mcp_transports
    tools = app[MCP].registry.tools
    eras = {"initialize": list(HANDSHAKE_PROTOCOL_VERSIONS)}
    if "http" in transports:  # the older transport has sessions only
        eras["sessionless"] = list(MODERN_PROTOCOL_VERSIONS)
    answer: dict[str, object] = {
        "name": "TaskHub",
        "version": __version__,
        "auth": {
            "mode": auth,
            "headers": [] if auth == "none" else ["x-api-key", "Authorization: Bearer"],
            "scopes": sorted(ALL_SCOPES if BROADCASTER in app else {tool.scope for tool in tools}),
        },
        "mcp": {
            "transports": {
                **({"http": ["/mcp"]} if "http" in transports else {}),
                **({"sse": ["/sse", "/message"]} if "sse" in transports else {}),
            },
            "eras": eras,
            "tools": [tool.name for tool in tools],
        },
    }
    if BROADCASTER in app:
        answer["events"] = {
            "stream": "/events/stream",
            "poll": "/api/v1/events",
            "publish": ["/events", "/events/batch"],
            "formats": ["text/event-stream", "application/x-ndjson"],
            "types": [*TICKET_TYPES, *SYSTEM_TYPES],
            "filters": list(FILTER_NAMES),
        }
    return json_response(answer)


async def _checks(request: web.Request) -> dict[str, str]:
    """What readiness depends on: `ok`, `degraded`, or what is wrong."""
    app = request.app
    checks = {"process": "draining" if app[LIFECYCLE].draining else "ok"}
    if DATABASE in app:
        checks["database"] = "ok"
        try:
            await app[DATABASE].ping()
            if not await app[DATABASE].schema_is_current():
                checks["database"] = "its schema is not this version's: run `taskhub migrate`"
        except StorageBusy as busy:
            checks["database"] = str(busy).partition(";")[0]
    if isinstance(tickets := app[MCP].tickets, RemoteTickets):
        checks["upstream"] = await tickets.state()
    if BROADCASTER in app:
        checks["relay"] = "ok" if app[BROADCASTER].relay_state in ("local", "up") else "degraded"
    return checks
