"""Who vouches for callers: nobody (on loopback), or API keys."""

import hmac
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Final, Protocol

from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import ALL_SCOPES, Principal
from taskhub.auth.secret import SESSION_PREFIX, digest, well_formed

DEFAULT_WORKSPACE: Final = "default"
ACTOR_HEADER: Final = "X-TaskHub-Actor"
MAX_ACTOR_LENGTH: Final = 100
_ACTOR_KINDS: Final = ("user", "agent", "service")
_KEY_HOLDER: Final = Principal("user:operator", DEFAULT_WORKSPACE, ALL_SCOPES, authenticated=True)
_LOCAL_OPERATOR: Final = Principal("user:local", DEFAULT_WORKSPACE, ALL_SCOPES, authenticated=False)


class NoAuth:
    """Everybody is the trusted local operator, and may say by what name: `X-TaskHub-Actor`."""

    name = "none"

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        name = headers.get(ACTOR_HEADER)
        actor = None if name is None else actor_of(name)
        if actor is None:
            return _LOCAL_OPERATOR
        return replace(_LOCAL_OPERATOR, actor=actor, owner=_LOCAL_OPERATOR.actor)


class Holders(Protocol):
    """Whose the stored credentials are."""

    async def holder(self, secret: str) -> Principal | None:
        """Whose secret this is; None when it is nobody's, or nobody's any more. Raises StorageBusy while that cannot be
        told: then nobody gets in."""


class ApiKeyAuth:
    """API keys, `x-api-key: KEY` or `Authorization: Bearer KEY`: those that `holders` knows, and one with every scope
    that was set at the start. No key is kept.

    Agents that share a key say which one they are (`X-TaskHub-Actor: agent:triage-bot`): else each of them would be
    the person whose key it is, and could do what takes one. To be another person takes another key.

    The board comes with a session instead (`by_session`), which is no key: it counts in its cookie alone.
    """

    name = "api_key"

    def __init__(self, bootstrap_key: str | None, holders: Holders | None = None) -> None:
        self._digest = None if bootstrap_key is None else digest(bootstrap_key)
        self.holders = holders

    @property
    def bootstrap(self) -> bool:
        """Whether a key was set at the start."""
        return self._digest is not None

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        presented = headers.get("x-api-key")
        if presented is None:
            scheme, _, credentials = headers.get("Authorization", "").partition(" ")
            presented = credentials.strip() if scheme.lower() == "bearer" else ""
        holder = await self._holder(presented)
        if holder is None:
            message = "an API key is needed, as `x-api-key` or `Authorization: Bearer`"
            raise Unauthenticated(message, "a credential that is not good" if presented else "no credential")
        actor = actor_of(headers.get(ACTOR_HEADER, ""))
        if actor is None or actor.startswith("user:"):
            return holder
        return named(holder, actor)

    async def by_session(self, secret: str) -> Principal:
        """Who is signed in with this cookie. Raises Unauthenticated and StorageBusy."""
        is_session = secret.startswith(SESSION_PREFIX) and well_formed(secret)
        holder = await self.holders.holder(secret) if is_session and self.holders is not None else None
        if holder is None:
            raise Unauthenticated("you are not signed in any more: sign in at /login")
        return holder

    async def _holder(self, presented: str) -> Principal | None:
        # Digests have one length, so the comparison tells nothing about the key's length either.
        if self._digest is not None and hmac.compare_digest(digest(presented), self._digest):
            return _KEY_HOLDER
        if self.holders is None or presented.startswith(SESSION_PREFIX) or not well_formed(presented):
            return None
        return await self.holders.holder(presented)


def named(holder: Principal, actor: str) -> Principal:
    """The holder of a key under the name that it gave itself.

    Behind a stored key that name begins with the holder's: nobody can pass for an agent that has a key of its own.
    """
    if holder.credential is not None:
        kind, _, name = actor.partition(":")
        actor = f"{kind}:{holder.user_id}.{name}"[:MAX_ACTOR_LENGTH].rstrip("_-.")
    return replace(holder, actor=actor, owner=holder.actor)


def actor_of(name: str) -> str | None:
    """The actor that a self-given name stands for: `user:alice` stays, a bare `Triage Bot` is `agent:triage_bot`. None
    when nothing is left of it: characters that are no letters or digits become `_`, so none can hurt events or logs."""
    # The same few names come with each request; only short ones are kept.
    return _short_actor(name) if len(name) <= MAX_ACTOR_LENGTH else _actor(name)


@lru_cache(maxsize=1024)
def _short_actor(name: str) -> str | None:
    return _actor(name)


def _actor(name: str) -> str | None:
    kind, colon, rest = name.strip()[: 4 * MAX_ACTOR_LENGTH].partition(":")
    if colon and kind.lower() in _ACTOR_KINDS:
        slug = _slug(rest, keep="-.")
        return f"{kind.lower()}:{slug}" if slug else None
    slug = _slug(name)
    return f"agent:{slug}" if slug else None


def _slug(text: str, keep: str = "") -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(c if c.isalnum() or c in keep else "_" for c in folded)
    return re.sub("_+", "_", kept).strip("_-.")[:MAX_ACTOR_LENGTH].rstrip("_-.")
