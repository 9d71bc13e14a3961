"""Times as they are stored and sent: UTC, milliseconds, `2026-11-20T09:12:03.123Z`."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The clock of everything that is not a test."""
    return datetime.now(UTC)


def to_text(time: datetime) -> str:
    """`time` as stored; one without a zone is taken as UTC. Raises OverflowError beyond the years 1 to 9999 of UTC."""
    moment = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    # strftime does not pad years before 1000 on every platform; isoformat does.
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def later(time: str, seconds: float) -> str:
    """So many seconds after a stored time."""
    return to_text(datetime.fromisoformat(time) + timedelta(seconds=seconds))
