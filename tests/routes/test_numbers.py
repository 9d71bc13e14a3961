"""A number that comes from outside is one only where it is written as JSON writes it."""

from collections.abc import Iterator
from typing import Any, Final, get_args

import pytest
from pydantic import BaseModel, ValidationError

from routes.api import ROUTES
from routes.links import AttachmentPath
from taskhub.mcp.tools import tool_registry
from taskhub.remote import RemoteTickets
from tests.routes.openapi_snapshot import application

NOT_PLAIN: Final = ("1_0", "+1", " 1", "1 ", "\uff11", "\u0663", "0x1", "01", "1.", ".5", "", "nan", True)


def numeric(annotation: Any) -> bool:
    parts = get_args(annotation)
    return annotation in (int, float) or any(map(numeric, parts[:1] if hasattr(annotation, "__metadata__") else parts))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models_in(field.annotation)
    for part in get_args(annotation):
        yield from models_in(part)


def models() -> dict[type[BaseModel], None]:
    """All that queries, bodies and arguments of tools are read as."""
    read = [model for route in application()[ROUTES] for model in (route.query, route.body)]
    read += [tool.arguments for tool in tool_registry(RemoteTickets("http://127.0.0.1:9", None)).tools]
    return dict.fromkeys(model for each in (*read, AttachmentPath) for model in models_in(each))


@pytest.mark.parametrize("text", NOT_PLAIN)
def test_no_other_way_to_write_a_number_is_taken(text: Any) -> None:
    taken, looked_at = [], 0
    for model in models():
        for name, field in model.model_fields.items():
            if not numeric(field.annotation):
                continue
            looked_at += 1
            try:
                model.model_validate({name: text})
                wrong: set[Any] = set()
            except ValidationError as error:
                wrong = {each["loc"][0] for each in error.errors() if each["loc"]}
            if name not in wrong:
                taken.append(f"{model.__name__}.{name}")

    assert not taken
    assert looked_at > 20
