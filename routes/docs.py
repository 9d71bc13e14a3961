"""`/openapi.json`: this API as a document, and `/docs`: the same as a page."""

import asyncio
import hashlib
from functools import cached_property
from typing import Any, Final

import orjson
from aiohttp import hdrs, web

from routes.api import JSON, PAGE, Route
from routes.api import ROUTES as SERVED
from routes.assets import ASSETS
from routes.docs_page import render
from routes.keys import AUTH
from routes.openapi import describe
from taskhub import __version__

# Kept by whom it pleases, and asked for again: after an update it is another one.
_REVALIDATED: Final = {hdrs.CACHE_CONTROL: "no-cache"}


class Description:
    """The document of an application, made when somebody asks for it: few servers are ever asked."""

    def __init__(self, app: web.Application) -> None:
        self._app = app

    @cached_property
    def document(self) -> dict[str, Any]:
        return describe(self._app[SERVED], __version__)

    @cached_property
    def encoded(self) -> bytes:
        return orjson.dumps(self.document)

    @cached_property
    def etag(self) -> str:
        return hashlib.sha256(self.encoded).hexdigest()[:32]


DESCRIPTION: Final = web.AppKey("description", Description)


async def openapi(request: web.Request) -> web.Response:
    """GET /openapi.json, or 304 for who has it already."""
    description = await _made(request)
    response = web.Response(body=description.encoded, content_type=JSON[0], headers=_REVALIDATED)
    response.etag = description.etag
    known = request.if_none_match or ()
    if any(tag.value in (description.etag, "*") for tag in known):
        return web.Response(status=304, headers={**_REVALIDATED, hdrs.ETAG: response.headers[hdrs.ETAG]})
    return response


async def docs(request: web.Request) -> web.Response:
    """GET /docs: the document as a page, with commands for the very host that is asked."""
    description = await _made(request)
    with_key = request.app[AUTH].name != "none"
    assets = request.app[ASSETS]
    await asyncio.to_thread(lambda: assets.digest)
    origin = str(request.url.origin())
    page = render(description.document, origin, assets.address, with_key=with_key)
    return web.Response(text=page, content_type=PAGE[0], headers=_REVALIDATED)


async def _made(request: web.Request) -> Description:
    description = request.app[DESCRIPTION]
    # A tenth of a second of work, once: on a thread, where nobody else waits for it.
    await asyncio.to_thread(lambda: description.etag)
    return description


ROUTES: Final = (
    Route(
        "GET", "/openapi.json", openapi, "get_openapi", "Read this description as an OpenAPI document",
        answer=dict[str, Any], also=(304,), takes=("If-None-Match",), sends=("ETag",),
    ),
    Route("GET", "/docs", docs, "get_docs", "Read this description as a page", media=PAGE),
)  # fmt: skip
