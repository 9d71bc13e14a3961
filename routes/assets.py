"""`/static`: the styles, scripts and pictures of the pages."""

import asyncio
import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from aiohttp import hdrs, web

from routes.access import STATIC
from routes.api import Route

DIRECTORY: Final = Path(__file__).with_name("static")
ICON_MAX_AGE_S: Final = 86_400
# Not left to what the machine takes a file's type for.
TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Under the digest of all files: another version has another address.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
# Under its plain name: kept by whom it pleases, and asked for again.
_REVALIDATED: Final = "no-cache"
_WORTH_PACKING: Final = 1024
# Of what the pages' policy says, all that means something for files that are no documents.
_POLICY: Final = "default-src 'self'; frame-ancestors 'none'"
_IMPORT: Final = re.compile(r"""^(?:import|export)\b[^"';]*?from\s*"\./([\w.-]+)";?$""", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent: as it stands, and as gzip where that is worth it."""

    body: bytes
    packed: bytes | None
    content_type: str
    etag: str


class Assets:
    """Every file of a directory, read once when somebody asks: what is not in it then is not served."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory

    @cached_property
    def files(self) -> dict[str, Asset]:
        found = sorted(path for path in self._directory.iterdir() if path.suffix in TYPES)
        return {path.name: _read(path) for path in found}

    @cached_property
    def digest(self) -> str:
        """Of all files: a page names it in the addresses of what it loads, so that all of that is of one version."""
        return hashlib.sha256("".join(file.etag for file in self.files.values()).encode()).hexdigest()[:12]

    def address(self, name: str) -> str:
        """Where a page finds a file. Raises KeyError."""
        if name not in self.files:
            raise KeyError(name)
        return f"{STATIC}{self.digest}/{name}"

    def modules(self, name: str) -> list[str]:
        """The modules that a script imports, and those that they import, each once: told to a browser at once, they
        are not asked for one after the other. Raises KeyError."""
        found: list[str] = []
        pending = [name]
        while pending:
            for imported in _IMPORT.findall(self.files[pending.pop()].body.decode()):
                if imported not in found:
                    found.append(imported)
                    pending.append(imported)
        return found


ASSETS: Final = web.AppKey("assets", Assets)


async def asset(request: web.Request) -> web.StreamResponse:
    """GET /static/{name}, the newest, and /static/{version}/{name}, which never changes."""
    assets = request.app[ASSETS]
    files = await asyncio.to_thread(lambda: assets.files)
    found = files.get(request.match_info["name"])
    version = request.match_info.get("version")
    if found is None:
        raise web.HTTPNotFound
    # A page of another version may be open while this one is served: it gets the newest, and keeps it for no longer.
    lasting = version is not None and version == assets.digest
    headers = {
        hdrs.CACHE_CONTROL: _FOR_EVER if lasting else _REVALIDATED,
        hdrs.VARY: hdrs.ACCEPT_ENCODING,
        hdrs.ETAG: f'W/"{found.etag}"',
        hdrs.CONTENT_SECURITY_POLICY: _POLICY,
    }
    if any(tag.value in (found.etag, "*") for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    body = found.body
    if found.packed is not None and "gzip" in request.headers.get(hdrs.ACCEPT_ENCODING, ""):
        body = found.packed
        headers[hdrs.CONTENT_ENCODING] = "gzip"
    return web.Response(body=body, content_type=found.content_type, charset="utf-8", headers=headers)


async def icon(request: web.Request) -> web.Response:
    """GET /favicon.ico: there is none, which is no error; browsers ask whatever the page says."""
    return web.Response(status=204, headers={hdrs.CACHE_CONTROL: f"public, max-age={ICON_MAX_AGE_S}"})


def _read(path: Path) -> Asset:
    body = path.read_bytes()
    packed = gzip.compress(body, 9, mtime=0) if len(body) >= _WORTH_PACKING else None
    return Asset(body, packed, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:32])


ROUTES: Final = (
    Route(
        "GET", "/static/{name}", asset, "get_asset", "Read a style, script or picture of the pages",
        detail="`stream.js` is the module by which the pages follow the stream: other pages may use it, too.",
        media=tuple(TYPES.values()), also=(304,), takes=("If-None-Match",), sends=("ETag",),
        problems=("no_such_resource",),
    ),
    Route(
        "GET", "/static/{version}/{name}", asset, "get_asset_version", "Read one that browsers may keep",
        media=tuple(TYPES.values()), also=(304,), takes=("If-None-Match",), sends=("ETag",),
        problems=("no_such_resource",),
    ),
    Route("GET", "/favicon.ico", icon, "get_icon", "Answer browsers, which ask for an icon", media=(), status=204),
)  # fmt: skip
