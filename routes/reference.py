"""`/api/v1/users`, `/statuses` and the other reference data: listed as `{"items": […]}`, added, changed and removed.

The lists have all rows, those out of use too (`active` is false): tickets may still refer to them, filters may name
them, and who changes reference data takes them into use again. Only active ones can be given to a ticket.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Final
from urllib.parse import quote

from aiohttp import hdrs, web
from pydantic import BaseModel, StringConstraints

from routes.api import Handler, Route
from routes.bodies import Items, NoParameters, idempotency_key, json_response, query_model, read_model
from routes.keys import CALLER, INSTANCES, TICKETS
from taskhub.auth.principal import Caller
from taskhub.headers import IDEMPOTENCY_HEADER, POSITION_HEADER
from taskhub.tickets.inputs import Name
from taskhub.tickets.model import CategoryDetail, Reference, ReferenceKind, ReferenceWritten, Status, User
from taskhub.tickets.reference_inputs import CHANGE, NEW
from taskhub.tickets.service import TicketService


class UserParameters(BaseModel):
    role: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = None


class CategoryDetailParameters(BaseModel):
    category: Name | None = None


async def users(request: web.Request) -> web.Response:
    asked = query_model(request, UserParameters)
    return _items(await request.app[TICKETS].users(request[CALLER], role=asked.role))


async def category_details(request: web.Request) -> web.Response:
    asked = query_model(request, CategoryDetailParameters)
    return _items(await request.app[TICKETS].category_details(request[CALLER], category=asked.category))


def _listed(read: Callable[[TicketService, Caller], Awaitable[Sequence[object]]]) -> Handler:
    async def handle(request: web.Request) -> web.Response:
        return _items(await read(request.app[TICKETS], request[CALLER]))

    return handle


def create(kind: ReferenceKind) -> Handler:
    """POST /api/v1/users and so on → 201 ReferenceWritten, with Location."""

    async def handle(request: web.Request) -> web.Response:
        key = idempotency_key(request)
        new = await read_model(request, NEW[kind])
        written = await request.app[TICKETS].create_reference(request[CALLER], kind, new, idempotency_key=key)
        location = f"{request.path}/{quote(written.id, safe='')}"
        return json_response(written, status=201, headers={hdrs.LOCATION: location, POSITION_HEADER: written.position})

    return handle


def change(kind: ReferenceKind) -> Handler:
    """PATCH /api/v1/users/{id} and so on → ReferenceWritten."""

    async def handle(request: web.Request) -> web.Response:
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


def _listing(
    kind: ReferenceKind, handler: Handler, answer: Any, query: type[BaseModel] = NoParameters, summary: str = ""
) -> Route:
    path, words = f"/api/v1/{kind.replace('_', '-')}", kind.replace("_", " ")
    return Route(
        "GET", path, handler, f"list_{kind}", summary or f"List the {words}",
        detail=_LISTED, scope="tickets:read", query=query, answer=answer,
    )  # fmt: skip


ROUTES: Final = (
    _listing("users", users, Items[User], UserParameters),
    _listing("accounts", _listed(TicketService.accounts), Items[Reference]),
    _listing("categories", _listed(TicketService.categories), Items[Reference]),
    _listing(
        "category_details", category_details, Items[CategoryDetail], CategoryDetailParameters,
        "List the details of a category, or of all",
    ),
    _listing("statuses", _listed(TicketService.statuses), Items[Status]),
    _listing("request_channels", _listed(TicketService.request_channels), Items[Reference]),
    _listing("response_categories", _listed(TicketService.response_categories), Items[Reference]),
    *(route for kind in NEW for route in _changing(kind)),
)  # fmt: skip
