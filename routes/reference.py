"""`/api/v1/users`, `/statuses` and the other reference data: listed as `{"items": […]}`, added, changed and removed."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated
from urllib.parse import quote

from aiohttp import hdrs, web
from pydantic import BaseModel, StringConstraints

from routes.bodies import NoParameters, idempotency_key, json_response, query_model, read_model
from routes.keys import CALLER, TICKETS
from taskhub.tickets.inputs import Name
from taskhub.tickets.model import ReferenceKind
from taskhub.tickets.reference_inputs import CHANGE, NEW

Handler = Callable[[web.Request], Awaitable[web.Response]]


class UserParameters(BaseModel):
    role: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None


class CategoryDetailParameters(BaseModel):
    category: Name | None = None


async def users(request: web.Request) -> web.Response:
    asked = query_model(request, UserParameters)
    return _items(await request.app[TICKETS].users(request[CALLER], role=asked.role))


async def accounts(request: web.Request) -> web.Response:
    query_model(request, NoParameters)
    return _items(await request.app[TICKETS].accounts(request[CALLER]))


async def categories(request: web.Request) -> web.Response:
    query_model(request, NoParameters)
    return _items(await request.app[TICKETS].categories(request[CALLER]))


async def category_details(request: web.Request) -> web.Response:
    asked = query_model(request, CategoryDetailParameters)
    return _items(await request.app[TICKETS].category_details(request[CALLER], category=asked.category))


async def statuses(request: web.Request) -> web.Response:
    query_model(request, NoParameters)
    return _items(await request.app[TICKETS].statuses(request[CALLER]))


async def request_channels(request: web.Request) -> web.Response:
    query_model(request, NoParameters)
    return _items(await request.app[TICKETS].request_channels(request[CALLER]))


async def response_categories(request: web.Request) -> web.Response:
    query_model(request, NoParameters)
    return _items(await request.app[TICKETS].response_categories(request[CALLER]))


def create(kind: ReferenceKind) -> Handler:
    """POST /api/v1/users and so on → 201 ReferenceWritten, with Location."""

    async def handle(request: web.Request) -> web.Response:
        query_model(request, NoParameters)
        key = idempotency_key(request)
        new = await read_model(request, NEW[kind])
        written = await request.app[TICKETS].create_reference(request[CALLER], kind, new, idempotency_key=key)
        location = f"{request.path}/{quote(written.id, safe='')}"
        return json_response(
            written, status=201, headers={hdrs.LOCATION: location, "TaskHub-Position": written.position}
        )

    return handle


def change(kind: ReferenceKind) -> Handler:
    """PATCH /api/v1/users/{id} and so on → ReferenceWritten."""

    async def handle(request: web.Request) -> web.Response:
        query_model(request, NoParameters)
        key = idempotency_key(request)
        asked = await read_model(request, CHANGE[kind])
        written = await request.app[TICKETS].change_reference(
            request[CALLER], kind, request.match_info["id"], asked, idempotency_key=key
        )
        return json_response(written, headers={"TaskHub-Position": written.position})

    return handle


def remove(kind: ReferenceKind) -> Handler:
    """DELETE /api/v1/users/{id} and so on → 204; 409 `in_use` while tickets refer to it."""

    async def handle(request: web.Request) -> web.Response:
        query_model(request, NoParameters)
        written = await request.app[TICKETS].remove_reference(
            request[CALLER], kind, request.match_info["id"], idempotency_key=idempotency_key(request)
        )
        return web.Response(status=204, headers={"TaskHub-Position": written.position})

    return handle


def _items(items: Sequence[object]) -> web.Response:
    return json_response({"items": items})
