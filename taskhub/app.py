"""The composition root: settings in, a wired application out. Nothing else builds services."""

import contextlib
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
from aiohttp import web

from broadcaster.control import Control, LocalControl
from broadcaster.engine import Broadcaster
from broadcaster.options import BroadcastOptions
from broadcaster.relay import LocalRelay, Relay
from broadcaster.relayed_control import RelayedControl
from routes.keys import (
    API_KEYS,
    AUDIT,
    AUTH,
    BROADCASTER,
    DATABASE,
    EVENT_LOG,
    HELD,
    INSTANCES,
    LIFECYCLE,
    LIMITS,
    MCP,
    METERS,
    OPENID,
    PUBLISHER,
    REFUSALS,
    SCRAPE,
    SETTINGS,
    SIGN_IN,
    STREAM_ACCESS,
    TICKETS,
    Lifecycle,
    OpenId,
)
from routes.oauth import AUTHORIZATION_SERVER
from routes.setup import MIDDLEWARES, add_mcp_routes, add_routes
from taskhub import __version__, tracing
from taskhub.audit.log import AuditLog
from taskhub.audit.refusals import Refusals
from taskhub.audit.retention import AuditKeeper
from taskhub.auth.principal import AuthProvider
from taskhub.auth.providers import ApiKeyAuth, NoAuth
from taskhub.credentials.ring import CredentialRing, CredentialStore
from taskhub.credentials.version import credentials_version
from taskhub.demo import Demo
from taskhub.failpoints import Failpoints
from taskhub.instances import Instances
from taskhub.keys.store import KeyStore
from taskhub.limits.held import Held
from taskhub.limits.limits import Limits
from taskhub.mcp.door import McpDoor, PassOn
from taskhub.mcp.opened import OpenedStreams
from taskhub.mcp.wakeups import Watch
from taskhub.metrics.loop_lag import LoopLag
from taskhub.metrics.meters import Meters
from taskhub.oauth.provider import OAuthAuth
from taskhub.opening import open_database, open_writer
from taskhub.process_limits import room_for_held, room_for_streams
from taskhub.processes import Place
from taskhub.publishing import EventPublisher
from taskhub.scrape import Scrape
from taskhub.settings.addresses import is_loopback
from taskhub.settings.model import Settings
from taskhub.sign_in.service import SignIn
from taskhub.sign_in.sessions import SessionStore
from taskhub.storage.database import Database
from taskhub.storage.event_log import SqlEventLog
from taskhub.storage.recurring import Recurring
from taskhub.storage.retention import Retention, RetentionKeeper
from taskhub.storage.writer import Writer
from taskhub.stream_tokens.access import StreamAccess, issuer_of
from taskhub.stream_tokens.store import StreamTokenStore
from taskhub.tickets.api import Tickets
from taskhub.tickets.service import TicketService
from taskhub.tickets.sweeper import LeaseSweeper

if TYPE_CHECKING:  # loaded by the first who speaks MCP
    from taskhub.mcp.host import McpHost

logger = structlog.stdlib.get_logger(__name__)

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of any request; the routes that take more say so themselves."""
TRUST_CREDENTIALS_S: Final = 3.0
"""For how long at least, when the database does not answer, credentials are taken for what they were."""
SWEEP_TOKENS_S: Final = 600.0
LOOK_AFTER_GRANTS_S: Final = 3600.0
LOOPBACK_NAMES: Final = ("127.0.0.1", "localhost", "[::1]")


def create_app(settings: Settings, *, demo: bool = False, place: Place | None = None) -> web.Application:
    """A TaskHub application. Its services start and stop with it. `place`: where it is one of several workers.

    With `api_base_url` it holds no tickets of its own: it serves MCP alone, in front of another TaskHub.
    """
    app = web.Application(middlewares=MIDDLEWARES, client_max_size=MAX_BODY_BYTES)
    app[SETTINGS] = settings
    app[LIFECYCLE] = Lifecycle(instance=secrets.token_hex(4))
    app[METERS] = Meters()
    app[AUTH] = auth_provider(settings)
    app[LIMITS] = Limits.of(settings)
    if settings.api_base_url:
        add_mcp_routes(app)
        app.cleanup_ctx.append(partial(_remote_services, place=place))
    else:
        add_routes(app)
        app.cleanup_ctx.append(partial(_services, place=place))
        if demo:
            app.cleanup_ctx.append(_demo)
    app.on_shutdown.append(_end_streams)
    return app


def auth_provider(settings: Settings) -> AuthProvider:
    """Who vouches for the callers of this server."""
    if settings.auth_mode == "none":
        return NoAuth()
    bootstrap_key = None if settings.api_key is None else settings.api_key.get_secret_value()
    return OAuthAuth(bootstrap_key) if settings.auth_mode == "oauth" else ApiKeyAuth(bootstrap_key)


@contextlib.asynccontextmanager
async def open_tickets(settings: Settings) -> AsyncIterator[tuple[Tickets, Watch | None]]:
    """The tickets alone, for a process that serves no HTTP: those of the API at `api_base_url`, or the database's; and
    what tells of changes, where there is that.

    Processes on one database notice what the others write by themselves, within a poll interval.
    """
    if settings.api_base_url:
        from taskhub.remote import RemoteTickets  # not read where the tickets are here

        async with RemoteTickets(settings.api_base_url, settings.outgoing_key) as remote:
            yield remote, None
        return
    failpoints = Failpoints.parse(settings.failpoints)
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(settings, failpoints))
        options = BroadcastOptions(poll_interval_s=settings.poll_interval_ms / 1000)
        broadcaster = Broadcaster(SqlEventLog(database), LocalRelay(), options)
        await broadcaster.start()
        stack.push_async_callback(broadcaster.stop)
        _, tickets = await _tickets(stack, settings, database, broadcaster, failpoints)
        yield tickets, broadcaster.watch


async def _tickets(
    stack: contextlib.AsyncExitStack,
    settings: Settings,
    database: Database,
    broadcaster: Broadcaster,
    failpoints: Failpoints,
    ending: Callable[[], bool] = lambda: False,
) -> tuple[Writer, TicketService]:
    """What changes tickets, and what looks after the database meanwhile."""
    writer = await stack.enter_async_context(
        open_writer(database, broadcaster.committed, broadcaster.publish_transient, failpoints)
    )
    tickets = TicketService(
        database,
        writer,
        lease_default_s=settings.lease_default_s,
        wait_beyond=broadcaster.wait_beyond,
        ending=ending,
    )
    retention = Retention(settings.retention_days, settings.retention_min_events)
    await stack.enter_async_context(LeaseSweeper(tickets.expire_leases))
    await stack.enter_async_context(RetentionKeeper(database, retention, failpoints=failpoints))
    await stack.enter_async_context(AuditKeeper(database, settings.audit_retention_days))
    return writer, tickets


async def _services(app: web.Application, *, place: Place | None) -> AsyncIterator[None]:
    settings, instance = app[SETTINGS], app[LIFECYCLE].instance
    failpoints = Failpoints.parse(settings.failpoints)
    async with contextlib.AsyncExitStack() as stack:
        meters = app[METERS]
        app[HELD] = Held(room_for_held())
        database = await stack.enter_async_context(open_database(settings, failpoints, meters))
        await stack.enter_async_context(LoopLag(meters.loop_lag))
        deployment = await database.deployment()
        log = SqlEventLog(database)
        lifecycle = app[LIFECYCLE]
        relay, control = _relay(settings, deployment.id, instance)
        broadcaster = Broadcaster(
            log,
            relay,
            broadcast_options(settings, instance),
            threads_busy=lambda: database.threads_busy,
            on_flush=_record_flush if tracing.sdk_loaded() else None,
        )
        instances = Instances(
            control,
            broadcaster,
            log,
            database,
            instance=instance,
            version=__version__,
            draining=lambda: lifecycle.draining,
            refused=app[LIMITS].refused,
        )
        scrape = Scrape(
            meters,
            draining=lambda: lifecycle.draining,
            broadcaster=broadcaster,
            database=database,
            place=place,
            ask=instances.metrics,
            refused=app[LIMITS].refused,
            held=app[HELD],
        )
        stack.push_async_callback(scrape.close)
        instances.on_metrics = scrape.of_group
        control.start(instances.answer)
        await broadcaster.start()
        # Stopped after the writer, so that what the last requests commit is announced as well.
        stack.push_async_callback(broadcaster.stop)
        stack.push_async_callback(control.stop)
        writer, tickets = await _tickets(
            stack, settings, database, broadcaster, failpoints, ending=lambda: lifecycle.draining
        )
        app[AUDIT] = AuditLog(database)
        app[REFUSALS] = await stack.enter_async_context(Refusals(database))
        app[DATABASE] = database
        app[EVENT_LOG] = log
        app[BROADCASTER] = broadcaster
        app[INSTANCES] = instances
        app[SCRAPE] = scrape
        app[TICKETS] = tickets
        app[PUBLISHER] = EventPublisher(writer)
        app[MCP] = _mcp(app, stack, tickets, deployment.secret, broadcaster.watch, instances.pass_on)
        instances.on_mcp_message = app[MCP].take
        await _let_in(app, stack, deployment.secret)
        yield


async def _let_in(app: web.Application, stack: contextlib.AsyncExitStack, secret: bytes) -> None:
    """Know who has which credential, and end what was opened by one that is over."""
    settings, database, broadcaster = app[SETTINGS], app[DATABASE], app[BROADCASTER]
    sessions = SessionStore(database, idle_s=settings.session_idle_s, max_s=settings.session_max_s)
    app[API_KEYS] = KeyStore(database)
    app[SIGN_IN] = SignIn(database, sessions)
    stack.callback(app[SIGN_IN].close)
    if settings.openid_issuer is not None:
        app[OPENID] = await _openid(app, stack, secret)
    stores: list[CredentialStore] = [app[API_KEYS], sessions]
    auth = app[AUTH]
    if isinstance(auth, OAuthAuth):
        from_whom = _issue_tokens if settings.issues_tokens else _take_tokens
        stores.append(await from_whom(app, auth, stack, secret))
    poll_s = settings.poll_interval_ms / 1000
    ring = CredentialRing(
        lambda: credentials_version(database),
        stores,
        (broadcaster.opened, app[MCP].opened),
        trust_s=max(TRUST_CREDENTIALS_S, 3 * poll_s),
        on_scopes_changed=app[MCP].scopes_changed,
    )

    async def look() -> None:
        await ring.look()
        _end_unread(broadcaster, ring)

    if isinstance(auth, ApiKeyAuth):
        auth.holders = ring
        await _warn_unless_somebody_gets_in(auth, app[API_KEYS], app[SIGN_IN])
        app[INSTANCES].on_credentials_changed = look
        await stack.enter_async_context(Recurring("look at the credentials", look, every_s=poll_s))
    await _use_stream_tokens(app, stack, ring)


def _record_flush(seconds: float, events: int, subscribers: int) -> None:
    tracing.record("flush", seconds, events=events, subscribers=subscribers)


def _end_unread(broadcaster: Broadcaster, ring: CredentialRing) -> None:
    """End the streams of credentials that are good, but no longer for reading events."""
    judged = {credential: ring.scopes_of(credential) for credential in broadcaster.opened.credentials()}
    blind = [each for each, scopes in judged.items() if scopes is not None and "events:read" not in scopes]
    broadcaster.opened.end_opened_by(blind, "revoked")


async def _use_stream_tokens(app: web.Application, stack: contextlib.AsyncExitStack, ring: CredentialRing) -> None:
    instances, store = app[INSTANCES], StreamTokenStore(app[DATABASE])
    access = app[STREAM_ACCESS] = StreamAccess(
        store,
        app[BROADCASTER],
        issuer=issuer_of(app[SETTINGS]),
        holder_of=ring.holder_of,
        end_elsewhere=instances.end_replaced,
    )
    instances.on_stream_replaced = access.end_replaced
    stack.push_async_callback(access.stop)
    seen_every_s = store.lifetimes.seen_every_s
    await stack.enter_async_context(Recurring("look at the stream tokens", access.look, every_s=seen_every_s))
    await stack.enter_async_context(Recurring("sweep of stream tokens", store.sweep, every_s=SWEEP_TOKENS_S))


async def _issue_tokens(
    app: web.Application, auth: OAuthAuth, stack: contextlib.AsyncExitStack, secret: bytes
) -> CredentialStore:
    """Let users let applications in, and let in whom they did."""
    from taskhub.oauth.embedded import authorization_server
    from taskhub.oauth.tokens import GrantedTokens

    database = app[DATABASE]
    server = authorization_server(app[SETTINGS], database, secret, app[INSTANCES].credentials_changed)
    app[AUTHORIZATION_SERVER] = server
    auth.tokens = server.tokens
    await stack.enter_async_context(
        Recurring("look after what was granted to applications", server.look_after, every_s=LOOK_AFTER_GRANTS_S)
    )
    return GrantedTokens(server.tokens, server.grants)


async def _take_tokens(
    app: web.Application, auth: OAuthAuth, stack: contextlib.AsyncExitStack, _secret: bytes
) -> CredentialStore:
    """Let in who has an access token."""
    # Signatures take a library that a server without tokens need not load.
    from taskhub.oauth.access_tokens import AccessTokens
    from taskhub.oauth.issuer import REFRESH_S, RemoteKeySet
    from taskhub.oauth.tokens import ForeignTokens
    from taskhub.oauth.users import Users

    settings, database = app[SETTINGS], app[DATABASE]
    issuer, audience = str(settings.issuer), settings.oauth_audience or str(settings.resource)
    keys = await stack.enter_async_context(RemoteKeySet(issuer, settings.oauth_jwks_url))
    await stack.enter_async_context(Recurring("read the keys of the issuer", keys.refresh, every_s=REFRESH_S))
    auth.tokens = AccessTokens(issuer, audience, keys, settings.oauth_algorithms)
    users = Users(database, app[TICKETS], settings.oauth_user_claim, settings.oauth_new_user_role)
    return ForeignTokens(database, auth.tokens, users)


async def _openid(app: web.Application, stack: contextlib.AsyncExitStack, secret: bytes) -> OpenId:
    """Let people sign in through an OpenID provider."""
    from taskhub.oauth.issuer import REFRESH_S, RemoteKeySet
    from taskhub.oauth.openid import OpenIdProvider
    from taskhub.sign_in.identities import Identities

    settings = app[SETTINGS]
    issuer, client_secret = str(settings.openid_issuer), settings.openid_client_secret
    keys = await stack.enter_async_context(RemoteKeySet(issuer))
    await stack.enter_async_context(Recurring("read the keys of the OpenID provider", keys.refresh, every_s=REFRESH_S))
    provider = OpenIdProvider(
        issuer,
        settings.openid_client_id or "",
        "" if client_secret is None else client_secret.get_secret_value(),
        f"{settings.openid_address}/callback",
        keys,
        secret=secret,
    )
    identities = Identities(app[DATABASE], app[TICKETS], settings.openid_domains, settings.openid_new_user_role)
    return OpenId(await stack.enter_async_context(provider), identities)


async def _warn_unless_somebody_gets_in(auth: ApiKeyAuth, keys: KeyStore, sign_in: SignIn) -> None:
    if auth.name == "oauth" or auth.bootstrap or await keys.any() or await sign_in.anybody():
        return
    logger.warning(
        "nobody can get in: make a key with `taskhub keys create --user NAME --role operator`, or, for a person, "
        "a link with `taskhub users sign-in-link NAME --role operator`"
    )


async def _remote_services(app: web.Application, *, place: Place | None) -> AsyncIterator[None]:
    from taskhub.remote import RemoteTickets

    settings = app[SETTINGS]
    async with contextlib.AsyncExitStack() as stack:
        remote = RemoteTickets(str(settings.api_base_url), settings.outgoing_key)
        tickets = await stack.enter_async_context(remote)
        app[HELD] = Held(room_for_held())
        app[MCP] = _mcp(app, stack, tickets, _kept_secret(settings.data_dir / "session-secret"))
        lifecycle = app[LIFECYCLE]
        app[SCRAPE] = Scrape(
            app[METERS],
            draining=lambda: lifecycle.draining,
            place=place,
            refused=app[LIMITS].refused,
            held=app[HELD],
        )
        await stack.enter_async_context(LoopLag(app[METERS].loop_lag))
        yield


async def _demo(app: web.Application) -> AsyncIterator[None]:
    demo = Demo(app[DATABASE], app[TICKETS], lambda: bool(app[BROADCASTER].statistics(streams=0).connected_clients))
    await demo.start()
    yield
    await demo.stop()


async def _end_streams(app: web.Application) -> None:
    """The runner waits for every open request: end those that never end by themselves, unless a drain already did."""
    if app[LIFECYCLE].draining:
        return
    if BROADCASTER in app:
        await app[BROADCASTER].drain(0)
    await app[MCP].stop(0)
    app[LIFECYCLE].draining = True


async def _unless_draining(app: web.Application, stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """For a start that failed half-way: after any other, the drain has stopped the part already."""
    if not app[LIFECYCLE].draining:
        await stop()


def broadcast_options(settings: Settings, instance: str) -> BroadcastOptions:
    """The limits of streams, from the settings and, where it allows fewer, from the descriptor limit."""
    max_streams, room = settings.sse_max_streams, room_for_streams()
    if room is not None and not 0 < max_streams <= room:
        if max_streams:
            logger.warning("the limit of open files allows fewer streams than SSE_MAX_STREAMS", streams=room)
        max_streams = room
    return BroadcastOptions(
        instance=instance,
        version=__version__,
        max_age_s=settings.sse_max_age_s,
        buffer_bytes=settings.sse_buffer_bytes,
        write_timeout_s=settings.sse_write_timeout_s,
        max_streams=max_streams,
        poll_interval_s=settings.poll_interval_ms / 1000,
        drain_s=settings.drain_s,
    )


def _relay(settings: Settings, deployment: str, instance: str) -> tuple[Relay, Control]:
    if settings.redis_url is None:
        return LocalRelay(), LocalControl(instance)
    from broadcaster.redis_relay import RedisRelay  # its library is not read where there is no Redis

    # The database's own id: two deployments on one Redis must not hear each other.
    prefix = f"{settings.redis_prefix}:{deployment}"
    relay = RedisRelay(settings.redis_url.get_secret_value(), channel_prefix=prefix, instance=instance)
    return relay, RelayedControl(relay, instance)


def _mcp(
    app: web.Application,
    stack: contextlib.AsyncExitStack,
    tickets: Tickets,
    secret: bytes,
    watch: Watch | None = None,
    pass_on: PassOn | None = None,
) -> McpDoor:
    settings = app[SETTINGS]
    hosts, origins = settings.allowed_hosts, settings.allowed_origins
    if is_loopback(settings.host):
        hosts += LOOPBACK_NAMES
    if not settings.production:
        origins += tuple(f"{scheme}://{name}:*" for scheme in ("http", "https") for name in LOOPBACK_NAMES)
    refusals = app.get(REFUSALS)  # only where there is a database

    def make(opened: OpenedStreams) -> "McpHost":
        from taskhub.mcp.host import McpHost

        return McpHost(
            tickets,
            secret=secret,
            transports=settings.mcp_transports,
            allowed_hosts=hosts,
            allowed_origins=origins,
            max_age_s=settings.sse_max_age_s,
            version=__version__,
            watch=watch,
            pass_on=pass_on,
            opened=opened,
            limits=app[LIMITS],
            body_read_s=settings.body_read_s or None,
            meters=app[METERS],
            on_forbidden=None if refusals is None else refusals.note_denied,
        )

    mcp = McpDoor(make, tickets=tickets, transports=settings.mcp_transports)
    stack.push_async_callback(_unless_draining, app, lambda: mcp.stop(0))
    return mcp


def _kept_secret(path: Path) -> bytes:
    """What signs session ids where no database keeps it: made once, so that sessions outlive a restart."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        # Under its name only when it is whole: an empty secret would sign whatever somebody makes up.
        with tempfile.NamedTemporaryFile(dir=path.parent) as file:
            file.write(secrets.token_bytes(32))
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    return path.read_bytes()
