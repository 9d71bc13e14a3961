"""JSON Schemas as short as a model needs them: what each tool costs in every conversation it is offered in."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

# Said by the type already, or of no use to whoever writes the arguments; the pydantic model still enforces them.
_DROPPED: Final = ("title", "minLength", "maxLength", "pattern", "maxItems", "maxProperties")


def arguments_schema(model: type[BaseModel], *, nullable: bool = False) -> dict[str, Any]:
    """The input schema of a tool, what is required first. `nullable`: say where null is accepted, because there it
    means something (clear the field)."""
    schema = model.model_json_schema()
    found: dict[str, Any] = _shorten(schema, schema.get("$defs", {}), nullable=nullable)
    found.pop("description", None)
    required = found.get("required", [])
    found["properties"] = {name: found["properties"][name] for name in [*required, *found["properties"]]}
    return found


def result_schema(properties: Mapping[str, Any], *, required: Sequence[str]) -> dict[str, Any]:
    """The output schema of a tool: its result, or the error that any tool may answer instead (clients check both)."""
    return {
        "type": "object",
        "properties": dict(properties),
        "anyOf": [{"required": list(required)}, {"required": ["code"]}],
    }


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
        if name == "default" and (value is None or value == []):
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
