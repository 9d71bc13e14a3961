"""Middleware of the SDK's server for what fails: no answer repeats a key, and who may not do something is noted."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import Caller, Scope
from taskhub.redaction import without_keys

OnForbidden = Callable[[Caller, Forbidden], None]

Context = ServerRequestContext[Any, Any]
_MARK: Final = "forbidden"


class Failures:
    """`caller_of` is who asks; `on_forbidden` is told of who lacks a scope, whatever it was asked for."""

    def __init__(self, caller_of: Callable[[Context], Caller], on_forbidden: OnForbidden | None) -> None:
        self._caller_of = caller_of
        self._on_forbidden = on_forbidden

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        try:
            result = await call_next(ctx)
        except MCPError as error:
            self._note(ctx, error.data)
            raise MCPError(error.code, without_keys(error.message), scrubbed(error.data)) from None
        if isinstance(result, CallToolResult) and result.is_error:
            self._note(ctx, result.structured_content)
        elif isinstance(result, dict) and result.get("isError"):
            self._note(ctx, result.get("structuredContent"))
        return result

    def _note(self, ctx: Context, data: Any) -> None:
        if self._on_forbidden is not None and isinstance(data, Mapping) and data.get("code") == _MARK:
            self._on_forbidden(self._caller_of(ctx), Forbidden(cast(Scope, data.get("scope"))))


def scrubbed(data: Any) -> Any:
    """JSON values without what TaskHub hands out: what a client sends wrongly is told again, and kept in more places
    than keys should be."""
    text = json.dumps(data, default=str)
    clean = without_keys(text)
    return data if clean == text else json.loads(clean)
