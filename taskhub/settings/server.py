"""The settings of the server as a whole: where it listens, what it keeps, whom it lets in."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from taskhub.failpoints import Failpoints
from taskhub.settings.addresses import DatabaseAddress, Origin, RedisAddress, is_loopback
from taskhub.settings.values import ManyOf, Networks, OrNone, networks

PREFIX: Final = "TASKHUB_"

Transport = Literal["http", "sse"]
AuthMode = Literal["none", "api_key", "oauth"]


def _scrapers(value: tuple[str, ...]) -> tuple[str, ...]:
    if value == ("off",):
        return value
    value = ("0.0.0.0/0", "::/0") if value == ("all",) else value
    if "off" in value or "all" in value:
        raise ValueError("must be off, all, or addresses and networks such as 10.0.0.0/8")
    return networks(value)


def _failpoints(value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
    Failpoints.parse(value)
    if value and info.data.get("env") == "production":
        raise ValueError("are for tests: they are refused with ENV=production")
    return value


def default_data_dir() -> Path:
    """An absolute directory per user, so that every working directory finds the same data."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if os.path.isabs(base) else Path.home() / ".local" / "share") / "taskhub"


class ServerSettings(BaseSettings):
    """Every group of settings that has conditions on these derives from them."""

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
        default_factory=default_data_dir, description="Directory of the embedded database and `server.json`"
    )
    database_url: OrNone[DatabaseAddress] = Field(
        None,
        description="`sqlite:////absolute/path.db` or `postgresql://user:password@host/name`; "
        "when absent, `taskhub.db` in the data directory",
    )
    redis_url: OrNone[RedisAddress] = Field(
        None, description="`redis://host:6379/0`: tells other instances of new events; absent for a single instance"
    )
    redis_prefix: str = Field("taskhub", min_length=1, description="What names of Redis channels begin with")
    auth: AuthMode | None = Field(
        None,
        description="`none` (loopback only), `api_key`, or `oauth` (access tokens, and API keys beside them); "
        "when absent, `api_key` if `API_KEY` is set, else `none`",
    )
    api_key: OrNone[SecretStr] = Field(
        None, description="The bootstrap API key (with `stdio`: the key to send to the remote API)"
    )
    remote_api_key: OrNone[SecretStr] = Field(
        None, description="The key to send to the API at `API_BASE_URL`; when absent, `API_KEY`"
    )
    public_url: OrNone[Origin] = Field(
        None, description="The address by which clients reach this server, such as `https://taskhub.example.org`"
    )
    insecure: bool = Field(False, description="Allow `AUTH=none` on an address that is not loopback")
    ephemeral_data: bool = Field(
        False, description="Allow SQLite on Cloud Run, where its file is lost with the instance"
    )
    allowed_hosts: ManyOf[str] = Field(
        (),
        description="Host names that requests may name; required off loopback, where names of loopback are the default",
    )
    allowed_origins: ManyOf[str] = Field(
        (), description="Origins of web pages that may read streams and the API (any loopback origin in development)"
    )
    trusted_proxies: Networks = Field((), description="Addresses or networks whose `Forwarded` headers count")
    session_idle_s: int = Field(
        604_800, ge=300, description="Seconds after which a sign-in that nobody uses has ended (a week)"
    )
    session_max_s: int = Field(
        2_592_000, ge=300, description="Seconds after which a sign-in has ended however much it is used (30 days)"
    )
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
    mcp_transports: ManyOf[Transport] = Field(
        ("http", "sse"),
        description="`http`: Streamable HTTP at `/mcp`; `sse`: the older pair `/sse` and `/message` "
        "(one process only: with `WORKERS`, `http` is the default)",
    )
    api_base_url: OrNone[str] = Field(
        None, pattern=r"^https?://", description="Serve only MCP, in front of the TaskHub API at this address"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log")
    log_format: Literal["console", "json"] | None = Field(
        None, description="`console` or `json`; when absent, `json` in production"
    )
    metrics: Annotated[ManyOf[str], AfterValidator(_scrapers)] = Field(
        ("127.0.0.0/8", "::1"),
        description="Addresses or networks that may read `/metrics` without a key; others need one with `admin`. "
        "`all`: everybody, `off`: nobody, and there is no `/metrics`",
    )
    failpoints: Annotated[ManyOf[str], AfterValidator(_failpoints)] = Field(
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

    def _without_effect(self, names: Iterable[str], where: str) -> list[str]:
        """Those of the settings that somebody has changed, with the condition under which it does nothing."""
        fields = type(self).model_fields
        changed = (name for name in names if getattr(self, name) != fields[name].default)
        return [f"{name.upper()} has no effect {where}" for name in changed]
