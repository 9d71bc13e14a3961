"""Requests that somebody else chose the address of: they reach public addresses, and no others.

What is looked at is the address that the socket is about to connect to. Names, odd literals (`0x7f.1`, `2130706433`)
and names that resolve to something else a moment later all end there, where nothing resolves or spells them any more.
"""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Iterable
from typing import Any, Final

from aiohttp import TCPConnector

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# Its addresses stand for the IPv4 address in their last 32 bits: networks without IPv4 reach the others so (RFC 6052).
_TRANSLATED: Final = ipaddress.IPv6Network("64:ff9b::/96")
# Older forms of an IPv4 address in an IPv6 one, and what only some network makes sense of: nothing public is there.
_NEVER: Final = tuple(
    map(
        ipaddress.IPv6Network,
        ("::/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2002::/16", "3fff::/20", "5f00::/16",
         "fec0::/10"),
    )
)  # fmt: skip


class RefusedAddress(OSError):
    """An address that is not public. The message does not say which: whoever asked may not have known."""

    def __init__(self) -> None:
        super().__init__("the address is not a public one")


def was_refused(error: BaseException) -> bool:
    """Whether a request failed because its address is not public."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, RefusedAddress):
        found = found.__cause__ or found.__context__
    return found is not None


class Guard:
    """Which addresses may be reached: public ones, and those in `also`. `tls`: whom to trust, if not those
    whom every client does."""

    def __init__(self, also: Iterable[Network] = (), *, tls: ssl.SSLContext | None = None) -> None:
        self._also = tuple(also)
        self._tls = tls

    def allows(self, text: str) -> bool:
        """Whether an address, as sockets spell it, may be reached."""
        address = _unwrapped(text)
        if address is None:
            return False
        if any(address in network for network in self._also if network.version == address.version):
            return True
        if isinstance(address, ipaddress.IPv6Address) and any(address in network for network in _NEVER):
            return False
        return address.is_global and not address.is_multicast and not address.is_reserved

    async def connector(self) -> TCPConnector:
        """For one session, which must not trust the environment: a proxy there would be the address that is judged."""
        if self._tls is None:
            self._tls = await asyncio.to_thread(ssl.create_default_context)  # it reads many certificates
        return TCPConnector(socket_factory=self._socket, ssl=self._tls, use_dns_cache=False, force_close=True, limit=1)

    def _socket(self, info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = info
        if not self.allows(str(address[0])):
            raise RefusedAddress
        opened = socket.socket(family, kind, protocol)
        opened.setblocking(False)
        return opened


def _unwrapped(text: str) -> Address | None:
    """The address itself; an IPv4 address where it came as an IPv6 one. None for what is no address."""
    try:
        address: Address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _TRANSLATED:
            return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        # ISATAP (RFC 5214): the address of the tunnel's end is in it.
        if int(address) >> 32 & 0xFFFF_FFFF in (0x5EFE, 0x0200_5EFE):
            return None
    return address
