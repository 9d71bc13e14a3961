"""How a stream is refused for now.

A status other than 200 makes a browser's EventSource give up for good. So what will pass is told as a stream that is
only a goodbye with a time to come back, to whoever did not ask for statuses.
"""

from typing import Final, Literal

from aiohttp import hdrs, web

from broadcaster.frames import SSE
from routes import outlet
from routes.errors import RETRY_AFTER_S, Problem

Media = Literal["sse", "ndjson"]

GOODBYE_HEADERS: Final = {**outlet.STREAM_HEADERS, hdrs.CONTENT_TYPE: outlet.SSE_TYPE}

_REASONS: Final = {"draining": "shutdown", "too_many_streams": "limit", "rate_limited": "limit"}


def told_in_stream(request: web.BaseRequest) -> bool:
    """Whether this client of the stream wants to hear of what will pass in the stream.

    `errors=status` asks for statuses; any other value than the two is an error of its own, told as a status."""
    if request.method != hdrs.METH_GET or request.query.get("errors", "stream") != "stream":
        return False
    return asked_media(request) == "sse"


def goodbye(problem: Problem) -> web.Response:
    """A stream that ends at once, for a problem that will pass."""
    return web.Response(body=goodbye_frame(problem), headers=GOODBYE_HEADERS)


def goodbye_frame(problem: Problem) -> bytes:
    """All that such a stream says."""
    retry_ms = problem.retry_ms or 1000 * int(problem.headers.get(hdrs.RETRY_AFTER, RETRY_AFTER_S))
    data = {
        "reason": _REASONS.get(problem.code, "overloaded"),
        "reconnect": True,
        "retry_ms": retry_ms,
        "detail": problem.detail,
    }
    return SSE.control("goodbye", data, retry_ms=retry_ms)


def asked_media(request: web.BaseRequest) -> Media | None:
    """The format that a request asks for; None for neither."""
    return accepted_media(",".join(request.headers.getall(hdrs.ACCEPT, [])))


def accepted_media(accept: str) -> Media | None:
    """The better of the two formats for an Accept header (RFC 9110, section 12.5.1), SSE on a tie; None for neither."""
    if not accept.strip():
        return "sse"
    best: dict[str, tuple[int, float]] = {"sse": (-1, 0.0), "ndjson": (-1, 0.0)}
    types = {"sse": outlet.SSE_TYPE, "ndjson": outlet.NDJSON_TYPE}
    for element in accept.split(","):
        name, *parameters = (part.strip().lower() for part in element.split(";"))
        weight = next((_weight(p[2:]) for p in parameters if p.startswith("q=")), 1.0)
        for media, full in types.items():
            # The most specific range that names a type decides its weight.
            ranges = ("*/*", full.partition("/")[0] + "/*", full)
            if name in ranges and ranges.index(name) > best[media][0]:
                best[media] = (ranges.index(name), weight)
    sse, ndjson = best["sse"][1], best["ndjson"][1]
    if ndjson > sse:
        return "ndjson"
    return "sse" if sse > 0 else None


def _weight(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
