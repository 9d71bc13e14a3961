"""Failures of requests that are no tool calls: errors of the protocol, with the same sentences and data as tools."""

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, INVALID_REQUEST, CallToolResult
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from taskhub.auth.errors import AuthError, Forbidden
from taskhub.auth.principal import Caller, Scope
from taskhub.mcp import errors
from taskhub.mcp.uris import FORMS
from taskhub.tickets.errors import TicketError, TicketGone, TicketNotFound

log = structlog.get_logger(__name__)

_OLDER_RESOURCE_NOT_FOUND: Final = -32002
_MAX_ECHO: Final = 200


def require(caller: Caller, *scopes: Scope) -> None:
    """Raise Forbidden unless the caller has all of these."""
    for scope in scopes:
        if scope not in caller.principal.scopes:
            raise Forbidden(scope, scopes)


def invalid(message: str, **data: Any) -> MCPError:
    """The error of parameters that cannot be right."""
    return MCPError(INVALID_PARAMS, message, {"code": "invalid_input", "retryable": False, **data})


def unknown(what: str, name: str, allowed: Collection[str]) -> MCPError:
    """The error of a name that is none of the allowed."""
    return invalid(
        f"there is no {what} {name[:_MAX_ECHO]!r}; there are {', '.join(allowed) or 'none'}", allowed=list(allowed)
    )


def unknown_resource(uri: str, version: str) -> MCPError:
    """The error of a URI that is no resource's, in the protocol version of the request."""
    message = f"there is no resource {uri[:_MAX_ECHO]}"
    hint = f"the resources are {', '.join(FORMS)}"
    data = {"code": "not_found", "retryable": False, "hint": hint, "uri": uri[:_MAX_ECHO]}
    return MCPError(_resource_not_found(version), f"{message}; {hint}", data)


@contextmanager
def told(caller: Caller, what: str, *, version: str, uri: str | None = None) -> Iterator[None]:
    """Turn what goes wrong inside into an error of the protocol. `what` is asked for; `uri`: a resource."""
    try:
        yield
    except MCPError:
        raise
    except (TicketNotFound, TicketGone) as error:
        code = INVALID_PARAMS if uri is None else _resource_not_found(version)
        raise _from_result(code, errors.from_ticket_error(error, writing=False), uri) from None
    except TicketError as error:
        code = INTERNAL_ERROR if error.retryable else INVALID_PARAMS
        raise _from_result(code, errors.from_ticket_error(error, writing=False), uri) from None
    except AuthError as error:
        raise _from_result(INVALID_REQUEST, errors.from_auth_error(error), uri) from None
    except Exception:
        correlation_id = caller.request_id or uuid.uuid4().hex[:16]
        log.exception("mcp_request_failed", what=what, correlation_id=correlation_id)
        sentence = f"{what} failed for a reason that is TaskHub's own; its log tells more under {correlation_id}"
        data = {"code": "internal_error", "retryable": False, "correlation_id": correlation_id}
        raise MCPError(INTERNAL_ERROR, sentence, data) from None


def _resource_not_found(version: str) -> int:
    # The 2026 revision retired the code that the older ones have for this.
    return INVALID_PARAMS if version in MODERN_PROTOCOL_VERSIONS else _OLDER_RESOURCE_NOT_FOUND


def _from_result(code: int, result: CallToolResult, uri: str | None) -> MCPError:
    data = dict(result.structured_content or {})
    message = str(data.pop("message"))
    if uri is not None:
        data["uri"] = uri[:_MAX_ECHO]
    hint = data.get("hint")
    return MCPError(code, f"{message} ({hint})" if hint else message, data)
