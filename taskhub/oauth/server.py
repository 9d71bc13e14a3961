"""The authorization server: what it answers to applications (OAuth 2.1, for public clients with PKCE).

Nothing here knows of HTTP: parameters come in as texts, answers go out as values and errors.
"""

import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from taskhub.auth.errors import InvalidToken
from taskhub.auth.principal import ALL_SCOPES, Principal, Scope
from taskhub.oauth.clients import Client, RegisteredClients
from taskhub.oauth.consent import Consent, Seal
from taskhub.oauth.documents import ClientDocuments
from taskhub.oauth.errors import OAuthError, UnsafeRequest
from taskhub.oauth.grants import GrantStore, Redemption, Refresh, Reused
from taskhub.oauth.model import ACCESS_TOKEN_S, GRANT_CLAIM, Authorization, Issued
from taskhub.oauth.pkce import is_challenge, is_verifier
from taskhub.oauth.redirects import is_loopback, matches, unusable, with_answer

if TYPE_CHECKING:  # they take a library that a server without tokens need not load
    from taskhub.oauth.access_tokens import AccessTokens
    from taskhub.oauth.signing import SigningKeys

MAX_STATE: Final = 2000
SCOPES: Final[tuple[Scope, ...]] = (
    "tickets:read", "tickets:write", "reference:write", "events:read", "events:publish", "admin",
)  # fmt: skip
"""In the order in which people are asked for them."""


AUTHORIZE: Final = "/oauth/authorize"
TOKEN: Final = "/oauth/token"  # noqa: S105  # no secret
REVOKE: Final = "/oauth/revoke"
INTROSPECT: Final = "/oauth/introspect"
KEYS: Final = "/oauth/jwks.json"
REGISTER: Final = "/oauth/register"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks a user for, as far as it can be granted at all. `redirect_uri` is one of the client's."""

    client: Client
    redirect_uri: str
    state: str | None
    challenge: str
    scopes: tuple[Scope, ...]
    again: bool
    """Whether the client wants the user to be asked whatever was agreed to before."""


class Refused(Exception):
    """An authorization request that the client is told to be wrong, by a redirect to `location`."""

    def __init__(self, client: Client, redirect_uri: str, location: str, error: OAuthError) -> None:
        super().__init__(str(error))
        self.client = client
        self.redirect_uri = redirect_uri
        self.location = location
        self.error = error

    @property
    def safe(self) -> bool:
        """Whether a browser may be sent there unasked: anybody can be a client, with an address of their choice, but
        for what leads to the person's own machine or was made known by an operator (RFC 9700, 4.11.2)."""
        return is_loopback(self.redirect_uri) or self.client.kind == "operator"


class AuthorizationServer:
    """Lets users grant applications access to `resource`. `issuer` is the address of this server, without a path.

    `keys` sign tokens, and `tokens` judges them. `registration`: whether clients may register themselves. `ended` is
    called when a grant has ended, so that what was opened with it ends on all instances.
    """

    def __init__(
        self,
        issuer: str,
        resource: str,
        *,
        registered: RegisteredClients,
        documents: ClientDocuments,
        grants: GrantStore,
        keys: "SigningKeys",
        tokens: "AccessTokens",
        secret: bytes,
        ended: Callable[[], Awaitable[None]],
        registration: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self.registration = registration
        self.resource = resource
        self.registered = registered
        self.grants = grants
        self.keys = keys
        self.tokens = tokens
        self._documents = documents
        self._seal = Seal(secret, clock)
        self._ended = ended
        self._clock = clock

    def metadata(self) -> dict[str, Any]:
        """RFC 8414."""
        at = self.issuer
        said = {
            "issuer": at,
            "authorization_endpoint": at + AUTHORIZE,
            "token_endpoint": at + TOKEN,
            "revocation_endpoint": at + REVOKE,
            "introspection_endpoint": at + INTROSPECT,
            "jwks_uri": at + KEYS,
            "scopes_supported": list(SCOPES),
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "token_endpoint_auth_methods_supported": ["none"],
            "revocation_endpoint_auth_methods_supported": ["none"],
            "introspection_endpoint_auth_methods_supported": ["none"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": True,
            "client_id_metadata_document_supported": True,
        }
        return {**said, "registration_endpoint": at + REGISTER} if self.registration else said

    async def look_after(self) -> None:
        """What there is to do from time to time. Raises StorageBusy."""
        await self.keys.rotate_if_due()
        await self.grants.forget()

    # The authorization endpoint

    async def asked(self, user: Principal, parameters: Iterable[tuple[str, str]]) -> Asked:
        """What a client asks of this user. Raises UnsafeRequest, Refused and StorageBusy."""
        given, repeated = _once(parameters)
        client, redirect_uri = await self._recognised(given, repeated)
        state = None if "state" in repeated else given.get("state")
        try:
            if repeated:
                raise OAuthError("invalid_request", "a parameter is there more than once")
            return self._asked(user, client, redirect_uri, given)
        except OAuthError as error:
            raise Refused(client, redirect_uri, self._refusal(redirect_uri, state, error), error) from None

    async def recognise(self, parameters: Iterable[tuple[str, str]]) -> None:
        """Raise UnsafeRequest when it is clear, before anybody has signed in, that the request leads nowhere: clients
        look whether theirs does, and register again. Documents are not read for whom nobody knows. Raises StorageBusy.
        """
        given, repeated = _once(parameters)
        if not _is_address(given.get("client_id", "")):
            await self._recognised(given, repeated)

    async def _recognised(self, given: Mapping[str, str], repeated: set[str]) -> tuple[Client, str]:
        """The client, and where it is to be answered."""
        client_id, redirect_uri = given.get("client_id", ""), given.get("redirect_uri", "")
        if not client_id or "client_id" in repeated:
            raise UnsafeRequest("client_id", "client_id must be there once")
        if not redirect_uri or "redirect_uri" in repeated:
            raise UnsafeRequest("redirect_uri", "redirect_uri must be there once")
        source = self._documents if _is_address(client_id) else self.registered
        client = await source.client(client_id)
        if unusable(redirect_uri) is not None or not any(matches(own, redirect_uri) for own in client.redirect_uris):
            raise UnsafeRequest("redirect_uri", "the address to go back to is not one of the client's")
        return client, redirect_uri

    def _asked(self, user: Principal, client: Client, redirect_uri: str, given: Mapping[str, str]) -> Asked:
        state = given.get("state")
        if state is not None and (len(state) > MAX_STATE or not state.isprintable()):
            raise OAuthError("invalid_request", f"state must be at most {MAX_STATE} visible characters")
        if "response_type" not in given:
            raise OAuthError("invalid_request", "response_type is missing: it must be code")
        if given["response_type"] != "code":
            raise OAuthError("unsupported_response_type", "response_type must be code")
        if given.get("response_mode", "query") != "query":
            raise OAuthError("invalid_request", "response_mode must be query")
        # A server that takes a challenge without a method takes it for plain.
        if given.get("code_challenge_method") != "S256":
            raise OAuthError("invalid_request", "code_challenge_method must be S256")
        if not is_challenge(given.get("code_challenge", "")):
            raise OAuthError("invalid_request", "code_challenge must be the S256 challenge of PKCE: 43 characters")
        if "request" in given or "request_uri" in given:
            raise OAuthError("invalid_request", "request objects are not offered")
        self._check_resource(given.get("resource"))
        scopes = _wanted(given.get("scope"), user)
        again = "consent" in given.get("prompt", "").split()
        return Asked(client, redirect_uri, state, given["code_challenge"], scopes, again)

    def _check_resource(self, given: str | None) -> None:
        if given not in (None, self.resource):
            raise OAuthError("invalid_target", f"tokens are issued for {self.resource} alone")

    async def agreed(self, user: Principal, asked: Asked) -> bool:
        """Whether the user need not be asked: who let the client do all that before. On one's own machine any program
        could ask in its name, so there it is always asked (OAuth 2.1, 7.3.1). Raises StorageBusy."""
        if asked.again or is_loopback(asked.redirect_uri):
            return False
        return set(asked.scopes) <= await self.grants.agreed(user, asked.client.id, self.resource)

    async def allow(self, user: Principal, asked: Asked, scopes: Iterable[str]) -> str:
        """Where to send the user, with a code for those of the scopes that were asked for. Raises UnsafeRequest and
        StorageBusy."""
        granted = frozenset(asked.scopes).intersection(scopes)
        if not granted:
            return self.deny(asked)
        authorization = Authorization(
            client_id=asked.client.id,
            client_name=asked.client.name,
            redirect_uri=asked.redirect_uri,
            challenge=asked.challenge,
            resource=self.resource,
            scopes=granted,
        )
        return self._answer(asked.redirect_uri, asked.state, code=await self.grants.issue_code(user, authorization))

    def deny(self, asked: Asked) -> str:
        """Where to send the user who said no."""
        refusal = OAuthError("access_denied", "the user did not agree")
        return self._refusal(asked.redirect_uri, asked.state, refusal)

    def seal(self, user: Principal, parameters: Iterable[tuple[str, str]]) -> str:
        """A request for this user's answer: what the form brings back, from nobody but this user in this session."""
        return self._seal.close(Consent.of(user, parameters))

    def unseal(self, user: Principal, sealed: str) -> tuple[tuple[str, str], ...]:
        """The parameters of the request. Raises UnsafeRequest."""
        return self._seal.open(sealed).parameters_for(user)

    def _answer(self, redirect_uri: str, state: str | None, **said: str) -> str:
        stated = {} if state is None else {"state": state}
        return with_answer(redirect_uri, {**said, **stated, "iss": self.issuer})

    def _refusal(self, redirect_uri: str, state: str | None, error: OAuthError) -> str:
        kept = state if state is None or (len(state) <= MAX_STATE and state.isprintable()) else None
        return self._answer(redirect_uri, kept, error=error.code, error_description=error.description)

    # The token endpoint

    async def token(self, parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """RFC 6749, 5.1. Raises OAuthError and StorageBusy."""
        given = _single(parameters)
        kind = _needed(given, "grant_type")
        if kind not in ("authorization_code", "refresh_token"):
            raise OAuthError("unsupported_grant_type", "grant_type must be authorization_code or refresh_token")
        _check_public(given)
        self._check_resource(given.get("resource"))
        try:
            issued = await (self._redeemed(given) if kind == "authorization_code" else self._refreshed(given))
        except Reused:
            await self._ended()
            raise
        except OAuthError as error:
            if error.code == "invalid_grant":
                await self._check_known(given["client_id"])
            raise
        return await self._answered(issued)

    async def _check_known(self, client_id: str) -> None:
        """Raise OAuthError where a client is no more: one that is told so registers again, while one with a bad grant
        sends its user to be asked in the name that nobody knows."""
        if _is_address(client_id):
            return
        try:
            await self.registered.client(client_id)
        except UnsafeRequest:
            raise OAuthError("invalid_client", "no client has this id: register again") from None

    async def _redeemed(self, given: Mapping[str, str]) -> Issued:
        verifier = _needed(given, "code_verifier")
        if not is_verifier(verifier):
            raise OAuthError("invalid_request", "code_verifier must be 43 to 128 letters, digits, - . _ and ~")
        redemption = Redemption(
            code=_needed(given, "code"),
            client_id=_needed(given, "client_id"),
            verifier=verifier,
            redirect_uri=given.get("redirect_uri"),
            resource=given.get("resource"),
        )
        return await self.grants.redeem(redemption)

    async def _refreshed(self, given: Mapping[str, str]) -> Issued:
        scope = given.get("scope")
        refresh = Refresh(
            token=_needed(given, "refresh_token"),
            client_id=_needed(given, "client_id"),
            scopes=None if scope is None else frozenset(scope.split()) - _OF_OTHERS,
            resource=given.get("resource"),
        )
        return await self.grants.refresh(refresh)

    async def _answered(self, issued: Issued) -> dict[str, Any]:
        scope = " ".join(name for name in SCOPES if name in issued.scopes)
        now = int(self._clock())
        claims = {
            "iss": self.issuer,
            "sub": issued.user,
            "aud": issued.resource,
            "client_id": issued.client_id,
            "scope": scope,
            "jti": secrets.token_hex(16),
            "iat": now,
            "exp": now + ACCESS_TOKEN_S,
            GRANT_CLAIM: issued.grant,
        }
        return {
            "access_token": await self.keys.sign(claims, "at+jwt"),
            "token_type": "Bearer",
            "expires_in": ACCESS_TOKEN_S,
            "refresh_token": issued.refresh_token,
            "scope": scope,
        }

    # What applications ask of their own tokens

    async def revoke(self, parameters: Iterable[tuple[str, str]]) -> None:
        """RFC 7009: end what a token was issued for, with all its tokens. Raises OAuthError and StorageBusy."""
        given = _single(parameters)
        token, client_id = _needed(given, "token"), _needed(given, "client_id")
        _check_public(given)
        try:
            claims = await self.tokens.verify(token)
        except InvalidToken:
            ended = await self.grants.revoke_token(token, client_id)
        else:
            ended = claims.grant is not None and await self.grants.end(claims.grant, client_id)
        if ended:
            await self._ended()

    async def introspect(self, parameters: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """RFC 7662: what a token of this client is good for. Raises OAuthError and StorageBusy."""
        given = _single(parameters)
        token, client_id = _needed(given, "token"), _needed(given, "client_id")
        _check_public(given)
        try:
            claims = await self.tokens.verify(token)
        except InvalidToken:
            return await self._introspected_refresh_token(token, client_id)
        grant = claims.grant or ""
        holder = (await self.grants.holders((grant,))).get(grant)
        if holder is None or claims.client_id != client_id:
            return {"active": False}
        scopes = holder.principal.scopes & claims.scopes
        return {
            "active": True,
            "scope": " ".join(name for name in SCOPES if name in scopes),
            "client_id": client_id,
            "sub": claims.subject,
            "aud": self.resource,
            "iss": self.issuer,
            "exp": int(claims.expires_at),
            "jti": claims.jti,
            "token_type": "Bearer",
        }

    async def _introspected_refresh_token(self, token: str, client_id: str) -> dict[str, Any]:
        grant = await self.grants.of_refresh_token(token)
        if grant is None or grant.client_id != client_id:
            return {"active": False}
        holder = (await self.grants.holders((grant.id,))).get(grant.id)
        if holder is None:
            return {"active": False}
        scope = " ".join(name for name in SCOPES if name in holder.principal.scopes)
        return {"active": True, "scope": scope, "client_id": client_id, "sub": grant.user, "iss": self.issuer}

    async def register(self, said: Any) -> dict[str, Any]:
        """RFC 7591. Raises OAuthError and StorageBusy."""
        if not self.registration:
            detail = "clients cannot register themselves here: use a client ID metadata document, or ask an operator"
            raise OAuthError("access_denied", detail)
        return await self.registered.register(said)


_OF_OTHERS: Final = frozenset({"openid", "profile", "email", "address", "phone", "offline_access"})
"""Scopes of OpenID Connect, which clients ask for everywhere: they are granted nothing by them here."""


def _is_address(client_id: str) -> bool:
    """Whether an id is meant as the address of a document."""
    return client_id[:8].lower().startswith(("https:", "http:"))


def _once(parameters: Iterable[tuple[str, str]]) -> tuple[dict[str, str], set[str]]:
    """The parameters, and the names of those that are there more than once. One without a value is not there
    (RFC 6749, 3.1)."""
    found: dict[str, str] = {}
    repeated: set[str] = set()
    for name, value in parameters:
        if name in found:
            repeated.add(name)
        elif value:
            found[name] = value
    return found, repeated


def _single(parameters: Iterable[tuple[str, str]]) -> dict[str, str]:
    given, repeated = _once(parameters)
    if repeated:
        raise OAuthError("invalid_request", "a parameter is there more than once")
    return given


def _needed(given: Mapping[str, str], name: str) -> str:
    if name not in given:
        raise OAuthError("invalid_request", f"{name} is missing")
    return given[name]


def _check_public(given: Mapping[str, str]) -> None:
    if "client_secret" in given or "client_assertion" in given:
        raise OAuthError("invalid_client", "clients have no secrets here: send client_id alone")


def _wanted(scope: str | None, user: Principal) -> tuple[Scope, ...]:
    """What is asked for of what the user may do; without a word all but what operators may. Raises OAuthError."""
    names = set(ALL_SCOPES - {"admin"}) if scope is None else set(scope.split())
    if not names & (ALL_SCOPES | _OF_OTHERS):
        raise OAuthError("invalid_scope", f"there are the scopes {' '.join(SCOPES)}")
    found = tuple(name for name in SCOPES if name in names & user.scopes)
    if not found:
        raise OAuthError("access_denied", "the user may not do any of what is asked for")
    return found
