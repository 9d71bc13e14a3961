"""Logs: structlog everywhere, JSON lines in production, readable lines in development, nothing secret in either."""

import logging
import sys
from collections.abc import MutableMapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from structlog.types import Processor

from taskhub import tracing
from taskhub.redaction import clean

request_id: Final[ContextVar[str]] = ContextVar("request_id")
"""The request during which a record is written; each request is a context of its own."""

notes: Final[ContextVar[dict[str, object]]] = ContextVar("notes")
"""What becomes known of a request while it runs, for the line that is logged at its end."""

_SEVERITY: Final = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "critical": "CRITICAL"}


def configure(*, level: str, json: bool, stream: TextIO | None = None) -> None:
    """Send the records of structlog and of the standard library to `stream`, by default standard error (standard output
    may carry MCP)."""
    output = stream or sys.stderr
    shared: list[Processor] = [
        name_request,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    if json:
        shared += [structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")]
        final: list[Processor] = [redact, _name_for_collectors, structlog.processors.JSONRenderer(ensure_ascii=False)]
    else:
        shared += [structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False)]
        final = [
            redact,
            structlog.dev.ConsoleRenderer(
                colors=output.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # the other formatters print local variables
            ),
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *[p for p in shared if not isinstance(p, structlog.stdlib.ExtraAdder)],
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(output)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level.upper())
    logging.getLogger("aiohttp.server").addFilter(without_malformed_bytes)
    for chatty in ("asyncio", "watchfiles", "alembic", "mcp", "httpx2", "httpcore2"):
        # Below warning these write per poll, per statement or per request.
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))


def without_malformed_bytes(record: logging.LogRecord) -> bool:
    """Filter: a request or body that is no HTTP is its sender's mistake; its bytes and the secrets in them stay out.

    aiohttp writes it as an error with a traceback, so that anybody could fill the log with them.
    """
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError | RequestPayloadError):
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        record.msg, record.args = f"{record.getMessage()}: {type(error).__name__}", ()
        record.exc_info = record.exc_text = None
        return logging.getLogger().isEnabledFor(logging.DEBUG)
    return True


def note(**values: object) -> None:
    """Add to what the log says of the request at hand."""
    if (current := notes.get(None)) is not None:
        current.update(values)


def name_request(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: say which request, and which trace, a record belongs to."""
    if (current := request_id.get(None)) is not None:
        event.setdefault("request_id", current)
    if (trace := tracing.CURRENT.get()) is not None:
        event.setdefault("trace_id", trace.trace_id)
        event.setdefault("span_id", trace.span_id)
    return event


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: hide values under secret names, and secrets inside any text, however deep."""
    for key in list(event):
        event[key] = clean(key, event[key])
    return event


def _name_for_collectors(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The names that log collectors look for: `severity` and `message`."""
    event["severity"] = _SEVERITY.get(str(event.pop("level", "info")), "INFO")
    event["message"] = event.pop("event", "")
    return event
