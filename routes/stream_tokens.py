"""`POST /events/tokens`: a stream for clients that cannot send headers, such as a browser's EventSource."""

from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, create_model

from broadcaster.filters import FILTER_NAMES
from routes.access import caller_with
from routes.api import Route
from routes.bodies import NoParameters, json_response, read_model
from routes.errors import Fault, Problem
from routes.keys import STREAM_ACCESS, TICKETS
from routes.stream import StreamParameters, read_parameters
from taskhub.stream_tokens.model import IssuedToken

_Text = str | list[str] | None


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


def _fields() -> dict[str, Any]:
    # How to be told that there is no room is in the address: it counts before the token is looked at.
    own = {name: field for name, field in StreamParameters.model_fields.items() if name != "errors"}
    filters = {
        name: (_Text, Field(None, description="as in the query; a list is any of these")) for name in FILTER_NAMES
    }
    return {**{name: (field.annotation, field) for name, field in own.items()}, **filters}


TokenParameters: Final[type[BaseModel]] = create_model("TokenParameters", __base__=_Strict, **_fields())
"""What a stream is asked for: the filters and parameters of its query, as JSON."""


async def create(request: web.Request) -> web.Response:
    """POST /events/tokens → 201 IssuedToken."""
    caller = caller_with(request, "events:read")
    asked = await read_model(request, TokenParameters)
    items = tuple(
        (name, text)
        for name, value in asked.model_dump(exclude_unset=True, exclude_none=True).items()
        for text in (value if isinstance(value, list) else [_text(value)])
    )
    # Now, and not when it is used: by then there is only a browser to tell.
    _, faults = await read_parameters(request.app[TICKETS], caller, items)
    if faults:
        raise Problem.of("invalid_input", [_in_body(fault) for fault in faults])
    return json_response(await request.app[STREAM_ACCESS].issue(caller, items), status=201)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _in_body(fault: Fault) -> Fault:
    return Fault(
        fault.reason, pointer=f"/{fault.parameter or ''}", did_you_mean=fault.did_you_mean, allowed=fault.allowed
    )


ROUTES: Final = (
    Route(
        "POST", "/events/tokens", create, "create_stream_token", "Make a token that opens one stream without headers",
        detail="For EventSource, which cannot send a key. The token stands for the caller and for the filters and "
        "parameters in this body; `url` is the stream. It has to be used within a minute, is good as long as its "
        "stream is open and a quarter of an hour after each end, and for 12 hours at most. A second stream of the same "
        "token ends the first. It ends with the key that it was made with.",
        scope="events:read", query=NoParameters, body=TokenParameters,
        example={"type": ["ticket.created", "ticket.commented"], "since": "15m"},
        answer=IssuedToken, status=201,
    ),
)  # fmt: skip
