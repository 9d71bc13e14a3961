"""Logs: structlog everywhere, JSON lines in production, readable lines in development, nothing secret in either."""

import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, Final, TextIO

import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from structlog.types import Processor

REDACTED: Final = "[redacted]"

request_id: Final[ContextVar[str]] = ContextVar("request_id")
"""The request during which a record is written; each request is a context of its own."""

# The last word of a key, so that `token` and `session_token` are hidden, `tokens_used` and `author` are not.
_SECRET_KEYS: Final = re.compile(
    r"(^|[_\-.])(authorization|cookies?|set-cookie|passwords?|passwd|secrets?|tokens?|api[_-]?keys?|credentials?)$",
    re.IGNORECASE,
)
_SECRET_TEXTS: Final = (
    (re.compile(r"(?P<keep>\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s/@]+(?=@)", re.IGNORECASE), rf"\g<keep>{REDACTED}"),
    (
        re.compile(r"(?P<keep>\b(authorization|x-api-key|cookie|set-cookie)\b['\"]?\s*[:=]\s*)[^\r\n]+", re.IGNORECASE),
        rf"\g<keep>{REDACTED}",
    ),
    (re.compile(r"(?P<keep>\bbearer\s+)[^\s'\",;]+", re.IGNORECASE), rf"\g<keep>{REDACTED}"),
    (
        re.compile(r"(?P<keep>[?&;](?:[a-z_-]*token|api[_-]?key|key|secret|password)=)[^&\s'\"#]+", re.IGNORECASE),
        rf"\g<keep>{REDACTED}",
    ),
)
# Beside a secret in a text stands one of these: most of what is logged is a word, a path or a number.
_MAY_HOLD_SECRETS: Final = re.compile(r"[=\s]|://|(?i:authorization|api-key|cookie)")
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
        shared += [
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
        ]
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


def name_request(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: say which request a record belongs to."""
    if (current := request_id.get(None)) is not None:
        event.setdefault("request_id", current)
    return event


def redact(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Processor: hide values under secret names, and secrets inside any text, however deep."""
    for key in list(event):
        event[key] = _clean(key, event[key])
    return event


@lru_cache(maxsize=1024)
def _names_secret(key: str) -> bool:
    return _SECRET_KEYS.search(key) is not None


def _clean(key: str, value: Any) -> Any:
    if value is not None and _names_secret(key):
        return REDACTED
    if isinstance(value, str):
        if _MAY_HOLD_SECRETS.search(value):
            for pattern, replacement in _SECRET_TEXTS:
                value = pattern.sub(replacement, value)
        return value
    if isinstance(value, Mapping):
        return {k: _clean(str(k), v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", item) for item in value]
    return value


def _name_for_collectors(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The names that log collectors look for: `severity` and `message`."""
    event["severity"] = _SEVERITY.get(str(event.pop("level", "info")), "INFO")
    event["message"] = event.pop("event", "")
    return event
