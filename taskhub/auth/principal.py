"""The caller as the rest of the product sees it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, Protocol

Scope = Literal["tickets:read", "tickets:write", "reference:write", "events:read", "events:publish", "admin"]
Origin = Literal["mcp_tool", "rest_api", "dashboard", "system", "import"]

ALL_SCOPES: Final[frozenset[Scope]] = frozenset(
    ("tickets:read", "tickets:write", "reference:write", "events:read", "events:publish", "admin")
)


@dataclass(frozen=True, slots=True)
class OwnLimits:
    """What a credential may have instead of what the settings say. Of each: 0 for no limit, None for the setting's."""

    streams: int | None = None
    writes_per_s: float | None = None
    write_burst: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """Who a credential belongs to. `actor` is what events carry, such as `user:alice` or `agent:triage-bot`."""

    actor: str
    workspace: str
    scopes: frozenset[Scope]
    authenticated: bool
    owner: str | None = None
    """Whose credential it is, where the caller goes by a name that it gave itself."""
    credential: str | None = None
    """The id of what it came with (an API key, an access token), which ends what it has open when it is over; None
    where nothing can be over."""
    grantable: frozenset[Scope] = frozenset()
    """What the user's role allows and the access token was not granted: a client can ask for it. Empty without one."""
    limits: OwnLimits | None = None
    """Where the credential has some of its own."""

    @property
    def is_person(self) -> bool:
        """Whether a person calls, as far as can be told: with its own credential, and not as an agent."""
        return self.actor.startswith("user:")

    @property
    def user_id(self) -> str:
        """The part of `actor` after its kind: the id that `assignee=me` stands for."""
        return self.actor.partition(":")[2]


@dataclass(frozen=True, slots=True)
class Caller:
    """One request's principal, the way it came in, the request's id, the client's address, and its place in a trace
    (`traceparent`)."""

    principal: Principal
    origin: Origin
    request_id: str | None = None
    address: str | None = None
    trace: str | None = None


class AuthProvider(Protocol):
    """The seam between TaskHub and who vouches for its callers."""

    @property
    def name(self) -> str:
        """`none`, `api_key` or `oauth`, as `/capabilities` shows it."""

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        """The principal of a request. Raises Unauthenticated (no or wrong credential).

        `headers` are found whatever the case of their names, as those of an aiohttp request are.
        """
