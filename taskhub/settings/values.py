"""How the values of settings are written: lists with commas, nothing as an empty text."""

import difflib
import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import NoDecode

T = TypeVar("T")


def _split(value: Any) -> Any:
    """`a, b` → (`a`, `b`): how a list is written in the environment and on the command line."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ipaddress.ip_network(network, strict=False)
    return value


def nearest(name: str, known: Iterable[str]) -> str:
    """How a sentence ends that refuses a name: with the one that may have been meant."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


ManyOf = Annotated[tuple[T, ...], NoDecode, BeforeValidator(_split)]
Networks = Annotated[ManyOf[str], AfterValidator(networks)]
OrNone = Annotated[T | None, BeforeValidator(lambda value: None if value == "" else value)]
