"""`/api/v1/users`, `/statuses` and the other reference data, as `{"items": […]}`."""

from collections.abc import Sequence
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, StringConstraints

from routes.bodies import NoParameters, json_response, query_model
from routes.keys import CALLER, TICKETS
from taskhub.tickets.inputs import Name


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


def _items(items: Sequence[object]) -> web.Response:
    return json_response({"items": items})
