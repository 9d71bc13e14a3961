"""`/api/v1/keys`: API keys, for those who operate the workspace."""

from typing import Annotated, Final

from aiohttp import hdrs, web
from pydantic import BaseModel, StringConstraints

from routes.api import Route
from routes.bodies import Items, NoParameters, json_response, query_model, read_model, read_model_if_any
from routes.keys import API_KEYS, CALLER, INSTANCES
from taskhub.keys.model import ApiKey, IssuedKey, KeyChange, NewKey, Rotation


class KeyParameters(BaseModel):
    user: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = None


async def keys(request: web.Request) -> web.Response:
    """GET /api/v1/keys → the keys in the order in which they were made, those that are over included."""
    asked = query_model(request, KeyParameters)
    return json_response(Items(await request.app[API_KEYS].list(request[CALLER], user=asked.user)))


async def key(request: web.Request) -> web.Response:
    """GET /api/v1/keys/{id} → ApiKey."""
    return json_response(await request.app[API_KEYS].get(request[CALLER], request.match_info["id"]))


async def create(request: web.Request) -> web.Response:
    """POST /api/v1/keys → 201 IssuedKey."""
    issued = await request.app[API_KEYS].create(request[CALLER], await read_model(request, NewKey))
    return _issued(issued)


async def change(request: web.Request) -> web.Response:
    """PATCH /api/v1/keys/{id} → ApiKey; every instance knows within a second."""
    given = await read_model(request, KeyChange)
    changed = await request.app[API_KEYS].change(request[CALLER], request.match_info["id"], given)
    await request.app[INSTANCES].credentials_changed()
    return json_response(changed)


async def rotate(request: web.Request) -> web.Response:
    """POST /api/v1/keys/{id}/rotate → 201 IssuedKey."""
    rotation = await read_model_if_any(request, Rotation)
    issued = await request.app[API_KEYS].rotate(request[CALLER], request.match_info["id"], rotation)
    await request.app[INSTANCES].credentials_changed()
    return _issued(issued)


async def revoke(request: web.Request) -> web.Response:
    """DELETE /api/v1/keys/{id} → 204; what the key has open ends on every instance."""
    await request.app[API_KEYS].revoke(request[CALLER], request.match_info["id"])
    await request.app[INSTANCES].credentials_changed()
    return web.Response(status=204)


def _issued(issued: IssuedKey) -> web.Response:
    return json_response(issued, status=201, headers={hdrs.LOCATION: f"/api/v1/keys/{issued.key.id}"})


ROUTES: Final = (
    Route(
        "GET", "/api/v1/keys", keys, "list_keys", "List the API keys",
        scope="admin", query=KeyParameters, answer=Items[ApiKey],
    ),
    Route(
        "GET", "/api/v1/keys/{id}", key, "get_key", "Tell of an API key, but for the key itself",
        scope="admin", query=NoParameters, answer=ApiKey, problems=("not_found",),
    ),
    Route(
        "POST", "/api/v1/keys", create, "create_key", "Make an API key",
        detail="The key itself is in this answer and nowhere else; it is not repeated, so there is no Idempotency-Key.",
        scope="admin", query=NoParameters, body=NewKey, example={"user": "local", "name": "nightly import"},
        answer=IssuedKey, status=201,
    ),
    Route(
        "PATCH", "/api/v1/keys/{id}", change, "change_key", "Give an API key limits of its own",
        detail="Limits that are absent are kept; null is what the settings say, and 0 no limit. What is open stays so.",
        scope="admin", query=NoParameters, body=KeyChange, example={"limits": {"writes_per_s": 100, "streams": 200}},
        answer=ApiKey, problems=("not_found", "key_over"),
    ),
    Route(
        "POST", "/api/v1/keys/{id}/rotate", rotate, "rotate_key", "Make a key that replaces another",
        detail="For the same user, with the same scopes, limits and end. The old one stays good for `overlap_s`.",
        scope="admin", query=NoParameters, body=Rotation, body_optional=True, example={"overlap_s": 3600},
        answer=IssuedKey, status=201, problems=("not_found", "key_over"),
    ),
    Route(
        "DELETE", "/api/v1/keys/{id}", revoke, "revoke_key", "End an API key, and what it has open",
        scope="admin", query=NoParameters, media=(), status=204, problems=("not_found",),
    ),
)  # fmt: skip
