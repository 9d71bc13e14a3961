"""The settings that bound what one caller, or one connection, can take."""

from pydantic import Field
from pydantic_settings import BaseSettings


class LimitSettings(BaseSettings):
    """Streams, writes, failures, and the parts of a request."""

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
