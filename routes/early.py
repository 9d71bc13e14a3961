"""Refusing by the first bytes of a request whoever insists on asking too much.

An ordinary refusal costs what an answer does: a parser, a task, routing, a credential that is looked up. In a flood
there is nothing else. So whoever was refused again and again is known for a second by what it presents, and what it
asks meanwhile is judged by the same limits before anything else has seen it. Whatever is not quite plain is left to
those who understand requests: this can only refuse, and only whoever presents that very credential.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

import orjson
from aiohttp import hdrs

from broadcaster.stream import StreamRefused
from routes.access import MCP_PATHS, STREAM, is_open
from routes.errors import EVERY_ANSWER, PROBLEM_HEADERS, limited, refusal
from routes.refusals import GOODBYE_HEADERS, accepted_media, goodbye_frame
from taskhub.auth.principal import Principal
from taskhub.limits.limits import Limits
from taskhub.tickets.errors import RateLimited

_HEAD: Final = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[!-~]*) HTTP/1\.1\r\n")
_CREDENTIAL: Final = re.compile(rb"\r\n(x-api-key|authorization|cookie):[ \t]*([^\r\n]*)", re.IGNORECASE)
_ACCEPT: Final = re.compile(rb"\r\naccept:[ \t]*([^\r\n]*)", re.IGNORECASE)
_OF_PAGES: Final = re.compile(rb"\r\norigin:", re.IGNORECASE)
"""Whose answer has headers by which a browser lets a page read it."""
_PRESENTED: Final = (b"x-api-key", b"authorization", b"cookie")

_accepted = lru_cache(maxsize=128)(accepted_media)


def presented_by(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """By what a request with these headers is known again; None where it presents nothing, or more than one thing."""
    found = [(name.lower(), value) for name, value in headers if name.lower() in _PRESENTED]
    return hash(found[0]) if len(found) == 1 else None


class EarlyRefusal:
    """Judges first bytes."""

    def __init__(self, limits: Limits, request_ids: Iterator[str]) -> None:
        self._limits = limits
        self._request_ids = request_ids

    @property
    def needed(self) -> bool:
        """Whether anybody is to be judged now."""
        return bool(self._limits.insisting.known)

    def answer(self, received: bytes) -> bytes | None:
        """The whole answer to the request that these bytes begin with, which is refused and the last one of its
        connection; None where it is to be understood first."""
        end = received.find(b"\r\n\r\n")
        if end < 0 or (begin := _HEAD.match(received)) is None:
            return None
        head = received[: end + 2]
        presented = _CREDENTIAL.findall(head)
        if len(presented) != 1 or _OF_PAGES.search(head) is not None:
            return None
        name, value = presented[0]
        principal = self._limits.insisting.presenting(hash((name.lower(), value.rstrip(b" \t"))))
        if principal is None:
            return None
        method, target = begin[1].decode(), begin[2].decode()
        try:
            self._judge(principal, method, target)
        except (RateLimited, StreamRefused) as error:
            problem = refusal(error) if isinstance(error, StreamRefused) else limited(error)
            request_id = next(self._request_ids)
            accept = b",".join(_ACCEPT.findall(head)).decode("latin-1")
            if target == STREAM and _accepted(accept) == "sse":
                return _encoded("200 OK", request_id, GOODBYE_HEADERS, goodbye_frame(problem))
            headers = {**PROBLEM_HEADERS, **problem.headers}
            return _encoded("429 Too Many Requests", request_id, headers, orjson.dumps(problem.document(request_id)))
        return None

    def _judge(self, principal: Principal, method: str, target: str) -> None:
        """Raises RateLimited and StreamRefused."""
        path = target.partition("?")[0]
        if path in MCP_PATHS or is_open(method, path):
            return
        if method != hdrs.METH_GET:
            self._limits.check_write(principal)
        elif target == STREAM:
            self._limits.check_streams(principal)


def _encoded(status: str, request_id: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """A response that ends its connection."""
    every = {**EVERY_ANSWER, **headers, "X-Request-ID": request_id, "Content-Length": len(body), "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body
