"""Signing in through an OpenID provider, such as Google: the authorization code flow of OpenID Connect Core 1.0, with
PKCE (RFC 7636), as RFC 9700 has it.

What a flow must remember between its two requests is sealed and kept by the browser: no process has to be the one that
began it, nor to be running all the while, and a code that another browser brings is worth nothing.
"""

import base64
import hmac
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote_plus, urlencode

import aiohttp
import orjson
import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from taskhub.auth.errors import InvalidToken, KeysUnavailable
from taskhub.oauth.id_tokens import IdTokens
from taskhub.oauth.issuer import TIMEOUT_S, IssuerFault, RemoteKeySet, check_address, read_object
from taskhub.oauth.jwts import text
from taskhub.oauth.pkce import challenge_of
from taskhub.sign_in.errors import OpenIdRefused
from taskhub.sign_in.identities import Identity

FLOW_S: Final = 600
"""How long somebody may take at the provider."""
MAX_CODE: Final = 2_000
MAX_NEXT: Final = 2_000
"""Of what a page goes on to: sealed, it is in a cookie, and browsers keep none of more than 4096 bytes."""
_PURPOSE: Final = b"taskhub openid flow 1"
_NONCE_BYTES: Final = 12

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Flow:
    """A sign-in under way. `state` is known to the browser and to the provider, `nonce` comes back in the token, and
    `verifier` proves that the code was asked for here. `ends_at`: seconds since 1970."""

    issuer: str
    state: str
    nonce: str
    verifier: str
    workspace: str
    next: str
    ends_at: float


@dataclass(frozen=True, slots=True)
class Begun:
    """Where to send the browser, and what it has to keep until it comes back."""

    address: str
    sealed: str


class OpenIdProvider:
    """TaskHub as a client of an OpenID provider, whose `keys` are refreshed elsewhere. Use it as a context manager.

    `secret` is the deployment's: with it any instance opens what another has sealed.
    """

    def __init__(
        self,
        issuer: str,
        client_id: str,
        client_secret: str,
        redirect_uri: str,
        keys: RemoteKeySet,
        *,
        secret: bytes,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.issuer = issuer
        self._client_id = client_id
        self._client_secret = client_secret
        self._redirect_uri = redirect_uri
        self._keys = keys
        self._tokens = IdTokens(issuer, client_id, keys, clock=clock)
        self._seal = AESGCM(hmac.digest(secret, _PURPOSE, "sha256"))
        self._timeout_s = timeout_s
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        # What one person's answer sets must not go along with the next one's question.
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"Accept": "application/json"},
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def begin(self, workspace: str, next_: str) -> Begun:
        """Begin a sign-in to a workspace. Raises OpenIdRefused when the provider is away."""
        endpoint = self._endpoint(await self._metadata(), "authorization_endpoint")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        flow = Flow(
            self.issuer, state, nonce, verifier, workspace, next_ if len(next_) <= MAX_NEXT else "",
            self._clock() + FLOW_S,
        )  # fmt: skip
        asked = {
            "response_type": "code", "client_id": self._client_id, "redirect_uri": self._redirect_uri,
            "scope": "openid email profile", "state": state, "nonce": nonce,
            "code_challenge": challenge_of(verifier), "code_challenge_method": "S256",
        }  # fmt: skip
        separator = "&" if "?" in endpoint else "?"
        return Begun(f"{endpoint}{separator}{urlencode(asked)}", self._sealed(flow))

    def flow(self, sealed: str | None) -> Flow | None:
        """What a browser has kept, as long as it counts; None when it has kept nothing, or anything else."""
        try:
            raw = base64.urlsafe_b64decode((sealed or "").encode())
            flow = Flow(**orjson.loads(self._seal.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _PURPOSE)))
        except (InvalidTag, ValueError, TypeError):
            return None
        return flow if flow.issuer == self.issuer and flow.ends_at > self._clock() else None

    async def finish(self, flow: Flow | None, answer: Mapping[str, str]) -> Identity:
        """Who has come back from the provider, with the parameters that it gave them. Raises OpenIdRefused."""
        state = answer.get("state", "")
        if flow is None or not hmac.compare_digest(state.encode("utf-8", "surrogatepass"), flow.state.encode()):
            raise OpenIdRefused("expired", "the state is not that of this browser")
        metadata = await self._metadata()
        # RFC 9207: another provider that this browser talks to as well must not answer for this one.
        said = answer.get("iss")
        if said != self.issuer and (said is not None or _promised(metadata)):
            raise OpenIdRefused("refused", "another issuer answered")
        if (error := answer.get("error")) is not None:
            said_why = f"the provider said {error[:80]!r}: {answer.get('error_description', '')[:200]!r}"
            raise OpenIdRefused("declined" if error == "access_denied" else "refused", said_why)
        code = answer.get("code", "")
        if not 0 < len(code) <= MAX_CODE:
            raise OpenIdRefused("refused", "the provider sent no code")
        token = await self._redeem(metadata, code, flow.verifier)
        try:
            claims = await self._tokens.verify(token, flow.nonce)
        except InvalidToken as invalid:
            raise OpenIdRefused("refused", f"the ID token: {invalid.reason}") from None
        except KeysUnavailable as unavailable:
            raise OpenIdRefused("unavailable", unavailable.reason) from None
        return _identity(self.issuer, claims)

    def _sealed(self, flow: Flow) -> str:
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.urlsafe_b64encode(
            nonce + self._seal.encrypt(nonce, orjson.dumps(asdict(flow)), _PURPOSE)
        ).decode()

    async def _metadata(self) -> Mapping[str, Any]:
        try:
            return await self._keys.metadata()
        except KeysUnavailable as error:
            raise OpenIdRefused("unavailable", error.reason) from None

    def _endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        address = metadata.get(name)
        try:
            if not isinstance(address, str):
                raise IssuerFault(f"the metadata has no {name}")
            check_address(self.issuer, address)
        except IssuerFault as fault:
            raise OpenIdRefused("unavailable", str(fault)) from None
        return address

    async def _redeem(self, metadata: Mapping[str, Any], code: str, verifier: str) -> str:
        """The ID token that a code is good for."""
        assert self._session is not None, "use it as a context manager"  # noqa: S101  # the caller's obligation
        address = self._endpoint(metadata, "token_endpoint")
        form = {
            "grant_type": "authorization_code", "code": code, "redirect_uri": self._redirect_uri,
            "code_verifier": verifier,
        }  # fmt: skip
        headers = {}
        # OpenID Connect Discovery, 3: what a provider that does not say takes.
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if not isinstance(methods, list) or "client_secret_basic" in methods:
            pair = f"{quote_plus(self._client_id)}:{quote_plus(self._client_secret)}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        else:
            form |= {"client_id": self._client_id, "client_secret": self._client_secret}
        try:
            async with self._session.post(address, data=form, headers=headers, allow_redirects=False) as response:
                if response.status >= 500 or 300 <= response.status < 400:
                    raise OpenIdRefused("unavailable", f"{address} answers {response.status}")
                told = await read_object(response)
                if response.status != 200:
                    raise OpenIdRefused("refused", f"{address} answers {response.status}, {told.get('error')!r:.80}")
        except (aiohttp.ClientError, TimeoutError, IssuerFault) as error:
            raise OpenIdRefused("unavailable", f"{address}: {str(error) or type(error).__name__}") from None
        token = told.get("id_token")
        if not isinstance(token, str):
            raise OpenIdRefused("refused", "the provider sent no ID token")
        return token


def _promised(metadata: Mapping[str, Any]) -> bool:
    """Whether the provider says that it names itself in every answer."""
    return metadata.get("authorization_response_iss_parameter_supported") is True


def _identity(issuer: str, claims: Mapping[str, Any]) -> Identity:
    # An address that nobody has verified is whatever its owner at the provider typed.
    verified = claims.get("email_verified") is True
    return Identity(
        issuer=issuer,
        subject=str(claims["sub"]),
        email=text(claims, "email") if verified else None,
        hosted_domain=text(claims, "hd"),
        name=text(claims, "name"),
    )
