"""Refusing by the first bytes of a request whoever insists on asking too much.

An ordinary refusal costs what an answer does: a parser, a task, routing, a credential that is looked up. In a flood
there is nothing else. So whoever was refused again and again is known for a second by what it presents, and what it
asks meanwhile is judged by the same limits before anything else has seen it. Whatever is not quite plain is left to
those who understand requests: this can only refuse, and only whoever presents that very credential.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

import orjson

from broadcaster.stream import StreamRefused
from routes.access import MCP_PATHS, STREAM, TOKEN, is_open
from routes.errors import EVERY_ANSWER, PROBLEM_HEADERS, Problem, limited, refusal
from routes.refusals import GOODBYE_HEADERS, accepted_media, goodbye_frame
from taskhub.auth.principal import Principal
from taskhub.limits.insisting import Insistent
from taskhub.limits.limits import Limits
from taskhub.tickets.errors import RateLimited

_HEAD: Final = re.compile(rb"(GET|POST|PUT|PATCH|DELETE) (/[!-~]*) HTTP/1\.1\r\n")
_CREDENTIAL: Final = re.compile(rb"\r\n(x-api-key|authorization|cookie):[ \t]*([^\r\n]*)", re.IGNORECASE)
_ACCEPT: Final = re.compile(rb"\r\naccept:[ \t]*([^\r\n]*)", re.IGNORECASE)
_OF_PAGES: Final = re.compile(rb"\r\norigin:", re.IGNORECASE)
"""Whose answer has headers by which a browser lets a page read it."""
_PRESENTED: Final = (b"x-api-key", b"authorization", b"cookie")

_CONTENT: Final = re.compile(rb"\r\n(?:content-length:[ \t]*([0-9]{1,10})\r\n|transfer-encoding:)", re.IGNORECASE)
_HERE: Final = "id-of-the-request"

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
        known = self._limits.insisting.presenting(hash((name.lower(), value.rstrip(b" \t"))))
        if known is None:
            return None
        limits, principal = self._limits, known.principal
        path, _, query = begin[2].decode().partition("?")
        if begin[1] != b"GET":
            if path in MCP_PATHS or is_open(begin[1].decode(), path) or limits.may_write(principal):
                return None
            return self._refused(known, "writes_per_s", "problem", limits.write)
        if path != STREAM or TOKEN in query or limits.may_open(principal):
            return None
        sse = (
            "&errors=status" not in f"&{query}"
            and _accepted(b",".join(_ACCEPT.findall(head)).decode("latin-1")) == "sse"
        )
        return self._refused(
            known,
            "sse_max_streams_per_principal",
            "goodbye" if sse else "problem",
            lambda who: limits.stream(who, None),
        )

    def _refused(self, known: Insistent, setting: str, kind: str, ask: Callable[[Principal], object]) -> bytes | None:
        """The answer to one that may not, which is counted. What is said is made once, with the wait of that moment."""
        parts = known.answers.get(setting + kind)
        if parts is None:
            try:
                ask(known.principal)
            except RateLimited as error:
                parts = _of_problem(limited(error))
            except StreamRefused as error:
                parts = _of_goodbye(refusal(error)) if kind == "goodbye" else _of_problem(refusal(error))
            else:
                return None
            known.answers[setting + kind] = parts
        else:
            self._limits.refused[setting] += 1
        head, before, after = parts
        request_id = next(self._request_ids).encode()
        body = before + request_id + after if before else after
        return b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (head, request_id, len(body), body)


def _of_problem(problem: Problem) -> tuple[bytes, bytes, bytes]:
    """The head as far as the request's id, and the body before and after it."""
    before, _, after = orjson.dumps(problem.document(_HERE)).partition(_HERE.encode())
    return _head("429 Too Many Requests", {**PROBLEM_HEADERS, **problem.headers}), before, after


def _of_goodbye(problem: Problem) -> tuple[bytes, bytes, bytes]:
    """The same of a body without it."""
    return _head("200 OK", GOODBYE_HEADERS), b"", goodbye_frame(problem)


def _head(status: str, headers: Mapping[str, str]) -> bytes:
    every = {**EVERY_ANSWER, **headers, "Connection": "close"}
    lines = "".join(f"{name}: {value}\r\n" for name, value in every.items())
    return f"HTTP/1.1 {status}\r\n{lines}X-Request-ID: ".encode()


def whole(received: bytes) -> bool:
    """Whether all of a request is here."""
    head, _, body = received.partition(b"\r\n\r\n")
    announced = _CONTENT.search(head)
    return announced is None or (announced[1] is not None and len(body) >= int(announced[1]))
