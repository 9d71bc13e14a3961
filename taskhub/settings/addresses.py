"""The addresses among the settings: of databases, of Redis, of the web.

`is_loopback` and `mask_url` serve whoever has an address to judge or to show.
"""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, SecretStr

from taskhub.redaction import redacted
from taskhub.settings.values import nearest

_SQLITE_FILE: Final = re.compile(r"sqlite(\+aiosqlite)?:///(?!:memory:)(?P<path>[^?]+)(?P<options>(\?.*)?)")
_POSTGRES: Final = re.compile(r"postgres(ql)?(\+asyncpg)?://")
POSTGRES_PARAMETERS: Final = (
    "host", "port", "application_name", "options", "sslmode", "sslrootcert", "sslcert", "sslkey", "sslpassword",
    "sslcrl", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs",
)  # fmt: skip
"""Of libpq's, those that count in the address of a database."""
_REDIS: Final = re.compile(r"(rediss?(\+sentinel)?|unix)://")


def _database(value: SecretStr) -> SecretStr:
    """A relative SQLite path is made absolute: a process that is started elsewhere must find the same file."""
    address = value.get_secret_value()
    if (file := _SQLITE_FILE.fullmatch(address)) is not None:
        return SecretStr(f"sqlite:///{Path(file['path']).absolute()}{file['options']}")
    if not _POSTGRES.match(address):
        raise ValueError("must be sqlite:////absolute/path.db or postgresql://user:password@host/name")
    _check_postgres_parameters(address)
    try:
        _ = urlsplit(address).port
    except ValueError:  # whose own text would hold a part of the address
        raise ValueError("has a port that is no number from 0 to 65535") from None
    return value


def _check_postgres_parameters(address: str) -> None:
    parameters = address.partition("?")[2]
    for name in parse_qs(parameters, keep_blank_values=True):
        if name not in POSTGRES_PARAMETERS:
            # What is no name at all may be the end of a password with a question mark in it.
            told = f" {name[:40]}" if name.isidentifier() and "@" not in parameters else ""
            near = nearest(name, POSTGRES_PARAMETERS) if told else ""
            known = near or f"; there are {', '.join(POSTGRES_PARAMETERS)}"
            raise ValueError(f"has a parameter{told} that counts for nothing{known}")


def _redis(value: SecretStr) -> SecretStr:
    if not _REDIS.match(value.get_secret_value()):
        raise ValueError("must be an address such as redis://host:6379/0")
    return value


def _web_address(value: str) -> str:
    """https, or http on this machine: what is said over anything else can be changed on its way."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise ValueError("must be an address such as https://login.example.org") from None
    plain = parts.scheme == "http" and is_loopback(parts.hostname or "")
    if not parts.hostname or not (parts.scheme == "https" or plain):
        raise ValueError("must be an https address, or an http address on this machine")
    if parts.username is not None or parts.fragment or any(c.isspace() or not c.isprintable() for c in value):
        raise ValueError("must be an address without a user, a fragment or spaces")
    return value


def _issuer(value: str) -> str:
    if "?" in value:
        raise ValueError("is the address of an issuer, which has no query (RFC 8414)")
    return _web_address(value)


def _origin(value: str) -> str:
    parts = urlsplit(_web_address(value))
    if parts.path.strip("/") or parts.query:
        raise ValueError("must be an address without a path, such as https://taskhub.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}"


def is_loopback(host: str) -> bool:
    """Whether listening on `host` can be reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def mask_url(url: str) -> str:
    """The URL without the password in it, before its host or among its parameters."""
    scheme, separator, rest = url.partition("://")
    credentials, at, address = rest.rpartition("@")
    if not at:
        return redacted(url)
    user, colon, _ = credentials.partition(":")
    return f"{scheme}{separator}{user}{':********' if colon else ''}@{redacted(address)}"


DatabaseAddress = Annotated[SecretStr, AfterValidator(_database)]
RedisAddress = Annotated[SecretStr, AfterValidator(_redis)]
WebAddress = Annotated[str, AfterValidator(_web_address)]
Issuer = Annotated[str, AfterValidator(_issuer)]
Origin = Annotated[str, AfterValidator(_origin)]
