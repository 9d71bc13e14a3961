"""`/api/v1/tickets/{key}/…`: a ticket's relations and attachments, and deleting and restoring it."""

from typing import Annotated, Final, TypeVar

from aiohttp import web
from multidict import istr
from pydantic import BaseModel, Field, ValidationError

from routes.api import Route
from routes.bodies import Items, NoParameters, idempotency_key, json_response, read_model
from routes.errors import Problem, validation_faults
from routes.keys import CALLER, TICKETS
from routes.tickets import HELD, STAMPS, conditions, expected_version, held, stamps
from taskhub.headers import IDEMPOTENCY_HEADER
from taskhub.numbers import WHOLE
from taskhub.tickets.inputs import Key, NewAttachment, NewRelation
from taskhub.tickets.model import Attachment, Include, Relation, RelationName, Written

MAX_NUMBER: Final = 2**31 - 1
_RELATIONS: Final[tuple[Include, ...]] = ("relations",)
_ATTACHMENTS: Final[tuple[Include, ...]] = ("attachments",)
_PREFER: Final = istr("Prefer")

Path = TypeVar("Path", bound=BaseModel)


class RelationPath(BaseModel):
    relation: RelationName
    other: Key


class AttachmentPath(BaseModel):
    no: Annotated[int, Field(ge=1, le=MAX_NUMBER), WHOLE]


async def list_relations(request: web.Request) -> web.Response:
    """GET /api/v1/tickets/{key}/relations → items, as seen from the ticket."""
    detail = await request.app[TICKETS].get_ticket(request[CALLER], request.match_info["key"], include=_RELATIONS)
    return json_response(Items(detail.relations or []))


async def link(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/{key}/relations → 201 Written; 200 when it was so already."""
    given = held(request)
    new = await read_model(request, NewRelation)
    written = await request.app[TICKETS].link_tickets(
        request[CALLER], request.match_info["key"], new.relation, new.other, **given
    )
    return json_response(written, status=200 if written.noop else 201, headers=stamps(written))


async def unlink(request: web.Request) -> web.Response:
    """DELETE /api/v1/tickets/{key}/relations/{relation}/{other} → 204."""
    given = held(request)
    named = _path(request, RelationPath)
    written = await request.app[TICKETS].unlink_tickets(
        request[CALLER], request.match_info["key"], named.relation, named.other, **given
    )
    return _removed(request, written)


async def list_attachments(request: web.Request) -> web.Response:
    """GET /api/v1/tickets/{key}/attachments → items."""
    detail = await request.app[TICKETS].get_ticket(request[CALLER], request.match_info["key"], include=_ATTACHMENTS)
    return json_response(Items(detail.attachments or []))


async def attach(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/{key}/attachments → 201 Written."""
    given = held(request)
    new = await read_model(request, NewAttachment)
    written = await request.app[TICKETS].add_attachment(request[CALLER], request.match_info["key"], new, **given)
    return json_response(written, status=201, headers=stamps(written))


async def detach(request: web.Request) -> web.Response:
    """DELETE /api/v1/tickets/{key}/attachments/{no} → 204."""
    given = held(request)
    number = _path(request, AttachmentPath).no
    written = await request.app[TICKETS].remove_attachment(request[CALLER], request.match_info["key"], number, **given)
    return _removed(request, written)


async def delete(request: web.Request) -> web.Response:
    """DELETE /api/v1/tickets/{key} → 204. With If-Match only that version is deleted, else 412."""
    written = await request.app[TICKETS].delete_ticket(
        request[CALLER], request.match_info["key"], **conditions(request)
    )
    return _removed(request, written)


async def restore(request: web.Request) -> web.Response:
    """POST /api/v1/tickets/{key}/restore → Written. With If-Match only that version is restored, else 412."""
    expected, key = expected_version(request), idempotency_key(request)
    written = await request.app[TICKETS].restore_ticket(
        request[CALLER], request.match_info["key"], expected_version=expected, idempotency_key=key
    )
    return json_response(written, headers=stamps(written))


def _path(request: web.Request, model: type[Path]) -> Path:
    """The named parts of the address. Raises Problem: bad_parameter."""
    try:
        return model.model_validate({name: request.match_info[name] for name in model.model_fields})
    except ValidationError as error:
        raise Problem.of("bad_parameter", validation_faults(error, query=True)) from None


def _removed(request: web.Request, written: Written) -> web.Response:
    """Nothing, or (RFC 7240) what the write did when `Prefer: return=representation` asks for it."""
    preferred = ",".join(request.headers.getall(_PREFER, ())).replace(" ", "").lower().split(",")
    if "return=representation" in preferred:
        applied = {"Preference-Applied": "return=representation"}
        return json_response(written, headers={**stamps(written), **applied})
    return web.Response(status=204, headers={**stamps(written), "Cache-Control": "no-store"})


_REMOVES: Final = (*HELD, "Prefer")
_REMOVED: Final = (*STAMPS, "Preference-Applied")

ROUTES: Final = (
    Route(
        "DELETE", "/api/v1/tickets/{key}", delete, "delete_ticket", "Delete a ticket; it can be restored",
        scope="tickets:write", query=NoParameters, answer=Written, status=204, also=(200,),
        takes=(*_REMOVES, "If-Match"), sends=_REMOVED,
    ),
    Route(
        "POST", "/api/v1/tickets/{key}/restore", restore, "restore_ticket", "Bring a deleted ticket back",
        scope="tickets:write", query=NoParameters, answer=Written, takes=(IDEMPOTENCY_HEADER, "If-Match"), sends=STAMPS,
        finds_deleted=True,
    ),
    Route(
        "GET", "/api/v1/tickets/{key}/relations", list_relations, "list_relations", "List relations, as seen from here",
        scope="tickets:read", query=NoParameters, answer=Items[Relation],
    ),
    Route(
        "POST", "/api/v1/tickets/{key}/relations", link, "link_tickets", "Relate a ticket to another one",
        scope="tickets:write", query=NoParameters, body=NewRelation,
        example={"relation": "blocked_by", "other": "TH-2"},
        answer=Written, status=201, also=(200,), takes=HELD, sends=STAMPS, problems=("cycle",),
    ),
    Route(
        "DELETE", "/api/v1/tickets/{key}/relations/{relation}/{other}", unlink, "unlink_tickets", "Undo a relation",
        scope="tickets:write", named=RelationPath, query=NoParameters, answer=Written, status=204, also=(200,),
        takes=_REMOVES, sends=_REMOVED,
    ),
    Route(
        "GET", "/api/v1/tickets/{key}/attachments", list_attachments, "list_attachments", "List attachments",
        scope="tickets:read", query=NoParameters, answer=Items[Attachment],
    ),
    Route(
        "POST", "/api/v1/tickets/{key}/attachments", attach, "add_attachment", "Attach a link to a file",
        scope="tickets:write", query=NoParameters, body=NewAttachment,
        example={"file_name": "log.txt", "url": "https://example.org/log.txt"},
        answer=Written, status=201, takes=HELD, sends=STAMPS,
    ),
    Route(
        "DELETE", "/api/v1/tickets/{key}/attachments/{no}", detach, "remove_attachment", "Remove an attachment",
        scope="tickets:write", named=AttachmentPath, query=NoParameters, answer=Written, status=204, also=(200,),
        takes=_REMOVES, sends=_REMOVED,
    ),
)  # fmt: skip
