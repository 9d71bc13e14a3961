"""Who is calling a tool, and which tools that caller asked to see: set by the transports, read by the tools' server.

It travels as a context variable. The SDK takes a snapshot of the sender's context with each message and runs the
handler in it, so the value of the request at hand is seen, also by sessions whose task an earlier request started.
"""

from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Final

from taskhub.auth.principal import Caller
from taskhub.auth.providers import actor_of, named


@dataclass(frozen=True, slots=True)
class CallContext:
    """`unnamed`: the caller gave no name of its own, so the MCP client's name stands for it. `client` is that name
    where the transport knows it from an earlier request. `toolsets`: None for all."""

    caller: Caller
    unnamed: bool = False
    client: str | None = None
    read_only: bool = False
    toolsets: frozenset[str] | None = None

    def caller_named(self, client: str | None) -> Caller:
        """The caller of a request that came from the MCP client `client` (None where the protocol did not tell)."""
        name = client or self.client
        # A client's name is free text: without its colons it cannot claim to be a user.
        if not self.unnamed or name is None or (actor := actor_of(name.replace(":", " "))) is None:
            return self.caller
        principal = self.caller.principal
        if principal.credential is not None and not principal.is_person:
            return self.caller  # an agent with a key of its own is who the key says, whatever program it runs in
        return replace(self.caller, principal=named(principal, actor))


CURRENT: Final[ContextVar[CallContext]] = ContextVar("taskhub_mcp_call")
