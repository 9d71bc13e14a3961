"""Middleware of the SDK's server that measures requests: how long they took, and how they went."""

import time
from collections.abc import Callable, Collection
from typing import Any, Final

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, CallToolResult

from taskhub import logs, tracing
from taskhub.metrics.meters import OTHER, Meters, Outcome

TOOL_CALL: Final = "tools/call"
FAILURES: Final = frozenset({"internal_error", "storage_busy", "overloaded", "draining", "server_unavailable"})
"""Codes of errors that are TaskHub's own; those of all others are its callers'."""
# What a client may ask, beyond which a method is one that it has made up.
METHODS: Final = frozenset(
    {
        "initialize", "server/discover", "ping", "tools/list", TOOL_CALL, "resources/list", "resources/templates/list",
        "resources/read", "resources/subscribe", "resources/unsubscribe", "prompts/list", "prompts/get",
        "completion/complete", "subscriptions/listen", "logging/setLevel",
    }
)  # fmt: skip

Context = ServerRequestContext[Any, Any]


class Measured:
    """`tools`: the names of those that there are."""

    def __init__(
        self, meters: Meters, tools: Collection[str], *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._meters = meters
        self._tools = frozenset(tools)
        self._clock = clock

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        method = ctx.method if ctx.method in METHODS else OTHER
        tool = self._tool(ctx) if method == TOOL_CALL else ""
        if tool:
            logs.note(tool=tool)
        started = self._clock()
        outcome: Outcome = "failed"
        try:
            with tracing.span(tool or method):
                result = await call_next(ctx)
            outcome = _outcome(result)
            return result
        except MCPError as error:
            outcome = _outcome_of_error(error)
            raise
        finally:
            self._meters.mcp_request(method, tool, outcome, self._clock() - started)

    def _tool(self, ctx: Context) -> str:
        name = (ctx.params or {}).get("name")
        return name if isinstance(name, str) and name in self._tools else OTHER


def _outcome(result: HandlerResult) -> Outcome:
    """Of a result as tools make it, or as it goes over the wire."""
    content: Any = None
    if isinstance(result, CallToolResult) and result.is_error:
        content = result.structured_content
    elif isinstance(result, dict) and result.get("isError"):
        content = result.get("structuredContent")
    else:
        return "ok"
    return "failed" if isinstance(content, dict) and content.get("code") in FAILURES else "refused"


def _outcome_of_error(error: MCPError) -> Outcome:
    data = error.data if isinstance(error.data, dict) else {}
    return "failed" if error.code == INTERNAL_ERROR or data.get("code") in FAILURES else "refused"
