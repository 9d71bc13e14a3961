"""What the composition root hands to the routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from aiohttp import web

from broadcaster.engine import Broadcaster
from broadcaster.log import EventLog
from taskhub.audit.log import AuditLog
from taskhub.audit.refusals import Refusals
from taskhub.auth.principal import AuthProvider, Caller
from taskhub.instances import Instances
from taskhub.keys.store import KeyStore
from taskhub.limits.held import Held
from taskhub.limits.limits import Limits
from taskhub.mcp.door import McpDoor
from taskhub.metrics.meters import Meters
from taskhub.publishing import EventPublisher
from taskhub.scrape import Scrape
from taskhub.settings.model import Settings
from taskhub.sign_in.service import SignIn
from taskhub.storage.database import Database
from taskhub.stream_tokens.access import StreamAccess
from taskhub.tickets.service import TicketService

if TYPE_CHECKING:
    from taskhub.oauth.openid import OpenIdProvider
    from taskhub.sign_in.identities import Identities


@dataclass(frozen=True, slots=True)
class OpenId:
    """Signing in through an OpenID provider. What only a server with one has need not be loaded by others."""

    provider: OpenIdProvider
    identities: Identities


@dataclass(slots=True, eq=False)
class Lifecycle:
    """What state the process is in. `draining` refuses new streams and turns `/readyz` to 503."""

    instance: str
    draining: bool = field(default=False)


SETTINGS: Final = web.AppKey("settings", Settings)
LIFECYCLE: Final = web.AppKey("lifecycle", Lifecycle)
DATABASE: Final = web.AppKey("database", Database)
TICKETS: Final = web.AppKey("tickets", TicketService)
PUBLISHER: Final = web.AppKey("publisher", EventPublisher)
EVENT_LOG: Final = web.AppKey("event_log", EventLog)
BROADCASTER: Final = web.AppKey("broadcaster", Broadcaster)
INSTANCES: Final = web.AppKey("instances", Instances)
AUTH: Final = web.AppKey("auth", AuthProvider)
API_KEYS: Final = web.AppKey("api_keys", KeyStore)
AUDIT: Final = web.AppKey("audit", AuditLog)
REFUSALS: Final = web.AppKey("refusals", Refusals)
SIGN_IN: Final = web.AppKey("sign_in", SignIn)
OPENID: Final = web.AppKey("openid", OpenId)
MCP: Final = web.AppKey("mcp", McpDoor)
LIMITS: Final = web.AppKey("limits", Limits)
HELD: Final = web.AppKey("held", Held)
STREAM_ACCESS: Final = web.AppKey("stream_access", StreamAccess)
METERS: Final = web.AppKey("meters", Meters)
SCRAPE: Final = web.AppKey("scrape", Scrape)

CALLER: Final = web.RequestKey("caller", Caller)
REQUEST_ID: Final = web.RequestKey("request_id", str)
