"""Which scopes a message takes, before it is handed on: a client whose token lacks one is told so over HTTP.

To any other caller the tool itself says that it may not: only a token can be exchanged for one that may.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import Caller, Scope
from taskhub.mcp.prompts import Prompts
from taskhub.mcp.registry import ToolRegistry
from taskhub.mcp.uris import address_of


class StepUp:
    """Knows what the tools, prompts and resources take."""

    def __init__(self, tools: ToolRegistry, prompts: Prompts) -> None:
        self._tools = {tool.name: (tool.scope,) for tool in tools.tools}
        self._prompts = prompts.scopes

    def check(self, caller: Caller, body: bytes) -> None:
        """Raise Forbidden when the message in this body takes scopes that its caller could have been granted."""
        if not caller.principal.grantable:
            return
        try:
            message = orjson.loads(body)
        except orjson.JSONDecodeError:  # which the SDK says
            return
        needed = self._needed(message) if isinstance(message, dict) else ()
        missing = [scope for scope in needed if scope not in caller.principal.scopes]
        if missing and caller.principal.grantable.issuperset(missing):
            raise Forbidden(missing[0], needed)

    def _needed(self, message: Mapping[str, Any]) -> Sequence[Scope]:
        method, params = message.get("method"), message.get("params")
        names = _NAMED_BY.get(method) if isinstance(method, str) else None
        named = params.get(names) if isinstance(params, dict) and names is not None else None
        if not isinstance(named, str):
            return ()
        if names == "uri":
            return _of_resource(named)
        return (self._tools if method == "tools/call" else self._prompts).get(named, ())


_NAMED_BY: Final[Mapping[str, str]] = {
    "tools/call": "name",
    "prompts/get": "name",
    "resources/read": "uri",
    "resources/subscribe": "uri",
}
"""Methods that take a scope → the parameter that says which."""


def _of_resource(uri: str) -> Sequence[Scope]:
    address = address_of(uri)
    return () if address is None else (address.scope,)
