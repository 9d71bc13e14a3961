"""The description of the HTTP API: an OpenAPI 3.1 document, made from the routes that are served.

Schemas come from the very types that requests are checked against and answers are made of. What a request sends is
described as it is accepted; in an answer every member of a dataclass is there, while one with a default may be absent
where a pydantic model describes what was encoded elsewhere.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from inspect import cleandoc
from typing import Any, Final

from aiohttp import hdrs
from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import core_schema

from broadcaster.filters import FILTER_NAMES, MAX_VALUES
from routes.api import JSON, Route
from routes.errors import CODES
from taskhub.auth.providers import ACTOR_HEADER
from taskhub.headers import IDEMPOTENCY_HEADER, LEASE_HEADER, POSITION_HEADER
from taskhub.tickets.inputs import IdempotencyKey

Json = dict[str, Any]

SCHEMAS: Final = "#/components/schemas/"
PROBLEM_TYPE: Final = "application/problem+json"

_ABOUT: Final = """\
Tickets that people and agents share, and every change of them, live.

Errors are `application/problem+json` (RFC 9457) with a stable `code`. Each GET answers HEAD as well, unless it says
otherwise. Without an API key TaskHub listens on loopback only, and a caller may say who it is: `X-TaskHub-Actor`.
Agents that share a key say it too, and are agents then: an agent takes no ticket over from another."""

_PATH_PARAMETERS: Final[Mapping[str, str]] = {
    "name": "name of a file",
    "version": "what tells all files together from those of other versions",
    "key": "key of a ticket, such as TH-12, in any case",
    "id": "id, as another answer told it",
    "no": "number, as the list tells it",
    "other": "key of the other ticket",
    "relation": "how the ticket of the path stands to the other one",
}

_FILTERS: Final[Mapping[str, str]] = {
    "type": "types of events; task_updated stands for updates, changes of status and of assignee. In every filter a "
    "comma means or, a leading ! not, a trailing * any rest",
    "ticket": "keys of tickets",
    "subject": "what events are about",
    "actor": "who did it; me is the caller",
    "origin": "through what it was done",
    "changed": "fields of a ticket that changed",
}
_OF_STATE: Final = "of the event's ticket, before or after the change"

_REQUEST_HEADERS: Final[Mapping[str, tuple[str, Json]]] = {
    IDEMPOTENCY_HEADER: (
        "makes a repeat of the same request harmless for 24 hours: it gets the first one's answer",
        TypeAdapter(IdempotencyKey).json_schema(),
    ),
    "If-Match": (
        "the version that is to be changed, as in its ETag; any other one is a conflict",
        {"type": "string", "pattern": r'^("\d{1,9}"|\*)$'},
    ),
    "If-None-Match": ("the ETag of what the caller has already", {"type": "string"}),
    "Last-Event-ID": ("the last event that was received; the stream goes on after it", {"type": "string"}),
    "Prefer": (
        "return=representation: be told what the write did",
        {"type": "string", "examples": ["return=representation"]},
    ),
    LEASE_HEADER: (
        "the token of the lease under which the ticket is held",
        {"type": "string", "pattern": "^[1-9][0-9]{0,17}$", "examples": ["1"]},
    ),
    ACTOR_HEADER: (
        "who calls, such as agent:triage-bot; a bare name is an agent's. Only without a key it may be user:alice",
        {"type": "string", "examples": ["agent:triage-bot"]},
    ),
}

_ANSWER_HEADERS: Final[Mapping[str, str]] = {
    "Content-Disposition": "the name to keep the file under",
    "ETag": "the version, for If-Match or If-None-Match",
    "Location": "where the new resource is",
    "Retry-After": "seconds after which to try again",
    "WWW-Authenticate": "how to authenticate",
    "Preference-Applied": "the preference that was followed",
    POSITION_HEADER: "listening from here misses nothing that happened after what this answer tells",
    "TaskHub-Stream": "the id of the stream",
}
_HEADERS_OF_PROBLEMS: Final = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

_TEXT: Final[Json] = {"type": "string"}
_FAULT: Final[Json] = {
    "type": "object",
    "description": "What is wrong with one part of the request: `parameter`, `pointer` (into the body) or `header`.",
    "required": ["reason"],
    "properties": {
        **dict.fromkeys(("reason", "parameter", "pointer", "header", "did_you_mean"), _TEXT),
        "allowed": {"type": "array", "items": _TEXT},
    },
}
_PROBLEM: Final[Json] = {
    "type": "object",
    "description": "An error (RFC 9457). Some codes have more members, such as `current` of a version conflict.",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        **dict.fromkeys(("type", "title", "detail", "code", "request_id", "hint"), _TEXT),
        "status": {"type": "integer"},
        "retryable": {"type": "boolean", "description": "the same request may work later"},
        "errors": {"type": "array", "items": {"$ref": f"{SCHEMAS}Fault"}},
    },
}


class _Generator(GenerateJsonSchema):
    """pydantic's schemas without what only pydantic needs to know."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "serialization" and field["type"] == "dataclass-field":
            return True
        return super().field_is_required(field, total)

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        # What an answer lacks is absent, not the default; and that null may as well be left out says nothing.
        found = super().default_schema(schema)
        if self.mode == "serialization" or found.get("default", ...) is None:
            found.pop("default", None)
        return found

    def normalize_name(self, name: str) -> str:
        return super().normalize_name(re.sub(r"Items\[(\w+)\]", r"\1Items", name))


def describe(routes: Sequence[Route], version: str) -> Json:
    """The document. Raises KeyError for a header or path parameter that nothing is said about here."""
    schemas = _Schemas.of(routes)
    paths: dict[str, Json] = {}
    responses: dict[str, Json] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
        for status, codes in _by_status(route.codes).items():
            responses[_response_name(status, codes)] = _problem_response(status, codes)
    return {
        "openapi": "3.1.1",
        "info": {"title": "TaskHub", "version": version, "description": _ABOUT},
        "security": [{}, {"api_key": []}, {"bearer": []}],
        "tags": [_tag(family) for family in dict.fromkeys(route.family for route in routes)],
        "paths": paths,
        "components": {
            "schemas": {**dict(sorted(schemas.shared.items())), "Fault": _FAULT, "Problem": _PROBLEM},
            "responses": dict(sorted(responses.items())),
            "parameters": {name: _header_parameter(name) for name in _REQUEST_HEADERS},
            "headers": {name: {"description": said, "schema": _TEXT} for name, said in _ANSWER_HEADERS.items()},
            "securitySchemes": {
                "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


@dataclass(frozen=True, slots=True)
class _Schemas:
    """The schemas of all routes: `shared` by name, and those of queries, bodies and answers by the route's name."""

    shared: dict[str, Json]
    names: Mapping[str, Json]
    queries: Mapping[str, Json]
    bodies: Mapping[str, Json]
    answers: Mapping[str, Json]

    @classmethod
    def of(cls, routes: Sequence[Route]) -> "_Schemas":
        wanted: list[tuple[tuple[str, str], JsonSchemaMode, TypeAdapter[Any]]] = []
        for route in routes:
            if route.named is not None:
                wanted.append((("names", route.name), "validation", TypeAdapter(route.named)))
            if route.query is not None:
                wanted.append((("query", route.name), "validation", TypeAdapter(route.query)))
            if route.body is not None:
                wanted.append((("body", route.name), "validation", TypeAdapter(route.body)))
            if route.answer is not None:
                wanted.append((("answer", route.name), "serialization", TypeAdapter(route.answer)))
        found, definitions = TypeAdapter.json_schemas(
            wanted, ref_template=SCHEMAS + "{model}", schema_generator=_Generator
        )
        shared: dict[str, Json] = definitions.get("$defs", {})
        for schema in shared.values():
            schema.pop("title", None)
        parts: dict[str, dict[str, Json]] = {"names": {}, "query": {}, "body": {}, "answer": {}}
        for ((part, name), _), schema in found.items():
            parts[part][name] = schema
        # A query is no value of its own, but the parameters it is made of; so are the names in a path.
        models = {_model_of(schema) for part in ("names", "query") for schema in parts[part].values()}
        for part in ("names", "query"):
            parts[part] = {name: shared[_model_of(schema)] for name, schema in parts[part].items()}
        for model in models.difference(map(_model_of, parts["body"].values())):
            del shared[model]
        return cls(shared, *parts.values())


def _model_of(schema: Json) -> str:
    return str(schema["$ref"]).removeprefix(SCHEMAS)


def _tag(family: str) -> Json:
    return {"name": family, "description": cleandoc(sys.modules[f"routes.{family}"].__doc__ or "").partition("\n\n")[0]}


def _operation(route: Route, schemas: _Schemas) -> Json:
    said = [route.detail, "" if route.head or route.method != hdrs.METH_GET else "Answers no HEAD."]
    operation: Json = {"operationId": route.name, "summary": route.summary, "tags": [route.family]}
    if any(said):
        operation["description"] = " ".join(filter(None, said))
    if not route.authenticated:
        operation["security"] = []
    elif route.scope is not None:
        operation["security"] = [{}, {"api_key": [route.scope]}, {"bearer": [route.scope]}]
    if parameters := list(_parameters(route, schemas)):
        operation["parameters"] = parameters
    if route.file:
        operation["requestBody"] = {"required": True, "content": {media: {} for media in route.file}}
    if route.body is not None:
        body: Json = {"schema": schemas.bodies[route.name]}
        if route.example is not None:
            body["example"] = route.example
        operation["requestBody"] = {"required": not route.body_optional, "content": {JSON[0]: body}}
    responses = {str(status): _success(status, route, schemas) for status in (route.status, *route.also)}
    for status, codes in _by_status(route.codes).items():
        responses[str(status)] = {"$ref": f"#/components/responses/{_response_name(status, codes)}"}
    operation["responses"] = responses
    return operation


def _parameters(route: Route, schemas: _Schemas) -> Iterator[Json]:
    named = schemas.names.get(route.name, {}).get("properties", {})
    for name in re.findall(r"{(\w+)}", route.path):
        schema = named.get(name, {"type": "string", "minLength": 1})
        yield {"name": name, "in": "path", "required": True, "description": _PATH_PARAMETERS[name], "schema": schema}
    query = schemas.queries.get(route.name, {})
    for name, schema in query.get("properties", {}).items():
        yield _query_parameter(name, schema, required=name in query.get("required", ()))
    if route.filters:
        values = {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": MAX_VALUES}
        for name in FILTER_NAMES:
            yield _query_parameter(name, {**values, "description": _FILTERS.get(name, _OF_STATE)}, required=False)
    for name in (*route.takes, *((ACTOR_HEADER,) if route.authenticated else ())):
        if name in route.needs:
            yield _header_parameter(name) | {"required": True}
        else:
            yield {"$ref": f"#/components/parameters/{_header_parameter(name)['name']}"}


def _query_parameter(name: str, schema: Json, *, required: bool) -> Json:
    shown = {key: value for key, value in schema.items() if key != "description"}
    if "anyOf" in shown:  # a query cannot say null
        (shown,) = ({**shown, **option} for option in shown.pop("anyOf") if option != {"type": "null"})
    parameter: Json = {"name": name, "in": "query", "required": required, "schema": shown}
    if "description" in schema:
        parameter["description"] = schema["description"]
    if shown.get("type") == "array":
        parameter |= {"style": "form", "explode": False}
    return parameter


def _header_parameter(name: str) -> Json:
    said, schema = _REQUEST_HEADERS[name]
    return {"name": name, "in": "header", "required": False, "description": said, "schema": schema}


def _success(status: int, route: Route, schemas: _Schemas) -> Json:
    response: Json = {"description": HTTPStatus(status).phrase}
    if route.sends:
        response["headers"] = {name: {"$ref": f"#/components/headers/{_known_header(name)}"} for name in route.sends}
    if status not in (202, 204, 304):
        schema = {} if route.answer is None else {"schema": schemas.answers[route.name]}
        response["content"] = dict.fromkeys(route.media, schema)
    return response


def _by_status(codes: Sequence[str]) -> dict[int, tuple[str, ...]]:
    found: dict[int, tuple[str, ...]] = {}
    for code in codes:
        status = CODES[code][0]
        found[status] = (*found.get(status, ()), code)
    return dict(sorted(found.items()))


def _response_name(status: int, codes: Sequence[str]) -> str:
    return f"{status}.{'.'.join(codes)}"


def _problem_response(status: int, codes: Sequence[str]) -> Json:
    schema = {"$ref": f"{SCHEMAS}Problem", "properties": {"code": {"enum": list(codes)}}}
    response: Json = {
        "description": "; ".join(f"`{code}`: {CODES[code][1]}" for code in codes),
        "content": {PROBLEM_TYPE: {"schema": schema}},
    }
    if (header := _HEADERS_OF_PROBLEMS.get(status)) is not None:
        response["headers"] = {header: {"$ref": f"#/components/headers/{header}"}}
    return response


def _known_header(name: str) -> str:
    if name not in _ANSWER_HEADERS:
        raise KeyError(name)
    return name
