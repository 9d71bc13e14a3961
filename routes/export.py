"""`/api/v1/export` and `/api/v1/import`: all tickets, as files that spreadsheets and programs read."""

import asyncio
import tempfile
from typing import BinaryIO, Final, cast

from aiohttp import hdrs, web
from pydantic import BaseModel

from routes.access import caller_with
from routes.api import Route
from routes.bodies import json_response, query_model
from routes.errors import Problem
from routes.keys import CALLER, SETTINGS, TICKETS
from taskhub.expect import ask_for_body
from taskhub.tickets.export import MEDIA_TYPES, Format, header, line
from taskhub.tickets.imports import Imported
from taskhub.tickets.inputs import ExportQuery
from taskhub.tickets.model import Ticket

MAX_IMPORT_BYTES: Final = 256 * 1024 * 1024
_IN_MEMORY: Final = 1024 * 1024
_FORMATS: Final[dict[str, Format]] = {
    "text/csv": "csv",
    "application/x-ndjson": "jsonl",
    "application/jsonl": "jsonl",
}


class ExportParameters(ExportQuery):
    format: Format = "csv"


class ImportParameters(BaseModel):
    strict: bool = False


async def export(request: web.Request) -> web.StreamResponse:
    """GET /api/v1/export → the tickets, oldest first, as they are read."""
    asked = query_model(request, ExportParameters)
    query = ExportQuery.model_validate(asked.model_dump(exclude={"format"}, exclude_unset=True))
    pages = request.app[TICKETS].export(request[CALLER], query)
    # The first page before the head: what is wrong with the request is told by a status.
    first: list[Ticket] = await anext(pages, [])
    response = web.StreamResponse(
        headers={
            hdrs.CONTENT_TYPE: f"{MEDIA_TYPES[asked.format]}; charset=utf-8",
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="tickets.{asked.format}"',
            hdrs.CACHE_CONTROL: "no-store",
        }
    )
    await response.prepare(request)
    await response.write(header(asked.format) + b"".join(line(ticket, asked.format) for ticket in first))
    async for page in pages:
        await response.write(b"".join(line(ticket, asked.format) for ticket in page))
    await response.write_eof()
    return response


async def import_(request: web.Request) -> web.Response:
    """POST /api/v1/import → Imported. With `strict`, 422 `import_refused` unless every line can be taken."""
    caller = caller_with(request, "tickets:write")  # before anything is kept of what is sent
    asked = query_model(request, ImportParameters)
    form = _FORMATS.get(request.content_type.lower())
    if form is None or hdrs.CONTENT_TYPE not in request.headers:
        raise Problem("unsupported_media_type", f"send the file with Content-Type: {' or '.join(MEDIA_TYPES.values())}")
    # On disk beyond the first megabyte: the lines are taken while nobody waits for the client to send them.
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
        size = 0
        while chunk := await _chunk(request):
            size += len(chunk)
            if size > MAX_IMPORT_BYTES:
                raise Problem("body_too_large", f"a file may have at most {MAX_IMPORT_BYTES} bytes")
            file.write(chunk)
        file.seek(0)
        imported = await request.app[TICKETS].import_file(caller, cast(BinaryIO, file), form, strict=asked.strict)
    return json_response(imported)


async def _chunk(request: web.Request) -> bytes:
    seconds = request.app[SETTINGS].body_read_s
    await ask_for_body(request)
    try:
        async with asyncio.timeout(seconds or None):
            return await request.content.readany()
    except TimeoutError:
        detail = f"nothing of the body arrived for {seconds:g} seconds"
        raise Problem("request_timeout", detail, headers={"Connection": "close"}) from None


ROUTES: Final = (
    Route(
        "GET", "/api/v1/export", export, "export_tickets", "Read all tickets as a file",
        scope="tickets:read", query=ExportParameters, media=tuple(MEDIA_TYPES.values()),
        sends=("Content-Disposition",), head=False,
    ),
    Route(
        "POST", "/api/v1/import", import_, "import_tickets", "Take the tickets of a file in",
        detail="With `strict` all of them or none.",
        scope="tickets:write", query=ImportParameters, file=tuple(_FORMATS), answer=Imported,
        problems=("import_refused", "import_interrupted"),
    ),
)  # fmt: skip
