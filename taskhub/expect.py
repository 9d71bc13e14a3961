"""Asking for a body that its client holds back until it is wanted (RFC 9110, section 10.1.1)."""

from aiohttp import HttpVersion11, hdrs, web

_ASKED = web.RequestKey("asked for its body", bool)


async def ask_for_body(request: web.BaseRequest) -> None:
    """Call this before waiting for a body. Whoever is refused before that, is so without having sent it."""
    if hdrs.EXPECT not in request.headers or request.version < HttpVersion11 or _ASKED in request:
        return
    request[_ASKED] = True
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0  # the answer itself has not begun
