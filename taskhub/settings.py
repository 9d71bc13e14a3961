"""Settings: the command line, the environment (`TASKHUB_*`), one TOML file, and defaults, in this order.

Older names (`MCP_API_BASE_URL` and its relatives) and plain `PORT` count as environment, after the `TASKHUB_*` name of
the same setting. `load` answers the settings and where each came from, `look` also when some cannot be used;
`Settings.serving_problems` says what forbids serving with them.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, ValidationInfo
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from taskhub.failpoints import Failpoints
from taskhub.redaction import redacted

PREFIX: Final = "TASKHUB_"
CONFIG_VARIABLE: Final = "TASKHUB_CONFIG"
GOOGLE: Final = "https://accounts.google.com"
LOCAL_CONFIG: Final = "taskhub.toml"
SHIPPED_CONFIG: Final = Path(__file__).resolve().parent.parent / "config" / "default.toml"


_SQLITE_FILE: Final = re.compile(r"sqlite(\+aiosqlite)?:///(?!:memory:)(?P<path>[^?]+)(?P<options>(\?.*)?)")
_POSTGRES: Final = re.compile(r"postgres(ql)?(\+asyncpg)?://")
POSTGRES_PARAMETERS: Final = (
    "host", "port", "application_name", "options", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword",
    "sslcrl", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs",
)  # fmt: skip
"""Of libpq's, those that count in the address of a database."""
_DOMAIN: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")
_REDIS: Final = re.compile(r"(rediss?(\+sentinel)?|unix)://")


class SettingsError(Exception):
    """Settings with which TaskHub cannot start; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _split(value: Any) -> Any:
    """`a, b` → (`a`, `b`): how a list is written in the environment and on the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ipaddress.ip_network(network, strict=False)
    return value


def _scrapers(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("off",):
        return value
    networks = ("0.0.0.0/0", "::/0") if value == ("all",) else value
    if "off" in value or "all" in networks:
        raise ValueError("must be off, all, or addresses and networks such as 10.0.0.0/8")
    return _networks(networks)


def _failpoints(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    Failpoints.parse(value)
    if value and info.data.get("env") == "production":
        raise ValueError("are for tests: they are refused with ENV=production")
    return value


def _empty_is_none(value: Any) -> Any:
    return None if value == "" else value


def _database(value: SecretStr | None) -> SecretStr | None:
    """A relative SQLite path is made absolute: a process that is started elsewhere must find the same file."""
    if value is None:
        return None
    address = value.get_secret_value()
    if (file := _SQLITE_FILE.fullmatch(address)) is not None:
        return SecretStr(f"sqlite:///{Path(file['path']).absolute()}{file['options']}")
    if not _POSTGRES.match(address):
        raise ValueError("must be sqlite:////absolute/path.db or postgresql://user:password@host/name")
    _check_postgres_parameters(address)
    return _with_port(value)


def _check_postgres_parameters(address: str) -> None:
    for name in parse_qs(address.partition("?")[2], keep_blank_values=True):
        if name not in POSTGRES_PARAMETERS:
            # What is no name at all may be the end of a password with a question mark in it.
            shown = f" {name[:40]}" if name.isidentifier() and "@" not in address.partition("?")[2] else ""
            near = _nearest(name, list(POSTGRES_PARAMETERS)) if shown else ""
            known = near or f"; there are {', '.join(POSTGRES_PARAMETERS)}"
            raise ValueError(f"has a parameter{shown} that counts for nothing{known}")


def _redis(value: SecretStr | None) -> SecretStr | None:
    if value is not None and not _REDIS.match(value.get_secret_value()):
        raise ValueError("must be an address such as redis://host:6379/0")
    return value


def _web_address(value: str | None) -> str | None:
    """https, or http on this machine: what is said over anything else can be changed on its way."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("must be an address such as https://login.example.org") from None
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or plain):
        raise ValueError("must be an https address, or an http address on this machine")
    if parts.username is not None or parts.fragment or any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("must be an address without a user, a fragment or spaces")
    return value


def _issuer(value: str | None) -> str | None:
    if value is not None and "?" in value:
        raise ValueError("is the address of an issuer, which has no query (RFC 8414)")
    return _web_address(value)


def _origin(value: str | None) -> str | None:
    if value is None or _web_address(value) is None:
        return None
    parts = urlsplit(value)
    if parts.path.strip("/") or parts.query:
        raise ValueError("must be an address without a path, such as https://taskhub.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def _domains(value: tuple[str, ...]) -> tuple[str, ...]:
    for domain in value:
        if not _DOMAIN.fullmatch(domain):
            raise ValueError(f"has {domain[:80]!r}, which is no domain such as example.org")
    return tuple(domain.lower() for domain in value)


def _with_port(value: SecretStr) -> SecretStr:
    try:
        _ = urlsplit(value.get_secret_value()).port
    except ValueError:  # whose own text would hold a part of the address
        raise ValueError("has a port that is no number from 0 to 65535") from None
    return value


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Transport = Literal["http", "sse"]
AuthMode = Literal["none", "api_key", "oauth"]
Algorithm = Literal["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
"""Signatures whose verification takes no secret. `none` and HMAC are no such, and there is no way to allow them."""
Algorithms = Annotated[tuple[Algorithm, ...], NoDecode, BeforeValidator(_split), Field(min_length=1)]
Transports = Annotated[tuple[Transport, ...], NoDecode, BeforeValidator(_split)]
Address = Annotated[str | None, BeforeValidator(_empty_is_none)]
WebAddress = Annotated[str | None, BeforeValidator(_empty_is_none), AfterValidator(_web_address)]
Secret = Annotated[SecretStr | None, BeforeValidator(_empty_is_none)]


class Settings(BaseSettings):
    """What an operator may set. The description of each field is what `taskhub check` and the README say of it."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore", frozen=True)

    env: Literal["development", "production"] = Field(
        "development",
        description="`production`: no reload, JSON logs, a busy port is an error, authentication required",
    )
    host: str = Field("127.0.0.1", description="Address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on (also plain `PORT`); 0 takes a free one")
    workers: int = Field(
        1, ge=1, description="Server processes behind the port; more than 1 need PostgreSQL and `REDIS_URL`"
    )
    data_dir: Path = Field(
        default_factory=lambda: default_data_dir(), description="Directory of the embedded database and `server.json`"
    )
    database_url: Annotated[Secret, AfterValidator(_database)] = Field(
        None,
        description="`sqlite:////absolute/path.db` or `postgresql://user:password@host/name`; "
        "when absent, `taskhub.db` in the data directory",
    )
    redis_url: Annotated[Secret, AfterValidator(_redis)] = Field(
        None, description="`redis://host:6379/0`: tells other instances of new events; absent for a single instance"
    )
    redis_prefix: str = Field("taskhub", min_length=1, description="What names of Redis channels begin with")
    auth: AuthMode | None = Field(
        None,
        description="`none` (loopback only), `api_key`, or `oauth` (access tokens, and API keys beside them); "
        "when absent, `api_key` if `API_KEY` is set, else `none`",
    )
    api_key: Secret = Field(None, description="The bootstrap API key (with `stdio`: the key to send to the remote API)")
    remote_api_key: Secret = Field(
        None, description="The key to send to the API at `API_BASE_URL`; when absent, `API_KEY`"
    )
    public_url: Annotated[Address, AfterValidator(_origin)] = Field(
        None, description="The address by which clients reach this server, such as `https://taskhub.example.org`"
    )
    oauth_issuer: Annotated[Address, AfterValidator(_issuer)] = Field(
        None,
        description="Who issues access tokens (`AUTH=oauth`), exactly as its metadata and tokens say it; "
        "when absent, TaskHub itself",
    )
    oauth_audience: Annotated[str | None, BeforeValidator(_empty_is_none)] = Field(
        None, description="What access tokens must name as their one audience; when absent, `PUBLIC_URL` with `/mcp`"
    )
    oauth_jwks_url: WebAddress = Field(None, description="Where the issuer's keys are; when absent, its metadata tells")
    oauth_algorithms: Algorithms = Field(
        ("ES256", "EdDSA", "RS256", "PS256"), description="Algorithms by which access tokens may be signed"
    )
    oauth_user_claim: str = Field(
        "sub",
        pattern=r"^[!-~]{1,100}$",
        description="The claim that names the user: with `email`, a verified address that a user has; "
        "with another, the id or name of a user",
    )
    oauth_new_user_role: Literal["viewer", "requester", "agent", "manager"] | None = Field(
        None,
        description="The role of users who are made when the issuer knows who calls and TaskHub does not; absent: none",
    )
    oauth_registration: bool = Field(
        False, description="Let OAuth clients register themselves, where TaskHub issues access tokens itself"
    )
    oauth_document_networks: Annotated[Words, AfterValidator(_networks)] = Field(
        (), description="Networks that are not public, from which documents about OAuth clients may be read"
    )
    openid_issuer: Annotated[Address, AfterValidator(_issuer)] = Field(
        None,
        description="An OpenID provider through which people sign in at the board, such as "
        "`https://accounts.google.com`, exactly as its metadata says it",
    )
    openid_client_id: Annotated[str | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        description="The provider's id of this server, whose callback there is `PUBLIC_URL` `/login/openid/callback`",
    )
    openid_client_secret: Secret = Field(None, description="What the provider gave with the id")
    openid_name: Annotated[str | None, BeforeValidator(_empty_is_none)] = Field(
        None,
        max_length=40,
        description="What the button calls the provider; when absent, `Google`, or the issuer's host",
    )
    openid_domains: Annotated[Words, AfterValidator(_domains)] = Field(
        (),
        description="Domains whose people get in through the provider: of their verified address, or with Google the "
        "organisation's (`hd`); absent: any",
    )
    openid_new_user_role: Literal["viewer", "requester", "agent", "manager"] | None = Field(
        None,
        description="The role of users who are added when the provider knows who signs in and TaskHub does not; "
        "absent: only users who have the address get in",
    )
    insecure: bool = Field(False, description="Allow `AUTH=none` on an address that is not loopback")
    ephemeral_data: bool = Field(
        False, description="Allow SQLite on Cloud Run, where its file is lost with the instance"
    )
    allowed_hosts: Words = Field(
        (),
        description="Host names that requests may name; required off loopback, where names of loopback are the default",
    )
    allowed_origins: Words = Field(
        (), description="Origins of web pages that may read streams and the API (any loopback origin in development)"
    )
    trusted_proxies: Annotated[Words, AfterValidator(_networks)] = Field(
        (), description="Addresses or networks whose `Forwarded` headers count"
    )
    session_idle_s: int = Field(
        604_800, ge=300, description="Seconds after which a sign-in that nobody uses has ended (a week)"
    )
    session_max_s: int = Field(
        2_592_000, ge=300, description="Seconds after which a sign-in has ended however much it is used (30 days)"
    )
    sse_heartbeat_s: float = Field(15, gt=0, le=60, description="Seconds between heartbeats on a stream")
    sse_max_age_s: float = Field(
        840, gt=0, description="Seconds after which a stream ends by itself, or up to a tenth sooner"
    )
    sse_buffer_bytes: int = Field(65_536, ge=1024, description="Bytes buffered per stream before it counts as slow")
    sse_write_timeout_s: float = Field(30, gt=0, description="Seconds a stream may take nothing before it is closed")
    sse_max_streams: int = Field(
        10_000, ge=0, description="Streams per process, as far as open files allow; 0 for just that"
    )
    sse_max_streams_per_principal: int | None = Field(
        None,
        ge=0,
        description="Streams per credential and process, those of MCP clients included; 0 for no limit; "
        "when absent, 50, or none with `AUTH=none`",
    )
    sse_max_streams_per_address: int = Field(
        20, ge=0, description="With `AUTH=none` off loopback: streams per client address and process; 0 for no limit"
    )
    sse_new_streams_per_s: int | None = Field(
        None,
        ge=0,
        description="Streams that a process opens in a second; the others are told when to come; 0 for no limit; "
        "when absent, 200, or 2000 with `AUTH=none`",
    )
    writes_per_s: float | None = Field(
        None,
        ge=0,
        description="Changes per credential and second, by REST and MCP together; 0 for no limit; "
        "when absent, 20, or none with `AUTH=none`",
    )
    write_burst: int = Field(100, ge=1, description="Changes that a credential may make at once after a quiet time")
    oauth_requests_per_min: int = Field(
        600,
        ge=0,
        description="Requests per address and minute for tokens, their end and clients (`AUTH=oauth`); 0 for no limit",
    )
    auth_failures_per_min: int = Field(
        30,
        ge=0,
        description="Wrong credentials per address and minute that are looked up; beyond, only those that were good "
        "before; 0 for no limit",
    )
    keep_alive_s: float = Field(
        15, gt=0, le=3600, description="Seconds that a connection may wait for a request, or for the rest of its head"
    )
    body_read_s: float = Field(
        10, ge=0, description="Seconds that a body may take to arrive (of an import: each part); 0 for no limit"
    )
    header_bytes: int = Field(16_384, ge=1024, le=65_536, description="Bytes of all headers of a request together")
    poll_interval_ms: int = Field(1000, ge=50, le=60_000, description="Milliseconds between looks at the log's head")
    lease_default_s: int = Field(
        1800, ge=60, le=86_400, description="Seconds for which a claim holds a ticket that does not say for how long"
    )
    drain_s: float = Field(8, ge=0.5, le=600, description="Seconds within which a stopping server has exited")
    retention_days: int = Field(
        90, ge=0, le=36_500, description="Days for which streams can replay events; 0 for ever; tickets keep theirs"
    )
    retention_min_events: int = Field(
        100_000, ge=0, description="Newest events of a workspace that can be replayed however old they are"
    )
    audit_retention_days: int = Field(
        365, ge=0, le=36_500, description="Days for which entries of the audit log are kept; 0 for ever"
    )
    mcp_transports: Transports = Field(
        ("http", "sse"),
        description="`http`: Streamable HTTP at `/mcp`; `sse`: the older pair `/sse` and `/message` "
        "(one process only: with `WORKERS`, `http` is the default)",
    )
    api_base_url: Address = Field(
        None, pattern=r"^https?://", description="Serve only MCP, in front of the TaskHub API at this address"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log")
    log_format: Literal["console", "json"] | None = Field(
        None, description="`console` or `json`; when absent, `json` in production"
    )
    metrics: Annotated[Words, AfterValidator(_scrapers)] = Field(
        ("127.0.0.0/8", "::1"),
        description="Addresses or networks that may read `/metrics` without a key; others need one with `admin`. "
        "`all`: everybody, `off`: nobody, and there is no `/metrics`",
    )
    failpoints: Annotated[Words, AfterValidator(_failpoints)] = Field(
        (), description="For tests, never in production: where this process dies, such as `write.after_commit=kill@3`"
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` passes: it reads the other sources itself, to remember which setting came from where."""
        return (init_settings,)

    @property
    def production(self) -> bool:
        return self.env == "production"

    @property
    def auth_mode(self) -> AuthMode:
        """`auth`, or what follows from whether a key is set: whoever sets a key means it to be asked for."""
        return self.auth or ("api_key" if self.api_key else "none")

    @property
    def resource(self) -> str | None:
        """What access tokens are for (RFC 8707): the address of the Model Context Protocol."""
        return None if self.public_url is None else f"{self.public_url}/mcp"

    @property
    def issuer(self) -> str | None:
        """Who issues access tokens."""
        return self.oauth_issuer or self.public_url

    @property
    def issues_tokens(self) -> bool:
        """Whether that is TaskHub itself."""
        return self.auth_mode == "oauth" and self.oauth_issuer is None

    @property
    def openid_label(self) -> str | None:
        """What people call the OpenID provider; None when there is none."""
        if self.openid_issuer is None:
            return None
        return self.openid_name or ("Google" if self.google else urlsplit(self.openid_issuer).hostname)

    @property
    def google(self) -> bool:
        """The OpenID provider is Google, where anybody can have an account."""
        return self.openid_issuer == GOOGLE

    @property
    def openid_address(self) -> str:
        """Where a sign-in through the provider begins. The provider sends people back to `callback` below it."""
        return f"{self.public_url}/login/openid"

    @property
    def database_address(self) -> str:
        """The database's URL, password included."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir / 'taskhub.db'}"

    @property
    def embedded(self) -> bool:
        """The database is SQLite."""
        return self.database_address.startswith("sqlite")

    @property
    def json_logs(self) -> bool:
        return (self.log_format or ("json" if self.production else "console")) == "json"

    @property
    def outgoing_key(self) -> str | None:
        """The API key for the server at `api_base_url`."""
        key = self.remote_api_key or self.api_key
        return key.get_secret_value() if key else None

    def serving_problems(self) -> list[str]:
        """Why `taskhub serve` refuses these settings, one sentence each, naming the setting; empty when it does not."""
        problems: list[str] = []
        loopback = is_loopback(self.host)
        if self.auth_mode == "api_key" and self.api_key is None and self.api_base_url:
            problems.append("AUTH=api_key in front of another TaskHub needs a key: set TASKHUB_API_KEY")
        if self.auth_mode == "none" and self.production:
            problems.append(
                "ENV=production needs authentication: set TASKHUB_API_KEY, or set TASKHUB_AUTH=api_key and make keys "
                "with `taskhub keys create`, or sign-in links with `taskhub users sign-in-link`"
            )
        elif self.auth_mode == "none" and not loopback and not self.insecure:
            problems.append(
                f"AUTH=none would let anybody who reaches {self.host} change everything: set TASKHUB_API_KEY, "
                "or listen on 127.0.0.1, or say --insecure"
            )
        problems += self._oauth_problems()
        problems += self._openid_problems()
        if not loopback and not self.allowed_hosts:
            problems.append(
                f"HOST={self.host} is not loopback: set TASKHUB_ALLOWED_HOSTS to the names that requests will use, "
                "such as taskhub.example.org"
            )
        if os.environ.get("K_SERVICE") and self.embedded and not self.api_base_url and not self.ephemeral_data:
            problems.append(
                "on Cloud Run the disk, and SQLite's data with it, is lost with each instance: "
                "set TASKHUB_DATABASE_URL to a PostgreSQL database, or TASKHUB_EPHEMERAL_DATA=true if losing it is fine"
            )
        if self.workers > 1 and not self.api_base_url:
            if self.embedded:
                problems.append(
                    f"WORKERS={self.workers} needs a database that several server processes share, and SQLite is one "
                    "server's: set TASKHUB_DATABASE_URL to a PostgreSQL database, or leave WORKERS at 1"
                )
            if self.redis_url is None:
                problems.append(
                    f"WORKERS={self.workers} needs Redis, through which each process tells the others what it changed; "
                    "streams would hear it a poll later, or never if it is not stored: set TASKHUB_REDIS_URL, "
                    "or leave WORKERS at 1"
                )
        if self.workers > 1 and "sse" in self.mcp_transports:
            problems.append(
                f"MCP_TRANSPORTS={','.join(self.mcp_transports)} needs WORKERS=1: a message of the older transport "
                "must reach the process that holds its stream; set TASKHUB_MCP_TRANSPORTS=http, or leave WORKERS at 1"
            )
        return problems

    def _oauth_problems(self) -> list[str]:
        if self.auth_mode != "oauth":
            names = [name for name in self.model_fields_set if name.startswith("oauth_")]
            given = sorted(name for name in names if getattr(self, name) != type(self).model_fields[name].default)
            return [f"{name.upper()} has no effect without TASKHUB_AUTH=oauth" for name in given]
        problems: list[str] = []
        if self.api_base_url:
            problems.append("AUTH=oauth knows users by the database, and API_BASE_URL leaves this server none")
        if self.public_url is None:
            problems.append(
                "AUTH=oauth needs TASKHUB_PUBLIC_URL, such as https://taskhub.example.org: clients ask for tokens for "
                "the address by which they reach this server"
            )
        idle = _OF_OTHER_ISSUERS if self.oauth_issuer is None else _OF_OWN_TOKENS
        where = "without TASKHUB_OAUTH_ISSUER" if self.oauth_issuer is None else "with TASKHUB_OAUTH_ISSUER"
        changed = (name for name in idle if getattr(self, name) != type(self).model_fields[name].default)
        return problems + [f"{name.upper()} has no effect {where}" for name in changed]

    def _openid_problems(self) -> list[str]:
        if self.openid_issuer is None:
            names = [name for name in self.model_fields_set if name.startswith("openid_")]
            given = sorted(name for name in names if getattr(self, name) != type(self).model_fields[name].default)
            return [f"{name.upper()} has no effect without TASKHUB_OPENID_ISSUER" for name in given]
        problems: list[str] = []
        if self.api_base_url:
            problems.append("OPENID_ISSUER is for the board, and with API_BASE_URL this server has none")
        if self.auth_mode == "none":
            problems.append(
                "OPENID_ISSUER has no effect with AUTH=none, where everybody is let in: set TASKHUB_AUTH=api_key"
            )
        if self.public_url is None:
            problems.append(
                "OPENID_ISSUER needs TASKHUB_PUBLIC_URL, such as https://taskhub.example.org: the provider sends "
                "people back to it"
            )
        missing = {
            "TASKHUB_OPENID_CLIENT_ID": self.openid_client_id,
            "TASKHUB_OPENID_CLIENT_SECRET": self.openid_client_secret,
        }
        problems += [
            f"OPENID_ISSUER needs {name}, which the provider gives who registers this server with it"
            for name, value in missing.items()
            if value is None
        ]
        if self.google and self.openid_new_user_role is not None and not self.openid_domains:
            problems.append(
                "OPENID_NEW_USER_ROLE would let in everybody who has a Google account: set TASKHUB_OPENID_DOMAINS to "
                "your organisation's, such as example.org"
            )
        return problems


_OF_OTHER_ISSUERS: Final = (
    "oauth_audience", "oauth_jwks_url", "oauth_algorithms", "oauth_user_claim", "oauth_new_user_role",
)  # fmt: skip
_OF_OWN_TOKENS: Final = ("oauth_registration", "oauth_document_networks")


# Names of earlier tool servers, and of hosts that know only PORT. Setting → names, of which the first one set counts.
OLDER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "port": ("PORT",),
    "api_base_url": ("MCP_API_BASE_URL",),
    "api_key": ("MCP_MCP_API_KEY", "MCP_API_KEY"),
    "remote_api_key": ("MCP_API_KEY",),
    "mcp_transports": ("MCP_TRANSPORT_TYPE",),
}
_OLDER_TRANSPORTS: Final = {
    "sse": "http,sse",
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "stdio": "http,sse",
}


class OlderNames(PydanticBaseSettingsSource):
    """The variables of OLDER_NAMES."""

    def variable(self, name: str) -> str | None:
        """The variable that sets this field, if one does."""
        return next((older for older in OLDER_NAMES.get(name, ()) if os.environ.get(older, "").strip()), None)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = self.variable(field_name)
        text = os.environ[variable].strip() if variable else None
        if text and variable == "MCP_TRANSPORT_TYPE":
            text = _OLDER_TRANSPORTS.get(text.lower(), text)
        return text, field_name, False

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, field in Settings.model_fields.items()
            if (value := self.get_field_value(field, name)[0]) is not None
        }


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each came from (field → such as `environment TASKHUB_PORT`), and the names nobody knows.

    `wrong` says of each field whose value cannot be used what is wrong with it; `settings` has its default.
    """

    settings: Settings
    sources: Mapping[str, str]
    config_file: Path | None
    unknown: list[str] = field(default_factory=list)
    wrong: Mapping[str, str] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """All that is wrong with the values, and what forbids serving with the others, one sentence each."""
        unsafe = self.settings.serving_problems()
        # What follows from a default that nobody asked for is not yet a problem.
        named = [re.compile(rf"\b({PREFIX})?{name.upper()}\b") for name in self.wrong]
        return [*self.wrong.values(), *(text for text in unsafe if not any(name.search(text) for name in named))]


def load(overrides: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Loaded:
    """Read every source. `overrides` are fields given on the command line, `config` the TOML file named there.

    Raises SettingsError when a value cannot be used or the named file cannot be read.
    """
    loaded = look(overrides, config=config)
    if loaded.wrong:
        raise SettingsError(list(loaded.wrong.values()))
    return loaded


def look(overrides: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Loaded:
    """As `load`, but values that cannot be used are answered, not raised.

    Raises SettingsError when the named file cannot be read.
    """
    path = _config_file(config)
    from_file = _toml_source(path)
    known = set(Settings.model_fields)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    older = OlderNames(Settings)
    sources: tuple[tuple[PydanticBaseSettingsSource, Callable[[str], str]], ...] = (
        (from_file, lambda _: f"{path}"),
        (older, lambda name: f"environment {older.variable(name)}"),
        (EnvSettingsSource(Settings), lambda name: f"environment {PREFIX}{name.upper()}"),
        (InitSettingsSource(Settings, dict(overrides or {})), lambda _: "command line"),
    )
    for read, origin in sources:
        for name, value in read().items():
            if name in known:
                values[name] = value
                origins[name] = origin(name)

    if "data_dir" in values:
        values["data_dir"] = Path(os.path.expanduser(str(values["data_dir"]))).absolute()
    wrong: dict[str, str] = {}
    try:
        settings = Settings(**values)
    except ValidationError as invalid:
        for error in invalid.errors():
            wrong.setdefault(str(error["loc"][0]), _sentence(error, origins))
        settings = Settings(**{name: value for name, value in values.items() if name not in wrong})
    told = {name: origins.get(name, "default") for name in Settings.model_fields}
    if settings.auth is None and settings.api_key is not None:
        told["auth"] = f"because API_KEY is set ({origins['api_key']})"
    if settings.workers > 1 and "mcp_transports" not in values:
        settings = settings.model_copy(update={"mcp_transports": ("http",)})
        told["mcp_transports"] = f"because WORKERS is {settings.workers} ({origins['workers']})"
    return Loaded(
        settings, told, path, _unknown_variables(known) + _unknown_keys(from_file.toml_data, known, path), wrong
    )


def default_data_dir() -> Path:
    """An absolute directory per user, so that every working directory finds the same data."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "taskhub"


def is_loopback(host: str) -> bool:
    """Whether listening on `host` can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def shown(name: str, settings: Settings) -> str:
    """A setting's effective value as text for people, secrets masked (a URL keeps all but its password)."""
    value: Any = getattr(settings, name)
    if name == "database_url":
        value = SecretStr(settings.database_address)
    elif name == "auth":
        value = settings.auth_mode
    elif name == "log_format":
        value = "json" if settings.json_logs else "console"
    if value is None or value == ():
        return "-"
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value()) if name.endswith("_url") else "********"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


def mask_url(url: str) -> str:
    """The URL without the password in it, before its host or among its parameters."""
    scheme, separator, rest = url.partition("://")
    credentials, at, address = rest.rpartition("@")
    if not at:
        return redacted(url)
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':********' if colon else ''}@{redacted(address)}"


def _config_file(named: Path | None) -> Path | None:
    if named is None and (variable := os.environ.get(CONFIG_VARIABLE)):
        named = Path(variable)
    if named is not None:
        return named.expanduser().absolute()
    for candidate in (Path(LOCAL_CONFIG).absolute(), SHIPPED_CONFIG):
        if candidate.is_file():
            return candidate
    return None


def _toml_source(path: Path | None) -> TomlConfigSettingsSource:
    if path is not None and not path.is_file():
        raise SettingsError([f"the settings file {path} does not exist"])
    try:
        return TomlConfigSettingsSource(Settings, toml_file=path)
    except OSError as error:
        raise SettingsError([f"the settings file {path} cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"the settings file {path} is not TOML: {error}"]) from None


def _sentence(error: Any, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    reason = error["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return f"{name.upper()} ({origins.get(name, 'default')}): {reason}"


def _unknown_variables(known: set[str]) -> list[str]:
    accepted = [PREFIX + name.upper() for name in known] + [CONFIG_VARIABLE]
    return [
        f"{name} is not a setting{_nearest(name, accepted)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name not in accepted
    ]


def _unknown_keys(values: Mapping[str, Any], known: set[str], path: Path | None) -> list[str]:
    return [f"{name} in {path} is not a setting{_nearest(name, list(known))}" for name in values if name not in known]


def _nearest(name: str, candidates: list[str]) -> str:
    near = difflib.get_close_matches(name, candidates, n=1)
    return f"; did you mean {near[0]}?" if near else ""
