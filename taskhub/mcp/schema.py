"""JSON Schemas as short as a model needs them: what each tool costs in every conversation it is offered in."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel

from taskhub.tickets.fields import FIELDS

# Said by the type already, or of no use to whoever writes the arguments; the pydantic model still enforces them.
_FIELDS: Final = frozenset(field.name for field in FIELDS)
_CLEARABLE: Final = frozenset(field.name for field in FIELDS if not field.required)
_DROPPED: Final = ("title", "minLength", "maxLength", "pattern", "maxItems", "maxProperties")


# Those of all tools take a tenth of a second, which is most of what it takes to make an application.
@cache
def arguments_schema(model: type[BaseModel], *, nullable: bool = False) -> Mapping[str, Any]:
    """The input schema of a tool, what is required first. `nullable`: say where null is accepted, because there it
    means something (clear the field)."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    found: dict[str, Any] = _shorten({**schema, "properties": {}}, definitions, nullable=False)
    found["properties"] = {
        name: _shorten(node, definitions, nullable=nullable and name in _CLEARABLE)
        for name, node in schema["properties"].items()
    }
    if nullable:
        # The tool that clears fields is offered beside the one that sets them all, which says what they are.
        for name in _FIELDS & found["properties"].keys():
            found["properties"][name].pop("description", None)
    found.pop("description", None)
    required = found.get("required", [])
    found["properties"] = {name: found["properties"][name] for name in [*required, *found["properties"]]}
    return found


def result_schema(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The output schema of a tool. Nothing is required: any tool may answer an error instead, and clients check that
    against the same schema."""
    return {"type": "object", "properties": dict(properties)}


def _shorten(node: Any, definitions: Mapping[str, Any], *, nullable: bool) -> Any:
    if isinstance(node, list):
        return [_shorten(item, definitions, nullable=nullable) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return _shorten({**definitions[name], **_without(node, "$ref")}, definitions, nullable=nullable)
    found: dict[str, Any] = {}
    for name, value in node.items():
        if name in _DROPPED and not isinstance(value, dict):
            continue
        if name == "default" and (value is None or value is False or value in ([], {})):  # as what is not there
            continue
        if name == "propertyNames":  # every object of JSON has texts for names
            continue
        if name == "minimum" and value in (0, 1):  # what nobody would go below
            continue
        if name == "maximum" and value >= 100_000:  # nor above
            continue
        if name == "const":
            found["enum"] = [value]
        elif name == "properties":
            found[name] = {key: _shorten(item, definitions, nullable=nullable) for key, item in value.items()}
        elif name != "$defs":
            found[name] = _shorten(value, definitions, nullable=nullable)
    if "anyOf" in found:
        found = _without_null(found, nullable=nullable)
    return found


def _without_null(node: dict[str, Any], *, nullable: bool) -> dict[str, Any]:
    choices = [choice for choice in node["anyOf"] if choice != {"type": "null"}]
    if len(choices) == len(node["anyOf"]):
        return node
    rest = _without(node, "anyOf")
    if nullable or len(choices) > 1:
        # Not `"type": ["string", "null"]`, which is shorter: several model providers take one type only.
        return {"anyOf": node["anyOf"] if nullable else choices, **rest}
    return {**choices[0], **rest}


def _without(node: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != name}
