"""The keys of an issuer elsewhere: found through its metadata (RFC 8414, OpenID Connect Discovery), and kept.

A server under way needs its issuer for nothing but new keys, so an issuer that is away for a while stops nobody. After
`TRUST_S` without an answer its keys count for nothing: one of them may have been withdrawn meanwhile.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import aiohttp
import structlog
from jwt import PyJWK

from taskhub.auth.errors import KeysUnavailable
from taskhub.oauth.keys import PublicKeys
from taskhub.settings.addresses import is_loopback
from taskhub.settings.oauth import Algorithm

REFRESH_S: Final = 300.0
"""A key that its issuer has withdrawn opens nothing after this."""
REFETCH_S: Final = 5.0
"""How often at most an unknown key id makes TaskHub ask: whoever makes up ids must not make it a tool."""
TRUST_S: Final = 3600.0
TIMEOUT_S: Final = 5.0
MAX_DOCUMENT_BYTES: Final = 256 * 1024

log = structlog.get_logger(__name__)


class IssuerFault(Exception):
    """What an issuer answered cannot be used."""


class RemoteKeySet:
    """The keys of `issuer`, a KeySet. Use it as a context manager; call `refresh` every REFRESH_S.

    `jwks_url` is where they are when the issuer has no metadata. No redirect is followed, and nothing but https is
    spoken, except where the issuer itself is on this machine.
    """

    def __init__(
        self,
        issuer: str,
        jwks_url: str | None = None,
        *,
        refetch_s: float = REFETCH_S,
        trust_s: float = TRUST_S,
        timeout_s: float = TIMEOUT_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._refetch_s = refetch_s
        self._trust_s = trust_s
        self._timeout_s = timeout_s
        self._monotonic = monotonic
        self._keys: PublicKeys | None = None
        self._metadata: Mapping[str, Any] | None = None
        self._trusted_until = 0.0
        self._failure: str | None = None
        self._next_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s), headers={"Accept": "application/json"}
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait((self._asking,))
        if self._session is not None:
            await self._session.close()

    async def key(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        """As KeySet.key. An unknown id makes it ask the issuer, unless it just has."""
        found = self._find(kid, algorithm)
        if found is not None:
            return found
        await self._ask()
        found = self._find(kid, algorithm)
        # Without an answer nobody can say that there is no such key.
        if found is None and self._failure is not None:
            raise KeysUnavailable(self._failure)
        return found

    async def metadata(self) -> Mapping[str, Any]:
        """What the issuer says of itself, where that was not known without asking. Raises KeysUnavailable."""
        if not self._trusted:
            await self._ask()
        if self._metadata is None or not self._trusted:
            raise KeysUnavailable(self._failure or "its metadata was not asked for")
        return self._metadata

    async def refresh(self) -> None:
        """Read the keys again; those it had stay for a while when that fails."""
        try:
            keys = await self._fetch()
        except (aiohttp.ClientError, TimeoutError, IssuerFault, ValueError, RecursionError) as error:
            reason = str(error) or type(error).__name__
            if self._failure is None:
                log.warning("the keys of the issuer cannot be read", issuer=self._issuer, reason=reason)
            self._failure = reason
            return
        if self._failure is not None:
            log.info("the keys of the issuer can be read again", issuer=self._issuer)
        self._keys, self._failure = keys, None
        self._trusted_until = self._monotonic() + self._trust_s

    @property
    def _trusted(self) -> bool:
        return self._monotonic() < self._trusted_until

    def _find(self, kid: str | None, algorithm: Algorithm) -> PyJWK | None:
        if self._keys is None or not self._trusted:
            return None
        return self._keys.find(kid, algorithm)

    async def _ask(self) -> None:
        """Ask the issuer, or wait for who does: a client that leaves takes the answer from nobody."""
        if self._asking is None and self._monotonic() >= self._next_at:
            self._next_at = self._monotonic() + self._refetch_s
            self._asking = asyncio.create_task(self.refresh(), name="keys of the issuer")
            self._asking.add_done_callback(self._asked)
        if self._asking is not None:
            await asyncio.shield(self._asking)

    def _asked(self, task: asyncio.Task[None]) -> None:
        self._asking = None

    async def _fetch(self) -> PublicKeys:
        address = self._jwks_url or await self._discover()
        keys = (await self._read(address)).get("keys")
        if not isinstance(keys, list):
            raise IssuerFault(f"{address} is no JWK set")
        return PublicKeys(keys)

    async def _discover(self) -> str:
        """Where the keys are. Raises IssuerFault."""
        faults: list[str] = []
        for address in metadata_addresses(self._issuer):
            try:
                metadata = await self._read(address)
            except IssuerFault as fault:
                faults.append(str(fault))
                continue
            # RFC 8414, 3.3: what is said in another's name counts for nothing.
            if metadata.get("issuer") != self._issuer:
                raise IssuerFault(f"{address} is the metadata of another issuer")
            keys = metadata.get("jwks_uri")
            if not isinstance(keys, str):
                raise IssuerFault(f"{address} has no jwks_uri")
            check_address(self._issuer, keys)
            self._metadata = metadata
            return keys
        raise IssuerFault("; ".join(faults))

    async def _read(self, address: str) -> Mapping[str, Any]:
        assert self._session is not None, "use it as a context manager"  # noqa: S101  # the caller's obligation
        async with self._session.get(address, allow_redirects=False) as response:
            if response.status != 200:
                raise IssuerFault(f"{address} answers {response.status}")
            return await read_object(response)


async def read_object(response: aiohttp.ClientResponse) -> Mapping[str, Any]:
    """The JSON object that is the body of an answer. Raises IssuerFault."""
    body = await response.content.read(MAX_DOCUMENT_BYTES + 1)
    while len(body) <= MAX_DOCUMENT_BYTES and (more := await response.content.read(MAX_DOCUMENT_BYTES)):
        body += more
    if len(body) > MAX_DOCUMENT_BYTES:
        raise IssuerFault(f"{response.url} has more than {MAX_DOCUMENT_BYTES} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        raise IssuerFault(f"{response.url} is not JSON") from None
    if not isinstance(document, dict):
        raise IssuerFault(f"{response.url} is no JSON object")
    return document


def check_address(issuer: str, address: str) -> None:
    """Raise IssuerFault for an address of the issuer's at which what is said could be changed on its way."""
    try:
        parts = urlsplit(address)
    except ValueError:
        raise IssuerFault(f"{address[:200]} is no address") from None
    if parts.scheme == "https" or (parts.scheme == "http" and _on_this_machine(issuer, address)):
        return
    raise IssuerFault(f"{address[:200]} is not https")


def metadata_addresses(issuer: str) -> tuple[str, ...]:
    """Where an issuer's metadata may be: RFC 8414 first, then OpenID Connect Discovery in both of its forms."""
    parts = urlsplit(issuer)
    origin, path = f"{parts.scheme}://{parts.netloc}", parts.path.rstrip("/")
    if not path:
        return tuple(f"{origin}/.well-known/{name}" for name in ("oauth-authorization-server", "openid-configuration"))
    return (
        f"{origin}/.well-known/oauth-authorization-server{path}",
        f"{origin}/.well-known/openid-configuration{path}",
        f"{origin}{path}/.well-known/openid-configuration",
    )


def _on_this_machine(*addresses: str) -> bool:
    return all(is_loopback(urlsplit(address).hostname or "") for address in addresses)
