"""Which Host and Origin a request may name: what keeps pages of other sites from using a browser as their way in.

A page on any site can make its visitor's browser send requests here, and by DNS rebinding even read the answers. Such a
request names the page's own host or origin, so both are checked on every route (RFC 9112, section 3.2; Fetch).
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import urlsplit

_AUTHORITY: Final = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?")
_ORIGIN: Final = re.compile(r"(?P<scheme>https?)://(?P<authority>[^/?#@\\\s]+)")
REMEMBERED: Final = 128
"""Answers of one kind: clients say the same few names all the time. Few, for they may be as long as a header may be."""
_DEFAULT_PORTS: Final[Mapping[str, str]] = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class Authority:
    """A host name, folded and without brackets, and the port as it was written."""

    name: str
    port: str | None

    @classmethod
    def parse(cls, text: str) -> "Authority | None":
        found = _AUTHORITY.fullmatch(text)
        return None if found is None else cls(found["name"].strip("[]").lower(), found["port"])

    @property
    def loopback(self) -> bool:
        """`localhost` or a loopback address; a name that merely begins like one is not."""
        if self.name == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return False


class HostRules:
    """`hosts` are names or name:port, a name alone for any port. `loopback_hosts`: names of loopback as well."""

    def __init__(
        self, hosts: tuple[Authority, ...], origins: frozenset[str], *, loopback_hosts: bool, loopback_origins: bool
    ) -> None:
        self.hosts = hosts
        self.origins = origins
        self.loopback_hosts = loopback_hosts
        self.loopback_origins = loopback_origins
        self.host_allowed: Final = lru_cache(REMEMBERED)(self._host_allowed)
        """Whether a Host header's value names this server."""
        self.cross_origin_allowed: Final = lru_cache(REMEMBERED)(self._cross_origin_allowed)
        """Whether pages of this other origin may call TaskHub, and read what it answers."""

    @classmethod
    def of(
        cls, hosts: Iterable[str], origins: Iterable[str], *, loopback_hosts: bool, loopback_origins: bool
    ) -> "HostRules":
        parsed = (Authority.parse(host) for host in hosts)
        folded = frozenset(origin.rstrip("/").lower() for origin in origins)
        known = tuple(host for host in parsed if host is not None)
        return cls(known, folded, loopback_hosts=loopback_hosts, loopback_origins=loopback_origins)

    def _host_allowed(self, host: str) -> bool:
        given = Authority.parse(host)
        if given is None:
            return False
        if self.loopback_hosts and given.loopback:
            return True
        return any(given.name == own.name and own.port in (None, given.port) for own in self.hosts)

    def _cross_origin_allowed(self, origin: str) -> bool:
        found = _ORIGIN.fullmatch(origin.lower())
        if found is None:
            return False
        if origin.lower() in self.origins:
            return True
        authority = Authority.parse(found["authority"])
        return self.loopback_origins and authority is not None and authority.loopback

    def origin_allowed(self, origin: str, host: str) -> bool:
        """Whether an Origin header may come with this (allowed) Host: the same one, or an allowed other one."""
        return same_origin(origin, host) or self.cross_origin_allowed(origin)


@lru_cache(REMEMBERED)
def same_origin(origin: str, host: str) -> bool:
    """Whether the origin is the host itself. Schemes are not compared: TLS may end at a proxy."""
    found = _ORIGIN.fullmatch(origin.lower())
    if found is None:
        return False
    default = _DEFAULT_PORTS[found["scheme"]]
    there, here = Authority.parse(found["authority"]), Authority.parse(host)
    if there is None or here is None or there.name != here.name:
        return False
    return (there.port or default) == (here.port or default)


def target_authority(target: str) -> str | None:
    """The authority in an absolute-form request target (`GET http://host/path`); None for a path."""
    if target.startswith("/") or target == "*":
        return None
    return urlsplit(target).netloc if "://" in target else target
