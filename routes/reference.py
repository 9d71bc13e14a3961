"""`/api/v1/users`, `/statuses` and the other reference data: listed as `{"items": […]}`, added, changed and removed.

The lists have all rows, those out of use too (`active` is false): tickets may still refer to them, filters may name
them, and who changes reference data takes them into use again. Only active ones can be given to a ticket.
"""

from collections.abc import Sequence
from typing import Annotated, Final
from urllib.parse import quote

from aiohttp import hdrs, web
from pydantic import BaseModel, StringConstraints

from routes.api import Handler, Route
from routes.bodies import Items, NoParameters, idempotency_key, json_response, query_model, read_model
from routes.keys import CALLER, INSTANCES, TICKETS
from taskhub.headers import IDEMPOTENCY_HEADER, POSITION_HEADER
from taskhub.tickets.inputs import Name
from taskhub.tickets.model import CategoryDetail, Reference, ReferenceKind, ReferenceWritten, Status, User
from taskhub.tickets.reference_inputs import CHANGE, NEW


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
        return json_response(written, status=201, headers={hdrs.LOCATION: location, POSITION_HEADER: written.position})

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
        await _noticed(request, kind)
        return json_response(written, headers={POSITION_HEADER: written.position})

    return handle


def remove(kind: ReferenceKind) -> Handler:
    """DELETE /api/v1/users/{id} and so on → 204; 409 `in_use` while tickets refer to it."""

    async def handle(request: web.Request) -> web.Response:
        query_model(request, NoParameters)
        written = await request.app[TICKETS].remove_reference(
            request[CALLER], kind, request.match_info["id"], idempotency_key=idempotency_key(request)
        )
        await _noticed(request, kind)
        return web.Response(status=204, headers={POSITION_HEADER: written.position})

    return handle


async def _noticed(request: web.Request, kind: ReferenceKind) -> None:
    """What a user may do no longer ends now on every instance, and not after the next poll."""
    if kind == "users":
        await request.app[INSTANCES].credentials_changed()


def _items(items: Sequence[object]) -> web.Response:
    return json_response(Items(items))


_SINGULAR: Final[dict[ReferenceKind, str]] = {
    "users": "user",
    "accounts": "account",
    "categories": "category",
    "category_details": "category_detail",
    "statuses": "status",
    "request_channels": "request_channel",
    "response_categories": "response_category",
}
_EXAMPLES: Final[dict[ReferenceKind, dict[str, str]]] = {
    "users": {"name": "Carol", "email": "carol@example.org"},
    "category_details": {"name": "Printer", "category": "incident"},
    "statuses": {"name": "On hold", "phase": "waiting"},
}


def _changing(kind: ReferenceKind) -> tuple[Route, ...]:
    """What adds, changes and removes rows of a kind."""
    path, name = f"/api/v1/{kind.replace('_', '-')}", _SINGULAR[kind]
    words, one = name.replace("_", " "), f"{path}/{{id}}"
    article = "an" if name[0] in "aeio" else "a"
    key, position = (IDEMPOTENCY_HEADER,), (POSITION_HEADER,)
    return (
        Route(
            "POST", path, create(kind), f"create_{name}", f"Add {article} {words}",
            scope="reference:write", query=NoParameters, body=NEW[kind],
            example=_EXAMPLES.get(kind, {"name": "Example"}), answer=ReferenceWritten, status=201,
            takes=key, sends=("Location", *position), problems=("status_needed",) if kind == "statuses" else (),
        ),
        Route(
            "PATCH", one, change(kind), f"update_{name}", f"Change {article} {words}: absent fields are kept",
            scope="reference:write", query=NoParameters, body=CHANGE[kind], example={"active": False},
            answer=ReferenceWritten, takes=key, sends=position, problems=("not_found", "in_use", "status_needed"),
        ),
        Route(
            "DELETE", one, remove(kind), f"delete_{name}", f"Remove {article} {words} that nothing refers to",
            scope="reference:write", query=NoParameters, media=(), status=204, takes=key, sends=position,
            problems=("not_found", "in_use", "status_needed"),
        ),
    )  # fmt: skip


_LISTED: Final = "Those out of use (`active` is false) too: tickets may refer to them, but can no longer be given them."

ROUTES: Final = (
    Route(
        "GET", "/api/v1/users", users, "list_users", "List the users",
        detail=_LISTED, scope="tickets:read", query=UserParameters, answer=Items[User],
    ),
    Route(
        "GET", "/api/v1/accounts", accounts, "list_accounts", "List the accounts",
        detail=_LISTED, scope="tickets:read", query=NoParameters, answer=Items[Reference],
    ),
    Route(
        "GET", "/api/v1/categories", categories, "list_categories", "List the categories",
        detail=_LISTED, scope="tickets:read", query=NoParameters, answer=Items[Reference],
    ),
    Route(
        "GET", "/api/v1/category-details", category_details, "list_category_details",
        "List the details of a category, or of all",
        detail=_LISTED, scope="tickets:read", query=CategoryDetailParameters, answer=Items[CategoryDetail],
    ),
    Route(
        "GET", "/api/v1/statuses", statuses, "list_statuses", "List the statuses",
        detail=_LISTED, scope="tickets:read", query=NoParameters, answer=Items[Status],
    ),
    Route(
        "GET", "/api/v1/request-channels", request_channels, "list_request_channels", "List the request channels",
        detail=_LISTED, scope="tickets:read", query=NoParameters, answer=Items[Reference],
    ),
    Route(
        "GET", "/api/v1/response-categories", response_categories, "list_response_categories",
        "List the response categories",
        detail=_LISTED, scope="tickets:read", query=NoParameters, answer=Items[Reference],
    ),
    *(route for kind in NEW for route in _changing(kind)),
)  # fmt: skip
