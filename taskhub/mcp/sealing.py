"""What a client carries for the server between two rounds of a call (`requestState`, 2026 era), sealed.

The SDK encrypts it and binds it to the tool, a digest of the arguments and the caller; with a key made from the
deployment's secret, so that any process opens it, also after a restart. Whatever else comes back is refused alike.
"""

import hmac
from collections.abc import Callable
from typing import Any, Final

import orjson
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError

from taskhub.auth.principal import Principal
from taskhub.mcp.protocol_errors import invalid

_PURPOSE: Final = b"taskhub mcp request state 1"
_AUDIENCE: Final = "taskhub"

Context = ServerRequestContext[Any, Any]


class SealedState:
    """Middleware of the SDK's server. `secret`: whoever has it opens what was sealed with it, for `lifetime_s`
    seconds."""

    def __init__(self, secret: bytes, principal_of: Callable[[Context], Principal], lifetime_s: float) -> None:
        def bound_to(context: Context) -> str:
            principal = principal_of(context)
            # Under one name there may be agents of several people.
            return orjson.dumps([principal.workspace, principal.owner, principal.actor]).decode()

        key = hmac.digest(secret, _PURPOSE, "sha256")
        security = RequestStateSecurity(keys=[key], ttl=lifetime_s, bind_principal=bound_to)
        self._boundary = RequestStateBoundary(security, default_audience=_AUDIENCE)
        self._lifetime_s = lifetime_s

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        try:
            return await self._boundary(ctx, call_next)
        except MCPError as error:
            if not isinstance(error.data, dict) or error.data.get("reason") != "invalid_request_state":
                raise
            raise invalid(
                "this requestState was not issued to you for this very call, or it is older than "
                f"{self._lifetime_s / 60:g} minutes; nothing was changed: call again without it to be asked anew",
                code="confirmation_invalid",
            ) from None
