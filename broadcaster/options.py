"""What the engine can be told: limits and intervals."""

import secrets
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class BroadcastOptions:
    """Limits and intervals; seconds unless the name says otherwise."""

    instance: str = field(default_factory=lambda: secrets.token_hex(2))
    version: str = ""
    max_age_s: float = 840.0
    max_age_jitter: float = 0.1
    buffer_bytes: int = 65_536
    write_timeout_s: float = 30.0
    max_streams: int = 10_000
    poll_interval_s: float = 1.0
    retry_s: float = 2.0
    drain_s: float = 8.0
    ring_events: int = 10_000
    ring_bytes: int = 32 * 1024 * 1024
